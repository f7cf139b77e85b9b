"""What is held between two decisions of a controller, and skills that hold something themselves."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

from repertoire.algos.types import Array
from repertoire.skills.skill import Skill

#: What is held between two decisions: a pytree of arrays, its leaves in the order of the declared `Field`s.
Command = Any


class Field(NamedTuple):
    """One leaf of a command: name, number of entries, and for an index how many values it takes (0: real numbers)."""

    name: str
    size: int
    choices: int = 0


class StatefulSkill(Skill, abc.ABC):
    """A skill that remembers something from one control step to the next: a controller that was frozen."""

    @property
    @abc.abstractmethod
    def hold(self) -> int:
        """Control steps between its decisions."""

    @property
    @abc.abstractmethod
    def fields(self) -> tuple[Field, ...]:
        """The leaves of its memory, in order."""

    @abc.abstractmethod
    def start(self) -> Command:
        """Memory when it is called upon: it decides at its first step."""

    @abc.abstractmethod
    def step(self, obs: Array, z: Array, memory: Command) -> tuple[Array, Command]:
        """Action [A] for its own policy slices [P] and latent [D], and the memory for the next step."""
