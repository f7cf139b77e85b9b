"""From a resolved config to objects: env, objective, learner, controller; and back from a run directory."""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from repertoire.algos import trainer
from repertoire.algos.adapter import Adapter
from repertoire.algos.dagger import DAggerConfig
from repertoire.algos.imitation import Imitator
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.algos.sac import SACConfig
from repertoire.algos.sac_learner import SACLearner
from repertoire.algos.signals import TaskChannel
from repertoire.algos.types import AnyLearner
from repertoire.envs import registry as envs
from repertoire.errors import UserError, typed, unknown, words
from repertoire.experiment import checkpoints
from repertoire.experiment.run_dir import RunDir
from repertoire.high_level import frozen, options
from repertoire.high_level import registry as controllers
from repertoire.high_level.macro_env import MacroEnv
from repertoire.scripts import checks, pinning
from repertoire.skills import adapters, commands
from repertoire.skills.library import Library
from repertoire.skills.objectives import registry as objectives

Config = Mapping[str, Any]

#: `algo.name` -> settings and learner.
ALGOS: dict[str, tuple[type, Any]] = {"ppo": (PPOConfig, Learner), "sac": (SACConfig, SACLearner)}


def prepare(config: Config) -> None:
    """Check what every run has, set numerics and the compilation cache, before anything is compiled."""
    checks.settings(config)
    precision = str(config.get("matmul_precision", "highest"))
    jax.config.update("jax_default_matmul_precision", None if precision == "default" else precision)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "repertoire" / "jax"))
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def check(config: Config) -> None:
    """`prepare` for a run that is to be trained, and its learner's settings: all that can be judged without an env."""
    checks.run(config)
    prepare(config)
    if "algo" in config:
        algo_of(config)


def algo_of(config: Config) -> tuple[str, Any]:
    """Name and settings of the learner of a config."""
    settings = dict(config["algo"])
    name = settings.pop("name", "ppo")
    if name not in ALGOS:
        raise unknown("algo.name", name, ALGOS)
    return name, dataclass_of(ALGOS[name][0], settings, "algo")


def dataclass_of(cls: type, values: Config, kind: str) -> Any:
    """`cls(**values)` with unknown names and wrong types answered in one line; lists become tuples."""
    hints = typing.get_type_hints(cls)
    kwargs = {}
    for key, value in values.items():
        if key not in hints:
            raise unknown(f"setting of {kind}", f"{kind}.{key}", [f"{kind}.{h}" for h in hints])
        kwargs[key] = typed(f"{kind}.{key}", value, hints[key])
    return cls(**kwargs)


def env_of(config: Config) -> Any:
    """Env of a config, on its physics backend."""
    options = dict(config["env"])
    return envs.make(options.pop("name"), config.get("physics", "auto"), **options)


def learner_of(kind: str, config: Config, env: Any = None) -> AnyLearner:
    """The learner of a training config, in its own env or in `env`; `kind` is the run's kind."""
    if kind == "imitate":
        return imitator_of(config, env or env_of(config))
    name, algo = algo_of(config)
    env, objective, features = env or env_of(config), None, None
    if kind == "train-skills":
        objective, features = objective_of(config, env)
    if kind == "train":
        _check_policy_command(config, env)
    if kind == "train-controller":
        env = macro_of(config, env, algo.gamma)
        algo = dataclasses.replace(algo, gamma=algo.gamma**env.hold)
    updates = _updates(config, algo.envs * algo.rollout * getattr(env, "hold", 1))
    extra = {"adapter": adapter} if (adapter := adapter_of(config, env, name)) else {}
    return ALGOS[name][1](env, algo, objective, features, updates, tasks_of(config), **extra)


def imitator_of(config: Config, env: Any) -> Imitator:
    """Learner of the stages of the task's expert."""
    dagger = dataclass_of(DAggerConfig, config["dagger"], "dagger")
    if config["channels"]:
        raise UserError("channels are for learning from rewards: imitate has none")
    return Imitator(env, envs.expert_of(env), dagger, _updates(config, dagger.envs * dagger.rollout))


def _updates(config: Config, steps: int) -> int:
    """Updates of `steps` env steps each that make up `total_steps`."""
    if config["total_steps"] < 1:
        raise UserError(f"total_steps must be at least 1, got {config['total_steps']}")
    return -(-int(config["total_steps"]) // steps)


def tasks_of(config: Config) -> tuple[TaskChannel, ...]:
    """Reward channels of the env's own terms: `channels.<name>={terms: [...], weight: ...}`."""
    rows = {n: {k: v for k, v in dict(c or {}).items() if v is not None} for n, c in config["channels"].items()}
    return tuple(dataclass_of(TaskChannel, {"name": n, **c}, f"channels.{n}") for n, c in rows.items())


def objective_of(config: Config, env: Any) -> tuple[Any, tuple[str, ...] | None]:
    """Objective and its feature slices; objectives that tell slices apart learn from `env` where they lie."""
    options, seen = {k: v for k, v in config["objective"].items() if k != "features"}, features_of(config)
    name = options.pop("name")
    if seen is not None:
        _check_features(env, seen)
    if "layout" in objectives.fields(name):
        sizes = {s.name: s.width for s in env.spec.obs.groups["features"]}
        options["layout"] = [[n, sizes[n]] for n in (sizes if seen is None else seen)]
    return objectives.make(name, **_typed_options(name, options)), seen


def features_of(config: Config) -> tuple[str, ...] | None:
    """Feature slices that the objective sees; None for all."""
    told = config["objective"].get("features")
    return None if told is None else words("objective.features", told)


def _typed_options(name: str, options: Config) -> dict[str, Any]:
    """`options` of objective `name`, those of known types checked."""
    hints = {**objectives.hints(name), "skills": int, "hold": int}
    return {k: typed(f"objective.{k}", v, hints[k]) if k in hints and v is not None else v for k, v in options.items()}


def macro_of(config: Config, env: Any, gamma: float) -> MacroEnv:
    """Macro env of a controller config over library skills."""
    settings = pinning.scaled(config)["controller"]
    kind, hold = controllers.kind_of(settings.pop("kind")), typed("controller.hold", settings.pop("hold"), int)
    ends = {f.name: settings.pop(f.name) for f in dataclasses.fields(options.TerminationConfig) if f.name in settings}
    ending = dataclass_of(options.TerminationConfig, ends, "controller")
    reads = words("controller.reads", settings.pop("reads", None) or ())
    if not kind.trained:  # the other settings are its rule's
        settings = {f.name: settings[f.name] for f in dataclasses.fields(kind.config)}
    _check_command(config, env)
    chosen = dataclass_of(kind.config, settings, "controller")
    store = Library(config["library"])
    skills = tuple(frozen.load(store, r) for r in pinning.references(config))
    env = options.macro_env(env, kind.make(skills, env.spec, chosen), hold, gamma, ending, reads)
    for note in env.notes:
        print(f"note: {note}")
    return env


def _check_command(config: Config, env: Any) -> None:
    """`UserError` now, not when the entry is frozen in the end."""
    commands.command_slices(env.spec, config["command"], typed("command_range", config["command_range"], float))


def _check_policy_command(config: Config, env: Any) -> None:
    if config.get("command") is None:
        return
    if config.get("name") is None:
        raise UserError("command is what a library entry can be told: say which by name=")
    if (config.get("adapter") or {}).get("base"):
        raise UserError("command is for policies from scratch: leave adapter.base or command away")
    _check_command(config, env)


def adapter_of(config: Config, env: Any, algo: str) -> Adapter | None:
    """What `adapter.base` asks for; None without."""
    settings = dict(config.get("adapter") or {"base": None})
    base, latent = settings.pop("base"), settings.pop("latent", None)
    if base is None:
        for name, told in (("latent", latent is not None), ("count", settings.get("count", 1) != 1)):
            if told:
                raise UserError(f"adapter.{name} needs adapter.base: the library entry that is adapted")
        return None
    if algo != "ppo":
        raise UserError(f"adapters are trained with algo=ppo, not with algo={algo}")
    if latent is not None and not (isinstance(latent, list) and all(isinstance(x, int | float) for x in latent)):
        raise UserError(f"adapter.latent must be a list of numbers, got {latent!r}")
    hints = {"rank": int, "scale": float, "count": int, "matrix_lr": float}
    size = {k: typed(f"adapter.{k}", settings[k], hint) for k, hint in hints.items() if k in settings}
    more = {k: size.pop(k) for k in ("count", "matrix_lr") if k in size}  # a run of one adapter keeps neither
    one = adapters.adapt(frozen.load(Library(config["library"]), base), env.spec, latent, **size)
    return one if more.get("count", 1) == 1 else _inventory_of(one, env, **more)


def _inventory_of(one: Adapter, env: Any, count: int, matrix_lr: float) -> Adapter:
    """Adapters like `one`; each is a library entry by its number, beside one of each task by its name."""
    made = adapters.several(one, env.spec, count, matrix_lr)
    if taken := sorted({str(i) for i in range(count)} & set(env.task.tasks)):
        raise UserError(f"a task called {taken[0]!r} cannot be told from adapter {taken[0]}: give it another name")
    return made


def _check_features(env: Any, features: tuple[str, ...]) -> None:
    try:
        env.spec.obs.index("features", features)
    except KeyError as error:
        raise UserError(f"objective.features: {error.args[0]}") from None


def restore(run: RunDir, learner: AnyLearner) -> tuple[int, Any]:
    """(update, state) of the newest intact checkpoint of a run. Raises `UserError` when there is none."""
    seeds = int(run.config["num_seeds"])
    template = jax.eval_shape(trainer.programs(learner, seeds).init, trainer.seed_keys(run.config["seed"], seeds))
    found = checkpoints.restore_latest(run.checkpoints, template, warn=lambda line: print(f"warning: {line}"))
    if found is None:
        raise UserError(f"{run.path} holds no checkpoint yet: train it first (the same command resumes it)")
    return found


def label(config: Config) -> str:
    """Name of a config's env for runs and library entries; a file or a foreign id is part of it."""
    env = config["env"]
    parts = str(env.get("id") or env.get("file") or "").removesuffix(".xml").replace(":", "/").split("/")
    which = parts[-2] if parts[-1] == "scene" and len(parts) > 1 else parts[-1]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{env['name']}_{which}" if which else str(env["name"]))
