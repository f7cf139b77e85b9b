"""Distances that bound how far one step may move a metric encoder; `Metric` plugs one in.

Each is (init, squared): parameters of its own, and the squared distance of a step per the form of the constraint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from repertoire.algos import networks
from repertoire.algos.types import Array, Params

#: Bounds of log sigma in CSD's density model (its code bounds sigma to 1e-6 .. 1e6).
LOG_SIGMA = 13.8


class Distance(Protocol):
    """A distance between the ends of a step."""

    def init(self, key: Array, features: int) -> Params:
        """Parameters."""
        ...

    def squared(self, params: Params, features: Array, next_features: Array, form: str) -> Array:
        """Squared distance [...] of steps [..., F]."""
        ...

    def nll(self, params: Params, features: Array, next_features: Array) -> Array:
        """What the parameters minimise, [...]; nothing else moves them."""
        ...


class Temporal:
    """One step counts one (METRA)."""

    def init(self, key: Array, features: int) -> Params:
        """None."""
        return {}

    def squared(self, params: Params, features: Array, next_features: Array, form: str) -> Array:
        """1."""
        return jnp.ones(features.shape[:-1])

    def nll(self, params: Params, features: Array, next_features: Array) -> Array:
        """Nothing to learn."""
        return jnp.zeros(features.shape[:-1])


class Euclidean(Temporal):
    """The length of the step in normalised features (LSD's metric)."""

    def squared(self, params: Params, features: Array, next_features: Array, form: str) -> Array:
        """Squared length; mean or sum over dimensions."""
        return reduce(jnp.square(next_features - features), form)


@dataclass(frozen=True)
class Density:
    """CSD's controllability-aware distance (Park et al. 2023): far is what the density of steps finds hard to predict.

    q(s' - s | s) is a diagonal Gaussian. The distance is Mahalanobis under its covariance, scaled to unit determinant,
    so that the model cannot stretch distances by shrinking all its variances.
    """

    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"

    def init(self, key: Array, features: int) -> Params:
        """Network parameters."""
        return self._net(features).init(key)

    def squared(self, params: Params, features: Array, next_features: Array, form: str) -> Array:
        """Mean (or sum) over i of (d_i - mu_i)^2 w_i, w_i = (1/sigma_i)^2 over its geometric mean."""
        mean, log_sigma = self.step(params, features)
        weight = jnp.exp(-2 * (log_sigma - log_sigma.mean(-1, keepdims=True)))
        return reduce(jnp.square(next_features - features - mean) * weight, form)

    def nll(self, params: Params, features: Array, next_features: Array) -> Array:
        """Gaussian negative log likelihood of the step, without its constant, averaged over dimensions."""
        mean, log_sigma = self.step(params, features)
        error = (next_features - features - mean) * jnp.exp(-log_sigma)
        return jnp.mean(0.5 * jnp.square(error) + log_sigma, axis=-1)

    def step(self, params: Params, features: Array) -> tuple[Array, Array]:
        """(mu, log sigma) [..., F] of the next step."""
        mean, log_sigma = jnp.split(self._net(features.shape[-1]).apply(params, features), 2, axis=-1)
        return mean, jnp.clip(log_sigma, -LOG_SIGMA, LOG_SIGMA)

    def _net(self, features: int) -> networks.Network:
        return networks.mlp(features, self.hidden, 2 * features, self.activation, out_scale=0.01)


DISTANCES: dict[str, type[Temporal] | type[Density]] = {
    "temporal": Temporal,
    "euclidean": Euclidean,
    "density": Density,
}


def reduce(squared: Array, form: str) -> Array:
    """Mean or sum over the last axis, as the form of the constraint has it."""
    return squared.mean(-1) if form == "mean" else squared.sum(-1)


def detached(params: Params) -> Params:
    """`params` that no gradient reaches."""
    return jax.lax.stop_gradient(params)
