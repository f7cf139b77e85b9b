"""Names of all envs, and how to make one."""

from __future__ import annotations

import dataclasses
from typing import Any

from repertoire.envs import physics
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.task import Task
from repertoire.envs.tasks import ant, forward, goals, robots
from repertoire.errors import UserError, unknown

#: Registry name -> task class.
TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        ant.Ant,
        robots.HalfCheetah,
        robots.Hopper,
        robots.Walker2d,
        robots.Humanoid,
        forward.AntForward,
        forward.HalfCheetahForward,
        forward.HopperForward,
        forward.Walker2dForward,
        forward.HumanoidForward,
        goals.AntMultiGoals,
        goals.HalfCheetahGoal,
    )
}


def make_task(name: str, **options: Any) -> Task:
    """Task `name` with options (the fields of its dataclass). Raises `UserError` with the nearest name."""
    if name not in TASKS:
        raise unknown("env", name, TASKS)
    cls = TASKS[name]
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in options:
        if key not in fields:
            raise unknown(f"option of env {name}", key, fields)
    if "weights" in options:
        options["weights"] = _weights(cls, options["weights"])
    return cls(**options)


def _weights(cls: type[Task], overrides: dict[str, float]) -> dict[str, float]:
    """Default reward weights of `cls` with overrides; an unknown term is an error."""
    weights = dict(cls().weights)
    for term, weight in overrides.items():
        if term not in weights:
            raise unknown(f"reward term of env {cls.name}", term, weights) if weights else UserError(
                f"env {cls.name} has no reward terms"
            )
        weights[term] = float(weight)
    return weights


def make(name: str, physics_backend: str = "auto", **options: Any) -> MujocoEnv:
    """Env `name` on a physics backend (`auto`, `native`, `warp`, `mjx`)."""
    task = make_task(name, **options)
    return MujocoEnv(task, physics.make(physics_backend, task.model, task.fields))
