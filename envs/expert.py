"""Experts of tasks: what solves a task by rule, in named stages, to be imitated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from repertoire.envs.types import Array, State


@dataclass(frozen=True)
class Expert:
    """A state machine over the stages of a task. Pure and unbatched; `vmap` makes many.

    Attributes:
      stages: their names, in the order in which they come.
      begin: memory at the start of an episode, a pytree of arrays.
      act: (state, memory) -> (memory, stage [] int32, action [A] in [-1, 1]) after looking at `state`. The stage is
        `len(stages)` once the last one is over; the action then keeps things as they are.
    """

    stages: tuple[str, ...]
    begin: Callable[[], Any]
    act: Callable[[State, Any], tuple[Any, Array, Array]]
