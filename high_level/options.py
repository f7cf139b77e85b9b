"""What a controller can ask for: latents of frozen skill sets, as a choice or as a continuous vector."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array
from repertoire.envs.types import EnvSpec
from repertoire.errors import UserError, unknown
from repertoire.skills.skill import Skill

#: `latent`: the controller emits a latent vector of one skill set; `choice`: it picks from a fixed list.
MODES = ("latent", "choice")


@dataclass(frozen=True)
class Options:
    """Frozen skill sets behind one action space.

    Attributes:
      skills: the skill sets. env: spec of the env they act in. mode: `latent` or `choice`.
      per_skill: choices made from each continuous skill set (evenly spread latents); discrete ones list all theirs.
    """

    skills: tuple[Skill, ...]
    env: EnvSpec
    mode: str
    per_skill: int = 16

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("controller mode", self.mode, MODES)
        if not self.skills:
            raise UserError("a controller needs at least one skill: skills=[name@version]")
        for skill in self.skills:
            skill.fits(self.env)
        if self.mode == "latent" and len(self.skills) > 1:
            raise UserError("mode=latent drives one skill set; use mode=choice for several")

    @property
    def size(self) -> int:
        """Length of the controller's action vector (latent mode)."""
        return self.skills[0].prior.size

    @functools.cached_property
    def table(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """(skill set of each choice [n], latents of each skill set [n_i, D_i]) in choice mode."""
        with jax.ensure_compile_time_eval():  # it may first be asked for inside a trace
            return self._table()

    def _table(self) -> tuple[np.ndarray, list[np.ndarray]]:
        latents = [s.prior.spread(s.prior.size if s.prior.discrete else self.per_skill) for s in self.skills]
        owner = np.concatenate([np.full(len(z), i) for i, z in enumerate(latents)])
        return owner, latents

    def resolve(self, action: Array) -> tuple[Array, ...]:
        """Latent for each skill set, and the index of the acting set last, from a controller action."""
        if self.mode == "latent":
            return self.skills[0].prior.project(action), jnp.zeros((), jnp.int32)
        owner, latents = self.table
        rows, start = [], 0
        for z in latents:
            index = jnp.clip(action - start, 0, len(z) - 1)
            rows.append(jnp.asarray(z)[index])
            start += len(z)
        return (*rows, jnp.asarray(owner)[action])

    def act(self, obs: Array, command: Sequence[Array]) -> Array:
        """Low-level action [A] of the commanded skill for the env's policy observation [P]."""
        actions = [
            skill.act(obs[self.env.obs.index("policy", skill.slices)], z)
            for skill, z in zip(self.skills, command[:-1], strict=True)
        ]
        return actions[0] if len(actions) == 1 else jax.lax.select_n(command[-1], *actions)
