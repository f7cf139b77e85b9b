"""Ant behind walls: AntMaze, and AntPush with a block in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.envs.tasks.ant import Ant
from repertoire.envs.tasks.maze import Maze, Walled
from repertoire.envs.types import Array, Data, Slice, Start

#: MJX computes all pairs of a kind, hundreds here, unless told to look at the nearest; other engines ignore this.
MJX_PAIRS = 48
MARGIN = 0.01  # m, of every geom of ant.xml; that of a pair is the sum
#: The block of AntPush: side in cells, gap over the floor m, mass kg, damping N s/m; and where the goal lies, in cells.
BLOCK_FIT, BLOCK_GAP, BLOCK_MASS, BLOCK_DAMPING = 0.98, 0.1, 0.5, 2.0
GOAL_BEYOND = 3 / 8


@dataclass(frozen=True)
class AntWalled(Walled, Ant):
    """Base of the Ant tasks with walls."""

    def spec_mjcf(self) -> mujoco.MjSpec:
        """Ant, walls and the number of pairs that MJX looks at."""
        spec = super().spec_mjcf()
        for numeric in spec.numerics:  # MJX finds a numeric by its number, not its address: ours must be the first
            spec.delete(numeric)
        for geom in spec.geoms:  # MJX sees a capsule and a box only once they overlap: the floor takes all margin
            geom.margin = 2 * MARGIN if geom.name == "floor" else 0.0
        spec.add_numeric(name="max_geom_pairs", size=1, data=[MJX_PAIRS])
        return spec


@dataclass(frozen=True)
class AntMaze(Maze, AntWalled):
    """Sparse AntMaze: cells of 4 m, radius of 0.5 m, 1000 steps (D4RL; JaxGCRL; OGBench). D4RL gives `u` 700."""

    episode_length: int = 1000

    name: ClassVar[str] = "ant_maze"
    doc: ClassVar[str] = "Ant in a maze (u, big, hardest): +1 within 0.5 m of the goal, which ends the episode"


@dataclass(frozen=True)
class AntPush(AntWalled):
    """AntPush of HIRO (Nachum et al. 2018): a block bars the way up to the goal.

    Who pushes it straight ahead jams it under the goal. The way leads around: left, up, and the block to the right.
    Map, 500 steps, goal and radius are the published ones. The published block weighs 0.2 g and slides without
    friction; this one weighs `BLOCK_MASS` and stops where it is left, which no solver minds.
    """

    episode_length: int = 500
    radius: float = 5.0
    cell: float = 8.0

    name: ClassVar[str] = "ant_push"
    doc: ClassVar[str] = "Ant and a block to push out of the way: +1 within 5 m of the goal, which ends the episode"
    objects: ClassVar[int] = 2

    @property
    def rows(self) -> tuple[str, ...]:
        """`B` is where the block starts."""
        return ("#####", "##G##", "# B #", "# S##", "#####")

    def spec_mjcf(self) -> mujoco.MjSpec:
        """The block hangs on two slides, clear of the floor, a little smaller than its cell."""
        spec, half = super().spec_mjcf(), self.wall_height / 2
        (x, y), side = self.centres("B")[0], BLOCK_FIT * self.cell / 2
        body = spec.worldbody.add_body(name="block", pos=[x, y, half])
        for name, axis in (("block_x", (1, 0, 0)), ("block_y", (0, 1, 0))):
            body.add_joint(
                name=name,
                type=mujoco.mjtJoint.mjJNT_SLIDE,
                axis=axis,
                limited=False,
                armature=0.0,
                damping=[BLOCK_DAMPING, 0, 0],
            )
        body.add_geom(
            name="block",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[side, side, half - BLOCK_GAP],
            mass=BLOCK_MASS,
            margin=0.0,
            conaffinity=1,
            rgba=[0.8, 0.3, 0.2, 1.0],
        )
        return spec

    def start(self, key: Array) -> Start:
        """The block exactly in its cell, at rest."""
        start = super().start(key)
        return start.replace(qpos=start.qpos.at[-2:].set(0.0), qvel=start.qvel.at[-2:].set(0.0))

    def goals(self) -> np.ndarray:
        """Three eighths of a cell beyond the centre of the last one."""
        return super().goals() + np.array([0.0, GOAL_BEYOND * self.cell])

    def extra_slices(self) -> tuple[Slice, ...]:
        """`block`: where the block's centre lies from the robot."""
        return (*super().extra_slices(), Slice("block", 2, "m", scale=self.goal_scale))

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """The robot's values, the goal and `block`."""
        block = jnp.asarray(self.centres("B")[0]) + data.qpos[-2:]
        return {**super().observe(data, memory), "block": block - data.qpos[:2]}
