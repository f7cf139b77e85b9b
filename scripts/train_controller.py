"""`train-controller`: a learner over a macro env of frozen skills, frozen in turn; or a planner that needs none."""

from __future__ import annotations

import functools
from typing import Any

from repertoire.errors import UserError
from repertoire.experiment.run_dir import RunDir
from repertoire.high_level import frozen
from repertoire.scripts import build, config, planning
from repertoire.scripts.train import entries, learn
from repertoire.skills.library import Library

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
    cfg = run_dir.config
    _unmoved(before, cfg)
    freeze = functools.partial(frozen.freeze, command=cfg["command"], command_range=cfg["command_range"])
    return entries(run_dir, learner, state, found, freeze, f"{build.label(cfg)}-{cfg['controller']['kind']}")


def _unmoved(before: dict[str, str], cfg: dict[str, Any]) -> None:
    moved = [r for r, digest in _digests(cfg).items() if before[r] != digest]
    if moved:
        raise UserError(f"frozen skills changed during training: {', '.join(moved)}")


def _digests(cfg: dict[str, Any]) -> dict[str, str]:
    store = Library(cfg["library"])
    return {r: store.load(r).digest() for r in build.references(cfg)}
