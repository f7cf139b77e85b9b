"""`train-controller` where no policy is trained: planners, skill graphs and scripts, evaluated like all controllers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from repertoire.errors import UserError, typed
from repertoire.experiment import console
from repertoire.experiment.files import write_json
from repertoire.experiment.run_dir import RunDir
from repertoire.high_level import registry as controllers
from repertoire.high_level import script
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.rules import Decider
from repertoire.scripts import build, deciders, session, task_draw, task_eval
from repertoire.scripts.deciders import Maker

Config = Mapping[str, Any]


class Made(NamedTuple):
    """A macro env, and for each seed what decides and its figures."""

    env: MacroEnv
    rules: list[tuple[Decider, dict[str, float]]]


def is_planned(config: Config) -> bool:
    """Whether a run's controller decides by a rule, without a trained policy."""
    return "controller" in config and not controllers.kind_of(config["controller"]["kind"]).trained


def run(kind: str, cfg: dict[str, Any], name: str) -> RunDir:
    """Make the controller of every seed, evaluate it against baselines, draw it."""
    count = typed("controller.episodes", cfg["controller"]["episodes"], int)
    if count < 2:
        raise UserError(f"controller.episodes must be at least 2, got {count}")
    env, maker = _checked(cfg)
    done = session.open_run(kind, cfg, name)
    try:
        ready = _make(done, env, maker)
        write_json(done.path / "evaluation.json", found := measure(done, ready, count, seed=1000))
        draw(done, ready, min(count, 8), start=2000)
        done.mark_done(updates=0)
        print(task_eval.told(found))
    finally:
        done.close()
    return done


def evaluate(opened: RunDir, count: int, seed: int, physics: str, steps: int | None = None) -> dict[str, Any]:
    """`measure` of a run on disk."""
    return measure(opened, made(opened, physics), count, seed, steps)


def made(opened: RunDir, physics: str) -> Made:
    """The controllers of a run on disk; what it measured or fitted before is read back from its folder."""
    return _make(opened, *_checked(_on(opened, physics)))


def decider(opened: RunDir, physics: str, seed: int) -> tuple[MacroEnv, Decider]:
    """The macro env of a run on disk, and what decides there: that of one seed, by its place in the batch."""
    env, maker = _checked(_on(opened, physics))
    return env, maker(opened, int(opened.config["seed"]) + seed)[0]


def _on(opened: RunDir, physics: str) -> dict[str, Any]:
    """Config of a run on disk, on a physics backend."""
    controller = dict(opened.config["controller"])
    if "script" in controller:
        controller["script"] = script.as_run(controller["script"])
    return {**opened.config, "physics": physics, "controller": controller}


def _checked(cfg: dict[str, Any]) -> tuple[MacroEnv, Maker]:
    """Macro env and maker of a config. Raises `UserError` for what is wrong, before anything is made or compiled."""
    build.prepare(cfg)
    env = deciders.macro_of(cfg, cfg["env"])
    return env, deciders.MAKERS[cfg["controller"]["kind"]](cfg, env)


def _make(opened: RunDir, env: MacroEnv, maker: Maker) -> Made:
    _announce(opened, env)
    first = int(opened.config["seed"])
    return Made(env, [maker(opened, first + i) for i in range(int(opened.config["num_seeds"]))])


def measure(opened: RunDir, ready: Made, count: int, seed: int, steps: int | None = None) -> dict[str, Any]:
    """Returns of every seed's controller, with its own figures, and of the baselines; seed i starts from `seed` + i."""
    rows = []
    for i, (rule, figures) in enumerate(ready.rules):
        found = task_eval.episodes(ready.env, rule, jax.random.key(seed + i), count, steps)
        rows.append({**task_eval.summary(found), **figures})
    kind, others = opened.config["controller"]["kind"], task_eval.controller_baselines(ready.env)
    return task_eval.table(ready.env, kind, rows, others, jax.random.key(seed), count, steps)


def draw(opened: RunDir, ready: Made, count: int, start: int, index: int = 0) -> None:
    """Plots and, where the config asks for it, a video of seed number `index`; `start` draws the starts."""
    found = task_eval.episodes(ready.env, ready.rules[index][0], jax.random.key(start), count)
    mark = session.mark(opened.config, index) if index else ""
    task_draw.draw(opened, ready.env, found, opened.config["controller"]["kind"], mark)


def _announce(opened: RunDir, env: MacroEnv) -> None:
    """What is about to happen, before anything is compiled."""
    config, controller = opened.config, opened.config["controller"]
    rows = {
        "env": f"{env.spec.name} on {session.physics_name(env)}, {env.hold} control steps per macro step",
        "controller": f"{controller['kind']}, no policy is trained",
        "seeds": f"{config['seed']} .. {config['seed'] + config['num_seeds'] - 1}",
        "results": str(opened.path),
    }
    if controller["kind"] == "plan":
        s = controller["search"]
        rolled = int(s["candidates"]) * int(s["iterations"]) * int(s["horizon"])
        rows["model"] = f"{controller['model']}, {rolled} macro steps a decision"
        rows |= {"fit": f"{config['total_steps']} env steps"} if controller["model"] == "learned" else {}
    console.plan(opened.kind, rows, quiet=config["logging"]["quiet"])
