"""DADS (arXiv 1907.01657): skills whose effect on the state is predictable, and unlike that of other skills.

The same bound in the latent space of a self-predictive encoder is our reading of LPE, latent-predictive empowerment
(arXiv 2410.11155), of which only the abstract was at hand: empowerment without a simulator, from a latent model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from repertoire.algos import networks
from repertoire.algos.rollout import draw
from repertoire.algos.types import Array, FeatureBatch, Metrics, Params
from repertoire.errors import UserError, unknown
from repertoire.skills.objectives.base import Base, each, weighted_mean

#: Where steps are predicted.
SPACES = ("features", "latent")
#: No alternative counts as more than e^50 times likelier than the own latent (the official code's clip).
CLIP = 50.0
#: Latents among which the goal rule chooses, where they are continuous.
CANDIDATES = 64
LOG_2PI = float(np.log(2 * np.pi))
#: Least log root mean square of a step: that of a feature which never moves would fall for ever.
STILL = -10.0


@dataclass(frozen=True)
class Dads(Base):
    """DADS (arXiv 1907.01657): skills with a predictable effect, unlike that of others.

    Skill dynamics q(s' - s | s, z) are a Gaussian; the reward is log q(s' | s, z) - log mean over z' of q(s' | s, z').
    Steps are divided by their root mean square, a parameter that follows the policy by maximum likelihood. The mean
    over z' runs over the own latent and draws of the prior, or over all skills where they are discrete, so the reward
    is at most log(alternatives + 1), or log K. Ours: the mean of q is a product of a matrix from s and a code of z, so
    alternatives cost one product each, not one network each; sigma depends on s alone; one Gaussian, no mixture.

    Attributes:
      hidden, activation: layers of both networks. rank: length of the code of z. alternatives: latents drawn for the
        mean (discrete skills: unused). min_std: least standard deviation of the normalised step (METRA's repository).
      scale_lr: step size of the log of the root mean square.
      space: `features`, or `latent`: of an encoder with `embedding` outputs that predicts itself. spread: weight of
        the terms that keep its outputs from collapsing (variance and covariance, VICReg, arXiv 2105.04906).
    """

    hidden: tuple[int, ...] = (128, 128)
    activation: str = "relu"
    rank: int = 16
    alternatives: int = 100
    min_std: float = 0.3
    scale_lr: float = 3e-2
    space: str = "features"
    embedding: int = 4
    spread: float = 1.0

    name: ClassVar[str] = "dads"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.space not in SPACES:
            raise unknown(f"space of objective {self.name}", self.space, SPACES)
        if min(self.rank, self.alternatives, self.embedding) < 1 or min(self.min_std, self.scale_lr) <= 0:
            raise UserError("objective.rank, alternatives, embedding, min_std and scale_lr must be positive")
        if self.spread < 0:
            raise UserError(f"objective.spread must be at least 0, got {self.spread}")

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam, faster for the scale of the steps."""
        names = ("state", "skill", "log_scale", *(("encoder",) if self.space == "latent" else ()))
        return each({n: optax.adam(self.scale_lr if n == "log_scale" else self.lr) for n in names})

    def init(self, key: Array, features: int) -> Params:
        """Networks of s and of z, log root mean square of the step and, in latent space, the encoder."""
        keys, size = jax.random.split(key, 3), self.embedding if self.space == "latent" else features
        params = {
            "state": self._state_net(size).init(keys[0]),
            "skill": self._net(self.prior.size, self.rank).init(keys[1]),
            "log_scale": jnp.zeros(size),
        }
        return params | ({"encoder": self._encoder(features).init(keys[2])} if self.space == "latent" else {})

    def encode(self, params: Params, features: Array) -> Array:
        """Where steps are predicted, [..., E]: the encoder's outputs, or the features themselves."""
        return self._encoder(features.shape[-1]).apply(params["encoder"], features) if "encoder" in params else features

    def dynamics(self, params: Params, x: Array) -> tuple[Array, Array, Array]:
        """Matrix [..., E, R] and offset [..., E] of the mean step at encoded states [..., E], and sigma [..., E]."""
        size = x.shape[-1]
        out = self._state_net(size).apply(params["state"], x)
        matrix = out[..., : size * self.rank].reshape(*x.shape, self.rank)
        offset, raw = jnp.split(out[..., size * self.rank :], 2, axis=-1)
        return matrix, offset, self.min_std + jax.nn.softplus(raw)

    def code(self, params: Params, z: Array) -> Array:
        """Code [..., R] of latents [..., D]."""
        return self._net(self.prior.size, self.rank).apply(params["skill"], z)

    def rewards(self, params: Params, batch: FeatureBatch, key: Array) -> Array:
        """log q of the step under its own latent, over the mean under others, [B, 1]."""
        x = self.encode(params, batch.features)
        step = (self.encode(params, batch.next_features) - x) * jnp.exp(-_log_scale(params))
        matrix, offset, sigma = self.dynamics(params, x)
        matrix, rest = matrix / sigma[..., None], (step - offset) / sigma

        def log_q(mean: Array) -> Array:  # without what all latents share
            return -0.5 * jnp.square(rest - mean).sum(-1)

        own = log_q(jnp.einsum("ber,br->be", matrix, self.code(params, batch.z)))
        codes = self.code(params, self._others(key))
        others = jax.lax.map(lambda c: log_q(jnp.einsum("ber,r->be", matrix, c)), codes, batch_size=20)
        gaps = jnp.minimum(others - own, CLIP)
        if not self.prior.discrete:
            gaps = jnp.concatenate([gaps, jnp.zeros((1, len(x)))])
        return np.log(len(gaps)) - jax.nn.logsumexp(gaps, axis=0)[:, None]

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """Negative log likelihood of the steps, and that of their scale; in latent space also the spread terms."""
        x = self.encode(params, batch.features)
        target = jax.lax.stop_gradient(self.encode(params, batch.next_features))
        log_scale = _log_scale(params)
        scale = jnp.exp(jax.lax.stop_gradient(log_scale))
        matrix, offset, sigma = self.dynamics(params, x)
        mean = jnp.einsum("ber,br->be", matrix, self.code(params, batch.z)) + offset
        error = (target - x) / scale - mean
        nll = jnp.mean(0.5 * jnp.square(error / sigma) + jnp.log(sigma) + 0.5 * LOG_2PI, axis=-1)
        length = jax.lax.stop_gradient(jnp.square(target - x))
        scaling = jnp.mean(0.5 * length * jnp.exp(-2 * log_scale) + log_scale, axis=-1)
        total, metrics = weighted_mean(nll + scaling, batch.weight), {"nll": nll.mean(), "scale": scale.mean()}
        if self.space == "latent":
            apart = keep_apart(x, batch.weight)
            total, metrics = total + self.spread * apart, metrics | {"apart": apart}
        return total, metrics

    def goal_latent(self, params: Params, features: Array, goal_features: Array) -> Array:
        """The latent whose mean step from s points most to the goal, [D] (ours: one step ahead, no planner)."""
        x, goal = self.encode(params, features), self.encode(params, goal_features)
        z = jnp.eye(self.prior.size) if self.prior.discrete else draw(self.prior, jax.random.key(0), CANDIDATES)
        matrix, offset, _ = self.dynamics(params, x)
        steps = (self.code(params, z) @ matrix.T + offset) * jnp.exp(_log_scale(params))
        return z[jnp.argmax(steps @ (goal - x))]

    def _others(self, key: Array) -> Array:
        """Latents [L, D] of the mean: all skills, or draws."""
        return jnp.eye(self.prior.size) if self.prior.discrete else draw(self.prior, key, self.alternatives)

    def _net(self, inputs: int, outputs: int, out_scale: float = 1.0) -> networks.Network:
        return networks.mlp(inputs, self.hidden, outputs, self.activation, out_scale)

    def _state_net(self, size: int) -> networks.Network:
        return self._net(size, size * (self.rank + 2), 0.01)

    def _encoder(self, features: int) -> networks.Network:
        return self._net(features, self.embedding)


@dataclass(frozen=True)
class Lpe(Dads):
    """LPE (arXiv 2410.11155), as we read it: the bound of DADS in a latent space that predicts itself."""

    space: str = "latent"

    name: ClassVar[str] = "lpe"


def _log_scale(params: Params) -> Array:
    return jnp.maximum(params["log_scale"], STILL)


def keep_apart(x: Array, weight: Array) -> Array:
    """VICReg's terms [] of encodings [B, E]: shortfall of each output's deviation from 1, and squared covariances."""
    share = weight / jnp.maximum(weight.sum(), 1e-6)
    x = x - share @ x
    covariance = (share[:, None] * x).T @ x
    variance = jnp.diagonal(covariance)
    short = jax.nn.relu(1 - jnp.sqrt(variance + 1e-4)).mean()
    return short + (jnp.square(covariance).sum() - jnp.square(variance).sum()) / len(variance)
