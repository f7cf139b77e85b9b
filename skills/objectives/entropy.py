"""Particle entropy, the distance to the nearest neighbours in a batch: APT (arXiv 2103.04551), APS (arXiv 2108.13956).

Ours: neighbours are sought among a few hundred random samples of the rollout, drawn anew at every call; the papers
search a whole replay batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from repertoire.algos import networks
from repertoire.algos.types import Array, FeatureBatch, Metrics, Params
from repertoire.errors import UserError
from repertoire.skills.latent import Prior, Sphere
from repertoire.skills.objectives.base import Base, weighted_mean


def draw_particles(key: Array, batch: int, particles: int) -> Array:
    """Indices [M] of `particles` different samples of a batch, or of all where it has fewer."""
    return jax.random.permutation(key, batch)[:particles]


def nearest(x: Array, particles: Array, neighbours: int) -> Array:
    """Distances [B, k], ascending, of points [B, D] to the nearest of those at indices [M]; never to themselves."""
    x = x - x.mean(0)  # the expanded square loses digits far from the origin
    squared = jnp.square(x).sum(-1)
    gap = squared[:, None] + squared[particles] - 2 * x @ x[particles].T
    gap = jnp.where(jnp.arange(len(x))[:, None] == particles, jnp.inf, gap)
    closest, _ = jax.lax.top_k(-gap, min(neighbours, len(particles) - 1))
    return jnp.sqrt(jnp.maximum(-closest, 0.0))


def particle_entropy(x: Array, key: Array, neighbours: int, particles: int) -> Array:
    """log(1 + mean distance to the k nearest particles) [B] of points [B, D] (APT): rare points score high."""
    return jnp.log1p(nearest(x, draw_particles(key, len(x), particles), neighbours).mean(-1))


def unit(x: Array) -> Array:
    """x / |x| over the last axis; 0 at 0."""
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12)


@dataclass(frozen=True)
class Particles(Base):
    """Base of objectives with an entropy reward.

    Attributes:
      neighbours: k. particles: samples of the batch among which neighbours are sought.
    """

    neighbours: int = 12
    particles: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbours < 1 or self.particles < 2:
            raise UserError(f"objective {self.name} needs neighbours >= 1 and particles >= 2")

    def entropy(self, x: Array, key: Array) -> Array:
        """Particle entropy [B] of points [B, D]."""
        return particle_entropy(x, key, self.neighbours, self.particles)


@dataclass(frozen=True)
class Knn(Particles):
    """Exploration baseline, APT (arXiv 2103.04551) without encoder: the particle entropy of the features.

    The latent does not enter.
    """

    name: ClassVar[str] = "knn"

    def rewards(self, params: Params, batch: FeatureBatch, key: Array) -> Array:
        """Entropy of s' [B, 1]."""
        return self.entropy(batch.next_features, key)[:, None]


@dataclass(frozen=True)
class Aps(Particles):
    """APS (arXiv 2108.13956): go where phi(s') is rare, and where it points along z. phi and z lie on the unit sphere.

    Ours: the two terms are channels with a critic each, not one sum; critics learn values, not successor features.

    Attributes:
      hidden, activation: encoder layers; see `Particles`.
    """

    prior: Prior = Sphere(10)
    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"

    name: ClassVar[str] = "aps"

    @property
    def channels(self) -> tuple[str, ...]:
        """Exploration and skill."""
        return ("aps_entropy", "aps_skill")

    def init(self, key: Array, features: int) -> Params:
        """Encoder parameters."""
        return {"encoder": self._net(features).init(key)}

    def encode(self, params: Params, features: Array) -> Array:
        """phi [..., D], of unit length."""
        return unit(self._net(features.shape[-1]).apply(params["encoder"], features))

    def rewards(self, params: Params, batch: FeatureBatch, key: Array) -> Array:
        """Entropy of phi(s'), and phi(s')^T z: log q(z | s') of a von Mises-Fisher posterior; [B, 2]."""
        phi = self.encode(params, batch.next_features)
        return jnp.stack([self.entropy(phi, key), jnp.sum(phi * batch.z, axis=-1)], axis=-1)

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """Negative log likelihood of the latents, without its constant."""
        along = jnp.sum(self.encode(params, batch.next_features) * batch.z, axis=-1)
        return -weighted_mean(along, batch.weight), {"along": along.mean()}

    def goal_latent(self, params: Params, features: Array, goal_features: Array) -> Array:
        """Latent most likely at the goal, [D]."""
        return self.prior.project(self.encode(params, goal_features))

    def _net(self, features: int) -> networks.Network:
        return networks.mlp(features, self.hidden, self.prior.size, self.activation)
