"""Hydra, and nothing but: overrides to a plain nested dict, with errors a person can act on."""

from __future__ import annotations

import importlib.resources
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from repertoire.errors import UserError, unknown
from repertoire.scripts import plugins

#: What people type -> what Hydra calls it.
ALIASES = {"task": "env", "launcher": "hydra/launcher", "model": "env.file", "id": "env.id"}
LAUNCHERS = {"slurm": "submitit_slurm", "submitit": "submitit_local", "local": "basic", "ray": "ray"}
#: Groups whose options are open: checked by what they configure, not by Hydra.
OPEN = ("env.", "objective.", "channels.", "downstream.", "env_options.")
GROUPS = ("env", "algo", "objective", "controller", "comparison", "preset")


def compose(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Resolved config `name` with overrides. Raises `UserError` for unknown keys, groups and bad syntax."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    _check_open(name, overrides)
    try:
        with initialize_config_module("repertoire.configs", version_base="1.3"):
            config = hydra_compose(name, [*plugins.searched(), *map(translate, overrides)])
        return dict(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or "a setting"
        raise UserError(f"{key} is required: give {key}=...") from None
    except (HydraException, OmegaConfBaseException) as error:
        raise _friendly(name, overrides, error) from None


def _check_open(name: str, overrides: Sequence[str]) -> None:
    """An open group takes any key, but only where the verb has that group at all."""
    known = _load(name)
    for override in overrides:
        key = override.partition("=")[0]
        key = ALIASES.get(key, key)
        if key.startswith(OPEN) and key.split(".")[0] not in known:
            raise unknown(f"setting of {name.replace('_', '-')}", key, known)


def translate(override: str) -> str:
    """Our spelling of an override -> Hydra's: aliases, launcher names, open groups."""
    if override in ("--check", "check"):
        return "check=true"
    key, equals, value = override.partition("=")
    if not equals or key.startswith(("-", "+", "~")):
        if not override.startswith(("+", "~")):
            raise UserError(f"cannot read {override!r}: settings are written key=value")
        return override
    key = ALIASES.get(key, key)
    if key == "hydra/launcher":
        if value not in LAUNCHERS and value not in LAUNCHERS.values():
            raise unknown("launcher", value, LAUNCHERS)
        value = LAUNCHERS.get(value, value)
    if key.startswith(OPEN):
        key = f"++{key}"
    return f"{key}={value}"


def main(name: str, args: list[str], run: Callable[[dict[str, Any]], Any]) -> None:
    """Entry of a verb: `--help` prints its config, `-m` sweeps, otherwise compose once and run."""
    if any(a in ("-h", "--help") for a in args):
        print(_help(name))
        return
    if any(a in ("-m", "--multirun") for a in args):
        _sweep(name, [a for a in args if a not in ("-m", "--multirun")], run)
        return
    run(compose(name, args))


def _sweep(name: str, overrides: list[str], run: Callable[[dict[str, Any]], Any]) -> None:
    """Hydra's multirun: local, or through a launcher plugin. Each job has a run directory of its own."""
    import hydra
    from omegaconf import OmegaConf

    from repertoire.scripts import build

    for overridden in jobs(name, overrides):  # bad input fails here, before any job
        build.check(compose(name, overridden))
    own = [*plugins.searched(), "hydra.output_subdir=null"]
    sys.argv = [sys.argv[0], "-m", *map(translate, overrides), *own]

    swept = _swept(name, overrides)

    def job(config: Any) -> None:
        plugins.load()  # a launcher's process is a new one
        resolved = dict(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]
        run(resolved | _own_names(resolved, swept))

    job.__module__ = "repertoire.scripts.config"
    hydra.main(version_base="1.3", config_path="pkg://repertoire.configs", config_name=name)(job)()


def jobs(name: str, overrides: Sequence[str]) -> list[list[str]]:
    """Overrides of every job of a sweep, without the launcher. Raises `UserError` for what cannot be read."""
    choices = []
    for override, parsed in zip(overrides, _parsed(name, overrides), strict=True):
        key = override.partition("=")[0]
        if ALIASES.get(key, key) != ALIASES["launcher"]:
            choices.append([f"{key}={v}" for v in _values(parsed)] if parsed.is_sweep_override() else [override])
    return [list(job) for job in itertools.product(*choices)]


def _parsed(name: str, overrides: Sequence[str]) -> list[Any]:
    """Hydra's reading of each override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return list(OverridesParser.create().parse_overrides([translate(o) for o in overrides]))
    except HydraException as error:
        raise _friendly(name, overrides, error) from None


def _values(parsed: Any) -> list[str]:
    """The values that an override goes through, as they are written; `glob` goes through the options of a group."""
    from hydra.core.override_parser.types import Glob
    from hydra.errors import HydraException

    if isinstance(told := parsed.value(), Glob):
        return list(told.filter(options(parsed.key_or_group)))
    try:
        return list(parsed.sweep_string_iterator())
    except HydraException:
        raise UserError(f"{parsed.input_line}: a sweep goes through listed values or a range") from None


def _swept(name: str, overrides: Sequence[str]) -> set[str]:
    """Names of the settings that a sweep goes through."""
    return {o.key_or_group for o in _parsed(name, overrides) if o.is_sweep_override()}


def _own_names(config: dict[str, Any], swept: set[str]) -> dict[str, Any]:
    """Run directory and library name of a job of a sweep, where the default ones do not tell it from others."""
    from hydra.core.hydra_config import HydraConfig

    if "run_dir" not in config:  # a verb that makes no runs
        return {}
    what = (config.get("objective") or {}).get("name") or (config.get("controller") or {}).get("kind")
    parts, pairs = [], (o.lstrip("+").partition("=")[::2] for o in HydraConfig.get().overrides.task)
    for key, value in pairs:
        if key in swept and key not in ("env", "seed") and value != what:
            parts.append(re.sub(r"[^A-Za-z0-9_.-]+", "_", value if key == "objective" else f"{key}={value}"))
    marks = [*parts, f"s{config['seed']}"] if parts or "seed" in swept else []
    name = "-".join([config["env"]["name"], *([what] if what else []), *marks])
    found = {"run_dir": f"runs/{name}"} if parts and config["run_dir"] is None else {}
    freezes = what or (config.get("adapter") or {}).get("base") or "dagger" in config
    return found | ({"name": name} if marks and freezes and config["name"] is None else {})


def _friendly(name: str, overrides: Sequence[str], error: Exception) -> UserError:
    """One line for a Hydra error: which override, and the nearest thing that exists."""
    from hydra.errors import OverrideParseException

    if isinstance(error, OverrideParseException):
        typed = str(error.override).removeprefix("++")
        return UserError(
            f"cannot read {typed!r}: put quotes around a word that holds one of = , [ ] {{ }} or :, and "
            "others around the whole for the shell, as in 'overrides=[\"algo.envs=32\"]'"
        )
    for override, parsed in zip(overrides, _parsed(name, overrides), strict=True):
        if parsed.is_sweep_override():
            return UserError(f"{override} is a sweep: add -m, or brackets, [a,b], where a setting is a list")
    known = _keys(_load(name))
    if name == "compare":  # its groups fill in settings of the verb itself
        known = known.union(*_settings("comparison").values())
    for override in overrides:
        key, _, value = override.lstrip("~+").partition("=")
        key = ALIASES.get(key, key)
        if key in GROUPS and key != "preset" and key not in known:  # a group, but none of this verb's
            return unknown(f"setting of {name.replace('_', '-')}", key, known)
        if key in GROUPS and "." not in key and value not in options(key):
            return unknown(key, value, options(key))
        if key.split(".")[0] not in GROUPS and key not in known:
            return unknown(f"setting of {name.replace('_', '-')}", key, known)
        if key in known or key.startswith(OPEN):
            continue
        group, _, inner = key.partition(".")
        settings = _settings(group)
        if inner and settings and not any(inner in keys for keys in settings.values()):
            return unknown("setting", key, {f"{group}.{k}" for keys in settings.values() for k in keys})
        if inner and f"'{key}'" in str(error):
            owners = " or ".join(f"{group}={name}" for name, keys in settings.items() if inner in keys)
            return UserError(f"{key} is a setting of {owners}, which is not what is chosen here")
    return UserError(str(error).strip().splitlines()[0])


def options(group: str) -> list[str]:
    """Names in a config group, plugins' too."""
    return sorted({*_files(group), *plugins.names(group)})


def _files(group: str) -> list[str]:
    """Names in a config group of ours."""
    folder = Path(str(importlib.resources.files("repertoire.configs"))) / group
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml"))


def _load(name: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    folder = Path(str(importlib.resources.files("repertoire.configs")))
    config = dict(OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml")))  # type: ignore[arg-type]
    defaults = config.pop("defaults", [])
    base = _load("run") if "run" in defaults else {}
    groups = {next(iter(d)).removeprefix("optional "): None for d in defaults if isinstance(d, dict)}
    return base | groups | config


def _settings(group: str) -> dict[str, set[str]]:
    """Option of a group -> names of its settings."""
    from omegaconf import OmegaConf

    folder = Path(str(importlib.resources.files("repertoire.configs"))) / group
    return {o: _keys(OmegaConf.to_container(OmegaConf.load(folder / f"{o}.yaml"))) for o in _files(group)}


def _keys(config: Any, prefix: str = "") -> set[str]:
    if not isinstance(config, dict):
        return set()
    names = {f"{prefix}{k}" for k in config}
    return names.union(*(_keys(v, f"{prefix}{k}.") for k, v in config.items()), set())


def _help(name: str) -> str:
    folder = Path(str(importlib.resources.files("repertoire.configs")))
    text = (folder / f"{name}.yaml").read_text()
    parts = [f"repertoire {name.replace('_', '-')} key=value ...\n", text]
    if "- run" in text:
        parts.append((folder / "run.yaml").read_text())
    parts += [f"{g}= one of: {', '.join(options(g))}" for g in GROUPS if f"- {g}:" in text]
    return "\n".join(parts)
