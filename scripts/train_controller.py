"""`train-controller`: a learner over a macro env of frozen skills, frozen in turn; or a planner that needs none."""

from __future__ import annotations

import functools
from typing import Any

from repertoire.errors import UserError
from repertoire.experiment.run_dir import RunDir
from repertoire.high_level import frozen
from repertoire.scripts import build, checks, config, inventory, pinning, planning
from repertoire.scripts.train import entries, learn
from repertoire.skills.library import Library

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
    skills = learner.env.composer.skills
    tasks = inventory.of_tasks(run_dir, learner, state, found, default, lambda index: skills)
    return kept | ({"tasks": tasks} if tasks else {})


def _unmoved(before: dict[str, str], cfg: dict[str, Any]) -> None:
    moved = [r for r, digest in _digests(cfg).items() if before[r] != digest]
    if moved:
        raise UserError(f"frozen skills changed during training: {', '.join(moved)}")


def _digests(cfg: dict[str, Any]) -> dict[str, str]:
    store = Library(cfg["library"])
    return {r: store.load(r).digest() for r in pinning.references(cfg)}
