"""What decides where no policy is trained, made from a config: planners, skill graphs, scripts, rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from repertoire.envs import registry as envs
from repertoire.errors import UserError, at_least, typed, unknown
from repertoire.experiment import matrices
from repertoire.experiment.files import guard_writes, read_json, write_json
from repertoire.experiment.run_dir import RunDir
from repertoire.high_level import dynamics, dynamics_fit, goals, graph, handoff, navigate, plan, route, script, search
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.rules import Decider, position_index
from repertoire.scripts import build

Config = Mapping[str, Any]
#: Arrays and figures that a run keeps.
Kept = tuple[dict[str, np.ndarray], dict[str, float]]
#: (run, seed) -> what decides, of a seed, and the figures that were measured on the way.
Maker = Callable[[RunDir, int], tuple[Decider, dict[str, float]]]
MODELS = ("simulator", "learned")


def macro_of(cfg: Config, env: Config) -> MacroEnv:
    """The macro env that the controller of `cfg` acts in, over env config `env`; nothing is frozen, so no `command`."""
    resolved = {**cfg, "env": env, "command": None}
    return build.macro_of(resolved, build.env_of(resolved), float(cfg["algo"]["gamma"]))


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
    at_least("controller.run_up", run_up, 1)
    config = build.dataclass_of(navigate.NavigateConfig, controller["navigate"], "controller.navigate")
    navigate.task_of(env)  # fails here, not when the hand-offs are measured
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
