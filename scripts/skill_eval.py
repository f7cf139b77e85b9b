"""Evaluation, pictures and freezing of skill sets: what `train-skills`, `evaluate` and `rollout` share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos import normalize, trainer
from repertoire.algos.agents import random_act
from repertoire.algos.types import AnyLearner
from repertoire.experiment import plots, video
from repertoire.skills import evaluate as ev
from repertoire.skills import figures, metrics, statistics

#: Figures that are shares of a ceiling: over seeds, their distance from it is worth a line.
SHARES = ("coverage_fraction",)

#: (state of one seed, latents [K, D], key) -> rollouts.
Roller = Callable[[Any, np.ndarray, Any], ev.Rollouts]


@functools.lru_cache(maxsize=1)
def roller(learner: AnyLearner) -> Roller:
    """Deterministic rollouts, compiled once: every evaluation, plot and video of a run shares the one program."""
    env, nets = learner.env, learner.nets

    @jax.jit
    def run(params: Any, stats: Any, z: Any, keys: Any) -> Any:
        def policy(key: Any, obs: Any, z: Any) -> Any:
            x = jnp.concatenate([normalize.apply(stats, obs), z])
            return nets.head.mode(nets.policy.apply(params["net"], x))

        return ev.roll(env, policy, z, keys, env.spec.episode_length)

    def rollouts(state: Any, z: np.ndarray, key: Any) -> ev.Rollouts:
        params, stats = state.params["policy"], state.obs_stats["policy"]
        return ev.in_batches(lambda z, keys: run(params, stats, z, keys), z, key, metrics.ROLLOUTS)

    return rollouts


def prior_of(learner: AnyLearner) -> Any:
    """Latent prior of a skill learner."""
    return learner.prior


def skill_figures(
    learner: AnyLearner, rolled: ev.Rollouts, state: Any, rollouts: int = metrics.ROLLOUTS
) -> dict[str, float]:
    """Figures of one seed from its rollouts; `rollouts` of them count for coverage and diversity."""
    prior, seen = prior_of(learner), np.asarray(learner.feature_index)
    random = random_rollouts(learner, metrics.ROLLOUTS)
    out = figures.figures(learner.env, rolled, random, prior, seen, rollouts)
    out["coverage_total_cells"] = int(np.asarray(state.visited).sum())
    spans = getattr(learner.objective, "spans", {})
    if len(spans) > 1:
        out |= figures.factored(rolled, seen, spans)
    if prior.discrete and rolled.positions.shape[-1]:
        half = figures.last(rolled.positions)
        speed = np.linalg.norm(half[:, -1] - half[:, 0], axis=-1) / ((half.shape[1] - 1) * learner.env.spec.dt)
        shown = rolled.z.argmax(1)
        per_skill = [speed[shown == k].mean() for k in np.unique(shown)]
        out["moving_skills"] = int(np.sum(np.asarray(per_skill) > 0.5))
        out["speed_max_m_s"] = float(np.max(per_skill))
    return out


def evaluator(learner: AnyLearner, seeds: int, seed: int = 1000) -> Callable[[int, Any], dict[str, Any]]:
    """Consumer for training: METRA's 48 deterministic rollouts, but 4 of each skill; one value, or one per seed."""
    roll, prior = roller(learner), prior_of(learner)
    z = ev.sample_latents(prior, max(metrics.ROLLOUTS, 4 * prior.size * prior.discrete), seed)

    def evaluate(update: int, state: Any) -> dict[str, Any]:
        rows = []
        for i in range(seeds):
            one = trainer.seed_state(state, i, seeds)
            rows.append(skill_figures(learner, roll(one, z, jax.random.key(seed)), one))
        kept = [figures.results(r) for r in rows]
        return kept[0] if seeds == 1 else {k: [float(r[k]) for r in kept] for k in kept[0]}

    return evaluate


@functools.lru_cache(maxsize=2)
def random_rollouts(learner: AnyLearner, count: int) -> ev.Rollouts:
    """Rollouts of uniform random actions, the same ones whenever they are asked for: they belong to the env."""
    env, act = learner.env, random_act(learner.env.spec)

    @jax.jit
    def run(z: Any, keys: Any) -> Any:
        return ev.roll(env, lambda key, obs, z: act(key, obs, z)[0], z, keys, env.spec.episode_length)

    return ev.in_batches(run, np.zeros((count, 0), np.float32), jax.random.key(0), metrics.ROLLOUTS)


def random_floor(learner: AnyLearner, count: int) -> dict[str, float]:
    """Coverage, reach and diversity of `count` rollouts of random actions as `random_<figure>`: the floor."""
    rolled, scale = random_rollouts(learner, count), random_rollouts(learner, metrics.ROLLOUTS)
    found = figures.ground(learner.env, rolled, scale, count)
    return {f"random_{k}": v for k, v in figures.results(found).items()}


def mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over seeds of each figure that all of them have."""
    keys = [k for k in rows[0] if k != "seed" and all(k in r for r in rows)]
    return {k: float(np.mean([r[k] for r in rows])) for k in keys}


def summary(learner: AnyLearner, rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What `evaluation.json` holds: the seeds, means over them, and from two seeds on IQMs with 95 % intervals."""
    names = figures.descriptor(learner.env.spec, np.asarray(learner.feature_index))
    out = {"descriptor": " ".join(names) or None, "seeds": list(rows), **mean(rows)}
    return {**out, "intervals": intervals(rows)} if len(rows) > 1 else out


def intervals(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """IQM over seeds of each figure with a bootstrap interval; the optimality gap of shares of a ceiling."""

    def estimate(key: str, statistic: statistics.Statistic, name: str) -> dict[str, float]:
        scores = np.asarray([r[key] for r in rows], float)
        low, high = statistics.bootstrap(scores, statistic)
        return {name: float(statistic(scores)), "low": low, "high": high}

    keys = list(figures.results(mean(rows)))
    gaps = {f"{k}_gap": estimate(k, statistics.optimality_gap, "gap") for k in SHARES if k in keys}
    return {k: estimate(k, statistics.iqm, "iqm") for k in keys} | gaps


def trajectory_plot(path: Path, rolled: ev.Rollouts, title: str, dt: float) -> Path:
    """x-y paths of the skills; x against time for planar robots."""
    xy = rolled.positions
    if xy.shape[-1] == 1:
        t = np.broadcast_to(np.arange(xy.shape[1])[None, :, None] * dt, xy.shape)
        xy = np.concatenate([xy, t], axis=-1)
    labels = [f"skill {k}" for k in rolled.z.argmax(1)] if (rolled.z.max(1) == 1).all() else None
    return plots.trajectories(path, xy[..., :2], latents=None if labels else rolled.z, labels=labels, title=title)


def cluster_plot(path: Path, learner: AnyLearner, state: Any, key: Any, title: str) -> Path | None:
    """Where discrete skills lie in the plane of their descriptor, over the last half of six rollouts each.

    None where the descriptor is no plane.
    """
    seen, spec, prior = np.asarray(learner.feature_index), learner.env.spec, prior_of(learner)
    names = figures.descriptor(spec, seen)
    chosen = [s for s in spec.obs.groups["features"] if s.name in names]
    if sum(s.width for s in chosen) != 2:
        return None
    rolled = roller(learner)(state, prior.spread(6 * prior.size), key)
    axes = [f"{s.name}[{i}] [{s.unit}]" for s in chosen for i in range(s.width)]
    labels = [f"skill {k}" for k in rolled.z.argmax(1)]
    values = figures.last(ev.values_of(spec, rolled.features, *names))
    return plots.clusters(path, values, labels, axes=(axes[0], axes[1]), title=title)


def grid_video(
    path: Path, learner: AnyLearner, rolled: ev.Rollouts, note: Callable[[str], None] = print
) -> Path | None:
    """Skill grid: one tile per latent."""
    labels = [_label(z, prior_of(learner)) for z in rolled.z]
    return video.try_video(
        path,
        learner.env.physics.model,
        rolled.qpos,
        learner.env.spec.dt,
        labels=labels,
        note=note,
        max_fps=20,
        width=240,
        height=180,
        camera=learner.env.task.camera,
    )


def _label(z: np.ndarray, prior: Any) -> str:
    if prior.discrete:
        return f"skill {int(z.argmax())}"
    if prior.size == 2:
        return f"{np.degrees(np.arctan2(z[1], z[0])):.0f} deg"
    return " ".join(f"{x:.1f}" for x in z[:3])
