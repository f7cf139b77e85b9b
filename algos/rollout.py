"""Rollouts: an actor scanned over many worlds. Runs at the rate of the physics; nothing else happens here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from repertoire.algos.types import Array, LatentPrior, Transition

#: (key, policy observation [P], latent [D]) -> (action, log probability []).
Act = Callable[[Array, Array, Array], tuple[Array, Array]]


#: Prefix of the metrics that are reward terms.
TERM = "reward/"


class Carry(struct.PyTreeNode):
    """What a rollout hands on: env states [N], latents [N, D], their clocks and ages [N], returns so far [N]."""

    envs: Any
    z: Array
    clock: Array
    age: Array
    earned: Array


def hold_of(env: Any) -> int:
    """Control steps in a step of `env`: more than one where macro steps hold a skill."""
    return int(getattr(env, "hold", 1))


def begin(env: Any, prior: LatentPrior | None, key: Array, worlds: int) -> Carry:
    """Fresh episodes and latents in `worlds` worlds."""
    env_key, z_key = jax.random.split(key)
    envs = jax.vmap(env.reset)(jax.random.split(env_key, worlds))
    z, zero = draw(prior, z_key, worlds), jnp.zeros(worlds)
    return Carry(envs, z, jnp.full(worlds, _hold(prior), jnp.int32), zero.astype(jnp.int32), zero)


def draw(prior: LatentPrior | None, key: Array, worlds: int) -> Array:
    """One latent per world [N, D]; [N, 0] without prior."""
    if prior is None:
        return jnp.zeros((worlds, 0))
    return jax.vmap(prior.sample)(jax.random.split(key, worlds))


def collect(env: Any, prior: LatentPrior | None, act: Act, carry: Carry, key: Array, steps: int) -> tuple[Carry, Any]:
    """`steps` steps in every world: (carry, (Transition [T, N, ...], env metrics [T, N]))."""
    hold = hold_of(env)

    def step(carry: Carry, key: Array) -> tuple[Carry, tuple[Transition, dict[str, Array], Array]]:
        worlds = carry.clock.shape[0]
        act_key, z_key = jax.random.split(key)
        obs = carry.envs.obs
        action, log_prob = jax.vmap(act)(jax.random.split(act_key, worlds), obs["policy"], carry.z)
        stepped = jax.vmap(env.step)(carry.envs, action)
        done = stepped.terminated | stepped.truncated
        switch = done | (carry.clock == 1)
        earned = carry.earned + stepped.reward
        transition = Transition(
            obs=obs,
            next_obs=stepped.obs,
            z=carry.z,
            action=action,
            log_prob=log_prob,
            task_reward=stepped.reward,
            terms={k[len(TERM) :]: v for k, v in stepped.metrics.items() if k.startswith(TERM)},
            terminated=stepped.terminated,
            cut=stepped.truncated | switch,
            age=carry.age,
            projected=_projected(earned, stepped, env.spec.episode_length, hold),
            missed=hold - (stepped.t - carry.envs.t) if hold > 1 else None,
        )
        after = Carry(
            envs=jax.vmap(env.reset_where)(done, stepped),
            z=jnp.where(switch[:, None], draw(prior, z_key, worlds), carry.z),
            clock=jnp.where(switch, _hold(prior), carry.clock - 1),
            age=jnp.where(switch, 0, carry.age + 1),
            earned=jnp.where(done, 0.0, earned),
        )
        return after, (transition, stepped.metrics, done)

    carry, (batch, metrics, done) = jax.lax.scan(step, carry, jax.random.split(key, steps))
    return carry, (batch.replace(projected=_looking_back(batch.projected, done)), metrics)


def _projected(earned: Array, stepped: Any, length: int, hold: int) -> Array:
    """Return [N] of the episode if it goes on earning as it did; after a fall it earns nothing more."""
    rate = earned * length / jnp.maximum(stepped.t / hold, 1)
    return jnp.where(stepped.terminated, earned, rate)


def _looking_back(projected: Array, done: Array) -> Array:
    """For every step [T, N] what the last step of its episode in this rollout says of its return."""

    def back(later: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        found = jnp.where(now[1], now[0], later)
        return found, found

    return jax.lax.scan(back, projected[-1], (projected, done), reverse=True)[1]


def _hold(prior: LatentPrior | None) -> int:
    return prior.hold if prior is not None and prior.hold > 0 else 0
