"""Square cells of the plane, and shortest ways over those that are free."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from repertoire.envs.types import Array
from repertoire.errors import UserError

#: Neighbours of a cell: half of the eight, the other half by symmetry.
STEPS = ((1, 0), (0, 1), (1, 1), (1, -1))


@dataclass(frozen=True)
class Lattice:
    """Cells of the plane.

    Attributes:
      low: centre (x, y) of the first cell, m. cell: side, m. free: [X, Y] whether the robot may be there.
    """

    low: np.ndarray
    cell: float
    free: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """[X, Y, 2] m."""
        return self.low + self.cell * np.moveaxis(np.indices(self.free.shape), 0, -1)

    def index(self, xy: np.ndarray) -> tuple[int, int]:
        """Cell of a point (x, y), m; the nearest one for a point outside."""
        found = np.clip(np.rint((np.asarray(xy) - self.low) / self.cell), 0, np.array(self.free.shape) - 1)
        return int(found[0]), int(found[1])

    def indices(self, xy: Array) -> tuple[Array, Array]:
        """`index` of traced points [..., 2]."""
        found = jnp.rint((xy - jnp.asarray(self.low)) / self.cell).astype(jnp.int32)
        x, y = self.free.shape
        return jnp.clip(found[..., 0], 0, x - 1), jnp.clip(found[..., 1], 0, y - 1)


def lattice(low: np.ndarray, high: np.ndarray, cell: float, clear: Callable[[np.ndarray], np.ndarray]) -> Lattice:
    """Cells from corner to corner; `clear` says of points [..., 2] whether the robot may be there."""
    cells = Lattice(low, cell, np.ones(np.ceil((high - low) / cell).astype(int) + 1, bool))
    return dataclasses.replace(cells, free=np.asarray(clear(cells.centres), bool))


class Ways(NamedTuple):
    """Shortest ways to one goal from every cell.

    Attributes:
      left: [X, Y] length of the way, m. ahead: [X, Y, 2] place so far along it as was asked for, last the goal, m.
    """

    left: np.ndarray
    ahead: np.ndarray


def ways(cells: Lattice, goal: np.ndarray, ahead: float) -> Ways:
    """Shortest ways over free cells, through their sides and corners, to `goal` (x, y), m; `ahead`: m along them.

    Cells without a way look from the nearest one with one. Raises `UserError` when no way leads to the goal from the
    start, the origin.
    """
    names = np.arange(cells.free.size).reshape(cells.free.shape)
    source = int(names[tuple(_nearest(cells.free)[:, *cells.index(goal)])])
    left, onward = csgraph.dijkstra(_neighbours(cells), indices=source, return_predecessors=True)
    joined = np.isfinite(left)
    if not joined[names[cells.index(np.zeros(2))]]:
        raise UserError("no way leads to the goal: keep less far from walls (margin) or search smaller cells (cell)")
    onward = np.where(onward < 0, np.arange(onward.size), onward)  # the goal, and who has no way, stay
    at, far = np.arange(onward.size), left - ahead
    while (moving := (left[at] > far) & (at != onward[at])).any():
        at = np.where(moving, onward[at], at)
    places = np.where((at == source)[:, None], goal, cells.centres.reshape(-1, 2)[at])
    here = names[tuple(_nearest(joined.reshape(cells.free.shape)))]
    return Ways(left[here], places[here])


def _nearest(there: np.ndarray) -> np.ndarray:
    """Indices [2, X, Y] of the nearest cell that is `there`."""
    return np.asarray(ndimage.distance_transform_edt(~there, return_distances=False, return_indices=True))


def _neighbours(cells: Lattice) -> sparse.csr_array:
    """Distances between neighbouring free cells, m: [cells, cells]."""
    names, rows, columns, weights = np.arange(cells.free.size).reshape(cells.free.shape), [], [], []
    for step in STEPS:
        shifted = np.roll(names, (-step[0], -step[1]), (0, 1))  # the border is wall, so nothing wraps around
        both = cells.free & np.roll(cells.free, (-step[0], -step[1]), (0, 1))
        rows.append(names[both])
        columns.append(shifted[both])
        weights.append(np.full(both.sum(), cells.cell * np.hypot(*step)))
    table = sparse.coo_array(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=(names.size, names.size)
    )
    return sparse.csr_array(table + table.T)
