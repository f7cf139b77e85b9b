"""`rollout`: videos and plots of a run, of the expert it imitates, or of the zero and random agents in its env."""

from __future__ import annotations

from typing import Any

from repertoire.algos import trainer
from repertoire.errors import UserError, unknown
from repertoire.experiment import video
from repertoire.experiment.run_dir import RunDir
from repertoire.scripts import config, evaluate, planning, session, train, train_skills

POLICIES = ("trained", "expert", "zero", "random")


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("rollout", args, run)


def run(cfg: dict[str, Any]) -> None:
    """Draw `run=`."""
    if cfg["policy"] not in POLICIES:
        raise unknown("policy", cfg["policy"], POLICIES)
    if cfg["count"] < 1:
        raise UserError(f"count must be at least 1, got {cfg['count']}")
    if video.pick_gl() is None:
        print("no OpenGL here (EGL and OSMesa both failed): writing the interactive HTML viewer instead of mp4")
    opened = _draw(cfg)
    made = sorted([*opened.videos.glob("*"), *opened.plots.glob("*.png")])
    print("\n".join(str(p) for p in made))


def _draw(cfg: dict[str, Any]) -> RunDir:
    """Draw the run and return it."""
    opened = RunDir.open(cfg["run"])
    session.check_place(opened.config, cfg["seed"])
    if planning.is_planned(opened.config) and cfg["policy"] == "trained":
        opened.config["video"] = True
        planning.draw(opened, planning.made(opened, cfg["physics"]), cfg["count"], cfg["start_seed"], cfg["seed"])
        return opened
    if cfg["policy"] == "expert" and opened.kind != "imitate":
        raise UserError(f"run {opened.name} imitates no expert: policy=expert is of runs of imitate")
    opened, learner, state = evaluate.load(cfg)
    opened.config["video"] = True
    if opened.kind == "train-skills" and cfg["policy"] == "trained":
        one = trainer.seed_state(state, cfg["seed"], int(opened.config["num_seeds"]))
        mark = session.mark(opened.config, cfg["seed"])
        train_skills.draw(opened, learner, one, mark, True, cfg["count"], cfg["start_seed"])
    else:
        train.draw(opened, learner, state, cfg["policy"], cfg["count"], cfg["start_seed"], cfg["seed"])
    return opened
