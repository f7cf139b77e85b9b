"""What the tasks of a run are made of, and library entries of it: of an inventory, and of a matrix over skills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from repertoire.algos import trainer
from repertoire.algos.inventory import Inventory
from repertoire.errors import UserError
from repertoire.experiment.run_dir import RunDir
from repertoire.high_level import allocation
from repertoire.high_level.compose import Compose
from repertoire.scripts import session, task_eval
from repertoire.skills import adapters
from repertoire.skills.library import Library
from repertoire.skills.skill import Skill

#: Place of a seed -> the skills that are the columns of its matrix.
Columns = Callable[[int], Sequence[Skill]]


def matrices(run_dir: RunDir, learner: Any, state: Any) -> list[allocation.Allocation]:
    """What each seed makes every task of; {} of a policy that is no task x skill matrix.

    The adapters of an inventory are called by their number and, with several seeds, the seed: they are others in each.
    """
    cfg, found = run_dir.config, []
    for index, one in enumerate(_seeds(run_dir, state)):
        if isinstance(learner.adapter, Inventory):
            rows = np.asarray(learner.adapter.rows(one.params["policy"]["net"])).tolist()
            labels = [f"{i}{session.mark(cfg, index)}" for i in range(learner.adapter.count)]
            tasks = learner.env.task.tasks
            found.append({task: dict(zip(labels, row, strict=True)) for task, row in zip(tasks, rows, strict=True)})
        else:
            found.append(allocation.learned(learner.env, task_eval.trained(learner, one)))
    return found


def mean(several: Sequence[allocation.Allocation]) -> allocation.Allocation:
    """Mean over the seeds that have a skill: all have those of a controller, each has its own of an inventory."""
    return {task: task_eval.mean([one[task] for one in several]) for task in several[0]}


def of_adapters(run_dir: RunDir, learner: Any, state: Any, default: str) -> list[list[str]]:
    """Library entries `<name>-<number>` of every adapter of an inventory, for each seed."""
    cfg, references = run_dir.config, []
    for index, one in enumerate(_seeds(run_dir, state)):
        origin, own = session.provenance(run_dir, learner, one, index), []
        for i in range(learner.adapter.count):
            name = session.entry_name(cfg, default, index, str(i))
            own.append(session.store(cfg, adapters.freeze_one(name, learner, one, i, origin), {}))
        references.append(own)
    return references


def of_tasks(
    run_dir: RunDir, learner: Any, state: Any, found: dict[str, Any], default: str, columns: Columns
) -> list[str]:
    """Of a task x skill matrix, a plain skill of each task and seed as a library entry `<name>-<task>`."""
    cfg, states, references = run_dir.config, _seeds(run_dir, state), []
    for index, rows in enumerate(matrices(run_dir, learner, state)):
        origin = session.provenance(run_dir, learner, states[index], index)
        for task, row in rows.items():
            name = session.entry_name(cfg, default, index, task)
            try:
                made = adapters.merge(columns(index), list(row.values()), name)
            except UserError as error:
                print(f"note: {name} is not made, the controller does without: {error}")
                return []
            told = {**made.manifest, "provenance": {**origin, **made.manifest["provenance"], "task": task}}
            measured = found["seeds"][index].get(f"return_{task}")
            figures = {} if measured is None else {"return": measured}
            references.append(session.store(cfg, Skill(told, made.arrays), figures))
    return references


def keep(run_dir: RunDir, learner: Any, state: Any, found: dict[str, Any], default: str) -> dict[str, list[str]]:
    """The library entries of an inventory: its adapters, and what its matrix makes of them for each task."""
    store, stored = Library(run_dir.config["library"]), of_adapters(run_dir, learner, state, default)
    opened = [[store.load(r) for r in own] for own in stored]
    tasks = of_tasks(run_dir, learner, state, found, default, opened.__getitem__)
    return {"skills": [r for own in stored for r in own], "tasks": tasks}


def composed(run_dir: RunDir, learner: Any, state: Any, index: int) -> tuple[Compose, np.ndarray]:
    """The adapters of a seed's inventory as one network, and what each task has of them [K, n]."""
    origin, adapter = session.provenance(run_dir, learner, state, index), learner.adapter
    own = [adapters.freeze_one(f"adapter-{i}", learner, state, i, origin) for i in range(adapter.count)]
    return Compose(own, learner.env.spec), np.asarray(adapter.rows(state.params["policy"]["net"]))


def _seeds(run_dir: RunDir, state: Any) -> list[Any]:
    """The state of each seed."""
    seeds = int(run_dir.config["num_seeds"])
    return [trainer.seed_state(state, i, seeds) for i in range(seeds)]
