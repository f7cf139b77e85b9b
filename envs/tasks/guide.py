"""Who knows the map: the shortest way around the walls of a maze, looked up wherever the robot is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax.scipy import ndimage

from repertoire.envs.lattice import Lattice, lattice, ways
from repertoire.envs.types import Array

if TYPE_CHECKING:
    from repertoire.envs.tasks.maze import Walled

#: Side of the cells that are searched, and distance that ways keep from walls, in sides of a cell of the map.
CELL, MARGIN = 0.05, 0.35


@dataclass(frozen=True, eq=False)  # told apart by identity, as functions are: jit asks
class Guide:
    """Shortest ways to each of G goals.

    Attributes:
      cells: of the plane. goals: [G, 2] m.
      left: [G, X, Y] length of the way from each cell, m. ahead: [G, X, Y, 2] the next way point, m.
    """

    cells: Lattice
    goals: np.ndarray
    left: np.ndarray
    ahead: np.ndarray

    def way(self, xy: Array, goal: Array) -> Array:
        """Where the next way point on the way from `xy` [2] to the goal nearest to `goal` [2] lies from `xy`, [2] m."""
        return jnp.asarray(self.ahead)[self._which(goal), *self.cells.indices(xy)] - xy

    def distance(self, xy: Array, goal: Array) -> Array:
        """Length [] of the way from `xy` [2] to the goal nearest to `goal` [2], m, interpolated between cells."""
        place = (xy - jnp.asarray(self.cells.low)) / self.cells.cell
        return ndimage.map_coordinates(jnp.asarray(self.left)[self._which(goal)], list(place), order=1, mode="nearest")

    def _which(self, goal: Array) -> Array:
        return jnp.argmin(jnp.linalg.norm(jnp.asarray(self.goals) - goal, axis=-1))


def guide_of(task: Walled, ahead: float, cell: float = CELL, margin: float = MARGIN) -> Guide:
    """Search the map of `task`; way points lie `ahead` m along the way, `cell` and `margin` in sides of its cells.

    Raises `UserError` for a goal without a way.
    """
    side, goals = task.cell, task.goals()
    cells = lattice(*task.extent(), cell * side, lambda xy: task.clearance(xy) > margin * side)
    found = [ways(cells, goal, ahead) for goal in goals]
    left, points = (np.stack(x).astype(np.float32) for x in zip(*found, strict=True))
    return Guide(cells, goals, left, points)
