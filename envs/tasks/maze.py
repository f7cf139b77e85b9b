"""Mazes: maps, walls and goals, for any robot with a root position in the plane.

`u`, `big` and `hardest` are the layouts of D4RL's AntMaze (Fu et al. 2020) as JaxGCRL names them, mirrored in y.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.envs.task import at_least
from repertoire.envs.tasks.goals import Goal
from repertoire.envs.tasks.guide import Guide, guide_of
from repertoire.envs.types import Array, Data, Slice
from repertoire.errors import UserError, unknown

#: Mazes as maps; `S` start (the world's origin), `G` fixed goal, `#` wall, anything else free. Rows run towards -y.
MAZES = {
    "u": ("#####", "#S  #", "### #", "#G  #", "#####"),
    "medium": ("########", "#S #   #", "#  # # #", "##   # #", "#  ##  #", "# #  # #", "#   #G #", "########"),
    "big": ("########", "#S ##  #", "#  #   #", "##   ###", "#  #   #", "# #  # #", "#   # G#", "########"),
    "hardest": (
        "############",
        "#S   #     #",
        "# ## # # # #",
        "#      #   #",
        "# #### ### #",
        "#  # #     #",
        "## # # # ###",
        "#  #   # G #",
        "############",
    ),
}
GOALS = ("fixed", "random")
WALL_COLOUR = (0.5, 0.5, 0.55, 1.0)
#: (x, y, half-width in x, half-width in y) of a wall, m.
Wall = tuple[float, float, float, float]


@dataclass(frozen=True)
class Walled(Goal):
    """Mix-in for a `Robot`: +1 on arrival at a goal behind walls, which ends the episode unless `hold`.

    Attributes:
      radius: distance that counts as reached, m.
      cell: side of a cell of the map, m.
      hold: go on after arrival, +1 for each step at the goal.
      guide: how far along the shortest way the way point lies that the robot is shown (slice `way`), m; 0: it does not
        know the map. With it the reward term `progress` is how much shorter the way became, m.
    """

    radius: float = 0.5
    cell: float = 4.0
    hold: bool = False
    guide: float = 0.0

    wall_height: ClassVar[float] = 2.0  # m
    reward_terms: ClassVar[tuple[str, ...]] = ("progress",)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.name, 1.0, cell=self.cell)
        at_least(self.name, 0.0, guide=self.guide)
        if self.weights.get("progress") and not self.guide:
            raise UserError(f"env {self.name}: weights.progress needs a way: set env.guide, such as 1 (m)")

    @property
    def rows(self) -> tuple[str, ...]:
        """The map."""
        raise NotImplementedError

    def centre(self, row: float, column: float) -> tuple[float, float]:
        """Centre (x, y) of a cell of the map, m."""
        r0, c0 = next((r, row.index("S")) for r, row in enumerate(self.rows) if "S" in row)
        return (column - c0) * self.cell, (r0 - row) * self.cell

    def centres(self, chars: str) -> list[tuple[float, float]]:
        """Centres (x, y) of all cells with one of `chars`, m."""
        return [self.centre(r, c) for r, row in enumerate(self.rows) for c, char in enumerate(row) if char in chars]

    def walls(self) -> list[Wall]:
        """One box for each run of wall cells in a row: few geoms, and no seams along x."""
        half, found = self.cell / 2, []
        for r, row in enumerate(self.rows):
            for run in re.finditer("#+", row):
                x, y = self.centre(r, (run.start() + run.end() - 1) / 2)
                found.append((x, y, half * len(run.group()), half))
        return found

    def extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest centre (x, y) of a wall, m: all that is free lies between."""
        centres = np.asarray(self.walls())[:, :2]
        return centres.min(0), centres.max(0)

    def clearance(self, xy: np.ndarray) -> np.ndarray:
        """Distance [...] of points [..., 2] to the nearest wall, m; 0 inside one."""
        walls = np.asarray(self.walls())
        outside = np.maximum(np.abs(xy[..., None, :] - walls[:, :2]) - walls[:, 2:], 0.0)
        return np.asarray(np.linalg.norm(outside, axis=-1).min(-1))

    def spec_mjcf(self) -> mujoco.MjSpec:
        """The robot's model and the walls."""
        spec, half = super().spec_mjcf(), self.wall_height / 2
        for i, (x, y, half_x, half_y) in enumerate(self.walls()):
            spec.worldbody.add_geom(
                name=f"wall{i}",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=[x, y, half],
                size=[half_x, half_y, half],
                conaffinity=1,
                rgba=WALL_COLOUR,
            )
        return spec

    def goals(self) -> np.ndarray:
        """The different goals [G, 2] that may be drawn, m; by default that of the map."""
        return np.asarray(self.centres("G")[:1])

    def draw(self, key: Array, previous: Array) -> Array:
        """One of `goals`, each as likely."""
        goals = jnp.asarray(self.goals(), jnp.float32)
        return goals[jax.random.randint(key, (), 0, len(goals))]

    @functools.cached_property
    def ways(self) -> Guide:
        """The shortest ways to the goals."""
        return guide_of(self, self.guide)

    def extra_slices(self) -> tuple[Slice, ...]:
        """Between walls the robot must know where it is; `way` is where the next way point lies from it."""
        way = (Slice("way", 2, "m"),) if self.guide else ()
        return (Slice("position", 2, "m", scale=0.1), *super().extra_slices(), *way)

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """The robot's values, the goal and, where it knows the map, `way`."""
        way = {"way": self.ways.way(data.qpos[:2], memory.goal)} if self.guide else {}
        return {**super().observe(data, memory), **way}

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """`goal`, and `progress` on the way, m, where the robot knows the map."""
        if not self.guide:
            return super().terms(before, data, action, memory)
        was, left = (self.ways.distance(d.qpos[:2], memory.goal) for d in (before, data))
        return {**super().terms(before, data, action, memory), "progress": was - left}

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `success`: whether it is there."""
        return {**super().measure(data, memory), "success": self.arrived(data, memory).astype(jnp.float32)}

    def mirror(self) -> None:
        """The walls have none."""

    def terminated(self, data: Data, memory: Any) -> Array:
        """Arrived, or what else ends the robot's episode."""
        return super().terminated(data, memory) | (self.arrived(data, memory) & (not self.hold))


@dataclass(frozen=True)
class Maze(Walled):
    """One of `MAZES`.

    Attributes:
      maze: name of the map.
      goal: `fixed` (the map's own) or `random` (uniform over the free cells but the start).
    """

    maze: str = "u"
    goal: str = "fixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, value, known in (("maze", self.maze, MAZES), ("goal", self.goal, GOALS)):
            if value not in known:
                raise unknown(option, value, known)

    @property
    def rows(self) -> tuple[str, ...]:
        """The map of this name."""
        return MAZES[self.maze]

    def goals(self) -> np.ndarray:
        """The fixed goal, or the centres of all free cells other than the start."""
        return np.asarray(self.centres("G" if self.goal == "fixed" else " G"))
