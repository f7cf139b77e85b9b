"""Names of all envs, and how to make one."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any

from repertoire.envs import brax_env, physics, playground_env
from repertoire.envs.expert import Expert
from repertoire.envs.foreign import ForeignEnv, Options
from repertoire.envs.mujoco_env import MujocoEnv, env_spec
from repertoire.envs.task import Task
from repertoire.envs.tasks import (
    ant,
    ant_maze,
    fetch,
    forward,
    go2,
    goals,
    humanoid_skills,
    humanoids,
    hurdle,
    kitchen,
    mjcf,
    point,
    robots,
    skillbench,
)
from repertoire.envs.tasks.panda import cubes, drawer, place, reach, rearrange, scene
from repertoire.envs.types import EnvSpec
from repertoire.errors import UserError, finite, typed, unknown

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
        ant_maze.AntMaze,
        ant_maze.AntPush,
        goals.HalfCheetahGoal,
        hurdle.HalfCheetahHurdle,
        point.Point,
        point.PointDisc,
        point.PointMaze,
        reach.PandaReach,
        place.PandaPush,
        place.PandaPickPlace,
        place.PandaStack,
        rearrange.PandaRearrange,
        drawer.PandaDrawer,
        scene.PandaScene,
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
} | {task.name: task for task in skillbench.TASKS}

#: Tasks that are none without options, or without an extra: name -> class.
OPEN: dict[str, type[Task]] = {"mjcf": mjcf.Mjcf, "fetch": fetch.Fetch, "kitchen": kitchen.Kitchen}

#: Envs of other projects: name -> (options, maker, doc).
ADAPTERS: dict[str, tuple[type[Options], Callable[..., ForeignEnv], str]] = {
    "brax": (brax_env.BraxOptions, brax_env.make, "any env of Brax: id=ant"),
    "playground": (
        playground_env.PlaygroundOptions,
        playground_env.make,
        "any env of MuJoCo Playground: id=CartpoleBalance",
    ),
}


def names() -> list[str]:
    """What `env=` may be."""
    return [*TASKS, *OPEN, *ADAPTERS]


def make_task(name: str, **options: Any) -> Task:
    """Task `name` with options (the fields of its dataclass). Raises `UserError` with the nearest name."""
    known = {**TASKS, **OPEN}
    if name not in known:
        raise unknown("env", name, names())
    cls = known[name]
    options = _checked(name, cls, options)
    if "weights" in options or options.get("tasks"):
        others = {key: value for key, value in options.items() if key != "weights"}
        options["weights"] = _weights(cls(**others), options.get("weights", {}))
    if options.get("tasks"):
        options |= _several(cls(**options))
    return cls(**options)


def _checked(name: str, cls: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` as the fields of `cls` have them."""
    fields, hints = {f.name for f in dataclasses.fields(cls)}, typing.get_type_hints(cls)
    for key in options:
        if key not in fields:
            raise unknown(f"option of env {name}", key, fields)
    return {key: typed(f"env.{key}", value, hints[key]) for key, value in options.items()}


def shared_options(task: Any, name: str) -> dict[str, Any]:
    """The options that env `name` and `task` have of one class, with the values of `task`; none of what is no task."""
    if name not in TASKS or not isinstance(task, Task):
        return {}
    theirs = {f.name: _owner(TASKS[name], f.name) for f in dataclasses.fields(TASKS[name])}
    ours = [f.name for f in dataclasses.fields(task)]
    return {n: getattr(task, n) for n in ours if n in theirs and theirs[n] is _owner(type(task), n)}


def _owner(task: type, option: str) -> type:
    """The class that declared an option first: of two of one name, the same option has the same."""
    return next(c for c in reversed(task.__mro__) if option in vars(c).get("__annotations__", {}))


def expert_of(env: Any) -> Expert:
    """The expert of an env's task. Raises `UserError` for an env without one, with the names of those that have one."""
    found = env.task.expert() if isinstance(env, MujocoEnv) else None
    if found is None:
        known = ", ".join(name for name, task in TASKS.items() if task.expert is not Task.expert)
        raise UserError(f"env {env.spec.name} has no expert to imitate; there is one for: {known}")
    return found


def describe(name: str | None = None) -> list[dict[str, Any]]:
    """What there is, as plain data for `repertoire envs`: all envs, or `name` alone, with default options.

    One dictionary per env: name, doc, options (default values), obs (group -> slices), rewards (term -> weight),
    actions (names), dt [s], episode_length [control steps]. What an env must be given a model, an id or an
    extra to have is empty.
    """
    wanted = names() if name is None else [name]
    return [_describe(make_task(n)) if n in TASKS else _describe_open(n) for n in wanted]


def _describe_open(name: str) -> dict[str, Any]:
    if name not in names():
        raise unknown("env", name, names())
    cls, doc = (OPEN[name], OPEN[name].doc) if name in OPEN else (ADAPTERS[name][0], ADAPTERS[name][2])
    options = {f.name: _default(f) for f in dataclasses.fields(cls) if f.name != "weights"}
    rewards = dict.fromkeys(getattr(cls, "reward_terms", ("env",)), 0.0 if name in OPEN else 1.0)
    rewards |= next((dict(_default(f)) for f in dataclasses.fields(cls) if f.name == "weights" and name in OPEN), {})
    empty: dict[str, Any] = {"obs": {}, "rewards": rewards, "actions": [], "dt": None}
    return {"name": name, "doc": doc, "options": options, **empty, "episode_length": options["episode_length"]}


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


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
    weights = dict.fromkeys(task.known_terms(), 0.0) | dict(task.weights)
    for term, weight in overrides.items():
        if term not in weights:
            raise (
                unknown(f"reward term of env {task.name}", term, weights)
                if weights
                else UserError(f"env {task.name} has no reward terms")
            )
        weights[term] = finite(f"env.weights.{term}", weight)
    return weights


def _several(task: Task) -> dict[str, Any]:
    """`tasks` with all weights of each, and as `weights` the largest of each term: some tasks leave out those at 0."""
    tasks = {str(name): _weights(task, dict(own)) for name, own in task.tasks.items()}
    first = next(iter(tasks.values()))
    return {"tasks": tasks, "weights": {k: max(abs(row[k]) for row in tasks.values()) for k in first}}


def make(name: str, physics_backend: str = "auto", **options: Any) -> Any:
    """Env `name` on a physics backend (`auto`, `native`, `warp`, `mjx`): a `MujocoEnv`, or a `ForeignEnv`."""
    if name in ADAPTERS:
        return _make_foreign(name, physics_backend, options)
    task = make_task(name, **options)
    return MujocoEnv(task, physics.make(physics_backend, task.model, task.fields))


def _make_foreign(name: str, physics_backend: str, options: dict[str, Any]) -> ForeignEnv:
    cls, maker, _ = ADAPTERS[name]
    if physics_backend != "auto":
        raise UserError(f"env {name} brings its own physics: leave physics={physics_backend} out")
    return maker(cls(**_checked(name, cls, options)))


def make_spec(name: str, **options: Any) -> EnvSpec:
    """`EnvSpec` of an env without building a physics backend."""
    if name in ADAPTERS:
        return _make_foreign(name, "auto", options).spec
    task = make_task(name, **options)
    return env_spec(task, task.model)
