"""Names of all envs, and how to make one."""

from __future__ import annotations

import dataclasses
from typing import Any

from repertoire.envs import physics
from repertoire.envs.mujoco_env import MujocoEnv, env_spec
from repertoire.envs.task import Task
from repertoire.envs.tasks import ant, forward, go2, goals, humanoid_skills, humanoids, hurdle, point, robots
from repertoire.envs.tasks.panda import cubes, drawer, place, reach
from repertoire.envs.types import EnvSpec
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
        hurdle.HalfCheetahHurdle,
        point.Point,
        point.PointDisc,
        point.PointMaze,
        reach.PandaReach,
        place.PandaPush,
        place.PandaPickPlace,
        place.PandaStack,
        drawer.PandaDrawer,
        drawer.PandaScene,
        cubes.PandaCube,
        go2.Go2,
        go2.Go2Velocity,
        humanoids.G1,
        humanoid_skills.G1Walking,
        humanoid_skills.G1Reaching,
        humanoid_skills.G1Squatting,
        humanoid_skills.G1Stepping,
        humanoids.H1,
        humanoid_skills.H1Walking,
        humanoid_skills.H1Reaching,
        humanoid_skills.H1Squatting,
        humanoid_skills.H1Stepping,
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
        others = {key: value for key, value in options.items() if key != "weights"}
        options["weights"] = _weights(cls(**others), options["weights"])
    return cls(**options)


def describe(name: str | None = None) -> list[dict[str, Any]]:
    """What there is, as plain data for `repertoire envs`: all envs, or `name` alone, with default options.

    One dictionary per env: name, doc, options (default values), obs (group -> slices), rewards (term -> weight),
    actions (names), dt [s], episode_length [control steps].
    """
    return [_describe(make_task(n)) for n in (TASKS if name is None else (name,))]


def _describe(task: Task) -> dict[str, Any]:
    options = {f.name: getattr(task, f.name) for f in dataclasses.fields(task) if f.name != "weights"}
    groups = task.obs_spec().groups
    return {
        "name": task.name,
        "doc": task.doc,
        "options": options,
        "obs": {group: [dataclasses.asdict(s) for s in slices] for group, slices in groups.items()},
        "rewards": dict(task.weights),
        "actions": list(task.action_names()),
        "dt": task.substeps * float(task.model.opt.timestep),
        "episode_length": task.episode_length,
    }


def _weights(task: Task, overrides: dict[str, float]) -> dict[str, float]:
    """Reward weights of `task`, which has the other options, with overrides; an unknown term is an error."""
    weights = dict(task.weights)
    for term, weight in overrides.items():
        if term not in weights:
            raise (
                unknown(f"reward term of env {task.name}", term, weights)
                if weights
                else UserError(f"env {task.name} has no reward terms")
            )
        weights[term] = float(weight)
    return weights


def make(name: str, physics_backend: str = "auto", **options: Any) -> MujocoEnv:
    """Env `name` on a physics backend (`auto`, `native`, `warp`, `mjx`)."""
    task = make_task(name, **options)
    return MujocoEnv(task, physics.make(physics_backend, task.model, task.fields))


def make_spec(name: str, **options: Any) -> EnvSpec:
    """`EnvSpec` of an env without building a physics backend."""
    task = make_task(name, **options)
    return env_spec(task, task.model)
