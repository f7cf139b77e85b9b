"""`train-controller`: a learner over a macro env of frozen skills, frozen in turn; or a planner that needs none."""

from __future__ import annotations

import functools
from typing import Any

from repertoire.algos import trainer
from repertoire.errors import UserError
from repertoire.experiment.run_dir import RunDir
from repertoire.high_level import frozen
from repertoire.scripts import build, checks, config, pinning, planning, session
from repertoire.scripts.train import allocations, entries, learn
from repertoire.skills import adapters
from repertoire.skills.library import Library
from repertoire.skills.skill import Skill

KIND = "train-controller"


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("train_controller", args, run)


def run(cfg: dict[str, Any]) -> RunDir:
    """Train (or make), evaluate, draw and freeze; the skills' content hashes must not have moved meanwhile."""
    checks.run(cfg)
    before = _digests(pinning.pinned(cfg, KIND))
    name = f"controller-{build.label(cfg)}-{cfg['controller']['kind']}"
    if planning.is_planned(cfg):
        if idle := [f"{k}=" for k in ("name", "command") if cfg[k] is not None]:
            print(f"note: {' and '.join(idle)} without effect: controller={cfg['controller']['kind']} freezes no entry")
        done = planning.run(KIND, cfg, name)
        _unmoved(before, done.config)
        return done
    return learn(KIND, cfg, name, functools.partial(_keep, before))


def _keep(
    before: dict[str, str], run_dir: RunDir, learner: Any, state: Any, found: dict[str, Any]
) -> dict[str, list[str]]:
    """Library entries of all seeds."""
    cfg = run_dir.config
    _unmoved(before, cfg)
    freeze = functools.partial(frozen.freeze, command=cfg["command"], command_range=cfg["command_range"])
    default = f"{build.label(cfg)}-{cfg['controller']['kind']}"
    kept = entries(run_dir, learner, state, found, freeze, default)
    return kept | _of_tasks(run_dir, learner, state, found, default)


def _of_tasks(run_dir: RunDir, learner: Any, state: Any, found: dict[str, Any], default: str) -> dict[str, list[str]]:
    """Of a task x skill matrix, a plain skill of each task and seed as a library entry `<name>-<task>`."""
    cfg, references = run_dir.config, []
    for index, rows in enumerate(allocations(run_dir, learner, state)):
        one = trainer.seed_state(state, index, int(cfg["num_seeds"]))
        origin = session.provenance(run_dir, learner, one, index)
        for task, row in rows.items():
            name = session.entry_name(cfg, default, index, task)
            try:
                made = adapters.merge(learner.env.composer.skills, list(row.values()), name)
            except UserError as error:
                print(f"note: {name} is not made, the controller does without: {error}")
                return {}
            told = {**made.manifest, "provenance": {**origin, **made.manifest["provenance"], "task": task}}
            measured = found["seeds"][index].get(f"return_{task}")
            figures = {} if measured is None else {"return": measured}
            references.append(session.store(cfg, Skill(told, made.arrays), figures))
    return {"tasks": references} if references else {}


def _unmoved(before: dict[str, str], cfg: dict[str, Any]) -> None:
    moved = [r for r, digest in _digests(cfg).items() if before[r] != digest]
    if moved:
        raise UserError(f"frozen skills changed during training: {', '.join(moved)}")


def _digests(cfg: dict[str, Any]) -> dict[str, str]:
    store = Library(cfg["library"])
    return {r: store.load(r).digest() for r in pinning.references(cfg)}
