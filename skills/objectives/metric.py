"""Metric objectives: METRA (arXiv 2310.08887). Its relatives LSD and CSD differ by the distance alone.

An encoder phi is trained so that skills move it along their latent z, under the constraint that one step moves phi no
further than a distance allows; METRA's distance is temporal: one step counts one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import optax

from repertoire.algos import networks
from repertoire.algos.types import Array, FeatureBatch, Metrics, Params
from repertoire.errors import UserError, unknown
from repertoire.skills.latent import OneHot, Prior, Sphere, centred_one_hot

#: How |dphi|^2 is measured: `mean` over dimensions (official code: |dphi| <= sqrt(D)) or the paper's `l2` (<= 1).
FORMS = ("mean", "l2")


@dataclass(frozen=True)
class Metra:
    """METRA.

    Attributes:
      prior: `Sphere` (continuous) or `OneHot` (discrete, centred inside).
      hidden: encoder layers. lr: encoder step size. dual_lr: step size of log lambda under Adam.
      dual_init: initial lambda. slack: epsilon, the reward for slack stops here. form: `mean` or `l2`.
    """

    prior: Prior = field(default_factory=lambda: Sphere(2))
    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    lr: float = 1e-3
    dual_lr: float = 1e-2
    dual_init: float = 30.0
    slack: float = 1e-3
    form: str = "mean"

    name = "metra"
    channels = ("metra",)
    weights = (1.0,)

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise unknown("form of the METRA constraint", self.form, FORMS)
        if self.prior.discrete and self.prior.size < 2:
            raise UserError("discrete METRA needs at least 2 skills")
        if min(self.lr, self.dual_lr, self.dual_init, self.slack) <= 0:
            raise UserError("objective.lr, dual_lr, dual_init and slack must be positive")

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam for the encoder, Adam on log lambda with its own step size."""
        return optax.multi_transform(
            {"encoder": optax.adam(self.lr), "dual": optax.adam(self.dual_lr)},
            {"encoder": "encoder", "log_dual": "dual"},
        )

    def init(self, key: Array, features: int) -> Params:
        """Encoder parameters and log lambda."""
        return {"encoder": self._net(features).init(key), "log_dual": jnp.log(jnp.asarray(self.dual_init))}

    def encode(self, params: Params, features: Array) -> Array:
        """phi [..., D]."""
        return self._net(features.shape[-1]).apply(params["encoder"], features)

    def reward(self, params: Params, features: Array, z: Array, next_features: Array) -> Array:
        """(phi(s') - phi(s))^T z, [1]; the constraint's penalty never enters."""
        step = self.encode(params, next_features) - self.encode(params, features)
        return jnp.dot(step, self.direction(z))[None]

    def direction(self, z: Array) -> Array:
        """Direction in phi space that latent z asks for."""
        return centred_one_hot(z) if isinstance(self.prior, OneHot) else z

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """Encoder loss + dual loss; each gradient reaches its own parameters only."""
        step = self.encode(params, batch.next_features) - self.encode(params, batch.features)
        along = jnp.sum(step * jax.vmap(self.direction)(batch.z), axis=-1)
        gap = jnp.minimum(constraint_gap(step, self.form), self.slack)
        dual = jnp.exp(params["log_dual"])
        encoder_loss = -(along + jax.lax.stop_gradient(dual) * gap).mean()
        dual_loss = params["log_dual"] * jax.lax.stop_gradient(gap).mean()
        metrics = {"along": along.mean(), "dual": dual, "gap": gap.mean(), "step": jnp.square(step).mean()}
        return encoder_loss + dual_loss, metrics

    def goal_latent(self, params: Params, features: Array, goal_features: Array) -> Array:
        """Zero-shot goal rule: the latent along phi(g) - phi(s), [D]."""
        return self.prior.project(self.encode(params, goal_features) - self.encode(params, features))

    def _net(self, features: int) -> networks.Network:
        return networks.mlp(features, self.hidden, self.prior.size, self.activation)

    def ceiling(self) -> float:
        """Largest mean reward per step that the constraint allows (research 0.3)."""
        norm = 1.0 if not self.prior.discrete else (self.prior.size / (self.prior.size - 1)) ** 0.5
        return norm * (self.prior.size**0.5 if self.form == "mean" else 1.0)


def constraint_gap(step: Array, form: str) -> Array:
    """1 - |dphi|^2 over the last axis: slack of the temporal-distance constraint; negative where violated."""
    squared = jnp.square(step)
    return 1.0 - (squared.mean(-1) if form == "mean" else squared.sum(-1))
