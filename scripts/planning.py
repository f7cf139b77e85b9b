"""`train-controller` where no policy is trained: planners, skill graphs and scripts, evaluated like all controllers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from repertoire.envs import registry as envs
from repertoire.errors import UserError, typed, unknown
from repertoire.experiment import console, matrices
from repertoire.experiment.files import guard_writes, read_json, write_json
from repertoire.experiment.run_dir import RunDir
from repertoire.high_level import dynamics, dynamics_fit, goals, graph, handoff, navigate, plan, route, script, search
from repertoire.high_level import registry as controllers
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.rules import Decider, position_index
from repertoire.scripts import build, session, task_draw, task_eval

Config = Mapping[str, Any]
#: Arrays and figures that a run keeps.
Kept = tuple[dict[str, np.ndarray], dict[str, float]]
#: (run, seed) -> what decides, of a seed, and the figures that were measured on the way.
Maker = Callable[[RunDir, int], tuple[Decider, dict[str, float]]]
MODELS = ("simulator", "learned")


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
    env = macro_of(cfg, cfg["env"])
    return env, MAKERS[cfg["controller"]["kind"]](cfg, env)


def _make(opened: RunDir, env: MacroEnv, maker: Maker) -> Made:
    _announce(opened, env)
    first = int(opened.config["seed"])
    return Made(env, [maker(opened, first + i) for i in range(int(opened.config["num_seeds"]))])


def macro_of(cfg: Config, env: Config) -> MacroEnv:
    """The macro env that the controller of `cfg` acts in, over env config `env`; nothing is frozen, so no `command`."""
    resolved = {**cfg, "env": env, "command": None}
    return build.macro_of(resolved, build.env_of(resolved), float(cfg["algo"]["gamma"]))


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


def _plan(cfg: Config, env: MacroEnv) -> Maker:
    """CEM or MPPI, in the simulator or in learned skill dynamics."""
    controller = cfg["controller"]
    if controller["model"] not in MODELS:
        raise unknown("controller.model", controller["model"], MODELS)
    settings = build.dataclass_of(search.SearchConfig, controller["search"], "controller.search")
    cost = build.dataclass_of(plan.Cost, controller["cost"], "controller.cost")
    if controller["model"] == "learned":
        plan.placed(env.env.spec)  # fails here, not when the dynamics are fitted
    plan.check(env, cost)
    for note in plan.notes(env, settings):
        print(f"note: {note}")
    if controller["model"] == "simulator":
        rule = plan.planner(env, plan.simulated(env, cost), settings)
        return lambda opened, seed: (rule, {})
    config = build.dataclass_of(dynamics_fit.DynamicsConfig, controller["dynamics"], "controller.dynamics")
    position, worlds = position_index(env.env.spec), _worlds(cfg, least=2)

    def fitted(seed: int) -> Kept:
        steps = -(-int(cfg["total_steps"]) // (worlds * env.hold))
        collect_key, fit_key = jax.random.split(jax.random.key(seed))
        found, figures = dynamics_fit.fit(
            dynamics_fit.collect(env, collect_key, worlds, steps), config, position, fit_key
        )
        print(f"dynamics: held-out error {figures['error']:.3g}, of the position {figures['position_error_m']:.3g} m")
        return found.arrays(), {f"dynamics_{k}": v for k, v in figures.items()}

    def maker(opened: RunDir, seed: int) -> tuple[Decider, dict[str, float]]:
        arrays, figures = _kept(opened, f"dynamics-s{seed}-{int(cfg['total_steps'])}", lambda: fitted(seed))
        return plan.planner(env, plan.imagined(env, dynamics.from_arrays(arrays), cost), settings), figures

    return maker


def _graph(cfg: Config, env: MacroEnv) -> Maker:
    """Measured hand-offs, searched."""
    controller, worlds = cfg["controller"], _worlds(cfg, least=1)
    run_up = typed("controller.run_up", controller["run_up"], int)
    config = build.dataclass_of(navigate.NavigateConfig, controller["navigate"], "controller.navigate")
    ground = macro_of(cfg, _open_ground(cfg, env))
    handoff.check(ground)

    def measured(seed: int) -> Kept:
        found = handoff.measure(ground, jax.random.key(seed), worlds, run_up)
        return dict(found._asdict()), found.figures()

    def maker(opened: RunDir, seed: int) -> tuple[Decider, dict[str, float]]:
        arrays, figures = _kept(opened, f"handoffs-s{seed}", lambda: measured(seed))
        found = handoff.HandOffs(**arrays)
        title = f"{opened.name}: share of hand-offs that succeed"
        matrices.heatmap(
            opened.plots / "handoffs.png", found.success, title=title, xlabel="then", ylabel="after option"
        )
        edges = graph.graph_of(found, config.least, ground.env.spec.name)
        return navigate.navigator(env, edges, navigate.field_of(env, edges, config)), figures

    return maker


def _open_ground(cfg: Config, env: MacroEnv) -> dict[str, Any]:
    """Env in which hand-offs are measured: the robot as in `env` (`terminate`, `smooth`, ...), nothing in its way.

    What only `env` has is about its goals and walls; neither rewards nor the length of episodes count in a hand-off.
    """
    name = cfg["controller"]["measured_on"] or env.composer.skills[0].manifest["env"]
    if name == cfg["env"]["name"]:
        return dict(cfg["env"])
    shared = envs.shared_options(getattr(env.env, "task", None), name)
    return {"name": name, **{k: v for k, v in shared.items() if k not in ("weights", "tasks", "episode_length")}}


def _script(cfg: Config, env: MacroEnv) -> Maker:
    """Stages of the config."""
    rule = script.machine(script.stages_of(env, cfg["controller"]["script"]))
    return lambda opened, seed: (rule, {})


def _zero_shot(cfg: Config, env: MacroEnv) -> Maker:
    """The goal rule of the skill set."""
    rule = goals.zero_shot(env)
    return lambda opened, seed: (rule, {})


def _route(cfg: Config, env: MacroEnv) -> Maker:
    """The goal rule, led around walls."""
    config = build.dataclass_of(route.RouteConfig, cfg["controller"]["route"], "controller.route")
    rule = route.router(env, config)
    return lambda opened, seed: (rule, {})


def _random(cfg: Config, env: MacroEnv) -> Maker:
    """Random skills."""
    rule = goals.random_skills(env)
    return lambda opened, seed: (rule, {})


#: Kind of controller without a policy -> (config, macro env) -> what makes it.
MAKERS: dict[str, Callable[[Config, MacroEnv], Maker]] = {
    "plan": _plan,
    "graph": _graph,
    "script": _script,
    "zero_shot": _zero_shot,
    "route": _route,
    "random": _random,
}


def _worlds(cfg: Config, least: int) -> int:
    worlds = typed("controller.worlds", cfg["controller"]["worlds"], int)
    if worlds < least:
        raise UserError(f"controller.worlds must be at least {least}, got {worlds}")
    return worlds


def _kept(opened: RunDir, name: str, make: Callable[[], Kept]) -> Kept:
    """(arrays, figures) that the run's folder keeps under `name`; made and written where it does not yet."""
    path = opened.path / f"{name}.safetensors"
    notes = path.with_suffix(".json")
    if not notes.exists():  # written last
        arrays, figures = make()
        with guard_writes(path):
            save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
        write_json(notes, figures)
    return load_file(path), dict(read_json(notes))


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
