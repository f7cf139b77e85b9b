"""Deterministic evaluation rollouts of a skill-conditioned policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.rollout import TERM
from repertoire.algos.types import Array
from repertoire.envs.types import EnvSpec
from repertoire.skills.latent import Prior

#: (key, policy observation [P], latent [D]) -> action [A].
Policy = Callable[[Array, Array, Array], Array]


class Rollouts(NamedTuple):
    """K rollouts of T steps. States include the first one; a world that finished stays where it was.

    `alive` marks the steps that were taken before the end: all of them, where an env never ends early.
    """

    z: np.ndarray  # [K, D] latents
    positions: np.ndarray  # [K, T + 1, d] m; d = 0 where the env declares none
    features: np.ndarray  # [K, T + 1, F] all features of the env
    qpos: np.ndarray  # [K, T + 1, nq]
    qvel: np.ndarray  # [K, T + 1, nv]
    action: np.ndarray  # [K, T, A] in [-1, 1]
    ctrl: np.ndarray  # [K, T, nu] what the task made of it
    reward: np.ndarray  # [K, T] the env's own
    alive: np.ndarray  # [K, T] bool
    diverged: np.ndarray  # [K] how often the physics diverged
    terms: dict[str, np.ndarray]  # [K] weighted reward terms of the env, summed over the episode
    measured: dict[str, np.ndarray]  # [K] other metrics of the task, mean over the steps of the episode


def roll(env: Any, policy: Policy, z: Any, keys: Array, steps: int) -> Rollouts:
    """Unroll `policy` from the fresh starts of `keys` [K], one world per latent [K, D], without resets (JAX arrays)."""
    begin = jax.vmap(env.reset)(keys)

    def step(state: Any, t: Array) -> tuple[Any, tuple[Any, ...]]:
        alive = ~(state.terminated | state.truncated)
        action = jax.vmap(policy)(jax.vmap(jax.random.fold_in, (0, None))(keys, t), state.obs["policy"], z)
        action = jnp.clip(action, -1.0, 1.0)
        ctrl = jax.vmap(env.task.control)(action, state.data, state.memory)
        stepped = jax.vmap(env.step)(state, action)
        terms = {k[len(TERM) :]: alive * v for k, v in stepped.metrics.items() if k.startswith(TERM)}
        others = {k: v for k, v in stepped.metrics.items() if not k.startswith(TERM) and k != "diverged"}
        measured = {k: alive * v for k, v in others.items()}
        reward, diverged = alive * stepped.reward, alive * stepped.metrics["diverged"]
        state = jax.tree.map(lambda new, old: jax.vmap(jnp.where)(alive, new, old), stepped, state)
        return state, (_seen(state), (action, ctrl, reward, alive), (diverged, terms, measured))

    _, (seen, steps_taken, totals) = jax.lax.scan(step, begin, jnp.arange(steps))
    seen = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), _seen(begin), seen)
    features, qpos, qvel, action, ctrl, reward, alive = jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1), (*seen, *steps_taken)
    )
    positions = values_of(env.spec, features, *(("position",) if has_position(env) else ()))
    diverged, terms, measured = jax.tree.map(lambda x: x.sum(0), totals)
    measured = {k: v / jnp.maximum(alive.sum(1), 1) for k, v in measured.items()}
    return Rollouts(z, positions, features, qpos, qvel, action, ctrl, reward, alive, diverged, terms, measured)


def _seen(state: Any) -> tuple[Array, Array, Array]:
    return state.obs["features"], state.data.qpos, state.data.qvel


def in_batches(run: Callable[[Array, Array], Rollouts], z: np.ndarray, key: Array, worlds: int) -> Rollouts:
    """Host view of `run(z, keys)` for any number of latents [K, D], `worlds` at a time: it compiles once.

    World i starts from `fold_in(key, i)`, so that the first rollouts are the same however many follow.
    """
    count = len(z)
    padded = np.resize(z, (-(-count // worlds) * worlds, z.shape[1]))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(padded)))
    parts = [
        jax.tree.map(np.asarray, run(jnp.asarray(padded[i : i + worlds]), keys[i : i + worlds]))
        for i in range(0, count, worlds)
    ]
    return jax.tree.map(lambda *xs: np.concatenate(xs)[:count], *parts)


def values_of(spec: EnvSpec, features: Any, *names: str) -> Any:
    """Slices `names` of features [..., F], in their own units."""
    index = spec.obs.index("features", names)
    scale = np.concatenate([np.full(s.width, s.scale, np.float32) for s in spec.obs.groups["features"]])
    return features[..., index] / scale[index]


def has_position(env: Any) -> bool:
    """Whether the env declares a world position among its features."""
    return any(s.name == "position" for s in env.spec.obs.groups["features"])


def sample_latents(prior: Prior, count: int, seed: int) -> np.ndarray:
    """METRA's protocol: random latents where continuous, every skill equally often where discrete."""
    if prior.discrete:
        return prior.spread(count)
    return np.asarray(jax.vmap(prior.sample)(jax.random.split(jax.random.key(seed), count)))
