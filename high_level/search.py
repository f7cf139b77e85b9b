"""Search for a sequence of vectors of least cost: CEM and MPPI. Pure; knows no env and no skill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from repertoire.algos.types import Array
from repertoire.errors import UserError, at_least_one, positive, unknown

#: Stands for a cost that is not finite: such a candidate is never chosen while another is.
WORST = 1e9


@dataclass(frozen=True)
class SearchConfig:
    """How to search.

    Attributes:
      method: `cem`, the mean and spread of the best few (cross-entropy method, Rubinstein 1999); `mppi`, the mean
        weighted by exp(-cost / temperature) under constant spread (Williams et al. 2017).
      horizon: length of a sequence. candidates: sequences per iteration. iterations: refinements.
      elites: the best few of `cem`. temperature: of `mppi`, in the unit of the cost.
      std: first (`mppi`: constant) standard deviation. floor: least standard deviation of `cem`.
      correlation: of the noise between one step and the next, in [0, 1): without it long sequences stay where they are
        (coloured noise, Pinneri et al. 2020).
    """

    method: str = "cem"
    horizon: int = 4
    candidates: int = 64
    iterations: int = 3
    elites: int = 8
    temperature: float = 0.1
    std: float = 1.0
    floor: float = 0.1
    correlation: float = 0.5

    def __post_init__(self) -> None:
        if self.method not in WEIGHTS:
            raise unknown("search method", self.method, WEIGHTS)
        at_least_one(self, "controller.search", "horizon", "candidates", "iterations", "elites")
        positive(self, "controller.search", "temperature", "std")
        if not 0 <= self.correlation < 1:
            raise UserError(f"controller.search.correlation must lie in 0 .. 1, got {self.correlation}")
        if self.elites > self.candidates:
            raise UserError(f"controller.search.elites must be at most candidates={self.candidates}, got {self.elites}")


class Found(NamedTuple):
    """The mean [H, D] of the last iteration, and the best sequence [H, D] that was tried, with its cost []."""

    mean: Array
    best: Array
    cost: Array


def search(cost: Callable[[Array], Array], start: Array, key: Array, config: SearchConfig) -> Found:
    """Least `cost` ([H, D] -> []) near `start` [H, D]. Every iteration tries its own mean too."""
    keys = jax.random.split(key, config.iterations)

    def iterate(carry: tuple[Array, Array, Found], key: Array) -> tuple[tuple[Array, Array, Found], None]:
        mean, std, found = carry
        tried = (mean + std * _noise(key, (config.candidates, *mean.shape), config.correlation)).at[0].set(mean)
        costs = jnp.nan_to_num(jax.vmap(cost)(tried), nan=WORST, posinf=WORST)
        weights = WEIGHTS[config.method](costs, config)
        mean = jnp.tensordot(weights, tried, 1)
        if config.method == "cem":
            std = jnp.maximum(jnp.sqrt(jnp.tensordot(weights, jnp.square(tried - mean), 1)), config.floor)
        i = jnp.argmin(costs)
        better = costs[i] < found.cost
        best = Found(mean, jnp.where(better, tried[i], found.best), jnp.minimum(costs[i], found.cost))
        return (mean, std, best), None

    first = (start, jnp.full_like(start, config.std), Found(start, start, jnp.asarray(jnp.inf)))
    return jax.lax.scan(iterate, first, keys)[0][2]


def _noise(key: Array, shape: tuple[int, ...], correlation: float) -> Array:
    """Standard normal [N, H, D], an autoregressive process along H."""
    white = jax.random.normal(key, shape)

    def follow(before: Array, fresh: Array) -> tuple[Array, Array]:
        now = correlation * before + (1 - correlation**2) ** 0.5 * fresh
        return now, now

    rest = jax.lax.scan(follow, white[:, 0], jnp.swapaxes(white[:, 1:], 0, 1))[1]
    return jnp.concatenate([white[:, :1], jnp.swapaxes(rest, 0, 1)], 1)


def _elite_weights(costs: Array, config: SearchConfig) -> Array:
    chosen = jax.lax.top_k(-costs, config.elites)[1]
    return jnp.zeros_like(costs).at[chosen].set(1.0 / config.elites)


def _soft_weights(costs: Array, config: SearchConfig) -> Array:
    return jax.nn.softmax(-costs / config.temperature)


#: Method -> weights [N] of candidates by their costs [N].
WEIGHTS: dict[str, Callable[[Array, SearchConfig], Array]] = {"cem": _elite_weights, "mppi": _soft_weights}
