"""Where training has been: a map of 1 m cells that the root visited, kept on the device."""

from __future__ import annotations

import jax.numpy as jnp

from repertoire.algos.types import Array
from repertoire.envs.types import EnvSpec

#: Half-width of the map in cells (1 m); what lies beyond counts in the cell at its edge.
HALF = 128


def init() -> Array:
    """Empty map [2 HALF, 2 HALF]."""
    return jnp.zeros((2 * HALF, 2 * HALF), bool)


def mark(cells: Array, spec: EnvSpec, features: Array) -> Array:
    """`cells` with those of the world positions in `features` [..., F] set (slice `position`: x or x-y, m)."""
    if "position" not in [s.name for s in spec.obs.groups["features"]]:
        return cells
    index = spec.obs.index("features", ("position",))
    position = features[..., index].reshape(-1, len(index))[:, :2]
    at = jnp.clip(jnp.floor(position).astype(jnp.int32) + HALF, 0, 2 * HALF - 1)
    at = jnp.pad(at, ((0, 0), (0, 2 - at.shape[1])), constant_values=HALF)
    return cells.at[at[:, 0], at[:, 1]].set(True)
