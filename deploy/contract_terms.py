"""What a contract says of observations: what each term is made of, and what someone must tell the runner."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from repertoire.deploy.graph import Graph
from repertoire.envs.task import TASK, Task
from repertoire.envs.types import EnvSpec, Slice
from repertoire.errors import UserError

#: Before the names of terms that are feature slices, which may be called as policy slices are.
FEATURES = "features."
COMMAND = re.compile(r"command\.(\w+)")


def terms(task: Task, spec: EnvSpec, graph: Graph) -> list[dict[str, Any]]:
    """The terms of `obs`, in order. Raises `UserError` for a feature that no runner could compute."""
    by_name = {s.name: s for s in spec.obs.groups["policy"]}
    own = [_term(by_name[name], _source(task, name)) for name in graph.slices]
    return own + _features(task, spec, graph.features)


def _source(task: Task, name: str) -> str:
    """Declared source of a slice. By convention `goal` is a world position relative to the root; else a command."""
    fallback = f"command.{name}"
    root: Any = getattr(task, "root", 0)
    if name == "goal" and root:
        fallback += f" - qpos[0:{root}]"
    return task.sources().get(name, fallback)


def _features(task: Task, spec: EnvSpec, names: Sequence[str]) -> list[dict[str, Any]]:
    """Terms of feature slices, which a runner must be able to compute. Raises `UserError` for one without a source."""
    sources, by_name = task.sources(), {s.name: s for s in spec.obs.groups["features"]}
    for name in names:
        if "command." in sources.get(name, "command."):  # what is commanded is told relative to the robot
            raise UserError(
                f"the rule reads the feature {name!r}, and env {task.name} does not say what it is made of, so no "
                "runner could compute it"
            )
    return [{**_term(by_name[name], sources[name]), "name": FEATURES + name} for name in names]


def _term(s: Slice, source: str) -> dict[str, Any]:
    return {
        "name": s.name, "size": s.size, "unit": s.unit, "scale": s.scale, "clip": None, "noise": s.noise,
        "history": s.history, "source": source,
    }  # fmt: skip


def commands(task: Task, terms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The commands that `terms` are made of, each once."""
    found = {m[1]: _command(task, m[1], term) for term in terms if (m := COMMAND.search(term["source"]))}
    return list(found.values())


def _command(task: Task, name: str, term: Mapping[str, Any]) -> dict[str, Any]:
    """A command: the range it was trained on, where the task draws it from one, and for how many control steps."""
    row: dict[str, Any] = {"name": name, "size": term["size"], "unit": term["unit"], "range": None, "hold": 0}
    _, _, less = term["source"].partition(" - ")
    absolute = f"absolute: the runner subtracts {less}"
    if name in task.commands():
        ranges, steps = task.commands()[name]
        note = f"{absolute}; within its range" if less else "uniform in its range, drawn independently"
        return {**row, "range": ranges, "hold": steps, "note": note}
    if name == TASK:
        return {**row, "note": "which task is asked for, in the order of the unit, for a whole episode"}
    if name != "goal":
        return {**row, "note": absolute if less else "no declared source: compute it as the training task does"}
    half: Any = getattr(task, "goal_range", None)
    hold: Any = getattr(task, "hold", 0)
    row["hold"] = hold if isinstance(hold, int) and not isinstance(hold, bool) else 0
    if not isinstance(half, (int, float)):
        return {**row, "note": absolute if less else "position in the world frame"}
    row["range"] = [[-float(half), float(half)]] * term["size"]
    return {**row, "note": "position in the world frame; range: around the previous goal, at first the origin"}
