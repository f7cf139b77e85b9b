"""`imitate`: one policy for each stage of a task's expert, evaluated together and frozen one by one."""

from __future__ import annotations

from typing import Any

from repertoire.algos import trainer
from repertoire.algos.imitation import Imitator
from repertoire.experiment.run_dir import RunDir
from repertoire.scripts import build, config, session
from repertoire.scripts.train import learn
from repertoire.skills.adapters import freeze_policy
from repertoire.skills.skill import Skill

KIND = "imitate"


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("imitate", args, run)


def run(cfg: dict[str, Any]) -> RunDir:
    """Train, evaluate, draw and freeze every seed."""
    return learn(KIND, cfg, f"imitate-{build.label(cfg)}", _keep)


def _keep(run_dir: RunDir, learner: Imitator, state: Any, found: dict[str, Any]) -> dict[str, list[str]]:
    """Library entries of all stages and seeds, each with its own figures."""
    references = []
    for index, measured in enumerate(found["seeds"]):
        one = trainer.seed_state(state, index, int(run_dir.config["num_seeds"]))
        for i, stage in enumerate(learner.stages):
            figures = {k: measured[f"{k}_{stage}"] for k in ("done", "loss")}
            made = frozen(run_dir, learner, one, index, i)
            shown = f"  ({', '.join(f'{k} {v:.3g}' for k, v in figures.items())})"
            references.append(session.store(run_dir.config, made, figures, shown))
    return {"skills": references}


def frozen(run_dir: RunDir, learner: Imitator, state: Any, index: int, stage: int) -> Skill:
    """Library entry of stage number `stage` of one seed: a skill without latent."""
    cfg, name = run_dir.config, learner.stages[stage]
    entry = session.entry_name(cfg, build.label(cfg), index, name)
    origin = session.provenance(run_dir, learner, state, index) | {"imitates": f"stage {name} of the task's expert"}
    return freeze_policy(entry, learner, learner.stage_state(state, stage), origin)
