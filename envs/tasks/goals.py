"""Goals in the world frame for a robot: a sparse long-horizon task whose observation extends the robot's own.

Definitions: AntMultiGoals and HalfCheetahGoal of METRA (Park et al. 2024), constants from the code of CSF.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from repertoire.envs.task import Marker, at_least
from repertoire.envs.tasks.ant import Ant
from repertoire.envs.tasks.gym_robot import GymRobot
from repertoire.envs.tasks.robots import HalfCheetah
from repertoire.envs.types import Array, Data, Slice, State

_Robot = GymRobot if TYPE_CHECKING else object
GOAL_COLOUR = (0.1, 0.8, 0.2, 0.4)


@struct.dataclass
class GoalMemory:
    """The current goal and how many were reached."""

    goal: Array  # [root] m, world frame
    touched: Array  # [] bool: the current goal was reached
    reached: Array  # [] float32: goals reached since the episode began


@dataclass(frozen=True)
class Goals(_Robot):
    """Mix-in for a `GymRobot`: +1 per step within `radius` of the goal, which moves every `hold` steps.

    Attributes:
      goal_range: half-width of the uniform draw per axis, m, around the previous goal (the first: the origin).
      radius: distance that counts as reached, m.
      hold: control steps that a goal stays.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"goal": 1.0})
    goal_range: float = 7.5
    radius: float = 3.0
    hold: int = 50

    goal_scale: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.name, 0.0, goal_range=self.goal_range, radius=self.radius)
        at_least(self.name, 1, hold=self.hold)

    def extra_slices(self) -> tuple[Slice, ...]:
        """`goal`: where the goal lies from the robot, along the world axes."""
        return (*super().extra_slices(), Slice("goal", self.root, "m", scale=self.goal_scale))

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """The robot's values and `goal`."""
        return {**super().observe(data, memory), "goal": memory.goal - data.qpos[: self.root]}

    def remember(self, key: Array, data: Data) -> GoalMemory:
        """First goal, around the origin."""
        goal = self._next(key, jnp.zeros(self.root))
        return GoalMemory(goal=goal, touched=jnp.zeros((), bool), reached=jnp.zeros(()))

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> GoalMemory:
        """Count an arrival; every `hold` steps a new goal, around the old one."""
        inside = self._inside(data, memory)
        new = t % self.hold == 0
        return GoalMemory(
            goal=jnp.where(new, self._next(key, memory.goal), memory.goal),
            touched=(memory.touched | inside) & ~new,
            reached=memory.reached + (inside & ~memory.touched),
        )

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """`goal`: within reach of the goal that the action was chosen for."""
        return {"goal": self._inside(data, memory).astype(jnp.float32)}

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `goals_reached` since the episode began."""
        return {**super().measure(data, memory), "goals_reached": memory.reached}

    def markers(self, state: State) -> list[Marker]:
        """The goal, on the ground."""
        x, y = (*map(float, state.memory.goal), 0.0)[:2]
        return [((x, y, 0.0), self.radius, GOAL_COLOUR)]

    def _next(self, key: Array, centre: Array) -> Array:
        return centre + jax.random.uniform(key, (self.root,), minval=-self.goal_range, maxval=self.goal_range)

    def _inside(self, data: Data, memory: GoalMemory) -> Array:
        return jnp.linalg.norm(data.qpos[: self.root] - memory.goal) <= self.radius


@dataclass(frozen=True)
class AntMultiGoals(Goals, Ant):
    """Four goals in 200 steps."""

    name: ClassVar[str] = "ant_multi_goals"
    doc: ClassVar[str] = "Ant: four goals in sequence, 50 steps each, +1 per step within 3 m"


@dataclass(frozen=True)
class HalfCheetahGoal(Goals, HalfCheetah):
    """One goal for the whole episode."""

    goal_range: float = 100.0
    hold: int = 200

    name: ClassVar[str] = "half_cheetah_goal"
    doc: ClassVar[str] = "HalfCheetah: one goal within +-100 m, +1 per step within 3 m"
    goal_scale: ClassVar[float] = 0.01
