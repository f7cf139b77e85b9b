"""Metric objectives: METRA (arXiv 2310.08887), LSD (arXiv 2202.00914) and CSD (arXiv 2302.05103) by one distance each.

An encoder phi is trained so that skills move it along their latent z, under the constraint that one step moves phi no
further than a distance allows. METRA's distance is temporal (a step counts one), LSD's is Euclidean (kept by spectral
normalisation), CSD's is the surprise of a density model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from repertoire.algos import networks
from repertoire.algos.types import Array, FeatureBatch, Metrics, Params
from repertoire.errors import UserError, unknown
from repertoire.skills.latent import Gaussian, OneHot, Prior, Sphere
from repertoire.skills.objectives.base import Directed, weighted_mean
from repertoire.skills.objectives.distance import DISTANCES, Density, Distance, detached, reduce

#: How |dphi|^2 is measured: `mean` over dimensions (official code: |dphi| <= sqrt(D)) or the paper's `l2` (<= 1).
FORMS = ("mean", "l2")
#: Who keeps the constraint: a dual variable, or spectral normalisation of the encoder.
CONSTRAINTS = ("dual", "spectral")
#: What a step should do: go along z as far as it can, or go by z (Atanassov et al. 2024: z sets the speed too).
MATCHES = ("alignment", "norm")


@dataclass(frozen=True)
class Metric(Directed):
    """An encoder under a distance.

    Attributes:
      prior, hidden, activation: see `Directed`. lr: step size of encoder and density model.
      distance: `temporal`, `euclidean` or `density`. constraint: `dual` or `spectral` (Euclidean by construction).
      dual_lr: step size of log lambda under Adam. dual_init: initial lambda. slack: epsilon, the reward for slack
        stops here. form: `mean` or `l2`. match: `alignment` or `norm`. sigma: sharpness of norm matching.
      density_hidden: layers of the density model.
    """

    distance: str = "temporal"
    constraint: str = "dual"
    dual_lr: float = 1e-2
    dual_init: float = 30.0
    slack: float = 1e-3
    form: str = "mean"
    match: str = "alignment"
    sigma: float = 10.0
    density_hidden: tuple[int, ...] = (256, 256)

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, known in (
            ("form", FORMS),
            ("constraint", CONSTRAINTS),
            ("match", MATCHES),
            ("distance", DISTANCES),
        ):
            if getattr(self, option) not in known:
                raise unknown(f"{option} of objective {self.name}", getattr(self, option), known)
        if self.prior.discrete and self.prior.size < 2:
            raise UserError(f"discrete {self.name} needs at least 2 skills")
        if min(self.dual_lr, self.dual_init, self.slack, self.sigma) <= 0:
            raise UserError("objective.dual_lr, dual_init, slack and sigma must be positive")

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam for the networks, Adam on log lambda with its own step size."""
        return optax.multi_transform(
            {"nets": optax.adam(self.lr), "dual": optax.adam(self.dual_lr)},
            {"encoder": "nets", "distance": "nets", "log_dual": "dual"},
        )

    def init(self, key: Array, features: int) -> Params:
        """Encoder and distance parameters, and log lambda."""
        return {
            "encoder": self._net(features).init(key),
            "distance": self.metric.init(jax.random.fold_in(key, 1), features),
            "log_dual": jnp.log(jnp.asarray(self.dual_init)),
        }

    @property
    def metric(self) -> Distance:
        """The distance that bounds a step."""
        return Density(self.density_hidden) if self.distance == "density" else DISTANCES[self.distance]()

    def encode(self, params: Params, features: Array) -> Array:
        """phi [..., D]."""
        if self.constraint == "spectral":
            params = {"encoder": networks.spectral_normalize(params["encoder"])}
        return super().encode(params, features)

    def reward(self, params: Params, features: Array, z: Array, next_features: Array) -> Array:
        """(phi(s') - phi(s))^T z, or 1 / (1 + sigma |phi(s') - phi(s) - z|^2), [1]; penalties never enter."""
        step, z = self.encode(params, next_features) - self.encode(params, features), self.direction(z)
        if self.match == "norm":
            return 1.0 / (1.0 + self.sigma * jnp.square(step - z).sum(keepdims=True))
        return jnp.dot(step, z)[None]

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """Encoder loss + dual loss + density loss; each gradient reaches its own parameters only."""
        step = self.encode(params, batch.next_features) - self.encode(params, batch.features)
        z = self.direction(batch.z)
        follow = jnp.sum(step * z, axis=-1) if self.match == "alignment" else -optax.huber_loss(step, z).sum(-1)
        ends = (batch.features, batch.next_features)
        bound = self.metric.squared(detached(params["distance"]), *ends, self.form)
        squared = reduce(jnp.square(step), self.form)
        gap = jnp.minimum(bound - squared, self.slack)
        mean_gap = weighted_mean(gap, batch.weight)
        bound_by_dual = self.constraint == "dual"  # else log lambda must stay where it is: nothing would hold it
        dual = jnp.exp(params["log_dual"]) if bound_by_dual else jnp.zeros(())
        encoder_loss = -weighted_mean(follow + jax.lax.stop_gradient(dual) * gap, batch.weight)
        dual_loss = params["log_dual"] * jax.lax.stop_gradient(mean_gap) if bound_by_dual else jnp.zeros(())
        density_loss = weighted_mean(self.metric.nll(params["distance"], *ends), batch.weight)
        metrics = {"along": follow.mean(), "dual": dual, "gap": mean_gap, "step": squared.mean()}
        return encoder_loss + dual_loss + density_loss, metrics

    def ceiling(self) -> float:
        """Largest mean reward per step that the constraint allows (research 0.3); infinite where it has no bound."""
        if self.distance != "temporal" or self.constraint != "dual" or not isinstance(self.prior, Sphere | OneHot):
            return float("inf")
        if self.match == "norm":
            return 1.0
        norm = 1.0 if not self.prior.discrete else (self.prior.size / (self.prior.size - 1)) ** 0.5
        return norm * (self.prior.size**0.5 if self.form == "mean" else 1.0)


@dataclass(frozen=True)
class Metra(Metric):
    """METRA (arXiv 2310.08887): skills that go as far as possible in temporal distance."""

    name: ClassVar[str] = "metra"


@dataclass(frozen=True)
class Lsd(Metric):
    """LSD (arXiv 2202.00914): skills that go as far as possible in the Euclidean distance of the features."""

    prior: Prior = Gaussian(2)
    distance: str = "euclidean"
    constraint: str = "spectral"

    name: ClassVar[str] = "lsd"


@dataclass(frozen=True)
class Csd(Metric):
    """CSD (arXiv 2302.05103): skills that go as far as possible in what is hard to do."""

    distance: str = "density"
    dual_init: float = 3000.0
    slack: float = 1e-6

    name: ClassVar[str] = "csd"
