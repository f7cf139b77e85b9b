"""`train-controller`: a learner over a macro env of frozen skills, frozen in turn; or a planner that needs none."""

from __future__ import annotations

import functools
from typing import Any

from repertoire.algos import trainer
from repertoire.errors import UserError
from repertoire.experiment.run_dir import RunDir
from repertoire.high_level.frozen import freeze
from repertoire.scripts import build, config, planning, session
from repertoire.scripts.train import learn
from repertoire.skills.library import Library
from repertoire.skills.skill import Skill

KIND = "train-controller"


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("train_controller", args, run)


def run(cfg: dict[str, Any]) -> RunDir:
    """Train (or make), evaluate, draw and freeze; the skills' content hashes must not have moved meanwhile."""
    before = _digests(build.pinned(cfg, KIND))
    name = f"controller-{build.label(cfg)}-{cfg['controller']['kind']}"
    if planning.is_planned(cfg):
        done = planning.run(KIND, cfg, name)
        _unmoved(before, done.config)
        return done
    return learn(KIND, cfg, name, functools.partial(_keep, before))


def _keep(
    before: dict[str, str], run_dir: RunDir, learner: Any, state: Any, found: dict[str, Any]
) -> dict[str, list[str]]:
    """Library entries of all seeds."""
    _unmoved(before, run_dir.config)
    return {"skills": [_frozen(run_dir, learner, state, row, i) for i, row in enumerate(found["seeds"])]}


def _frozen(run_dir: RunDir, learner: Any, state: Any, measured: dict[str, Any], index: int) -> str:
    """Reference of the entry of one seed."""
    cfg = run_dir.config
    one = trainer.seed_state(state, index, int(cfg["num_seeds"]))
    name = session.entry_name(cfg, f"{build.label(cfg)}-{cfg['controller']['kind']}", index)
    origin = session.provenance(run_dir, learner, one, index)
    made = freeze(name, learner, one, origin, cfg["command"], cfg["command_range"])
    reference = Library(cfg["library"]).add(Skill({**made.manifest, "metrics": measured}, made.arrays))
    print(f"frozen: {reference}")
    return reference


def _unmoved(before: dict[str, str], cfg: dict[str, Any]) -> None:
    moved = [r for r, digest in _digests(cfg).items() if before[r] != digest]
    if moved:
        raise UserError(f"frozen skills changed during training: {', '.join(moved)}")


def _digests(cfg: dict[str, Any]) -> dict[str, str]:
    store = Library(cfg["library"])
    return {r: store.load(r).digest() for r in build.references(cfg)}
