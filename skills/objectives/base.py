"""What most objectives share: a reward per transition, fixed channel weights, one Adam; and what encoders share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from repertoire.algos import networks
from repertoire.algos.types import Array, FeatureBatch, Metrics, Params
from repertoire.errors import UserError, at_least_one
from repertoire.skills.latent import OneHot, Prior, Sphere, centred_one_hot

#: Settings of objectives that are sizes of layers.
LAYERS = ("hidden", "density_hidden")


@dataclass(frozen=True)
class Base:
    """Base of objectives; subclasses add settings as fields and override `init`, `reward` (or `rewards`) and `loss`.

    Those that can turn goals into latents add `goal_latent(params, features [F], goal_features [F]) -> [D]`.

    Attributes:
      prior: latent prior. lr: step size of Adam. mask: control steps after a latent is drawn that the loss leaves out
        (DUSDi: 10 of 50). standardise: features in standard deviations of a random rollout (as METRA's code); else in
        their own units, where a distance may not be what it seems: the fast count for more.
    """

    prior: Prior = Sphere(2)
    lr: float = 1e-3
    mask: int = 0
    standardise: bool = True

    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Reject impossible settings with a `UserError`; subclasses add their own and call this one."""
        if self.lr <= 0 or self.mask < 0:
            raise UserError(f"objective.lr must be positive and mask at least 0, got {self.lr} and {self.mask}")
        at_least_one(self, "objective", *(f.name for f in dataclasses.fields(self) if f.name in LAYERS))

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the reward channels: one, named as the objective."""
        return (self.name,)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam."""
        return optax.adam(self.lr)

    def init(self, key: Array, features: int) -> Params:
        """Parameters for feature vectors [features]."""
        return {}

    def reward(self, params: Params, features: Array, z: Array, next_features: Array) -> Array:
        """Reward channels [C] of one transition."""
        raise NotImplementedError

    def rewards(self, params: Params, batch: FeatureBatch, key: Array) -> Array:
        """Reward channels [B, C]: `reward` of each transition; override where a reward depends on the batch."""
        return jax.vmap(self.reward, (None, 0, 0, 0))(params, batch.features, batch.z, batch.next_features)

    def weigh(self, z: Array) -> Array:
        """Channel weights [C]: one each."""
        return jnp.asarray(np.ones(len(self.channels), np.float32))

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """Nothing to learn."""
        return jnp.zeros(()), {}


def refuse(options: Mapping[str, Any], where: str, *names: str) -> None:
    """`UserError` for the settings `names` among those of an objective inside another, which holds them for both."""
    for name in names:
        if name in options:
            raise UserError(f"{where} cannot set {name}: it belongs to the whole, objective.{name}")


@dataclass(frozen=True)
class Directed(Base):
    """Base of objectives whose skills displace an encoding phi(s) along a direction given by z.

    Attributes:
      prior: continuous, or `OneHot` (centred inside). hidden, activation: encoder layers.
    """

    prior: Prior = Sphere(2)
    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"

    def init(self, key: Array, features: int) -> Params:
        """Encoder parameters."""
        return {"encoder": self._net(features).init(key)}

    def encode(self, params: Params, features: Array) -> Array:
        """phi [..., D]."""
        return self._net(features.shape[-1]).apply(self.encoder(params), features)

    def encoder(self, params: Params) -> Params:
        """Parameters of the network that is phi."""
        return params["encoder"]

    def layers(self, params: Params) -> Sequence[tuple[Array, Array]]:
        """(kernel [in, out], bias [out]) of each layer of phi, first to last; `activation` between them."""
        return networks.dense_layers(self.encoder(params))

    def direction(self, z: Array) -> Array:
        """Direction in phi space that latents z [..., D] ask for."""
        return centred_one_hot(z) if isinstance(self.prior, OneHot) else z

    def goal_latent(self, params: Params, features: Array, goal_features: Array) -> Array:
        """Zero-shot goal rule: the latent along phi(g) - phi(s), [D]."""
        return self.prior.along(self.encode(params, goal_features) - self.encode(params, features))

    def _net(self, features: int) -> networks.Network:
        return networks.mlp(features, self.hidden, self.prior.size, self.activation)


def each(optimizers: Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    """An optimiser for each entry of a dictionary of parameters."""

    def init(params: Params) -> Any:
        return {name: o.init(params[name]) for name, o in optimizers.items()}

    def update(grads: Params, state: Any, params: Params = None) -> tuple[Params, Any]:
        params = params or dict.fromkeys(optimizers)
        both = {name: o.update(grads[name], state[name], params[name]) for name, o in optimizers.items()}
        return {name: u for name, (u, _) in both.items()}, {name: s for name, (_, s) in both.items()}

    return optax.GradientTransformation(init, update)


def weighted_mean(values: Array, weight: Array) -> Array:
    """Mean [] of values [B] under weights [B]; 0 where all weights are."""
    return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1e-6)
