"""Skill graph: nodes are options (a skill with a latent), edges are measured hand-offs, searched for a way to a goal.

Every option moves the root by what was measured of it after its predecessor, so the best chain of options (skill
chaining, Konidaris and Barto 2009) is a shortest path over (option done last, cell of the plane).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from repertoire.envs.lattice import Lattice
from repertoire.errors import UserError
from repertoire.high_level.handoff import HandOffs


@dataclass(frozen=True)
class SkillGraph:
    """Options and their hand-offs; the last row of each matrix stands for a fresh start.

    Attributes:
      moves: [n + 1, n, 2] displacement of option b after a, m.
      cost: [n + 1, n] macro steps that b takes after a until it succeeds, on average; infinite where it does not.
      measured_on: name of the env.
    """

    moves: np.ndarray
    cost: np.ndarray
    measured_on: str = ""

    @property
    def start(self) -> int:
        """Row of a fresh start, which is also the number of options."""
        return len(self.cost) - 1


def graph_of(measured: HandOffs, least: float = 0.5, measured_on: str = "") -> SkillGraph:
    """Graph of hand-offs that were measured on an env; those that succeed less often than `least` are no edges.

    From a fresh start an option succeeds where nothing ended, until another had followed it at least.
    """
    if measured.fresh.shape[-1] != 2:
        raise UserError("a skill graph finds its way in the plane: the robot's position must be (x, y)")
    moves = np.concatenate([measured.moved, measured.fresh.mean(1)[None]])
    success = np.concatenate([measured.success, measured.whole.any(1).mean(-1)[None]])
    cost = np.where(success >= least, 1 / np.maximum(success, least), np.inf)
    return SkillGraph(moves, cost, measured_on)


def cost_to_go(graph: SkillGraph, cells: Lattice, goal: np.ndarray, radius: float) -> np.ndarray:
    """Least cost [n + 1, X, Y] from (option done last, cell) to within `radius` of `goal`, m; infinite without a path.

    Bellman-Ford over all cells at once: a sweep per option in the longest of the shortest paths.
    """
    there = (np.linalg.norm(cells.centres - goal, axis=-1) <= radius) & cells.free
    value = np.broadcast_to(np.where(there, 0.0, np.inf), (graph.start + 1, *cells.free.shape)).copy()
    edges = list(_edges(graph, cells))
    while True:
        best = value.copy()
        for a, b, price, shift, open_way in edges:
            onward = np.where(open_way, price + _shifted(value[b], shift, np.inf), np.inf)
            np.minimum(best[a], onward, out=best[a])
        best[:, there] = 0.0
        if np.array_equal(best, value):
            return value
        value = best


def check_path(value: np.ndarray, cells: Lattice, start: np.ndarray) -> float:
    """Least cost from a fresh start at `start` (x, y), m. Raises `UserError` when there is no path."""
    cost = float(value[(-1, *cells.index(start))])
    if not np.isfinite(cost):
        raise _no_path(start)
    return cost


def _no_path(start: np.ndarray) -> UserError:
    return UserError(
        f"the skill graph has no path from ({start[0]:.3g}, {start[1]:.3g}) to the goal: more (controller.per_skill) "
        "or shorter (controller.hold) options, a lower navigate.least or navigate.margin may give one"
    )


def _edges(graph: SkillGraph, cells: Lattice) -> Iterator[tuple[int, int, float, np.ndarray, np.ndarray]]:
    """(a, b, cost, shift in cells, [X, Y] whether the way is free) of all hand-offs that succeed."""
    for a, b in np.argwhere(np.isfinite(graph.cost)):
        steps = graph.moves[a, b] / cells.cell
        way = [_shifted(cells.free, np.rint(steps * part), False) for part in parts(graph, cells)]
        yield int(a), int(b), float(graph.cost[a, b]), np.rint(steps), np.all(way, axis=0)


def parts(graph: SkillGraph, cells: Lattice) -> np.ndarray:
    """Parts of a way, in (0, 1], at which it is looked at whether a wall is there: one a cell on the longest."""
    count = max(int(np.ceil(np.linalg.norm(graph.moves, axis=-1).max() / cells.cell)), 1)
    return np.arange(1, count + 1) / count


def _shifted(x: np.ndarray, shift: np.ndarray, outside: float | bool) -> np.ndarray:
    """y[i, j] = x[i + shift_0, j + shift_1], `outside` beyond the border."""
    y = np.full_like(x, outside)
    (to_x, from_x), (to_y, from_y) = (_overlap(int(i), n) for i, n in zip(shift, x.shape, strict=True))
    y[to_x, to_y] = x[from_x, from_y]
    return y


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Where y[i] = x[i + shift] has a source among `size` entries, and the source."""
    first, last = max(-shift, 0), max(size - max(shift, 0), 0)
    return (slice(first, last), slice(first + shift, last + shift)) if first < last else (slice(0), slice(0))
