"""`evaluate`: deterministic evaluation of a run, from its directory alone; writes evaluation.json into it."""

from __future__ import annotations

from typing import Any

from repertoire.algos import trainer
from repertoire.errors import UserError
from repertoire.experiment.files import write_json
from repertoire.experiment.run_dir import RunDir
from repertoire.scripts import build, config, planning, skill_eval, task_eval, train, train_skills
from repertoire.skills import metrics


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("evaluate", args, run)


def run(cfg: dict[str, Any]) -> dict[str, Any]:
    """Evaluate `run=` and print the figures."""
    if cfg["rollouts"] is not None and cfg["rollouts"] < 2:
        raise UserError(f"rollouts must be at least 2, got {cfg['rollouts']}")
    if cfg["steps"] is not None and cfg["steps"] < 1:
        raise UserError(f"steps must be at least 1, got {cfg['steps']}")
    opened = RunDir.open(cfg["run"])
    cfg = {**cfg, "rollouts": cfg["rollouts"] or usual_rollouts(opened)}
    if planning.is_planned(opened.config):
        found = planning.evaluate(opened, cfg["rollouts"], cfg["start_seed"], cfg["physics"], cfg["steps"])
    else:
        opened, learner, state = load(cfg)
        measured = _skills if opened.kind == "train-skills" else _policy
        found = measured(opened, learner, state, cfg)
    write_json(path := opened.path / _file(cfg, opened), found)
    for key, value in found.items():
        if not isinstance(value, list | dict):
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            print(f"{key:32s} {shown}{_interval(found.get('intervals', {}).get(key))}")
    for rule, row in found.get("rules", {}).items():
        more = f"  reach {row['reach_m']:.4g} m" if "reach_m" in row else ""
        more += f"  success {row['success']:.3f}" if "success" in row else ""
        more += f"  error {row['goal_error']:.4g}" if "goal_error" in row else ""
        more += "".join(f"  {k.removeprefix('return_')} {row[k]:.4g}" for k in task_eval.per_task(row))
        more += "".join(f"  {k.removeprefix('mean_')} {v:.3g}" for k, v in row.items() if k.startswith("mean_"))
        print(f"{rule:12s} return {row['return']:.4g}  [{row['return_low']:.4g}, {row['return_high']:.4g}]{more}")
    print(f"written: {path}")
    return found


def _file(cfg: dict[str, Any], opened: RunDir) -> str:
    """`evaluation.json` is of the protocol that training ends with, or tables would mix; others are kept beside it."""
    usual = {"rollouts": usual_rollouts(opened), "start_seed": 1000, "steps": None}
    parts = [f"{k}{cfg[k]}" for k, v in usual.items() if cfg[k] not in (v, None)]
    return "-".join(["evaluation", *parts]) + ".json"


def usual_rollouts(opened: RunDir) -> int:
    """How many rollouts the evaluation at the end of a run has."""
    if planning.is_planned(opened.config):
        return int(opened.config["controller"]["episodes"])
    return metrics.ROLLOUTS if opened.kind == "train-skills" else train.EPISODES


def load(cfg: dict[str, Any]) -> tuple[RunDir, Any, Any]:
    """(run, learner, state) of `run=`; its config decides everything but the physics backend."""
    opened = RunDir.open(cfg["run"])
    if planning.is_planned(opened.config):
        raise UserError(f"run {opened.name} holds no trained policy: only policy=trained can be drawn of it")
    resolved = {**opened.config, "physics": cfg.get("physics", "auto")}
    build.prepare(resolved)
    learner = build.learner_of(opened.kind, resolved)
    return opened, learner, build.restore(opened, learner)[1]


def _interval(found: dict[str, float] | None) -> str:
    return f"  IQM {found['iqm']:.4g} [{found['low']:.4g}, {found['high']:.4g}]" if found else ""


def _policy(opened: RunDir, learner: Any, state: Any, cfg: dict[str, Any]) -> dict[str, Any]:
    return train.measure(opened, learner, state, cfg["rollouts"], cfg["start_seed"], cfg["steps"])


def _skills(opened: RunDir, learner: Any, state: Any, cfg: dict[str, Any]) -> dict[str, Any]:
    if cfg["steps"] is not None:
        raise UserError("steps is for runs of tasks: skills are evaluated over whole episodes")
    seeds, rows = int(opened.config["num_seeds"]), []
    for i in range(seeds):
        one = trainer.seed_state(state, i, seeds)
        skill = train_skills.frozen(opened, learner, one, i)
        found = train_skills.measure(learner, one, skill, cfg["rollouts"], cfg["start_seed"])
        rows.append({"seed": opened.config["seed"] + i, **found})
    return skill_eval.summary(learner, rows)
