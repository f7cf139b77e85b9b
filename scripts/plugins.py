"""Other people's envs and objectives by name: installed packages with an entry point in the group `repertoire.plugins`.

The entry point names a module; importing it puts what it has into `envs.registry.TASKS` and
`skills.objectives.registry.OBJECTIVES`. A package may hold a package `configs`, laid out as ours, for settings.
"""

from __future__ import annotations

import functools
import importlib.resources
import importlib.util
import sys
from importlib import metadata
from pathlib import Path

from repertoire.errors import UserError
from repertoire.experiment.manifest import PLUGINS


@functools.cache
def load() -> tuple[str, ...]:
    """Import every plugin: names of their modules. Raises `UserError` for one that cannot be imported."""
    modules = tuple(_imported(entry) for entry in sorted(metadata.entry_points(group=PLUGINS)))
    if modules:
        _store()
    return modules


def searched() -> list[str]:
    """The Hydra override that finds their configs; none without."""
    packages = _configs()
    return [f"hydra.searchpath=[{','.join(f'pkg://{p}' for p in packages)}]"] if packages else []


def names(group: str) -> set[str]:
    """Options that plugins add to a config group."""
    folders = (Path(str(importlib.resources.files(p))) / group for p in _configs())
    known = _registered().get(group, set()) if load() else set()
    return known | {f.stem for folder in folders for f in folder.glob("*.yaml")}


def _imported(entry: metadata.EntryPoint) -> str:
    try:
        return str(entry.load().__name__)
    except Exception as error:
        told = "".join(str(error).strip().splitlines()[:1])
        what = f"{type(error).__name__}: {told}"
        raise UserError(
            f"plugin {entry.name} ({entry.value}) cannot be imported: {what}; mend or uninstall it"
        ) from error


def _configs() -> list[str]:
    packages = [m for m in load() if hasattr(sys.modules[m], "__path__")]
    return [f"{p}.configs" for p in packages if importlib.util.find_spec(f"{p}.configs")]


def _registered() -> dict[str, set[str]]:
    """Config group -> names in the registries for which we have no file."""
    from repertoire.envs.registry import TASKS
    from repertoire.skills.objectives.registry import OBJECTIVES

    ours = Path(str(importlib.resources.files("repertoire.configs")))
    found = {"env": set(TASKS), "objective": set(OBJECTIVES)}
    return {group: {n for n in known if not (ours / group / f"{n}.yaml").exists()} for group, known in found.items()}


def _store() -> None:
    """So that a name in a registry is an option without a file; a file of that name comes first."""
    from hydra.core.config_store import ConfigStore

    for group, known in _registered().items():
        for name in known:
            ConfigStore.instance().store(name, {"name": name}, group=group, provider="repertoire.plugins")
