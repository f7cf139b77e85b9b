"""Contrastive objectives: CSF (arXiv 2412.08021), CIC (arXiv 2202.00161) and BeCL (arXiv 2305.04477)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos import networks
from repertoire.algos.rollout import draw
from repertoire.algos.types import Array, FeatureBatch, Metrics, Params
from repertoire.errors import UserError
from repertoire.skills.latent import OneHot, Prior, Sphere
from repertoire.skills.objectives.base import Base, Directed, weighted_mean
from repertoire.skills.objectives.entropy import Particles, draw_particles, unit

#: A logit that counts nothing in a log-sum-exp and, unlike -inf, gives finite gradients where nothing else counts.
NOTHING = -1e9


def log_mean_exp(x: Array) -> Array:
    """log mean exp(x) over the last axis."""
    return jax.nn.logsumexp(x, axis=-1) - np.log(x.shape[-1])


@dataclass(frozen=True)
class Csf(Directed):
    """CSF (arXiv 2412.08021): METRA's reward from an InfoNCE bound, without constraint or dual variable.

    Ours: negatives are draws of the prior; with PPO the successor features are the values of one critic per dimension.

    Attributes:
      negatives: latents that each step is contrasted with. contrast: weight of the log-sum-exp; it bounds the step.
      successor: one channel per dimension of phi(s') - phi(s), weighed by z.
    """

    negatives: int = 256
    contrast: float = 5.0
    successor: bool = False

    name: ClassVar[str] = "csf"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negatives < 1 or self.contrast <= 0:
            raise UserError("objective.negatives must be at least 1 and contrast positive")

    @property
    def channels(self) -> tuple[str, ...]:
        """One, or one per dimension."""
        return tuple(f"csf_{i}" for i in range(self.prior.size)) if self.successor else (self.name,)

    def weigh(self, z: Array) -> Array:
        """1, or the direction that z asks for."""
        return self.direction(z) if self.successor else super().weigh(z)

    def reward(self, params: Params, features: Array, z: Array, next_features: Array) -> Array:
        """(phi(s') - phi(s))^T z [1], or its factors phi(s') - phi(s) [D]."""
        step = self.encode(params, next_features) - self.encode(params, features)
        return step if self.successor else jnp.dot(step, self.direction(z))[None]

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """-(step^T z - contrast * log mean exp step^T z'), z' drawn from the prior."""
        step = self.encode(params, batch.next_features) - self.encode(params, batch.features)
        along = jnp.sum(step * self.direction(batch.z), axis=-1)
        others = log_mean_exp(step @ self.direction(draw(self.prior, key, self.negatives)).T)
        bound = along - self.contrast * others
        metrics = {"along": along.mean(), "others": others.mean(), "step": jnp.square(step).mean()}
        return -weighted_mean(bound, batch.weight), metrics


@dataclass(frozen=True)
class Cic(Particles):
    """CIC (arXiv 2202.00161): the entropy of states in an embedding where transitions tell their latent.

    As in the released code the contrastive term trains the embedding only. Ours: `skill` makes it a second channel,
    latents lie on a sphere, not in a cube, and negatives are draws of the prior.

    Attributes:
      hidden, activation, embedding: layers and size of the three embeddings. temperature: of the cosine logits.
      negatives: latents that each transition is contrasted with. skill: reward the contrastive term too.
    """

    prior: Prior = Sphere(16)
    neighbours: int = 16
    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    embedding: int = 32
    temperature: float = 0.5
    negatives: int = 256
    skill: bool = False

    name: ClassVar[str] = "cic"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.embedding, self.negatives) < 1 or self.temperature <= 0:
            raise UserError("objective.embedding and negatives must be at least 1, temperature positive")

    @property
    def channels(self) -> tuple[str, ...]:
        """Entropy, and the contrastive term if it is rewarded."""
        return ("cic", "cic_skill") if self.skill else ("cic",)

    def init(self, key: Array, features: int) -> Params:
        """Embeddings of a state, of a pair of embedded states and of a latent."""
        sizes = {"state": features, "pair": 2 * self.embedding, "latent": self.prior.size}
        keys = jax.random.split(key, 3)
        return {name: self._net(n).init(k) for (name, n), k in zip(sizes.items(), keys, strict=True)}

    def embed(self, params: Params, name: str, x: Array) -> Array:
        """Embedding [..., E] by the network `state`, `pair` or `latent`."""
        return self._net(x.shape[-1]).apply(params[name], x)

    def discrimination(self, params: Params, batch: FeatureBatch, key: Array) -> Array:
        """log of the own latent's share among it and the negatives, over chance [B]: 0 where pairs tell nothing."""
        ends = [self.embed(params, "state", s) for s in (batch.features, batch.next_features)]
        query = unit(self.embed(params, "pair", jnp.concatenate(ends, axis=-1))) / self.temperature
        own = unit(self.embed(params, "latent", batch.z))
        others = unit(self.embed(params, "latent", draw(self.prior, key, self.negatives)))
        positive = jnp.sum(query * own, axis=-1)
        return positive - log_mean_exp(jnp.concatenate([positive[:, None], query @ others.T], axis=-1))

    def rewards(self, params: Params, batch: FeatureBatch, key: Array) -> Array:
        """Particle entropy of the embedded s' [B, 1]; with `skill` also the discrimination, [B, 2]."""
        entropy = self.entropy(self.embed(params, "state", batch.next_features), key)
        told = [self.discrimination(params, batch, jax.random.fold_in(key, 1))] if self.skill else []
        return jnp.stack([entropy, *told], axis=-1)

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """InfoNCE between transitions and latents."""
        told = self.discrimination(params, batch, key)
        return -weighted_mean(told, batch.weight), {"discrimination": told.mean()}

    def _net(self, inputs: int) -> networks.Network:
        return networks.mlp(inputs, self.hidden, self.embedding, self.activation)


@dataclass(frozen=True)
class Becl(Base):
    """BeCL (arXiv 2305.04477): states of one skill attract each other, those of other skills repel.

    The reward is exp(-loss) of each sample: the share of its own skill in the similarity to all. Ours: all samples of
    the skill among the particles are positives, and the share is of their sum; the paper pairs samples.

    Attributes:
      hidden, activation, embedding: the encoder. temperature: of the cosine logits. particles: samples of the batch
        that each one is contrasted with.
    """

    prior: Prior = OneHot(16)
    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    embedding: int = 32
    temperature: float = 0.5
    particles: int = 512

    name: ClassVar[str] = "becl"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prior.discrete or self.prior.size < 2:
            raise UserError("BeCL needs at least 2 discrete skills: objective.prior=one_hot")
        if self.embedding < 1 or self.particles < 2 or self.temperature <= 0:
            raise UserError("objective.embedding must be at least 1, particles 2, and temperature positive")

    def init(self, key: Array, features: int) -> Params:
        """Encoder parameters."""
        return {"encoder": self._net(features).init(key)}

    def nce(self, params: Params, batch: FeatureBatch, key: Array) -> Array:
        """-log share of the own skill [B]; log K where no particle has it, as at constant embeddings."""
        phi = unit(self._net(batch.next_features.shape[-1]).apply(params["encoder"], batch.next_features))
        chosen = draw_particles(key, len(phi), self.particles)
        counts = (batch.weight[chosen] > 0) & (jnp.arange(len(phi))[:, None] != chosen)
        same = counts & (batch.z @ batch.z[chosen].T > 0.5)
        logits = phi @ phi[chosen].T / self.temperature

        def total(mask: Array) -> Array:
            return jax.nn.logsumexp(jnp.where(mask, logits, NOTHING), axis=-1)

        return jnp.where(same.any(-1), total(counts) - total(same), np.log(self.prior.size))

    def rewards(self, params: Params, batch: FeatureBatch, key: Array) -> Array:
        """exp(-loss) [B, 1], in (0, 1)."""
        return jnp.exp(-self.nce(params, batch, key))[:, None]

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """Supervised contrastive loss."""
        nce = self.nce(params, batch, key)
        return weighted_mean(nce, batch.weight), {"nce": nce.mean(), "share": jnp.exp(-nce).mean()}

    def _net(self, features: int) -> networks.Network:
        return networks.mlp(features, self.hidden, self.embedding, self.activation)
