"""How a controller's action becomes actions of frozen skills: what all kinds of controller have in common."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from repertoire.algos import distributions
from repertoire.algos.types import Array, Metrics
from repertoire.envs.types import EnvSpec, ObsSpec, Slice
from repertoire.errors import UserError
from repertoire.high_level.bank import Bank
from repertoire.high_level.types import Command, Field
from repertoire.skills.skill import Skill

#: How what is emitted may be bounded.
SQUASH = ("tanh", "clamp")


class Composer(abc.ABC):
    """Frozen skills behind one action space.

    Attributes:
      mode: what it does, in a word. names: of the entries of its action.
      discrete, parameters: as in `EnvSpec`, where the action is an index or begins with one.
      notes: what a user should know of this combination of skills, a line each.
      seen: slices that the controller sees of the command that is held, after its env's own.

    Args:
      skills: frozen skills. env: spec of the env they act in. Raises `UserError` for a skill that does not fit it.
    """

    mode: str
    names: tuple[str, ...]
    discrete: int = 0
    parameters: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    seen: tuple[Slice, ...] = ()

    def __init__(self, skills: Sequence[Skill], env: EnvSpec) -> None:
        if not skills:
            raise UserError("a controller needs at least one skill: skills=[name@version]")
        for skill in skills:
            skill.fits(env)
        self.skills, self.env = tuple(skills), env
        self.bank = Bank(self.skills, env)

    @property
    def size(self) -> int:
        """Length of the action vector."""
        return len(self.names)

    @property
    @abc.abstractmethod
    def fields(self) -> tuple[Field, ...]:
        """The leaves of a command, in order."""

    @abc.abstractmethod
    def resolve(self, action: Array) -> Command:
        """What to hold from now on, from an action [size] (or an index [])."""

    def renew(self, action: Array, command: Command) -> Command:
        """What to hold from now on, where `command` was held until now."""
        return self.resolve(action)

    def view(self, command: Command) -> Array:
        """The slices `seen`, of a command."""
        return jnp.zeros(0)

    @abc.abstractmethod
    def act(self, obs: Array, command: Command) -> tuple[Array, Command]:
        """Low-level action [A] for the env's policy observation [P], and the command for the next step."""

    @abc.abstractmethod
    def sample(self, key: Array) -> Array:
        """A random action: random skills with random latents."""

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON-able kind and settings, from which `registry.make` makes it again."""

    def zero(self) -> Array:
        """The zero action: [size], or an index []."""
        index = self.discrete and not self.parameters
        return jnp.zeros((), jnp.int32) if index else jnp.zeros(self.size)

    @property
    @abc.abstractmethod
    def actors(self) -> tuple[str, ...]:
        """Names of what `acting` gives, in order: skills or choices, or the entries of a latent."""

    @abc.abstractmethod
    def acting(self, command: Command) -> Array:
        """For people to look at [len(actors)]: shares of who acts, which sum to 1, or the latent that is held."""

    def metrics(self, command: Command) -> Metrics:
        """Figures of a decision, [] each; always the same names."""
        return {}

    @property
    def head(self) -> distributions.Distribution:
        """Turns the output of a controller's network into actions."""
        return distributions.for_spec(self.spec(), 0.0)

    def spec(self, hold: int = 1) -> EnvSpec:
        """The env that a controller sees: a step holds a command for `hold` control steps."""
        size, groups = self.size, self.env.obs.groups
        told = {k: v if k == "features" else (*v, *self.seen) for k, v in groups.items()}
        return dataclasses.replace(
            self.env,
            name=f"{self.env.name}+{'+'.join(s.name for s in self.skills)}",
            obs=ObsSpec(told),
            action_size=size,
            action_names=self.names,
            action_low=(-1.0,) * size,
            action_high=(1.0,) * size,
            dt=self.env.dt * hold,
            episode_length=math.ceil(self.env.episode_length / hold),
            discrete=self.discrete,
            parameters=self.parameters,
        )


def bounded(raw: Array, squash: str, limit: float, already: bool = False) -> Array:
    """`raw` within +-`limit`: by `tanh`, whose gradient never quite vanishes, or by `clamp`, without any outside.

    What lies in [-1, 1] `already` is scaled instead.
    """
    if already:
        return limit * jnp.clip(raw, -1.0, 1.0)
    return limit * jnp.tanh(raw / limit) if squash == "tanh" else jnp.clip(raw, -limit, limit)


def unbounded(bound: Array, squash: str, limit: float, already: bool = False) -> Array:
    """What `bounded` maps to `bound`; to the nearest it can reach, under `tanh` 0.999 of the limit."""
    share = bound / limit
    if already:
        return jnp.clip(share, -1.0, 1.0)
    return limit * jnp.arctanh(jnp.clip(share, -0.999, 0.999)) if squash == "tanh" else bound
