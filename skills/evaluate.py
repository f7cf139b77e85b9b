"""Deterministic evaluation rollouts of a skill-conditioned policy, and the figures drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array
from repertoire.skills import metrics
from repertoire.skills.latent import Prior

#: (policy observation [P], latent [D]) -> action [A].
Policy = Callable[[Array, Array], Array]


#: Share of an episode before a skill is judged by its features: at a fresh start all skills look the same
#: (DUSDi leaves out 10 of 50 steps after a switch).
SETTLE = 0.1


class Rollouts(NamedTuple):
    """Deterministic rollouts of K latents: z [K, D], positions [K, T + 1, d] m, features [K, T, F], qpos [K, T, nq]."""

    z: np.ndarray
    positions: np.ndarray
    features: np.ndarray
    qpos: np.ndarray
    reward: np.ndarray
    diverged: float


def roll(env: Any, policy: Any, z: Array, key: Array, steps: int) -> tuple[Array, ...]:
    """Unroll `policy` from fresh starts, one world per latent [K, D]; no reset: a finished world keeps its state.

    Returns (features incl. the first [T + 1, K, F], qpos [T, K, nq], reward [T, K], diverged []).
    """
    begin = jax.vmap(env.reset)(jax.random.split(key, z.shape[0]))

    def step(state: Any, _: None) -> tuple[Any, tuple[Array, ...]]:
        done = state.terminated | state.truncated
        stepped = jax.vmap(env.step)(state, jax.vmap(policy)(state.obs["policy"], z))
        state = jax.vmap(_keep)(done, state, stepped)
        reward = jnp.where(done, 0.0, stepped.reward)
        return state, (state.obs["features"], state.data.qpos, reward, stepped.metrics["diverged"])

    _, (features, qpos, reward, diverged) = jax.lax.scan(step, begin, None, length=steps)
    return jnp.concatenate([begin.obs["features"][None], features]), qpos, reward, diverged.sum()


def _keep(done: Array, old: Any, new: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(done, a, b), old, new)


def rollouts(env: Any, run: Any, z: np.ndarray, key: Array) -> Rollouts:
    """Host view of `run(z, key)` (a jitted `roll`)."""
    features, qpos, reward, diverged = (np.asarray(x) for x in run(jnp.asarray(z), key))
    position = env.spec.obs.index("features", ("position",)) if has_position(env) else np.zeros(0, int)
    return Rollouts(
        z=z,
        positions=features[..., position].swapaxes(0, 1),
        features=features[1:].swapaxes(0, 1),
        qpos=qpos.swapaxes(0, 1),
        reward=reward.swapaxes(0, 1),
        diverged=float(diverged),
    )


def has_position(env: Any) -> bool:
    """Whether the env declares a world position among its features."""
    return any(s.name == "position" for s in env.spec.obs.groups["features"])


def sample_latents(prior: Prior, count: int, seed: int) -> np.ndarray:
    """METRA's protocol: random latents where continuous, every skill equally often where discrete."""
    if prior.discrete:
        return prior.spread(count)
    return np.asarray(jax.vmap(prior.sample)(jax.random.split(jax.random.key(seed), count)))


def figures(result: Rollouts, prior: Prior, feature_index: np.ndarray) -> dict[str, float]:
    """Coverage, reach, speed and, where skills are discrete, held-out accuracy and mutual information."""
    out: dict[str, float] = {"rollouts": len(result.z), "diverged": result.diverged}
    if result.positions.shape[-1]:
        steps = np.linalg.norm(np.diff(result.positions, axis=1), axis=-1)
        out |= {
            "coverage_cells": metrics.coverage(result.positions[:, 1:]),
            "coverage_cell_m": metrics.CELL,
            "reach_m": metrics.reach(result.positions),
            "path_m": float(steps.sum(1).mean()),
        }
    if prior.discrete:
        labels = result.z.argmax(1)
        settle = int(SETTLE * result.features.shape[1])
        chosen = result.features[:, settle:, feature_index]
        out |= metrics.held_out_accuracy(chosen, labels, prior.size)
        last = chosen[:, -1, :2]
        out["binned_mi"] = metrics.binned_mi(last, labels)
    return out
