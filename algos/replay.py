"""Replay: a ring of rows on the device, and how a transition becomes a row. All functions are pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from repertoire.algos.types import Array, Transition
from repertoire.envs.types import ObsSpec


class Replay(struct.PyTreeNode):
    """Rows [capacity, ...], the place of the next one and how many are filled."""

    rows: Any
    place: Array  # [] int32
    size: Array  # [] int32

    @property
    def capacity(self) -> int:
        """Rows that fit."""
        return int(jax.tree.leaves(self.rows)[0].shape[0])


def init(example: Any, capacity: int) -> Replay:
    """Empty replay for rows like `example` (a pytree of arrays or their shapes)."""
    zero = jnp.zeros((), jnp.int32)
    return Replay(jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), example), zero, zero)


def insert(replay: Replay, rollout: Any) -> Replay:
    """`replay` with a rollout [T, N, ...], T * N at most its capacity, in place of its oldest rows."""
    steps, worlds = jax.tree.leaves(rollout)[0].shape[:2]
    count = steps * worlds
    places = (replay.place + jnp.arange(count)) % replay.capacity

    def put(rows: Array, new: Array) -> Array:
        return rows.at[places].set(new.reshape(count, *new.shape[2:]), unique_indices=True)

    return Replay(
        rows=jax.tree.map(put, replay.rows, rollout),
        place=(replay.place + count) % replay.capacity,
        size=jnp.minimum(replay.size + count, replay.capacity),
    )


def insert_where(replay: Replay, rows: Any, mask: Array) -> Replay:
    """`replay` with those of `rows` [M, ...] for which `mask` [M] holds, M at most its capacity, in their order."""
    places = jnp.where(mask, (replay.place + jnp.cumsum(mask) - 1) % replay.capacity, replay.capacity)
    count = mask.sum(dtype=jnp.int32)
    return Replay(
        rows=jax.tree.map(lambda old, new: old.at[places].set(new, mode="drop"), replay.rows, rows),
        place=(replay.place + count) % replay.capacity,
        size=jnp.minimum(replay.size + count, replay.capacity),
    )


def sample(replay: Replay, key: Array, count: int) -> Any:
    """`count` rows [count, ...], each uniform over the filled ones."""
    places = jax.random.randint(key, (count,), 0, replay.size)
    return jax.tree.map(lambda rows: rows[places], replay.rows)


class Row(struct.PyTreeNode):
    """What is kept of a transition: everything that rewards and losses read, rewards excepted (they change)."""

    obs: Array  # [U] see `Packer`
    next_obs: Array  # [U]
    z: Array
    action: Array
    task_reward: Array
    terms: dict[str, Array]
    terminated: Array
    age: Array
    projected: Array
    missed: Array | None = None


class Packer:
    """Transitions to rows and back: a slice that several observation groups show is kept once.

    Args:
      spec: of the observations. terms: reward terms to keep.
    """

    def __init__(self, spec: ObsSpec, terms: Sequence[str] = ()) -> None:
        self._spec, self._terms = spec, tuple(terms)
        self._columns: dict[str, np.ndarray] = {}
        start: dict[Any, int] = {}
        width = 0
        for group, slices in spec.groups.items():
            parts = []
            for s in slices:
                key = (s, group if s.noise else "")  # two readings of a noisy sensor differ
                if key not in start:
                    start[key], width = width, width + s.width
                parts.append(np.arange(start[key], start[key] + s.width))
            self._columns[group] = np.concatenate(parts) if parts else np.zeros(0, int)
        self.width = width

    def pack(self, batch: Transition) -> Row:
        """Rows [...] of transitions [...]."""
        return Row(
            obs=self._flat(batch.obs),
            next_obs=self._flat(batch.next_obs),
            z=batch.z,
            action=batch.action,
            task_reward=batch.task_reward,
            terms={name: batch.terms[name] for name in self._terms},
            terminated=batch.terminated,
            age=batch.age,
            projected=batch.projected,
            missed=batch.missed,
        )

    def unpack(self, row: Row) -> Transition:
        """Transitions [...] of rows [...]; log probabilities and cuts, which no row keeps, are zero."""
        return Transition(
            obs=self._groups(row.obs),
            next_obs=self._groups(row.next_obs),
            z=row.z,
            action=row.action,
            log_prob=jnp.zeros_like(row.task_reward),
            task_reward=row.task_reward,
            terms=row.terms,
            terminated=row.terminated,
            cut=jnp.zeros_like(row.terminated),
            age=row.age,
            projected=row.projected,
            missed=row.missed,
        )

    def _flat(self, obs: dict[str, Array]) -> Array:
        flat = jnp.zeros((*jax.tree.leaves(obs)[0].shape[:-1], self.width))
        for group, columns in self._columns.items():
            flat = flat.at[..., columns].set(obs[group])
        return flat

    def _groups(self, flat: Array) -> dict[str, Array]:
        return {group: flat[..., columns] for group, columns in self._columns.items()}
