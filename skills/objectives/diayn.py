"""DIAYN (arXiv 1802.06070): skills that a discriminator can tell apart from chosen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos import networks
from repertoire.algos.types import Array, FeatureBatch, Metrics, Params
from repertoire.errors import UserError
from repertoire.skills.latent import Gaussian, OneHot, Prior, Sphere
from repertoire.skills.objectives.base import Base, weighted_mean


@dataclass(frozen=True)
class Diayn(Base):
    """DIAYN (arXiv 1802.06070): skills that a discriminator can tell apart.

    Categorical (`OneHot` prior) or continuous (`Gaussian` or `Sphere` prior, Gaussian q of fixed variance).

    Attributes:
      prior, lr, mask: see `Base`. hidden: discriminator layers.
      logit_clip: bound of the categorical logits (braxlines uses 5): a posterior cannot become certain, so the
        reward keeps a gradient. scale: factor on the normalised features (braxlines scales velocities by 5-10).
      spectral: make the discriminator Lipschitz (braxlines does): confidence must then be earned by features that lie
        far apart. Off by default: measured on Ant it took off later (docs/results.md).
      sigma: standard deviation of the continuous posterior.
    """

    prior: Prior = OneHot(8)
    hidden: tuple[int, ...] = (32, 32)
    activation: str = "relu"
    logit_clip: float = 5.0
    scale: float = 1.0
    spectral: bool = False
    sigma: float = 0.5

    name: ClassVar[str] = "diayn"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior.discrete and self.prior.size < 2:
            raise UserError("DIAYN needs at least 2 skills")
        if not isinstance(self.prior, OneHot | Sphere | Gaussian):
            raise UserError(f"DIAYN knows p(z) of one_hot, sphere and gaussian latents, not of {self.prior.kind}")
        if min(self.logit_clip, self.scale, self.sigma) <= 0:
            raise UserError("objective.logit_clip, scale and sigma must be positive")

    def init(self, key: Array, features: int) -> Params:
        """Discriminator parameters."""
        return {"discriminator": self._net(features).init(key)}

    def logits(self, params: Params, features: Array) -> Array:
        """Discriminator output [..., D]: clipped logits, or the posterior mean of a continuous latent."""
        weights = params["discriminator"]
        weights = networks.spectral_normalize(weights) if self.spectral else weights
        out = self._net(features.shape[-1]).apply(weights, self.scale * features)
        return self.logit_clip * jnp.tanh(out / self.logit_clip) if self.prior.discrete else out

    def log_q(self, params: Params, features: Array, z: Array) -> Array:
        """log q(z | features), []."""
        out = self.logits(params, features)
        if self.prior.discrete:
            return jnp.sum(jax.nn.log_softmax(out) * z, axis=-1)
        error = jnp.square((z - out) / self.sigma)
        return jnp.sum(-0.5 * error - np.log(self.sigma) - 0.5 * np.log(2 * np.pi), axis=-1)

    def log_p(self, z: Array) -> Array:
        """log p(z), []: fixed, so that chance level earns nothing."""
        if self.prior.discrete:
            return jnp.asarray(-np.log(self.prior.size))
        if isinstance(self.prior, Sphere):  # any constant would do; the area keeps it a density
            return jnp.asarray(-_log_sphere_area(self.prior.size))
        return jnp.sum(-0.5 * jnp.square(z) - 0.5 * np.log(2 * np.pi), axis=-1)

    def reward(self, params: Params, features: Array, z: Array, next_features: Array) -> Array:
        """log q(z | s') - log p(z), [1]."""
        return (self.log_q(params, next_features, z) - self.log_p(z))[None]

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """Negative log likelihood of the latents."""
        log_q = self.log_q(params, batch.next_features, batch.z)
        metrics = {"log_q": log_q.mean(), "mi_bound": (log_q - self.log_p(batch.z)).mean()}
        if self.prior.discrete:
            right = jnp.argmax(self.logits(params, batch.next_features), -1) == jnp.argmax(batch.z, -1)
            metrics["accuracy"] = right.mean()
        return -weighted_mean(log_q, batch.weight), metrics

    def goal_latent(self, params: Params, features: Array, goal_features: Array) -> Array:
        """Latent most likely under the discriminator at the goal, [D]."""
        return self.prior.project(self.logits(params, goal_features))

    def _net(self, features: int) -> networks.Network:
        return networks.mlp(features, self.hidden, self.prior.size, self.activation)

    def ceiling(self) -> float:
        """Largest mean reward per step: log K (categorical)."""
        return float(np.log(self.prior.size)) if self.prior.discrete else float("inf")


def _log_sphere_area(dim: int) -> float:
    """Log surface area of the unit sphere in `dim` dimensions."""
    from math import lgamma, log, pi

    return log(2) + dim / 2 * log(pi) - lgamma(dim / 2)
