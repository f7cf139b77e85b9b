"""Controllers that let one skill act at a time: a latent, a choice, or a choice with its parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array
from repertoire.envs.types import EnvSpec
from repertoire.errors import UserError, unknown
from repertoire.high_level.composer import Composer
from repertoire.high_level.types import Command, Field
from repertoire.skills.latent import Prior
from repertoire.skills.skill import Skill


@dataclass(frozen=True)
class SequenceConfig:
    """What a sequencing controller emits.

    Attributes:
      mode: `latent`, a latent vector of one skill set; `choice`, one of a fixed list of latents of all skill sets.
      per_skill: choices made from each continuous skill set (evenly spread latents); discrete ones list all theirs.
    """

    mode: str = "latent"
    per_skill: int = 16


def sequence(skills: Sequence[Skill], env: EnvSpec, config: SequenceConfig) -> Composer:
    """`Latent` or `Choice`."""
    if config.mode == "choice":
        return Choice(skills, env, config.per_skill)
    if config.mode != "latent":
        raise unknown("controller mode", config.mode, ("latent", "choice"))
    if len(skills) > 1:
        raise UserError("mode=latent drives one skill set; use mode=choice for several")
    return Latent(skills, env)


class Latent(Composer):
    """Emits a latent of one skill set. Command: (latent [D], memory)."""

    mode = "latent"

    def __init__(self, skills: Sequence[Skill], env: EnvSpec) -> None:
        super().__init__(skills, env)
        self.prior = self.skills[0].prior
        if not self.prior.size:
            raise UserError(f"skill {self.skills[0].name} has no latent to drive: use it in a choice or a blend")
        self.names = tuple(f"latent{i}" for i in range(self.prior.size))

    @property
    def fields(self) -> tuple[Field, ...]:
        """The latent."""
        return (Field("latent", self.prior.size), *self.bank.fields)

    def resolve(self, action: Array) -> Command:
        """The nearest latent of the prior."""
        return self.prior.project(action), self.bank.start()

    def act(self, obs: Array, command: Command) -> tuple[Array, Command]:
        """The skill's action."""
        z, memory = command
        actions, memory = self.bank.act(obs, (z,), memory)
        return actions[0], (z, memory)

    def sample(self, key: Array) -> Array:
        """From the prior."""
        return self.prior.sample(key)

    @property
    def actors(self) -> tuple[str, ...]:
        """Entries of the latent."""
        return self.names

    def acting(self, command: Command) -> Array:
        """The latent."""
        return jnp.asarray(command[0])

    def describe(self) -> dict[str, Any]:
        """Mode `latent`."""
        return {"kind": "sequence", "mode": self.mode}


class Choice(Composer):
    """Emits an index into a list of latents. Command: (index [], memory).

    Attributes:
      table: skill set and latent of each choice.
    """

    mode = "choice"
    names = ("choice",)

    def __init__(self, skills: Sequence[Skill], env: EnvSpec, per_skill: int = 16) -> None:
        super().__init__(skills, env)
        if per_skill < 1:
            raise UserError(f"controller.per_skill must be at least 1, got {per_skill}")
        with jax.ensure_compile_time_eval():  # a frozen controller may be opened inside a trace
            spread = [(i, z) for i, s in enumerate(skills) for z in s.prior.spread(_choices(s.prior, per_skill))]
        self.table: tuple[tuple[int, np.ndarray], ...] = tuple(spread)
        self.discrete, self.per_skill = len(self.table), per_skill

    @property
    def fields(self) -> tuple[Field, ...]:
        """The index."""
        return (Field("choice", 1, self.discrete), *self.bank.fields)

    def resolve(self, action: Array) -> Command:
        """The index itself."""
        return action.astype(jnp.int32), self.bank.start()

    def act(self, obs: Array, command: Command) -> tuple[Array, Command]:
        """The chosen one's action."""
        index, memory = command
        latents = [jnp.asarray(table)[index] for table in self.latents()]
        owner = jnp.asarray(self.owners)[index]
        actions, memory = self.bank.act_chosen(obs, latents, owner[None], memory)
        return actions[0], (index, memory)

    def sample(self, key: Array) -> Array:
        """Any choice."""
        return jax.random.randint(key, (), 0, self.discrete)

    @property
    def actors(self) -> tuple[str, ...]:
        """Skill set and number of each choice."""
        return tuple(f"{self.bank.labels[owner]}/{i}" for i, owner in enumerate(self.owners))

    def acting(self, command: Command) -> Array:
        """1 for the chosen one."""
        return jax.nn.one_hot(command[0], self.discrete)

    def describe(self) -> dict[str, Any]:
        """Mode `choice`."""
        return {"kind": "sequence", "mode": self.mode, "per_skill": self.per_skill}

    @property
    def owners(self) -> np.ndarray:
        """Skill set of each choice, [n]."""
        return np.asarray([i for i, _ in self.table], np.int32)

    def latents(self) -> list[np.ndarray]:
        """For each skill set the latent [n, D_i] under every choice: zeros under those that are not its own."""
        found = []
        for i, skill in enumerate(self.skills):
            none = np.zeros(skill.prior.size, np.float32)
            found.append(np.stack([z if owner == i else none for owner, z in self.table]))
        return found


@dataclass(frozen=True)
class ParameterizedConfig:
    """A parameterized controller has no settings but its hold length."""


class Parameterized(Composer):
    """Emits which skill set acts and the latents of all, of which the acting one's counts (Masson et al. 2016).

    Command: (index [], latents, memory).
    """

    mode = "parameterized"

    def __init__(self, skills: Sequence[Skill], env: EnvSpec, config: ParameterizedConfig | None = None) -> None:
        super().__init__(skills, env)
        self.parameters = tuple(s.prior.size for s in skills)
        self.discrete = len(skills)
        if not sum(self.parameters):
            raise UserError("none of these skills has a latent: use controller=sequence controller.mode=choice")
        pairs = zip(self.bank.labels, self.parameters, strict=True)
        self.names = ("choice", *(f"{label}/z{i}" for label, size in pairs for i in range(size)))

    @property
    def fields(self) -> tuple[Field, ...]:
        """The index and every latent."""
        pairs = zip(self.bank.labels, self.parameters, strict=True)
        latents = (Field(f"{label}/z", size) for label, size in pairs)
        return (Field("choice", 1, self.discrete), *latents, *self.bank.fields)

    def resolve(self, action: Array) -> Command:
        """Index and projected latents."""
        raw = jnp.split(action[1:], np.cumsum(self.parameters)[:-1])
        latents = tuple(s.prior.project(z) for s, z in zip(self.skills, raw, strict=True))
        return action[0].astype(jnp.int32), latents, self.bank.start()

    def act(self, obs: Array, command: Command) -> tuple[Array, Command]:
        """The chosen one's action."""
        index, latents, memory = command
        actions, memory = self.bank.act_chosen(obs, latents, index[None], memory)
        return actions[0], (index, latents, memory)

    def sample(self, key: Array) -> Array:
        """Any skill, and a latent of every prior."""
        index_key, *keys = jax.random.split(key, 1 + self.discrete)
        index = jax.random.randint(index_key, (1,), 0, self.discrete).astype(jnp.float32)
        return jnp.concatenate([index, *(s.prior.sample(k) for s, k in zip(self.skills, keys, strict=True))])

    @property
    def actors(self) -> tuple[str, ...]:
        """Skill sets."""
        return self.bank.labels

    def acting(self, command: Command) -> Array:
        """1 for the chosen one."""
        return jax.nn.one_hot(command[0], self.discrete)

    def describe(self) -> dict[str, Any]:
        """Nothing to set."""
        return {"kind": "parameterized"}


def _choices(prior: Prior, per_skill: int) -> int:
    """How many latents of a skill set are offered."""
    if prior.discrete or not prior.size:
        return max(prior.size, 1)
    return per_skill
