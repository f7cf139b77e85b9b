"""Furniture and objects of the SkillBench tasks, from boxes and spheres.

Robots touch all of it; furniture has no friction of its own, so that what touches it decides, as on the floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np

BOX, SPHERE = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_SPHERE
#: Where wall and cabinet stand ahead of the robot, m; the goal line of the football.
AHEAD, GOAL_LINE = 1.5, 5.0
#: The cube of the tables: its edge, and how far from their middle it lies, m. Tables: full sides, m.
CUBE, TABLE, TABLE_AT = 0.1, (0.9, 1.5, 0.05), 1.0
#: Radius of the ball, m. The release gives a size of 0.2 and starts the ball at a height of 0.1.
BALL = 0.1
#: Cabinet, ours: depth, width, height of the body; thickness and kg of each of two doors. The release takes a scanned
#: one (GAPartNet 45159) at half its size; the damping of its hinges (N m s/rad) is the release's.
CABINET, DOOR, DOOR_MASS, DOOR_DAMPING = (0.28, 0.8, 0.8), 0.02, 2.0, 5.0
DOORS = ("left_door", "right_door")
#: Camera of videos: its name, how far it is turned to the right of +y and looks down, rad, the height it looks at, m.
CAMERA, AZIMUTH, DOWN, LOOK_AT = "side", 0.5, 0.3, 0.8

_WOOD, _PALE, _RED, _WHITE = (0.5, 0.36, 0.25, 1), (0.8, 0.7, 0.55, 1), (0.85, 0.25, 0.2, 1), (0.95, 0.95, 0.95, 1)
_FIXED = {"contype": 1, "conaffinity": 0, "friction": [0, 0, 0], "group": 0}
_LOSSLESS = {"armature": 0.0, "frictionloss": 0.0}  # joints would take the defaults of the robot's


class Build(NamedTuple):
    """What SkillBench fits to the robot, m.

    Attributes:
      table: height of the middle of the tables' tops. level: of the button's mean height and the cabinet's middle.
      button: how far the button lies over or under `level`. package: height of the package. lift: by how much it must
        be lifted, lowest and highest. far: how far along x, y and z the hands are sent.
    """

    table: float
    level: float
    button: float
    package: float
    lift: tuple[float, float]
    far: tuple[float, float, float]


H1 = Build(table=0.975, level=1.0, button=0.5, package=1.0, lift=(0.3, 0.6), far=(2.0, 2.0, 0.5))
G1 = Build(table=0.7, level=0.7, button=0.3, package=0.7, lift=(0.2, 0.4), far=(1.25, 1.25, 0.25))


def add_nothing(spec: mujoco.MjSpec, build: Build) -> None:
    """An empty floor."""


def add_wall(spec: mujoco.MjSpec, build: Build) -> None:
    """A wall across the way."""
    _fixed(spec, "wall", (AHEAD, 0, 1.5), (0.05, 2.0, 3.0), _PALE)


def add_cabinet(spec: mujoco.MjSpec, build: Build) -> None:
    """A body with two doors in front; their joints are 0 where they are shut, and nothing moves them by itself."""
    depth, width, height = CABINET
    front = AHEAD - depth / 2
    _fixed(spec, "cabinet", (AHEAD, 0, build.level), CABINET, _WOOD)
    for name, side in zip(DOORS, (1, -1)):
        body = spec.worldbody.add_body(name=name, pos=[front - DOOR / 2, side * width / 2, build.level])
        body.add_joint(
            name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, -side], range=[0, 1.6],
            damping=[DOOR_DAMPING, 0, 0], **_LOSSLESS,
        )  # fmt: skip
        body.add_geom(
            name=name, type=BOX, pos=[0, -side * width / 4, 0], size=[DOOR / 2, width / 4, height / 2], mass=DOOR_MASS,
            rgba=_PALE, **_FIXED,
        )  # fmt: skip


def add_football(spec: mujoco.MjSpec, build: Build) -> None:
    """A ball, and a goal of three panels. That the ball's rolling dies away is ours."""
    _fixed(spec, "goal_back", (GOAL_LINE, 0, 1.0), (0.05, 4.0, 2.0), _WHITE)
    for name, y in (("goal_left", 2.0), ("goal_right", -2.0)):
        _fixed(spec, name, (GOAL_LINE - 0.5, y, 1.0), (1.0, 0.05, 2.0), _WHITE)
    _free(spec, SPHERE, (BALL, 0, 0), mass=0.4, friction=(0.6, 0.005, 0.001), condim=6)


def add_front_table(spec: mujoco.MjSpec, build: Build) -> None:
    """A table with a cube, which has the density of water: the default of the release's simulator."""
    _fixed(spec, "front_table", (TABLE_AT, 0, build.table), TABLE, _WOOD)
    _free(spec, BOX, (CUBE / 2,) * 3, mass=1.0)


def add_two_tables(spec: mujoco.MjSpec, build: Build) -> None:
    """Tables in front of and behind the robot, and a cube of 10 g."""
    for name, side in (("front_table", 1), ("back_table", -1)):
        _fixed(spec, name, (side * TABLE_AT, 0, build.table), TABLE, _WOOD)
    _free(spec, BOX, (CUBE / 2,) * 3, mass=0.01)


def add_package(spec: mujoco.MjSpec, build: Build) -> None:
    """A tall, narrow package that stands on the floor; its friction lets two hands hold it between them.

    The release gives friction 5, which its simulator averages with what touches it; here the larger one holds, and
    contacts soften with its square (at 5 a kilogram sinks in by 1.6 cm), so 2.
    """
    _free(spec, BOX, (0.25, 0.05, build.package / 2), mass=1.0, friction=(2.0, 0.02, 0.01))


def add_camera(spec: mujoco.MjSpec, middle: float, distance: float) -> None:
    """`CAMERA`, from behind to the right; it looks at x = `middle` m from `distance` m."""
    way = np.cos(DOWN) * np.array([np.sin(AZIMUTH), np.cos(AZIMUTH), -np.tan(DOWN)])
    turn, tip, quat = np.zeros(4), np.zeros(4), np.zeros(4)
    mujoco.mju_axisAngle2Quat(turn, np.array([0.0, 0.0, 1.0]), -AZIMUTH)
    mujoco.mju_axisAngle2Quat(tip, np.array([1.0, 0.0, 0.0]), np.pi / 2 - DOWN)
    mujoco.mju_mulQuat(quat, turn, tip)
    spec.worldbody.add_camera(name=CAMERA, pos=np.array([middle, 0.0, LOOK_AT]) - distance * way, quat=quat)


def _fixed(spec: mujoco.MjSpec, name: str, pos: Sequence[float], sides: Sequence[float], rgba: Sequence[float]) -> None:
    """A box that stays where it is; `sides` are whole."""
    half = [side / 2 for side in sides]
    spec.worldbody.add_geom(name=name, type=BOX, pos=list(pos), size=half, rgba=list(rgba), **_FIXED)


def _free(
    spec: mujoco.MjSpec,
    kind: mujoco.mjtGeom,
    size: Sequence[float],
    mass: float,
    friction: Sequence[float] = (0.6, 0.02, 0.01),
    condim: int = 3,
) -> None:
    """The task's object, body and joint `object`; where it starts is the task's business."""
    body = spec.worldbody.add_body(name="object", pos=[1.0, 0.0, 1.0])
    body.add_joint(name="object", type=mujoco.mjtJoint.mjJNT_FREE, **_LOSSLESS)
    body.add_geom(
        name="object", type=kind, size=list(size), mass=mass, friction=list(friction), condim=condim, rgba=_RED,
        contype=1, conaffinity=1, group=0,
    )  # fmt: skip
