"""Evaluation, pictures and freezing of skill sets: what `train-skills`, `evaluate` and `rollout` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos import normalize, rollout, trainer
from repertoire.algos.agents import random_act
from repertoire.algos.types import AnyLearner
from repertoire.experiment import plots, video
from repertoire.skills import evaluate as ev
from repertoire.skills import metrics

#: Zero-shot goals per evaluation; their range follows the reach, so that they can be reached.
GOAL_COUNT = 32


def roller(learner: AnyLearner, steps: int | None = None) -> Callable[[Any, np.ndarray, Any], ev.Rollouts]:
    """Compiled deterministic rollouts: (state of one seed, latents [K, D], key) -> `Rollouts`."""
    env, nets = learner.env, learner.nets
    steps = steps or env.spec.episode_length

    @jax.jit
    def run(params: Any, stats: Any, z: Any, key: Any) -> Any:
        def policy(obs: Any, z: Any) -> Any:
            x = jnp.concatenate([normalize.apply(stats, obs), z])
            return nets.head.mode(nets.policy.apply(params["net"], x))

        return ev.roll(env, policy, z, key, steps)

    def rollouts(state: Any, z: np.ndarray, key: Any) -> ev.Rollouts:
        return ev.rollouts(env, lambda z, k: run(state.params["policy"], state.obs_stats["policy"], z, k), z, key)

    return rollouts


def prior_of(learner: AnyLearner) -> Any:
    """Latent prior of a skill learner."""
    return learner.prior


def skill_figures(learner: AnyLearner, rolled: ev.Rollouts, state: Any) -> dict[str, float]:
    """Figures of one seed from its rollouts."""
    prior = prior_of(learner)
    out = ev.figures(rolled, prior, np.asarray(learner.feature_index))
    out["coverage_total_cells"] = int(np.asarray(state.visited).sum())
    if prior.discrete and rolled.positions.shape[-1]:
        half = rolled.positions[:, rolled.positions.shape[1] // 2 :]
        elapsed = (half.shape[1] - 1) * learner.env.spec.dt
        speed = np.linalg.norm(half[:, -1] - half[:, 0], axis=-1) / elapsed
        per_skill = [speed[rolled.z.argmax(1) == k].mean() for k in range(prior.size)]
        out["moving_skills"] = int(np.sum(np.asarray(per_skill) > 0.5))
        out["speed_max_m_s"] = float(np.max(per_skill))
    return out


def evaluator(learner: AnyLearner, seeds: int, seed: int = 1000) -> Callable[[int, Any], dict[str, Any]]:
    """Consumer for training: METRA's 48 deterministic rollouts; one value, or one per seed."""
    roll = roller(learner)
    z = ev.sample_latents(prior_of(learner), metrics.ROLLOUTS, seed)

    def evaluate(update: int, state: Any) -> dict[str, Any]:
        rows = []
        for i in range(seeds):
            one = trainer.seed_state(state, i, seeds)
            rows.append(skill_figures(learner, roll(one, z, jax.random.key(seed)), one))
        return rows[0] if seeds == 1 else {k: [float(r[k]) for r in rows] for k in rows[0]}

    return evaluate


def random_floor(learner: AnyLearner, count: int, seed: int) -> dict[str, float]:
    """Coverage and reach of uniform random actions: the floor under every coverage figure."""
    env = learner.env
    if not ev.has_position(env):
        return {}
    index = env.spec.obs.index("features", ("position",))

    @jax.jit
    def run(key: Any) -> Any:
        begin_key, roll_key = jax.random.split(key)
        carry = rollout.begin(env, None, begin_key, count)
        _, (batch, _) = rollout.collect(env, None, random_act(env.spec), carry, roll_key, env.spec.episode_length)
        return batch.next_obs["features"][..., index]

    positions = np.asarray(run(jax.random.key(seed))).swapaxes(0, 1)
    return {"coverage_random_cells": metrics.coverage(positions), "reach_random_m": metrics.reach(positions)}


def zero_shot_goals(learner: AnyLearner, skill: Any, seed: int, radius: float) -> dict[str, float]:
    """Zero-shot goal reaching from the start: final and best distance to random goals within `radius` m.

    z is recomputed from phi(g) - phi(s) at every step; beside it the distance that a random latent leaves.
    """
    env, spec = learner.env, learner.env.spec
    if not skill.position.size or radius <= 0:
        return {}
    chosen, inside = spec.obs.index("features", skill.features), skill.position
    goals = np.random.default_rng(seed).uniform(-radius, radius, (GOAL_COUNT, len(inside))).astype(np.float32)

    def reached(rule: Callable[[Any, Any, Any], Any]) -> np.ndarray:
        def step(carry: Any, _: None) -> Any:
            states, keys = carry
            z = jax.vmap(rule)(states.obs["features"][:, chosen], jnp.asarray(goals), keys)
            policy = spec.obs.index("policy", skill.slices)
            states = jax.vmap(env.step)(states, jax.vmap(skill.act)(states.obs["policy"][:, policy], z))
            position = states.obs["features"][:, chosen][:, inside]
            return (states, keys), jnp.linalg.norm(position - goals, axis=-1)

        @jax.jit
        def run(key: Any) -> Any:
            states = jax.vmap(env.reset)(jax.random.split(key, GOAL_COUNT))
            return jax.lax.scan(step, (states, jax.random.split(key, GOAL_COUNT)), None, length=spec.episode_length)[1]

        return np.asarray(run(jax.random.key(seed)))

    aimed = reached(lambda f, g, k: skill.goal_latent(f, f.at[inside].set(g)))
    blind = reached(lambda f, g, k: skill.prior.sample(k))
    return {
        "goal_range_m": radius,
        "goal_distance_m": float(aimed.min(0).mean()),
        "goal_final_distance_m": float(aimed[-1].mean()),
        "goal_reached_3m": float((aimed.min(0) < 3.0).mean()),
        "goal_distance_random_m": float(blind.min(0).mean()),
    }


def trajectory_plot(path: Path, rolled: ev.Rollouts, title: str) -> Path:
    """x-y paths of the skills; x against time for planar robots."""
    xy = rolled.positions
    if xy.shape[-1] == 1:
        t = np.broadcast_to(np.arange(xy.shape[1])[None, :, None] * 0.05, xy.shape)
        xy = np.concatenate([xy, t], axis=-1)
    labels = [f"skill {k}" for k in rolled.z.argmax(1)] if (rolled.z.max(1) == 1).all() else None
    return plots.trajectories(path, xy[..., :2], latents=None if labels else rolled.z, labels=labels, title=title)


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
    )


def _label(z: np.ndarray, prior: Any) -> str:
    if prior.discrete:
        return f"skill {int(z.argmax())}"
    if prior.size == 2:
        return f"{np.degrees(np.arctan2(z[1], z[0])):.0f} deg"
    return " ".join(f"{x:.1f}" for x in z[:3])
