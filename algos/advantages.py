"""Advantages. Formulas are for one world and one reward channel; `channel_gae` batches them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from repertoire.algos.types import Array


def discounts(missed: Array | None, gamma: float, hold: int) -> Array | float:
    """Discounts [...] of what follows steps of `hold` control steps, of which the end of the episode cut off `missed`.

    `gamma` is that of a whole step, so j of k control steps have gamma^(j/k) (semi-MDP, Sutton et al. 1999). Where no
    step can be cut short, `missed` is None and the discount `gamma`.
    """
    return gamma if missed is None else jnp.where(missed > 0, gamma ** (1.0 - missed / hold), gamma)


def gae(
    r_t: Array,
    v_tm1: Array,
    v_t: Array,
    terminated_t: Array,
    cut_t: Array,
    gamma: float,
    lam: float,
    discount_t: Array | float | None = None,
) -> Array:
    """Generalised advantage estimates [T] (Schulman et al. 2016, eq. 16), with true bootstraps.

    Args:
      r_t: rewards [T]. v_tm1: V(obs) [T]. v_t: V(next_obs) [T], of the *true* next observation.
      terminated_t: the MDP ended [T]: nothing follows. cut_t: the trajectory is cut [T]: bootstrap, then stop.
      gamma: discount. lam: trace. discount_t: of steps of which some are cut short [T]; None: `gamma`. Those end the
        trajectory, so no trace goes on from them.
    """
    discount_t = gamma if discount_t is None else discount_t
    delta_t = r_t + discount_t * jnp.where(terminated_t, 0.0, v_t) - v_tm1
    trace_t = gamma * lam * (1.0 - (terminated_t | cut_t).astype(r_t.dtype))

    def back(advantage: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, trace = step
        advantage = delta + trace * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(back, jnp.zeros_like(delta_t[0]), (delta_t, trace_t), reverse=True)
    return advantages


def channel_gae(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    cut: Array,
    gamma: float,
    lam: float,
    discount: Array | float | None = None,
) -> Array:
    """`gae` of [T, N, C] rewards and values under [T, N] flags and discounts: [T, N, C]."""

    def one(r: Array, v: Array, nv: Array, d: Array, c: Array, g: Array | float | None) -> Array:
        return gae(r, v, nv, d, c, gamma, lam, g)

    channels = jax.vmap(one, in_axes=(1, 1, 1, None, None, None), out_axes=1)
    worlds = jax.vmap(channels, in_axes=(1, 1, 1, 1, 1, 1 if isinstance(discount, jax.Array) else None), out_axes=1)
    return worlds(rewards, values, next_values, terminated, cut, discount)


#: A channel whose advantages exceed this many times its reward holds little but its critic's errors: those of a reward
#: r cannot exceed r / (1 - gamma lambda), 17 r at the defaults.
LOUD = 20.0


def loudest(gamma: float, lam: float) -> float:
    """Multiple of a channel's reward that its advantages may reach: `LOUD`, more where they see further."""
    return max(LOUD, 1.2 / (1.0 - gamma * lam)) if gamma * lam < 1.0 else float("inf")


def combine(advantages: Array, weights: Array, rewards: Array, per_channel: bool = True, loud: float = LOUD) -> Array:
    """Policy advantage [...] from channel advantages, weights and rewards, all [..., C].

    Per channel: each is normalised over the batch before the weighted sum, the multi-critic rule of SLIM (arXiv
    2402.00823) and D3 (CoRL 2025): reward scales cancel, the weights decide. A silent channel (an object that nobody
    moves yet) is left out of several, or normalising would turn its critic's errors into full-sized noise. Otherwise
    the raw sum is normalised.
    """
    if not per_channel:
        return standardize(jnp.sum(advantages * weights, axis=-1)[..., None])[..., 0]
    axes = tuple(range(advantages.ndim - 1))
    signal = jnp.sqrt(jnp.mean(jnp.square(rewards), axes))
    alone = advantages.shape[-1] == 1  # then there is nothing that noise could drown
    heard = (advantages.std(axes) <= loud * signal) | alone
    return jnp.sum(jnp.where(heard, standardize(advantages), 0.0) * weights, axis=-1)


def standardize(x: Array, eps: float = 1e-8) -> Array:
    """Zero mean and unit standard deviation over all but the last axis."""
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / (x.std(axes) + eps)
