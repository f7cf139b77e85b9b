"""Goals for the Panda: what all tasks with a success share, and the simplest of them, reaching a point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from repertoire.envs.expert import Expert
from repertoire.envs.task import Marker, at_least
from repertoire.envs.tasks.panda import script
from repertoire.envs.tasks.panda.arm import ArmMemory, Panda, distance, near, uniform
from repertoire.envs.types import Array, Data, Slice, State
from repertoire.errors import unknown

GOAL_COLOUR = (0.1, 0.8, 0.2, 0.5)
#: Box that goals of `PandaReach` lie in, m.
GOALS = (0.3, -0.25, 0.05), (0.6, 0.25, 0.35)
REWARDS = ("dense", "sparse")


@struct.dataclass
class GoalMemory(ArmMemory):
    """Targets and a goal."""

    goal: Array  # [3] m, world frame


@dataclass(frozen=True)
class Solvable(Panda):
    """Mix-in: a task that can be solved, with reward term `success` and the metric of the same name.

    Attributes:
      reward: default weights: `dense` (shaped terms and success) or `sparse` (success alone, +1 per step); weights that
        are given replace single defaults.
      tolerance: distance from the goal that counts as success, m (0.04 is that of OGBench's manipulation tasks).
    """

    reward: str = "dense"
    tolerance: float = 0.04

    def __post_init__(self) -> None:
        if self.reward not in REWARDS:
            raise unknown("reward", self.reward, REWARDS)
        super().__post_init__()
        at_least(self.name, 0.0, tolerance=self.tolerance)

    def default_weights(self) -> dict[str, float]:
        """`dense`, or success alone."""
        return {k: w if self.reward == "dense" or k == "success" else 0.0 for k, w in super().default_weights().items()}

    def success(self, data: Data, memory: Any) -> Array:
        """Whether the task is solved now, [] bool."""
        raise NotImplementedError

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """`success`: 1 while solved."""
        return {**super().terms(before, data, action, memory), "success": self._solved(data, memory)}

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `success`."""
        return {**super().measure(data, memory), "success": self._solved(data, memory)}

    def _solved(self, data: Data, memory: Any) -> Array:
        return self.success(data, memory).astype(jnp.float32)


@dataclass(frozen=True)
class PandaReach(Solvable):
    """Bring the hand to a point."""

    episode_length: int = 50

    name: ClassVar[str] = "panda_reach"
    doc: ClassVar[str] = "Panda: bring the hand to a point in a box of 30 x 50 x 30 cm, within 4 cm"
    dense: ClassVar[Mapping[str, float]] = {"reach": 1.0, "success": 1.0}

    def remember(self, key: Array, data: Data) -> GoalMemory:
        """Draw the goal."""
        return GoalMemory(targets=self.first_targets(data), sent=self.first_sent(key), goal=uniform(key, *GOALS))

    def extra_slices(self) -> tuple[Slice, ...]:
        """`goal`: where the goal lies from the hand."""
        return (*super().extra_slices(), Slice("goal", 3, "m", scale=5.0))

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """The arm's values and `goal`."""
        return {**super().observe(data, memory), "goal": memory.goal - self.hand(data)}

    def sources(self) -> dict[str, str]:
        """Goals are of the hand."""
        return {**super().sources(), "goal": "command.goal - hand"}

    def commands(self) -> dict[str, tuple[list[list[float]], int]]:
        """`goal`, for a whole episode."""
        return {"goal": ([list(pair) for pair in zip(*GOALS)], 0)}

    def success(self, data: Data, memory: Any) -> Array:
        """Within `tolerance`."""
        return distance(self.hand(data), memory.goal) <= self.tolerance

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """Adds `reach`: nearness of the goal."""
        reach = near(distance(self.hand(data), memory.goal))
        return {**super().terms(before, data, action, memory), "reach": reach}

    def expert(self) -> Expert:
        """`reach`."""
        return script.expert(self, reach=script.reach)

    def markers(self, state: State) -> list[Marker]:
        """The goal."""
        return [goal_marker(state.memory.goal)]


def goal_marker(goal: Any) -> Marker:
    """A small sphere at `goal` [3]."""
    x, y, z = map(float, goal)
    return ((x, y, z), 0.02, GOAL_COLOUR)
