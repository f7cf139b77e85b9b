"""Goals in the world frame: sparse long-horizon tasks whose observation extends the robot's own.

AntMultiGoals and HalfCheetahGoal as METRA (Park et al. 2024) uses them; constants from the code of CSF.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from repertoire.envs import symmetry
from repertoire.envs.symmetry import Mirror
from repertoire.envs.task import Marker, at_least
from repertoire.envs.tasks.ant import Ant
from repertoire.envs.tasks.robots import HalfCheetah
from repertoire.envs.types import Array, Data, Slice, State

if TYPE_CHECKING:
    from repertoire.envs.tasks.robot import Robot as _Robot
else:
    _Robot = object  # a mix-in: the robot comes with the subclass

GOAL_COLOUR = (0.1, 0.8, 0.2, 0.4)


@struct.dataclass
class GoalMemory:
    """The current goal and how many were reached."""

    goal: Array  # [root] m, world frame
    touched: Array  # [] bool: the current goal was reached
    reached: Array  # [] float32: goals reached since the episode began


@dataclass(frozen=True)
class Goal(_Robot):
    """Mix-in for a `Robot`: +1 per step within `radius` of the goal. Subclasses draw goals.

    Attributes:
      radius: distance that counts as reached, m.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"goal": 1.0})
    radius: float = 3.0

    goal_scale: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.name, 0.0, radius=self.radius)

    def draw(self, key: Array, previous: Array) -> Array:
        """A goal [root], m; `previous` is the last one, or the origin."""
        raise NotImplementedError

    def expired(self, t: Array) -> Array:
        """Whether a new goal is due after `t` control steps; by default never."""
        return jnp.zeros((), bool)

    def arrived(self, data: Data, memory: GoalMemory) -> Array:
        """Whether the root is within `radius` of the goal."""
        return jnp.linalg.norm(data.qpos[: self.root] - memory.goal) <= self.radius

    def extra_slices(self) -> tuple[Slice, ...]:
        """`goal`: where the goal lies from the robot, along the world axes."""
        return (*super().extra_slices(), Slice("goal", self.root, "m", scale=self.goal_scale))

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """The robot's values and `goal`."""
        return {**super().observe(data, memory), "goal": memory.goal - data.qpos[: self.root]}

    def sources(self) -> dict[str, str]:
        """The goal is commanded in world coordinates."""
        return {**super().sources(), "goal": f"command.goal - qpos[0:{self.root}]"}

    def mirror(self) -> Mirror | None:
        """The robot's, and of the goal; goals must be as likely left as right."""
        base = super().mirror()
        return base and dataclasses.replace(base, slices={**base.slices, "goal": symmetry.PLANAR})

    def remember(self, key: Array, data: Data) -> GoalMemory:
        """First goal."""
        goal = self.draw(key, jnp.zeros(self.root))
        return GoalMemory(goal=goal, touched=jnp.zeros((), bool), reached=jnp.zeros(()))

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> GoalMemory:
        """Count an arrival; replace a goal that expired."""
        arrived, new = self.arrived(data, memory), self.expired(t)
        return GoalMemory(
            goal=jnp.where(new, self.draw(key, memory.goal), memory.goal),
            touched=(memory.touched | arrived) & ~new,
            reached=memory.reached + (arrived & ~memory.touched),
        )

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """`goal`: the goal that the action was chosen for is within reach."""
        return {"goal": self.arrived(data, memory).astype(jnp.float32)}

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `goals_reached` since the episode began."""
        return {**super().measure(data, memory), "goals_reached": memory.reached}

    def markers(self, state: State) -> list[Marker]:
        """The goal, on the ground."""
        x, y, *_ = (*map(float, state.memory.goal), 0.0)
        return [((x, y, 0.0), self.radius, GOAL_COLOUR)]


@dataclass(frozen=True)
class MovingGoals(Goal):
    """Goals drawn around each other.

    Attributes:
      goal_range: half-width of the uniform draw per axis, m, around the previous goal (the first: the origin).
      hold: control steps that a goal stays.
    """

    goal_range: float = 7.5
    hold: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.name, 0.0, goal_range=self.goal_range)
        at_least(self.name, 1, hold=self.hold)

    def draw(self, key: Array, previous: Array) -> Array:
        """Uniform around `previous`."""
        return previous + jax.random.uniform(key, (self.root,), minval=-self.goal_range, maxval=self.goal_range)

    def expired(self, t: Array) -> Array:
        """Every `hold` steps."""
        return t % self.hold == 0


@dataclass(frozen=True)
class AntMultiGoals(MovingGoals, Ant):
    """Four goals in 200 steps."""

    name: ClassVar[str] = "ant_multi_goals"
    doc: ClassVar[str] = "Ant: four goals in sequence, 50 steps each, +1 per step within 3 m"


@dataclass(frozen=True)
class HalfCheetahGoal(MovingGoals, HalfCheetah):
    """One goal for the whole episode."""

    goal_range: float = 100.0
    hold: int = 200

    name: ClassVar[str] = "half_cheetah_goal"
    doc: ClassVar[str] = "HalfCheetah: one goal within +-100 m, +1 per step within 3 m"
    goal_scale: ClassVar[float] = 0.01
