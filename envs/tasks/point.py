"""The smallest worlds: a velocity-controlled point in the plane, with a distracting coordinate, a disc, or a maze."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco

from repertoire.envs import symmetry
from repertoire.envs.symmetry import Mirror
from repertoire.envs.task import at_least
from repertoire.envs.tasks.goals import Goal
from repertoire.envs.tasks.robot import Robot
from repertoire.envs.types import Array, Data, ObsSpec, Slice, Start
from repertoire.errors import UserError, unknown

NUISANCE_SPEED = 10.0  # m/s, ten times the point's
DISC_START, DISC_RADIUS = (1.0, 0.0), 0.3  # m
#: What counts as handling the disc roughly: nearer to its rim than this, m, at more than this speed, m/s.
NEAR, GENTLE = 0.3, 0.7


@dataclass(frozen=True)
class Point(Robot):
    """A point that moves 0.1 m per control step at full action; toy checks of skill discovery finish in seconds.

    Attributes:
      nuisance: add a third coordinate, ten times faster, moved by a third action and by nothing else.
      disc: add a disc that the point can push.
      reset_noise: half-width of the uniform noise on the start position, m.
    """

    episode_length: int = 50
    nuisance: bool = False
    disc: bool = False
    reset_noise: float = 0.1

    name: ClassVar[str] = "point"
    doc: ClassVar[str] = (
        "2-D point with velocity actions: 50 steps of 0.1 s; options: nuisance coordinate, disc to push"
    )
    substeps: ClassVar[int] = 2
    coverage_cells: ClassVar[Mapping[str, float]] = {"position": 1.0, "disc": 0.1, "nuisance": 1.0}
    ceiling_m: ClassVar[Mapping[int, float]] = {50: 5.0}  # along an axis, at once at full speed: 1 m/s for 5 s

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.name, 0.0, reset_noise=self.reset_noise)

    def spec_mjcf(self) -> mujoco.MjSpec:
        """The editable model; joints in the order x, y, nuisance, disc x, disc y."""
        xml = resources.files("repertoire.envs.assets").joinpath("point.xml").read_text()
        spec = mujoco.MjSpec.from_string(xml)
        if self.nuisance:
            _add_nuisance(spec)
        if self.disc:
            _add_disc(spec)
        return spec

    def build(self) -> mujoco.MjModel:
        """Compile."""
        return self.spec_mjcf().compile()

    def start(self, key: Array) -> Start:
        """At rest near the origin; the disc a metre away."""
        noise = jax.random.uniform(key, (self.model.nq,), minval=-self.reset_noise, maxval=self.reset_noise)
        return Start(qpos=noise, qvel=jnp.zeros(self.model.nv))

    def obs_spec(self) -> ObsSpec:
        """policy: velocity and where the disc lies from the point; features: position, velocity, nuisance, disc."""
        position, velocity = Slice("position", 2, "m"), Slice("velocity", 2, "m/s")
        policy: tuple[Slice, ...] = (velocity,)
        features: tuple[Slice, ...] = (position, velocity)
        if self.nuisance:
            features += (Slice("nuisance", 1, "m"),)
        if self.disc:
            policy += (Slice("disc_offset", 2, "m"),)
            features += (Slice("disc", 2, "m"),)
        policy += self.extra_slices()
        return ObsSpec({"policy": policy, "critic": policy, "features": features})

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Values of all slices."""
        position = data.qpos[:2]
        values = {"position": position, "velocity": data.qvel[:2]}
        if self.nuisance:
            values["nuisance"] = data.qpos[2:3]
        if self.disc:
            disc = data.qpos[-2:] + jnp.asarray(DISC_START)
            values |= {"disc": disc, "disc_offset": disc - position}
        return values

    def mirror(self) -> Mirror | None:
        """y -> -y; the disc starts on the x axis, and the nuisance coordinate has no side."""
        plane, nuisance, disc = symmetry.PLANAR, [symmetry.same(1)] * self.nuisance, [symmetry.PLANAR] * self.disc
        state = symmetry.side_by_side([plane, *nuisance, *disc])
        slices = dict.fromkeys(("position", "velocity", "disc", "disc_offset"), plane) | {"nuisance": symmetry.same(1)}
        return Mirror(state, state, symmetry.side_by_side([plane, *nuisance]), slices)

    def sources(self) -> dict[str, str]:
        """`disc_offset` has none: a runner would have to see the disc."""
        return {**super().sources(), "position": "qpos[0:2]", "velocity": "qvel[0:2]"}


@dataclass(frozen=True)
class PointDisc(Point):
    """The smallest case of SLIM's three channels: reach for the disc, discover with it, handle it gently.

    Terms: `reach`, minus the distance to the disc's rim, m; `safety`, 1 for every step of rough handling.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"reach": 1.0, "safety": -1.0})
    disc: bool = True

    name: ClassVar[str] = "point_disc"
    doc: ClassVar[str] = "2-D point and a disc to push: terms for reaching it and for rough handling"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.disc:
            raise UserError("env point_disc has a disc: take env=point for none")

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """`reach` and `safety`."""
        gap = jnp.linalg.norm(data.qpos[-2:] + jnp.asarray(DISC_START) - data.qpos[:2]) - DISC_RADIUS
        rough = (gap < NEAR) & (jnp.linalg.norm(data.qvel[:2]) > GENTLE)
        return {"reach": -gap, "safety": rough.astype(jnp.float32)}


def _slide(body: Any, name: str, axis: tuple[int, int, int], damping: float = 0.0) -> None:
    body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, damping=[damping, 0, 0])


def _add_nuisance(spec: mujoco.MjSpec) -> None:
    """A weight that slides along z at 10 m/s, out of everything's way."""
    body = spec.worldbody.add_body(name="nuisance", pos=[0, 8, 0.2])
    _slide(body, "nuisance", (0, 0, 1))
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.2, 0, 0], mass=1, contype=0, conaffinity=0)
    actuator = spec.add_actuator(name="nuisance", target="nuisance", trntype=mujoco.mjtTrn.mjTRN_JOINT)
    actuator.set_to_velocity(kv=1.0 / spec.option.timestep)
    actuator.ctrllimited, actuator.ctrlrange = True, [-NUISANCE_SPEED, NUISANCE_SPEED]


def _add_disc(spec: mujoco.MjSpec) -> None:
    """A damped circle: it stops within 0.2 s of the last push."""
    body = spec.worldbody.add_body(name="disc", pos=[*DISC_START, 0.2])
    _slide(body, "disc_x", (1, 0, 0), damping=10.0)
    _slide(body, "disc_y", (0, 1, 0), damping=10.0)
    size = [DISC_RADIUS, 0, 0]
    body.add_geom(name="disc", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=size, mass=1, rgba=[0.8, 0.5, 0.2, 1])


#: Mazes as maps; `S` start (the world's origin), `G` fixed goal, `#` wall, anything else free.
MAZES = {
    "u": ("#####", "#S  #", "### #", "#G  #", "#####"),
    "medium": ("########", "#S #   #", "#  # # #", "##   # #", "#  ##  #", "# #  # #", "#   #G #", "########"),
}
GOALS = ("fixed", "random")


@dataclass(frozen=True)
class PointMaze(Goal, Point):
    """The point in a maze: +1 on arrival, which ends the episode unless `hold`.

    Attributes:
      maze: name of the map.
      goal: `fixed` (the map's own) or `random` (uniform over the free cells but the start).
      cell: side of a cell, m.
      hold: go on after arrival, +1 for each step at the goal.
    """

    episode_length: int = 300
    radius: float = 0.5
    maze: str = "u"
    goal: str = "fixed"
    cell: float = 2.0
    hold: bool = False

    name: ClassVar[str] = "point_maze"
    doc: ClassVar[str] = "2-D point in a maze: +1 within 0.5 m of the goal"

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, value, known in (("maze", self.maze, MAZES), ("goal", self.goal, GOALS)):
            if value not in known:
                raise unknown(option, value, known)
        at_least(self.name, 1.0, cell=self.cell)

    def centres(self, chars: str) -> list[tuple[float, float]]:
        """Centres (x, y) of all cells with one of `chars`, m; rows of the map run towards -y."""
        rows = MAZES[self.maze]
        where = {(r, c): char for r, row in enumerate(rows) for c, char in enumerate(row)}
        r0, c0 = next(rc for rc, char in where.items() if char == "S")
        return [((c - c0) * self.cell, (r0 - r) * self.cell) for (r, c), char in where.items() if char in chars]

    def spec_mjcf(self) -> mujoco.MjSpec:
        """The point's model and one box per wall cell."""
        spec, half = super().spec_mjcf(), self.cell / 2
        for i, (x, y) in enumerate(self.centres("#")):
            spec.worldbody.add_geom(
                name=f"wall{i}", type=mujoco.mjtGeom.mjGEOM_BOX, pos=[x, y, 0.25], size=[half, half, 0.25],
                rgba=[0.5, 0.5, 0.55, 1.0],
            )  # fmt: skip
        return spec

    def draw(self, key: Array, previous: Array) -> Array:
        """The fixed goal, or the centre of a free cell other than the start."""
        cells = jnp.asarray(self.centres("G" if self.goal == "fixed" else " G"))
        return cells[jax.random.randint(key, (), 0, len(cells))]

    def extra_slices(self) -> tuple[Slice, ...]:
        """In a maze the point must know where it is."""
        return (Slice("position", 2, "m", scale=0.1), *super().extra_slices())

    def mirror(self) -> None:
        """The walls have none."""

    def terminated(self, data: Data, memory: Any) -> Array:
        """Arrived."""
        return self.arrived(data, memory) & (not self.hold)
