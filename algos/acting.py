"""What learners share: the start of a run, acting in its worlds, the figures of a rollout."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from repertoire.algos import normalize, rollout, visited
from repertoire.algos.signals import Signals
from repertoire.algos.types import Array, Metrics, RunState, Stats, Transition

State = TypeVar("State", bound=RunState)
Tree = TypeVar("Tree")


def start(signals: Signals, config: Any, objective_key: Array, env_key: Array, warm_key: Array) -> dict[str, Any]:
    """The fields of `RunState` but `key`; a random-action rollout fixes feature and first observation statistics.

    `config` has `envs` (worlds) and `stagger`.
    """
    objective, objective_opt = signals.init(objective_key)
    warm = signals.warm_up(after(objective, warm_key))
    env_key = after(warm, env_key)
    carry = rollout.begin(signals.env, signals.prior, env_key, config.envs)
    carry = _staggered(signals.env, carry, env_key) if config.stagger else carry
    signals.check_terms(tuple(carry.envs.metrics))
    return {
        "objective": objective,
        "objective_opt": objective_opt,
        "obs_stats": {"policy": warm.policy, "critic": warm.critic},
        "feature_stats": warm.features,
        "visited": visited.init(),
        "update": jnp.zeros((), jnp.int32),
        **vars(carry),
    }


def after(done: Any, key: Array) -> Array:
    """`key`, but not before `done` (a pytree) is computed.

    Loops over host callbacks must not run at the same time as anything else that waits for a thread (see
    envs/physics). XLA drops optimization barriers before it schedules, so the order has to be in the data: what is
    finite never changes the key.
    """
    first = jnp.stack([jnp.ravel(x)[0].astype(jnp.float32) for x in jax.tree.leaves(done)] or [jnp.zeros(())])
    return jnp.where(jnp.isnan(first).any(), jax.random.fold_in(key, 1), key)


def _staggered(env: Any, carry: rollout.Carry, key: Array) -> rollout.Carry:
    """First episodes end at spread-out times, so that a rollout holds all phases of an episode.

    Those that lack their beginning have no return: -inf counts as less than any.
    """
    t = jax.random.randint(jax.random.fold_in(key, 1), carry.clock.shape, 0, env.spec.episode_length)
    earned = jnp.where(t > 0, -jnp.inf, carry.earned)
    return carry.replace(envs=carry.envs.replace(t=t * rollout.hold_of(env)), earned=earned)


def strong(state: Tree) -> Tree:
    """Without weak types, which the first update would lose: one more compilation of everything."""

    def one(x: Array) -> Array:
        return x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(x, x.dtype)

    return jax.tree.map(one, state)


def collect(signals: Signals, act: rollout.Act, state: State, steps: int) -> tuple[State, Transition, Metrics]:
    """One rollout of `act`: (state, Transition [T, N, ...], env metrics averaged)."""
    key, roll_key = jax.random.split(state.key)
    carry = rollout.Carry(state.envs, state.z, state.clock, state.age, state.earned)
    carry, (batch, metrics) = rollout.collect(signals.env, signals.prior, act, carry, roll_key, steps)
    averages = {f"env/{k}": v.mean() for k, v in metrics.items()}
    averages["env/diverged"] = metrics["diverged"].sum() if "diverged" in metrics else jnp.zeros(())
    averages["env/reward"] = batch.task_reward.mean()
    return state.replace(key=key, **vars(carry)), batch, averages


def inputs(stats: Stats, obs: Array, z: Array) -> Array:
    """What networks read: normalised observation [..., P] and latent [..., D] side by side."""
    return jnp.concatenate([normalize.apply(stats, obs), z], axis=-1)


def seen(signals: Signals, cells: Array, batch: Transition, rewards: Array) -> tuple[Array, Metrics]:
    """Map of visited cells after a rollout, and the figures of its reward channels [T, N, C]."""
    cells = visited.mark(cells, signals.env.spec, batch.next_obs["features"])
    metrics = {f"reward/{c}": rewards[..., i].mean() for i, c in enumerate(signals.names)}
    return cells, metrics | {"coverage/total": cells.sum()}
