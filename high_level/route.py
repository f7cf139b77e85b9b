"""Way points: the zero-shot goal rule, led around walls along the shortest way. Nothing is trained or measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from repertoire.algos.types import Array
from repertoire.envs.tasks.guide import Guide, guide_of
from repertoire.envs.tasks.maze import Walled
from repertoire.envs.types import State
from repertoire.errors import UserError, positive
from repertoire.high_level.goals import ZeroShot, zero_shot
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.rules import position_index


@dataclass(frozen=True)
class RouteConfig:
    """How a way is found, in sides of a cell of the maze.

    Attributes:
      cell: side of the cells that are searched. margin: distance that the root keeps from walls; 0.5 is the middle.
      ahead: how far along the way the next way point lies. Skills do not go quite where they are sent, and the nearer
        the point, the less far they stray.
    """

    cell: float = 0.05
    margin: float = 0.475
    ahead: float = 0.15

    def __post_init__(self) -> None:
        positive(self, "controller.route", "cell", "ahead")
        if not 0 <= self.margin < 0.5:
            raise UserError(f"controller.route.margin must lie in [0, 0.5), got {self.margin}")


@dataclass(frozen=True, eq=False)  # told apart by identity, as functions are: jit asks
class WayPoint:
    """Where the next way point lies from the robot, as a function of the state.

    Attributes:
      guide: the shortest ways. config: how they were found.
      position: entries of the position in the feature group. goal: reads where the goal lies from the robot.
    """

    guide: Guide
    config: RouteConfig
    position: np.ndarray
    goal: Callable[[State], Array]

    def __call__(self, state: State) -> Array:
        """Offset [2], m."""
        here = state.obs["features"][self.position]
        return self.guide.way(here, here + self.goal(state))


def router(env: MacroEnv, config: RouteConfig) -> ZeroShot:
    """The zero-shot rule towards the next way point of each place.

    Raises `UserError` for a task without walls, or a goal without a way, and where `zero_shot` does.
    """
    rule, task, spec = zero_shot(env), getattr(env.env, "task", None), env.env.spec
    if not isinstance(task, Walled):
        raise UserError(f"env {spec.name} has no walls to go around: controller=zero_shot goes straight to the goal")
    guide = guide_of(task, config.ahead * task.cell, config.cell, config.margin)
    return dataclasses.replace(rule, ahead=WayPoint(guide, config, position_index(spec), rule.ahead))
