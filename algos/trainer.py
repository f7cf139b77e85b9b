"""The training loop as a generator: it steps the learner and yields events; everything else is a consumer.

Console, trackers, evaluation, checkpoints and video read events outside, so the loop neither prints nor writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import AnyLearner, Array, RunState
from repertoire.errors import UserError


class Event(NamedTuple):
    """After each update: its number (from 1), env steps so far (per seed), host metrics and the state."""

    update: int
    env_steps: int
    metrics: dict[str, float | list[float]]
    state: Any


class Programs(NamedTuple):
    """The compiled programs of a learner, lifted over seeds."""

    init: Callable[[Array], Any]
    collect: Callable[[Any], Any]
    update: Callable[[Any, Any], Any]


def programs(learner: AnyLearner, seeds: int = 1) -> Programs:
    """`jit`s of the learner's functions; with several seeds every leaf of the state has a leading [S] axis."""
    if seeds < 1:
        raise UserError(f"num_seeds must be at least 1, got {seeds}")
    lift = jax.vmap if seeds > 1 else (lambda f: f)
    return Programs(
        jax.jit(lift(learner.init)),
        jax.jit(lift(learner.collect), donate_argnums=0),
        jax.jit(lift(_checked(learner.update)), donate_argnums=0),
    )


def _checked(update: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Any, Any], tuple[Any, Any]]:
    """`update` with the metric `finite`: whether the parameters that it leaves behind are all numbers."""

    def run(state: Any, batch: Any) -> tuple[Any, Any]:
        state, metrics = update(state, batch)
        leaves = jax.tree.leaves((state.params, state.objective))
        return state, {**metrics, "finite": jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()}

    return run


def seed_keys(seed: int, seeds: int = 1) -> Array:
    """The key of `seed`, or [S] keys of seed, seed + 1, ...: seed i of a batch starts as it would alone."""
    keys = jnp.stack([jax.random.key(seed + i) for i in range(seeds)])
    return keys if seeds > 1 else keys[0]


def train(compiled: Programs, state: RunState, updates: int, hold: int = 1) -> Iterator[Event]:
    """Run until `updates` updates are done, counting those that `state` has behind it.

    `hold` is the number of control steps in a step of the env (macro steps hold a skill), so that `env_steps` of flat
    and hierarchical runs compare.

    The yielded state is donated to the next iteration: use it (save, evaluate) before asking for the next event.
    Raises FloatingPointError when a loss or a parameter is no longer finite; the state before it was yielded.
    """
    done = int(np.max(np.asarray(state.update)))
    while done < updates:
        state, batch, env_metrics = compiled.collect(state)
        per_seed = hold * int(np.prod(batch.cut.shape[-2:]))
        state, metrics = compiled.update(state, batch)
        done += 1
        host = {k: _host(v) for k, v in {**env_metrics, **metrics}.items()}
        if not (np.isfinite(np.asarray(host["loss/value"])).all() and np.all(host.pop("finite"))):
            raise FloatingPointError(f"a loss or a parameter is no longer finite at update {done}")
        yield Event(done, done * per_seed, host, state)


def _host(value: Array) -> float | list[float]:
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else [float(x) for x in array.ravel()]


def seed_state(state: Any, index: int, seeds: int) -> Any:
    """State of one seed of a batch."""
    return jax.tree.map(lambda x: x[index], state) if seeds > 1 else state
