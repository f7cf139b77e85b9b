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


class Tried(NamedTuple):
    """All N candidates of all I iterations, [I, N, H, D], and their costs [I, N]."""

    sequences: Array
    costs: Array


def search(cost: Callable[[Array], Array], start: Array, key: Array, config: SearchConfig) -> Found:
    """Least `cost` ([H, D] -> []) near `start` [H, D]. Every iteration tries its own mean too."""
    return refine(cost, start, draw(key, start.shape, config), config)[0]


def draw(key: Array, shape: tuple[int, ...], config: SearchConfig) -> Array:
    """What a search for a sequence of `shape` (H, D) draws: standard normal [I, N, H, D]."""
    keys = jax.random.split(key, config.iterations)
    return jax.vmap(lambda k: jax.random.normal(k, (config.candidates, *shape)))(keys)


def refine(cost: Callable[[Array], Array], start: Array, white: Array, config: SearchConfig) -> tuple[Found, Tried]:
    """`search` with given draws [I, N, H, D], of which those of each iteration's first candidate are not used."""

    def iterate(carry: tuple[Array, Array, Found], white: Array) -> tuple[tuple[Array, Array, Found], Tried]:
        mean, std, found = carry
        tried = (mean + std * _coloured(white, config.correlation)).at[0].set(mean)
        costs = jnp.nan_to_num(jax.vmap(cost)(tried), nan=WORST, posinf=WORST, neginf=WORST)
        weights = WEIGHTS[config.method](costs, config)
        mean = jnp.tensordot(weights, tried, 1)
        if config.method == "cem":
            std = jnp.maximum(jnp.sqrt(jnp.tensordot(weights, jnp.square(tried - mean), 1)), config.floor)
        i = jnp.argmin(costs)
        better = costs[i] < found.cost
        best = Found(mean, jnp.where(better, tried[i], found.best), jnp.minimum(costs[i], found.cost))
        return (mean, std, best), Tried(tried, costs)

    first = (start, jnp.full_like(start, config.std), Found(start, start, jnp.asarray(jnp.inf)))
    (_, _, found), tried = jax.lax.scan(iterate, first, white)
    return found, tried


def _coloured(white: Array, correlation: float) -> Array:
    """Standard normal [N, H, D], an autoregressive process along H, of independent draws `white`."""

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
