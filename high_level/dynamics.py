"""Learned skill dynamics: how features change over one macro step, given the latent; an ensemble of small MLPs."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from repertoire.algos import networks, normalize
from repertoire.algos.types import Array, Stats

ACTIVATION = "swish"
_STATS, _PARTS = ("inputs", "change"), ("mean", "var", "count")


class Dynamics(struct.PyTreeNode):
    """A fitted ensemble of M members: features [F] and latent [D] -> features after a macro step."""

    layers: tuple[tuple[Array, Array], ...]  # kernel [M, in, out], bias [M, out]
    inputs: Stats  # of (features, latent)
    change: Stats  # of the features' change
    seen: Array  # [F] 1 where a feature is an input, else 0

    @property
    def members(self) -> int:
        """M."""
        return int(self.layers[0][1].shape[0])

    def advance(self, features: Array, latent: Array) -> Array:
        """Features [M, F] of each member after a macro step under `latent` [D]."""
        return jax.vmap(self._one, in_axes=(0, 0, None))(self.layers, features, latent)

    def predict(self, features: Array, latent: Array) -> Array:
        """The members' mean [F] from features [F]."""
        return self.advance(jnp.tile(features, (self.members, 1)), latent).mean(0)

    def _one(self, layers: tuple[tuple[Array, Array], ...], features: Array, latent: Array) -> Array:
        x = normalized_inputs(self.inputs, self.seen, features, latent)
        y = networks.apply_layers(list(layers), x, ACTIVATION)
        return features + self.change.mean + y * jnp.sqrt(self.change.var)

    def arrays(self) -> dict[str, np.ndarray]:
        """Flat name -> array, for safetensors."""
        found = {f"kernel{i}": k for i, (k, _) in enumerate(self.layers)}
        found |= {f"bias{i}": b for i, (_, b) in enumerate(self.layers)}
        found |= {f"{name}/{part}": getattr(getattr(self, name), part) for name in _STATS for part in _PARTS}
        return {k: np.asarray(v) for k, v in {**found, "seen": self.seen}.items()}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Dynamics:
    """What `Dynamics.arrays` wrote."""
    a = {k: jnp.asarray(v) for k, v in arrays.items()}
    count = sum(k.startswith("kernel") for k in a)
    layers = tuple((a[f"kernel{i}"], a[f"bias{i}"]) for i in range(count))
    inputs, change = (Stats(*(a[f"{name}/{part}"] for part in _PARTS)) for name in _STATS)
    return Dynamics(layers=layers, inputs=inputs, change=change, seen=a["seen"])


def normalized_inputs(stats: Stats, seen: Array, features: Array, latent: Array) -> Array:
    """Normalised network input [F + D]; features that are not `seen` are zero."""
    x = normalize.apply(stats, jnp.concatenate([features, latent]))
    return x * jnp.concatenate([seen, jnp.ones(len(latent))])
