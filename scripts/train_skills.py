"""`train-skills`: discover, evaluate, freeze."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from repertoire.algos import trainer
from repertoire.experiment.files import write_json
from repertoire.experiment.run_dir import RunDir
from repertoire.scripts import build, config, session, skill_eval, skill_goals, starting
from repertoire.skills import evaluate as ev
from repertoire.skills import metrics
from repertoire.skills.freezing import freeze
from repertoire.skills.skill import Skill

KIND = "train-skills"
#: Rollouts at the final evaluation, per discrete skill and of continuous ones: half train a fresh model, half test it.
PER_SKILL, CONTINUOUS = 16, 3 * metrics.ROLLOUTS


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("train_skills", args, run)


def run(cfg: dict[str, Any]) -> RunDir:
    """Train, then evaluate, draw and freeze every seed."""
    build.check(cfg)
    learner = build.learner_of(KIND, cfg)  # evaluates: in episodes that begin as the env says
    trained = build.learner_of(KIND, cfg, starting.env_of(cfg)) if cfg["starts"]["skills"] else learner
    compiled = session.programs(cfg, trained)
    done = session.open_run(KIND, cfg, f"skills-{_default_name(cfg)}")
    try:
        evaluate = skill_eval.evaluator(learner, cfg["num_seeds"])
        state = session.train(done, trained, compiled, evaluate)
        finish(done, learner, state)
    finally:
        done.close()
    return done


def finish(run_dir: RunDir, learner: Any, state: Any) -> list[str]:
    """Evaluation, pictures and library entries of a trained run; returns the references."""
    cfg, seeds = run_dir.config, int(run_dir.config["num_seeds"])
    references, rows = [], []
    for i in range(seeds):
        one = trainer.seed_state(state, i, seeds)
        skill = frozen(run_dir, learner, one, i)
        found = measure(learner, one, skill)
        rows.append({"seed": cfg["seed"] + i, **found})
        picture = draw(run_dir, learner, one, session.mark(cfg, i), with_video=cfg["video"] and i == 0)
        references.append(session.store(cfg, skill, found, _headline(found), picture))
    write_json(run_dir.path / "evaluation.json", skill_eval.summary(learner, rows))
    run_dir.mark_done(skills=references, updates=learner.total_updates)
    return references


def _default_name(cfg: Mapping[str, Any]) -> str:
    """Skills that start where others leave off have a name of their own, as those others may have the plain one."""
    name = f"{build.label(cfg)}-{cfg['objective']['name']}"
    return f"{name}-starts" if (cfg.get("starts") or {}).get("skills") else name


def frozen(run_dir: RunDir, learner: Any, state: Any, index: int) -> Skill:
    """Skill of one seed, with provenance."""
    cfg = run_dir.config
    name = session.entry_name(cfg, _default_name(cfg), index)
    provenance = session.provenance(run_dir, learner, state, index)
    return freeze(name, learner, state, provenance, build.features_of(cfg))


def measure(
    learner: Any, state: Any, skill: Skill, rollouts: int = metrics.ROLLOUTS, seed: int = 1000
) -> dict[str, Any]:
    """Figures of one seed; `rollouts` count for coverage, discriminators get as many as they need."""
    prior = skill_eval.prior_of(learner)
    z = ev.sample_latents(prior, max(rollouts, PER_SKILL * prior.size if prior.discrete else CONTINUOUS), seed)
    rolled = skill_eval.roller(learner)(state, z, jax.random.key(seed))
    found = skill_eval.skill_figures(learner, rolled, state, rollouts)
    found |= skill_eval.random_floor(learner, rollouts)
    found |= skill_goals.latent_goals(learner, skill, state, rolled, seed)
    return found | skill_goals.zero_shot_goals(learner, skill, seed, radius=found.get("reach_m", 0.0))


def draw(
    run_dir: RunDir, learner: Any, state: Any, suffix: str, with_video: bool, count: int = 8, start: int = 2000
) -> Any:
    """Trajectory plot (returned) and skill-grid video of one seed; `start` draws the starts."""
    prior, key = learner.objective.prior, jax.random.key(start)
    many = prior.size if prior.discrete else 32
    roll = skill_eval.roller(learner)
    title = f"{run_dir.name}{suffix}: {many} skills"
    picture = None
    if ev.has_position(learner.env):
        path = run_dir.plots / f"trajectories{suffix}.png"
        picture = skill_eval.trajectory_plot(path, roll(state, prior.spread(many), key), title, learner.env.spec.dt)
    if prior.discrete:
        skill_eval.cluster_plot(run_dir.plots / f"clusters{suffix}.png", learner, state, key, title)
    if with_video:
        skill_eval.grid_video(run_dir.videos / f"skills{suffix}.mp4", learner, roll(state, prior.spread(count), key))
    return picture


def _headline(found: dict[str, Any]) -> str:
    """The figures that matter, the reach of random actions beside the reach.

    Goals lie within the set's own reach: where that is below 3 m, standing still reaches most of them.
    """
    shown = ["coverage_cells", "reach_m", "held_out_accuracy", "moving_skills"]
    if found.get("goal_range_m", 0.0) >= 3.0:
        shown.append("goal_reached_3m")
    floor = {"reach_m": f" (random actions {found['random_reach_m']:.3g})"} if "random_reach_m" in found else {}
    figures = ", ".join(f"{k} {found[k]:.3g}{floor.get(k, '')}" for k in shown if k in found)
    return f"  ({figures})" if figures else ""
