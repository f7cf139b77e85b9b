"""Priors over skill latents, with the clock that redraws them inside an episode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array
from repertoire.errors import UserError, unknown


@dataclass(frozen=True)
class Prior:
    """Base of the priors.

    Attributes:
      size: length of the latent. hold: control steps until it is redrawn (0: once per episode).
    """

    size: int = 2
    hold: int = 0
    kind: ClassVar[str] = ""
    discrete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.size < 1 or self.hold < 0:
            raise UserError(f"a latent needs size >= 1 and hold >= 0, got size={self.size}, hold={self.hold}")

    def describe(self) -> dict[str, Any]:
        """JSON-able arguments of `make_prior` that give this prior again."""
        return {"kind": self.kind, "size": self.size, "hold": self.hold}

    def sample(self, key: Array) -> Array:
        """One latent [size]."""
        raise NotImplementedError

    def project(self, z: Array) -> Array:
        """Nearest latent of the prior's support to a vector [size] (what a controller's output is mapped by)."""
        return z

    def along(self, way: Array) -> Array:
        """Latent that asks for a way [size] in the objective's space: its length says nothing of the prior."""
        return self.project(way)

    def spread(self, count: int) -> np.ndarray:
        """`count` latents that cover the prior, [count, size]: for skill grids and 2-D plots."""
        return np.asarray(jax.vmap(self.sample)(jax.random.split(jax.random.key(0), count)))


@dataclass(frozen=True)
class Sphere(Prior):
    """Uniform on the unit sphere (METRA's continuous skills)."""

    kind: ClassVar[str] = "sphere"

    def sample(self, key: Array) -> Array:
        """Unit vector."""
        return self.project(jax.random.normal(key, (self.size,)))

    def project(self, z: Array) -> Array:
        """z / |z|; the first axis for a zero vector."""
        norm = jnp.linalg.norm(z)
        unit = jnp.zeros(self.size).at[0].set(1.0)
        return jnp.where(norm > 1e-6, z / jnp.maximum(norm, 1e-6), unit)

    def spread(self, count: int) -> np.ndarray:
        """Evenly spaced directions in 2-D, random ones above."""
        if self.size != 2:
            return super().spread(count)
        angle = 2 * np.pi * np.arange(count) / count
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Gaussian(Prior):
    """Standard normal (LSD's and continuous DIAYN's skills)."""

    kind: ClassVar[str] = "gaussian"

    def sample(self, key: Array) -> Array:
        """N(0, I)."""
        return jax.random.normal(key, (self.size,))

    def along(self, way: Array) -> Array:
        """In that direction, as long as latents are on average (LSD, arXiv 2202.00914); 0 for no way."""
        return way * (self.mean_norm / jnp.maximum(jnp.linalg.norm(way), 1e-6))

    @property
    def mean_norm(self) -> float:
        """E |z|."""
        return math.sqrt(2.0) * math.exp(math.lgamma((self.size + 1) / 2) - math.lgamma(self.size / 2))


@dataclass(frozen=True)
class OneHot(Prior):
    """Uniform over `size` one-hot vectors (DIAYN)."""

    kind: ClassVar[str] = "one_hot"
    discrete: ClassVar[bool] = True

    def sample(self, key: Array) -> Array:
        """One-hot vector."""
        return jax.nn.one_hot(jax.random.randint(key, (), 0, self.size), self.size)

    def project(self, z: Array) -> Array:
        """One-hot of the arg max."""
        return jax.nn.one_hot(jnp.argmax(z), self.size)

    def spread(self, count: int) -> np.ndarray:
        """Each skill in turn."""
        return np.eye(self.size, dtype=np.float32)[np.arange(count) % self.size]


@dataclass(frozen=True)
class Ball(Prior):
    """Uniform in the unit ball: a direction and how much of it (norm matching, Atanassov et al. 2024)."""

    kind: ClassVar[str] = "ball"

    def sample(self, key: Array) -> Array:
        """Direction times radius."""
        direction_key, radius_key = jax.random.split(key)
        direction = Sphere(self.size).sample(direction_key)
        return direction * jax.random.uniform(radius_key) ** (1.0 / self.size)

    def project(self, z: Array) -> Array:
        """Shortened to length 1 where it is longer."""
        return z / jnp.maximum(jnp.linalg.norm(z), 1.0)

    def spread(self, count: int) -> np.ndarray:
        """Directions at full and, alternately, half radius."""
        radius = np.where(np.arange(count) % 2, 0.5, 1.0)[:, None]
        return (Sphere(self.size).spread(count) * radius).astype(np.float32)


@dataclass(frozen=True)
class Product(Prior):
    """Independent latents side by side, one per factor; `product_of` makes one.

    Attributes:
      size: length of all parts and weights together. parts: the priors of the parts; the clock is the product's.
      weighted: the latent ends with a weight >= 0 per part, of unit length together: |N(0, I)|, normalised (D3).
    """

    size: int = 0
    parts: tuple[Prior, ...] = ()
    weighted: bool = False

    kind: ClassVar[str] = "product"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size != sum(p.size for p in self.parts) + len(self.parts) * self.weighted:
            raise UserError("the size of a product of priors follows from its parts: leave prior and skills away")

    def describe(self) -> dict[str, Any]:
        """See `Prior`."""
        return {**super().describe(), "parts": [p.describe() for p in self.parts], "weighted": self.weighted}

    def split(self, z: Array) -> tuple[list[Array], Array]:
        """(latent [..., D_i] of each part, weights [..., n]: 1 each where the latent holds none)."""
        ends = np.cumsum([p.size for p in self.parts])
        *latents, rest = jnp.split(z, ends, axis=-1)
        return latents, rest if self.weighted else jnp.ones((*z.shape[:-1], len(self.parts)))

    def sample(self, key: Array) -> Array:
        """Each part by itself, and the weights."""
        *keys, weight_key = jax.random.split(key, len(self.parts) + 1)
        weights = jnp.abs(Sphere(len(self.parts)).sample(weight_key))
        return self._join([p.sample(k) for p, k in zip(self.parts, keys, strict=True)], weights)

    def project(self, z: Array) -> Array:
        """Each part on its own support; negative weights to 0, equal ones where none is left."""
        latents, weights = self.split(z)
        weights = jnp.maximum(weights, 0.0)
        weights = jnp.where(jnp.linalg.norm(weights) > 1e-6, weights, 1.0)
        return self._join([p.project(x) for p, x in zip(self.parts, latents, strict=True)], weights)

    def spread(self, count: int) -> np.ndarray:
        """The spread of each part, shuffled against each other; equal weights."""
        shuffled = [np.random.default_rng(i).permutation(p.spread(count)) for i, p in enumerate(self.parts)]
        weights = np.full((count, len(self.parts) * self.weighted), len(self.parts) ** -0.5)
        return np.concatenate([*shuffled, weights], axis=1).astype(np.float32)

    def _join(self, latents: list[Array], weights: Array) -> Array:
        return jnp.concatenate([*latents, *([weights / jnp.linalg.norm(weights)] if self.weighted else [])])


def product_of(parts: Sequence[Prior], weighted: bool = False, hold: int = 0) -> Product:
    """The product of priors."""
    return Product(sum(p.size for p in parts) + len(parts) * weighted, hold, tuple(parts), weighted)


@dataclass(frozen=True)
class CommandPrior(Prior):
    """Uniform in [-1, 1]^size: what may be asked of a controller. Size 0 for a policy that only does its task."""

    size: int = 0

    kind: ClassVar[str] = "command"

    def __post_init__(self) -> None:
        if self.size < 0:
            raise UserError(f"a command needs size >= 0, got {self.size}")

    def sample(self, key: Array) -> Array:
        """Uniform."""
        return jax.random.uniform(key, (self.size,), minval=-1.0, maxval=1.0)

    def project(self, z: Array) -> Array:
        """Clipped."""
        return jnp.clip(z, -1.0, 1.0)


#: Priors that skills are discovered with.
KINDS: dict[str, type[Prior]] = {c.kind: c for c in (Sphere, Ball, Gaussian, OneHot)}


def make_prior(
    kind: str, size: int, hold: int = 0, parts: Sequence[dict[str, Any]] = (), weighted: bool = False
) -> Prior:
    """Prior by name, `product` or `command` too; `parts` (descriptions) and `weighted` are those of a product.

    Raises `UserError` for an unknown kind or impossible sizes.
    """
    if kind == CommandPrior.kind:
        return CommandPrior(size)
    if kind == Product.kind:
        return Product(size, hold, tuple(make_prior(**p) for p in parts), weighted)
    if kind not in KINDS:
        raise unknown("latent prior", kind, KINDS)
    return KINDS[kind](size, hold)


def centred_one_hot(z: Array) -> Array:
    """One-hot [..., K] -> +1 on the chosen entry, -1/(K-1) elsewhere (LSD; METRA's discrete skills)."""
    k = z.shape[-1]
    return (z * k - 1.0) / (k - 1)
