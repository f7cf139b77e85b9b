"""Frozen skills of one env, evaluated together, all or chosen ones: those of one shape as one batched call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array
from repertoire.envs.physics.batching import over_worlds
from repertoire.envs.types import EnvSpec
from repertoire.high_level import dispatch
from repertoire.high_level.types import Command, Field, StatefulSkill
from repertoire.skills.skill import Skill

#: Skills in one batched call; more of them go call by call, because their activations would fall out of a CPU's cache
#: (32 skills of 256x128 over 1024 worlds at once take twice as long).
BATCH = 8


class _Stack(NamedTuple):
    """Skills of one shape: their places, their arrays one upon another, the entries of the observation they read."""

    members: tuple[int, ...]
    manifest: Mapping[str, Any]
    arrays: dict[str, np.ndarray]  # [m, ...]
    reads: np.ndarray  # [m, P]


class Bank:
    """Actions of several skills at once.

    Args:
      skills: each fits `env`. env: spec whose policy group they are given.
    """

    def __init__(self, skills: Sequence[Skill], env: EnvSpec) -> None:
        self.skills, self.labels = tuple(skills), labels(skills)
        # 32 bits: JAX takes 64-bit constants for either, which fails where a check switches precisions
        self._index = [env.obs.index("policy", s.slices).astype(np.int32) for s in skills]
        self._width = env.action_size
        self._stateful = [i for i, s in enumerate(skills) if isinstance(s, StatefulSkill)]
        self._stacks = self._stacked()

    @property
    def fields(self) -> tuple[Field, ...]:
        """Leaves of the skills' memory."""
        return tuple(
            field._replace(name=f"{self.labels[i]}/{field.name}") for i, s in self._remembering() for field in s.fields
        )

    def start(self) -> Command:
        """Memory of the skills that have one, as they are called upon."""
        return tuple(s.start() for _, s in self._remembering())

    def act(self, obs: Array, latents: Sequence[Array], memory: Command) -> tuple[Array, Command]:
        """Actions [n, A] of all skills for a policy observation [P] and a latent [D_i] each, and their new memory."""
        rows: list[Any] = [None] * len(self.skills)
        for stack in self._stacks:
            actions = _stack_act(stack, obs, [latents[i] for i in stack.members])
            for i, action in zip(stack.members, actions, strict=True):
                rows[i] = action
        kept = []
        for (i, skill), held in zip(self._remembering(), memory, strict=True):
            rows[i], new = skill.step(obs[self._index[i]], latents[i], held)
            kept.append(new)
        return jnp.stack(rows), tuple(kept)

    def act_chosen(self, obs: Array, latents: Sequence[Array], chosen: Array, memory: Command) -> tuple[Array, Command]:
        """What `act` gives of the skills `chosen` [m], indices: their actions [m, A], and the new memory of all.

        Under `vmap` the choices of all worlds are sorted by skill, and each skill computes its own (`dispatch`), where
        that costs less than to compute all. Skills with a memory are computed always, as time goes on for them too.
        """
        if len(self.skills) <= len(chosen):
            actions, memory = self.act(obs, latents, memory)
            return actions[chosen], memory
        actions = over_worlds(self._chosen)(obs, tuple(latents), chosen)
        kept = []
        for (i, skill), held in zip(self._remembering(), memory, strict=True):
            action, new = skill.step(obs[self._index[i]], latents[i], held)
            actions = jnp.where((chosen == i)[:, None], action, actions)
            kept.append(new)
        return actions, tuple(kept)

    def _chosen(self, obs: Array, latents: tuple[Array, ...], chosen: Array) -> Array:
        """Actions [W, m, A] of chosen skills [W, m] in worlds [W, P]; 0 of those with a memory."""
        actions = jnp.zeros((*chosen.shape, self._width), obs.dtype)
        for stack in self._stacks:
            place = np.full(len(self.skills), len(stack.members), np.int32)
            place[list(stack.members)] = np.arange(len(stack.members))
            own = jnp.asarray(place)[chosen]
            found = _stack_chosen(stack, obs, [latents[i] for i in stack.members], own, len(self.skills))
            actions = jnp.where((own < len(stack.members))[..., None], found, actions)
        return actions

    def _remembering(self) -> list[tuple[int, StatefulSkill]]:
        return [(i, s) for i in self._stateful if isinstance(s := self.skills[i], StatefulSkill)]

    def _stacked(self) -> list[_Stack]:
        """Skills that are the same but for their numbers, together; each kind in order."""
        kinds: dict[Any, list[int]] = {}
        for i, skill in enumerate(self.skills):
            if i not in self._stateful:
                shapes = tuple(sorted((k, v.shape) for k, v in _acting(skill).items()))
                kinds.setdefault((json.dumps(skill.manifest["network"], sort_keys=True), shapes), []).append(i)
        return [self._stack(members) for members in kinds.values()]

    def _stack(self, members: list[int]) -> _Stack:
        arrays = [_acting(self.skills[i]) for i in members]
        stacked = {k: np.stack([a[k] for a in arrays]) for k in arrays[0]}
        reads = np.stack([self._index[i] for i in members])
        return _Stack(tuple(members), self.skills[members[0]].manifest, stacked, reads)


def labels(skills: Sequence[Skill]) -> tuple[str, ...]:
    """Names of skills, numbered where two have the same."""
    names = [s.name for s in skills]
    return tuple(name if names.count(name) == 1 else f"{name}#{i}" for i, name in enumerate(names))


def _acting(skill: Skill) -> dict[str, np.ndarray]:
    """What `Skill.act` reads."""
    read = ("policy/kernel", "policy/bias", "obs/", "command/")
    return {k: v for k, v in skill.arrays.items() if k.startswith(read)}


def _stack_act(stack: _Stack, obs: Array, latents: list[Array]) -> Array:
    """Actions [m, A]."""
    if len(latents) == 1:
        first = {k: v[0] for k, v in stack.arrays.items()}
        return Skill(stack.manifest, first).act(obs[stack.reads[0]], latents[0])[None]

    def one(row: tuple[dict[str, Array], Array, Array]) -> Array:
        arrays, own, z = row
        return Skill(stack.manifest, arrays).act(own, z)  # type: ignore[arg-type]  # tracers in place of numpy

    return jax.lax.map(one, (stack.arrays, obs[stack.reads], jnp.stack(latents)), batch_size=BATCH)


def _stack_chosen(stack: _Stack, obs: Array, latents: list[Array], chosen: Array, among: int) -> Array:
    """Actions [W, m, A] of chosen members [W, m] of the stack; undefined of a number that is no member's.

    `among` so many skills the choices are made: a stack gets its share of them.
    """
    (worlds, slots), count = chosen.shape, len(stack.members)
    share = worlds * slots * count / among
    size = dispatch.block_size(share, count)
    if worlds * count <= dispatch.cost(share, count, size):
        every = jax.vmap(lambda own, *z: _stack_act(stack, own, list(z)))(obs, *latents)
        return jnp.take_along_axis(every, jnp.minimum(chosen, count - 1)[..., None], axis=1)
    arrays, reads, told = stack.arrays, jnp.asarray(stack.reads), jnp.stack(latents, axis=1)

    def block(member: Array, rows: Array) -> Array:
        fetched = {k: jnp.asarray(v)[member] for k, v in arrays.items()}
        skill = Skill(stack.manifest, fetched)  # type: ignore[arg-type]  # tracers in place of numpy
        own, z = obs[rows // slots][:, reads[member]], told[rows // slots, member]
        return jax.vmap(skill.act)(own, z)

    return dispatch.compute(block, dispatch.sort(chosen.ravel(), count, size)).reshape(worlds, slots, -1)
