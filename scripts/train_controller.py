"""`train-controller`: the same learner over a macro env of frozen skills, or a planner that needs none."""

from __future__ import annotations

from typing import Any

from repertoire.errors import UserError
from repertoire.experiment.run_dir import RunDir
from repertoire.scripts import config, planning
from repertoire.scripts.train import learn
from repertoire.skills.library import Library

KIND = "train-controller"


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("train_controller", args, run)


def run(cfg: dict[str, Any]) -> RunDir:
    """Train, evaluate, draw; the skills' content hashes must not have moved meanwhile."""
    store = Library(cfg["library"])
    references = cfg["skills"] if isinstance(cfg["skills"], list) else [cfg["skills"]]
    before = {r: store.load(r).digest() for r in references}
    name = f"controller-{cfg['env']['name']}-{cfg['controller']['kind']}"
    done = (planning.run if planning.is_planned(cfg) else learn)(KIND, cfg, name)
    moved = [r for r, digest in before.items() if store.load(r).digest() != digest]
    if moved:
        raise UserError(f"frozen skills changed during training: {', '.join(moved)}")
    return done
