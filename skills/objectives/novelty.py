"""RND (arXiv 1810.12894), an exploration baseline: what a network cannot yet predict of a fixed random one is new."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from repertoire.algos import networks
from repertoire.algos.types import Array, FeatureBatch, Metrics, Params
from repertoire.skills.objectives.base import Base, each, weighted_mean


@dataclass(frozen=True)
class Rnd(Base):
    """RND (arXiv 1810.12894), exploration baseline: the error of predicting a random embedding of s'.

    The latent does not enter.

    Ours: features are normalised by fixed statistics and the learner scales advantages, so there are no running scales.

    Attributes:
      hidden, activation: layers of both networks. embedding: their outputs.
    """

    lr: float = 1e-4
    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    embedding: int = 64

    name: ClassVar[str] = "rnd"

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam for the predictor; nothing moves the target."""
        return each({"predictor": optax.adam(self.lr), "target": optax.set_to_zero()})

    def init(self, key: Array, features: int) -> Params:
        """Two networks, differently drawn."""
        net = self._net(features)
        return {name: net.init(k) for name, k in zip(("predictor", "target"), jax.random.split(key), strict=True)}

    def error(self, params: Params, features: Array) -> Array:
        """Mean squared error [...] of the prediction at features [..., F]."""
        net = self._net(features.shape[-1])
        target = jax.lax.stop_gradient(net.apply(params["target"], features))
        return jnp.square(net.apply(params["predictor"], features) - target).mean(-1)

    def reward(self, params: Params, features: Array, z: Array, next_features: Array) -> Array:
        """Error at s', [1]."""
        return self.error(params, next_features)[None]

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """The same error."""
        error = self.error(params, batch.next_features)
        return weighted_mean(error, batch.weight), {"error": error.mean()}

    def _net(self, features: int) -> networks.Network:
        return networks.mlp(features, self.hidden, self.embedding, self.activation)
