"""Running statistics of vectors, and their use."""

from __future__ import annotations

import jax.numpy as jnp

from repertoire.algos.types import Array, Stats

#: Normalised observations are clipped here, so that one outlier cannot saturate a network.
CLIP = 10.0


def init(size: int) -> Stats:
    """Zero mean, unit variance, (almost) no weight."""
    return Stats(mean=jnp.zeros(size), var=jnp.ones(size), count=jnp.asarray(1e-4))


def update(stats: Stats, batch: Array) -> Stats:
    """Statistics after `batch` [..., size] (parallel form of Welford, Chan et al. 1983)."""
    flat = batch.reshape(-1, batch.shape[-1])
    n, mean, var = flat.shape[0], flat.mean(0), flat.var(0)
    total, delta = stats.count + n, mean - stats.mean
    m2 = stats.var * stats.count + var * n + jnp.square(delta) * stats.count * n / total
    return Stats(mean=stats.mean + delta * n / total, var=m2 / total, count=total)


def apply(stats: Stats, x: Array, clip: float | None = CLIP) -> Array:
    """(x - mean) / std, clipped to +-`clip` (None: not at all)."""
    y = (x - stats.mean) / jnp.sqrt(jnp.maximum(stats.var, 1e-8))
    return y if clip is None else jnp.clip(y, -clip, clip)
