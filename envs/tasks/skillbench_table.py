"""The table of SkillBench's tasks: scene, start, goal, reward and success of each, for either robot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.envs.tasks import skillbench_scenes as scenes
from repertoire.envs.tasks.goal_spaces import in_balls
from repertoire.envs.tasks.panda.arm import uniform
from repertoire.envs.types import Array

if TYPE_CHECKING:
    from repertoire.envs.tasks.skillbench import SkillBench

XYZ = (0, 1, 2)
#: (task, key, where the object is [3]) -> goals [rows, d] of what is to be moved.
Draw = Callable[["SkillBench", Array, Array], Array]


@dataclass(frozen=True)
class Row:
    """A task of the table.

    Attributes:
      doc: in a few words. furnish: adds its scene. weights: reward term -> weight per second.
      moved: what must come to the goal: `object`, `left_hand`, `hands` or `doors`. draw: the goal.
      tolerance: success is no further from the goal: m (Euclidean), rad.
      start: corners of the box that the object's centre starts in, m; None without a loose object.
      mass: of the object, kg, uniform; None for that of the model.
      place: where the object is that hands are drawn to, where it is not loose, m.
      rewarded, counted: axes of the error that `goal` and the accuracy take the mean of.
      sharpness: of `goal`. ends: success ends the episode.
      view: x that videos look at, and from how far, m.
    """

    doc: str
    furnish: Callable[[mujoco.MjSpec, scenes.Build], None]
    weights: Mapping[str, float]
    moved: str
    draw: Draw
    tolerance: float
    start: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    mass: tuple[float, float] | None = None
    place: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rewarded: tuple[int, ...] = XYZ
    counted: tuple[int, ...] = XYZ
    sharpness: float = 4.0
    ends: bool = False
    view: tuple[float, float] = (0.6, 4.5)


def in_world(low: Any, high: Any) -> Draw:
    """Goals in a box of the world."""
    return lambda task, key, place: uniform(key, low, high)[None]


def beside(low: Any, high: Any, most: float = np.inf) -> Draw:
    """Goals in a box around the object's start, no further than `most` to either side of the world.

    The bound is ours: SkillBench also sends the cube over the edge of the table, and leaves the goal at its height.
    """

    def draw(task: SkillBench, key: Array, place: Array) -> Array:
        goal = place + uniform(key, low, high)
        return goal.at[1].set(jnp.clip(goal[1], -most, most))[None]

    return draw


def around_hands(far: tuple[float, float, float]) -> Draw:
    """For both hands: their places in the default pose, moved together by up to `far`, each by up to `reach`.

    The release draws only to the front left and up; its intervals are symmetric, and so are these.
    """

    def draw(task: SkillBench, key: Array, place: Array) -> Array:
        centre_key, hand_key = jax.random.split(key)
        centre = uniform(centre_key, np.negative(far), far)
        return jnp.asarray(task.home.site_xpos[task.hand_sites]) + centre + in_balls(hand_key, 2, task.reach)

    return draw


def shut(task: SkillBench, key: Array, place: Array) -> Array:
    """Both doors at 0."""
    return jnp.zeros((len(scenes.DOORS), 1))


def table(build: scenes.Build, package_hands: float, transfer_hands: float) -> dict[str, Row]:
    """The tasks; the release weighs the hands' nearness to package and cube differently for different robots."""
    top = build.table + scenes.TABLE[2] / 2 + scenes.CUBE / 2
    near, side = scenes.TABLE_AT - 0.45, 0.3  # the cube lies within 10 cm of the tables' near edge
    cube = (near, -side, top), (near + 0.1, side, top)
    package = (0.5, -0.05, build.package / 2), (0.7, 0.05, build.package / 2)
    edge = (scenes.TABLE[1] - scenes.CUBE) / 2
    low, high = build.lift
    level, off, ahead = build.level, build.button, scenes.AHEAD
    packages: dict[str, Any] = {
        "furnish": scenes.add_package, "weights": {"goal": 5.0, "hands": package_hands}, "moved": "object",
        "start": package, "mass": (0.1, 2.0), "tolerance": 0.1,
    }  # fmt: skip
    return {
        "button": Row(
            "bring the left hand to a button on a wall 1.5 m ahead", scenes.add_wall, {"goal": 5.0, "right_arm": 0.5},
            "left_hand", in_world((ahead, -0.5, level - off), (ahead, 0.5, level + off)), 0.05, counted=(1, 2),
        ),
        "cabinet": Row(
            "shut the doors of a cabinet 1.5 m ahead", scenes.add_cabinet, {"goal": 5.0, "hands": 5.0}, "doors", shut,
            0.1, place=(ahead, 0.0, level), rewarded=(0,), counted=(0,),
        ),
        "ball": Row(
            "shoot a ball to a place in a goal 5 m ahead", scenes.add_football, {"goal": 5.0, "torso": 1.0}, "object",
            in_world((scenes.GOAL_LINE, -2.0, 0.0), (scenes.GOAL_LINE, 2.0, 0.5)), 0.5,
            start=((0.5, -0.3, scenes.BALL), (1.0, 0.3, scenes.BALL)), mass=(0.3, 0.5), sharpness=1.0, ends=True,
            view=(2.4, 7.5),
        ),
        "box": Row(
            "push a cube over a table", scenes.add_front_table, {"goal": 5.0, "hands": 5.0}, "object",
            beside((0.0, -0.5, 0.0), (0.1, 0.5, 0.0), edge), 0.05, start=cube,
        ),
        "transfer": Row(
            "bring a cube from the table in front to the one behind", scenes.add_two_tables,
            {"goal": 5.0, "hands": transfer_hands}, "object",
            in_world((-near - 0.1, -side, top), (-near, side, top)), 0.1, start=cube,
        ),
        "lift": Row(
            f"lift a package by {low:g} to {high:g} m", draw=beside((0.0, 0.0, low), (0.0, 0.0, high)),
            rewarded=(2,), counted=(2,), **packages,
        ),
        "carry": Row(
            "carry a package 0.3 to 1 m ahead, in the air", draw=beside((0.3, -0.3, low), (1.0, 0.3, high)), **packages
        ),
        "far_reach": Row(
            f"both hands to places up to {build.far[0]:g} m away along x and y", scenes.add_nothing, {"goal": 5.0},
            "hands", around_hands(build.far), 0.1, view=(0.0, 7.5),
        ),
    }  # fmt: skip
