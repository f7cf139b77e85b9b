"""SkillBench (Kuang et al. 2025, arXiv 2506.09366): eight loco-manipulation tasks for G1 and H1, as a table.

Published, and taken over: places and sizes, ranges of starts and goals, masses, the one or two reward terms with their
weights, accuracy, and what the policy is told. Ours: control at 50 Hz with this project's robots, offsets along the
robot's heading, a fall instead of a touch as the end, episodes of 8 s for all, and success, which SkillBench has not.
Other choices of ours are said where they are made.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from repertoire.envs import rotations
from repertoire.envs.task import Marker, Task, at_least
from repertoire.envs.tasks import skillbench_scenes as scenes
from repertoire.envs.tasks.goal_spaces import MARKER
from repertoire.envs.tasks.humanoids import G1, H1, Humanoid
from repertoire.envs.tasks.pd_robot import PDMemory
from repertoire.envs.tasks.posture import PERIOD, check_period, closeness, gait_phase
from repertoire.envs.tasks.skillbench_furnished import Furnished
from repertoire.envs.tasks.skillbench_table import Row, table
from repertoire.envs.types import Array, Data, Slice, State
from repertoire.errors import UserError

#: Entries of an object's qvel.
TWIST = 6


@struct.dataclass
class BenchMemory(PDMemory):
    """The goal, and where the object was at the start."""

    goal: Array  # [rows, d] m in the world, rad
    origin: Array  # [3] m


@dataclass(frozen=True)
class SkillBench(Furnished):
    """Mix-in for a `Humanoid`: one row of the table.

    Policies are told what SkillBench tells them: what is missing to the goal, and the way from the hands (or the torso)
    to the object, but not how the object is turned. Turns of the hands, which earn nothing in `far_reach`, are left
    out. The critic also sees the object's velocity.

    Attributes:
      tolerance: see `Row`. period: of the clock that walking skills read, s: theirs.
    """

    episode_length: int = 400
    tolerance: float = 0.1
    period: float = PERIOD

    reward_terms: ClassVar[tuple[str, ...]] = ("goal", "hands", "torso", "right_arm")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.name, 0.0, tolerance=self.tolerance)
        check_period(self.name, self.period)
        if self.ground != "flat":
            raise UserError(f"env {self.name}: ground must be flat, objects start on it")

    def mirror(self) -> None:
        """None is declared: which hand and which side matter differs from task to task."""
        return None

    def remember(self, key: Array, data: Data) -> BenchMemory:
        """Draw the goal."""
        key, goal_key = jax.random.split(key)
        place = self.object(data)
        return BenchMemory(**vars(super().remember(key, data)), goal=self.row.draw(self, goal_key, place), origin=place)

    @functools.cached_property
    def right_arm(self) -> np.ndarray:
        """Places, among the driven joints, of the right arm's."""
        return np.asarray([i for i in self.upper_joints if self.joint_names[i].startswith("right_")])

    def missing(self, data: Data, memory: BenchMemory) -> Array:
        """From where what is `moved` is to the goal, [rows, d]."""
        return memory.goal - self.moved(data)

    def solved(self, data: Data, memory: BenchMemory) -> Array:
        """Every row is within `tolerance` along the axes that count, [] bool; the button must also be touched."""
        assert data.sensordata is not None
        distance = jnp.linalg.norm(self.missing(data, memory)[:, self.row.counted], axis=1)
        solved = (distance <= self.tolerance).all()
        if self.row.moved == "left_hand":
            solved &= data.sensordata[int(self.model.sensor(f"touch_{self.hands[0]}").adr[0])] > 0
        return solved

    # -- observation ---------------------------------------------------------------------------------------------

    def extra_slices(self) -> tuple[Slice, ...]:
        """Along the heading `goal_offset` (missing) and `hands_offset` or `torso_offset` (to the object); `phase`."""
        doors = self.row.moved == "doors"
        size = len(scenes.DOORS) if doors else 6 if self.row.moved == "hands" else 3
        more = {"hands": Slice("hands_offset", 6, "m"), "torso": Slice("torso_offset", 3, "m")}
        goal = Slice("goal_offset", size, "rad" if doors else "m")
        told = (s for name, s in more.items() if name in self.row.weights)
        return (*super().extra_slices(), goal, *told, Slice("phase", 2))

    def _privileged(self) -> tuple[Slice, ...]:
        loose = (Slice("object_velocity", TWIST, "m/s, rad/s"),) if self.row.start else ()
        return (*super()._privileged(), *loose)

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """The robot's values, and of the task all that there is to see."""
        missing, doors = self.missing(data, memory), self.row.moved == "doors"
        found = {
            "goal_offset": missing if doors else _ahead(data, missing),
            "phase": gait_phase(data.time, self.period),
        }
        if self.row.start or doors:
            found["hands_offset"] = _ahead(data, self.hands_offset(data))
            found["torso_offset"] = _ahead(data, (self.object(data) - self.torso(data))[None])
        if self.row.start:
            found["object_velocity"] = data.qvel[-TWIST:]
        return {**super().observe(data, memory), **{name: value.ravel() for name, value in found.items()}}

    def sources(self) -> dict[str, str]:
        """The clock starts with the episode."""
        return {**super().sources(), "phase": f"clock({self.period:g})"}

    # -- reward and end ------------------------------------------------------------------------------------------

    def rates(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Callable[[], Array]]:
        """Adds `goal`, and the terms beside it: `hands` to the object, `torso` to its start, `right_arm` at rest."""
        missing, offsets = self.missing(data, memory), self.angles(data) - self.joints
        return {
            **super().rates(before, data, action, memory),
            "goal": lambda: closeness(missing[:, self.row.rewarded], self.row.sharpness),
            "hands": lambda: closeness(self.hands_offset(data)),
            "torso": lambda: closeness((memory.origin - self.torso(data))[:2]),
            "right_arm": lambda: closeness(offsets[self.right_arm]),
        }

    def terminated(self, data: Data, memory: Any) -> Array:
        """A fall; in `ball` also success, as in the release."""
        fallen = super().terminated(data, memory)
        return fallen | self.solved(data, memory) if self.row.ends else fallen

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `success` (ours), `goal_error` and what SkillBench calls feasibility.

        `goal_error` is SkillBench's accuracy, the mean absolute error along the axes that count, m or rad. `torque` is
        the mean of |N m| and `joint_speed` of |rad/s| over joints, `tilt` the mean of |roll| and |pitch|, rad.
        """
        assert data.actuator_force is not None
        gx, gy, gz = rotations.gravity(data.qpos[3:7])
        tilt = jnp.abs(jnp.stack([jnp.arcsin(jnp.clip(gx, -1.0, 1.0)), jnp.arctan2(-gy, -gz)])).mean()
        return {
            **super().measure(data, memory),
            "success": self.solved(data, memory).astype(jnp.float32),
            "goal_error": jnp.abs(self.missing(data, memory)[:, self.row.counted]).mean(),
            "torque": jnp.abs(data.actuator_force).mean(),
            "joint_speed": jnp.abs(self.speeds(data)).mean(),
            "tilt": tilt,
        }

    def markers(self, state: State) -> list[Marker]:
        """The goals."""
        goal = state.memory.goal
        return [((float(x), float(y), float(z)), 0.05, MARKER) for x, y, z in goal] if goal.shape[1] == 3 else []


def _ahead(data: Data, vectors: Array) -> Array:
    """Vectors [n, 3] of the world, forward and left of the robot's heading and up."""
    c, s = rotations.heading(data.qpos[3:7])
    turn = jnp.stack([jnp.stack([c, -s, 0.0]), jnp.stack([s, c, 0.0]), jnp.asarray([0.0, 0.0, 1.0])])
    return vectors @ turn


def _task(robot: type[Humanoid], build: scenes.Build, name: str, row: Row) -> type[Task]:
    """The env `<robot>_<name>`."""
    fields = [
        ("weights", Mapping[str, float], dataclasses.field(default_factory=lambda: dict(row.weights))),
        ("tolerance", float, row.tolerance),
    ]
    full, doc = f"{robot.name}_{name}", f"Unitree {robot.name.upper()}: {row.doc} (SkillBench)"
    own: dict[str, Any] = {"name": full, "doc": doc, "row": row, "build_of": build, "__module__": __name__}
    title = full.title().replace("_", "")
    return cast(
        type[Task], dataclasses.make_dataclass(title, fields, bases=(SkillBench, robot), namespace=own, frozen=True)
    )


#: All tasks of both robots.
TASKS = tuple(
    _task(robot, build, name, row)
    for robot, build, weights in ((G1, scenes.G1, (10.0, 5.0)), (H1, scenes.H1, (5.0, 1.0)))
    for name, row in table(build, *weights).items()
)
