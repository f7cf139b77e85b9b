"""Way points: the zero-shot goal rule, led around walls along the shortest way. Nothing is trained or measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from repertoire.algos.types import Array
from repertoire.envs.tasks.maze import Walled
from repertoire.envs.types import State
from repertoire.errors import UserError, positive
from repertoire.high_level.goals import ZeroShot, zero_shot
from repertoire.high_level.graph import Lattice, lattice
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.navigate import goals_of
from repertoire.high_level.rules import position_index

#: Neighbours of a cell: half of the eight, the other half by symmetry.
STEPS = ((1, 0), (0, 1), (1, 1), (1, -1))


@dataclass(frozen=True)
class RouteConfig:
    """How a way is found, in sides of a cell of the maze.

    Attributes:
      cell: side of the cells that are searched. margin: distance that the root keeps from walls; 0.5 is the middle.
      ahead: how far along the way the next way point lies. Skills do not go quite where they are sent, and the nearer
        the point, the less far they stray.
    """

    cell: float = 0.05
    margin: float = 0.475
    ahead: float = 0.15

    def __post_init__(self) -> None:
        positive(self, "controller.route", "cell", "ahead")
        if not 0 <= self.margin < 0.5:
            raise UserError(f"controller.route.margin must lie in [0, 0.5), got {self.margin}")


@dataclass(frozen=True, eq=False)  # told apart by identity, as functions are: jit asks
class WayPoint:
    """Where the next way point lies from the robot, as a function of the state.

    Attributes:
      cells: of the maze. goals: [G, 2] m.
      points: [G, X, Y, 2] way point of each cell on the way to each goal, m.
      config: how they were found.
      position: entries of the position in the feature group. goal: reads where the goal lies from the robot.
    """

    cells: Lattice
    goals: np.ndarray
    points: np.ndarray
    config: RouteConfig
    position: np.ndarray
    goal: Callable[[State], Array]

    def __call__(self, state: State) -> Array:
        """Offset [2], m."""
        here, points = state.obs["features"][self.position], jnp.asarray(self.points)
        which = jnp.argmin(jnp.linalg.norm(jnp.asarray(self.goals) - here - self.goal(state), axis=-1))
        return points[which, *self.cells.indices(here)] - here


def router(env: MacroEnv, config: RouteConfig) -> ZeroShot:
    """The zero-shot rule towards the next way point of each place.

    Raises `UserError` for a task without walls, or a goal without a way, and where `zero_shot` does.
    """
    rule, task, spec = zero_shot(env), getattr(env.env, "task", None), env.env.spec
    if not isinstance(task, Walled):
        raise UserError(f"env {spec.name} has no walls to go around: controller=zero_shot goes straight to the goal")
    side = task.cell
    cells = lattice(*task.extent(), config.cell * side, lambda xy: task.clearance(xy) > config.margin * side)
    goals = goals_of(task)
    points = np.stack([way_points(cells, goal, config.ahead * side) for goal in goals])
    ahead = WayPoint(cells, goals, points.astype(np.float32), config, position_index(spec), rule.ahead)
    return dataclasses.replace(rule, ahead=ahead)


def way_points(cells: Lattice, goal: np.ndarray, ahead: float) -> np.ndarray:
    """The place [X, Y, 2] that lies `ahead` m along the shortest way from each cell to `goal`, m; last the goal itself.

    Cells that are not free look from the nearest one that is. Raises `UserError` when no way leads to the goal from the
    start, the origin.
    """
    nearest = ndimage.distance_transform_edt(~cells.free, return_distances=False, return_indices=True)
    names = np.arange(cells.free.size).reshape(cells.free.shape)
    source = int(names[tuple(nearest[:, *cells.index(goal)])])
    distance, onward = csgraph.dijkstra(_neighbours(cells), indices=source, return_predecessors=True)
    if not np.isfinite(distance[names[cells.index(np.zeros(2))]]):
        raise UserError("no way leads to the goal: lower controller.route.margin or controller.route.cell")
    onward = np.where(onward < 0, np.arange(onward.size), onward)  # the goal, and cells without a way, stay
    at, far = np.arange(onward.size), distance - ahead
    while (moving := (distance[at] > far) & (at != onward[at])).any():
        at = np.where(moving, onward[at], at)
    places = np.where((at == source)[:, None], goal, cells.centres.reshape(-1, 2)[at])
    return np.asarray(places[names[tuple(nearest)]])


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
