"""Goals for skill sets: zero-shot goal reaching in the world, latent goal reaching in the descriptor."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import AnyLearner
from repertoire.scripts import skill_eval
from repertoire.skills import evaluate as ev
from repertoire.skills import figures, goal_reaching, metrics

#: Zero-shot goals per evaluation; their range follows the reach, so that they can be reached.
GOAL_COUNT = 32


def zero_shot_goals(learner: AnyLearner, skill: Any, seed: int, radius: float) -> dict[str, float]:
    """Zero-shot goal reaching from the start: final and best distance to random goals within `radius` m.

    z is recomputed from the goal rule at every step; beside it the distance that a random latent leaves. {} where the
    objective sees no position or has no goal rule.
    """
    env, spec, seen = learner.env, learner.env.spec, np.asarray(learner.feature_index)
    inside = _inside(learner, ("position",)) if ev.has_position(env) else np.zeros(0, int)
    if not inside.size or radius <= 0 or not _has_rule(learner):
        return {}
    goals = np.random.default_rng(seed).uniform(-radius, radius, (GOAL_COUNT, len(inside))).astype(np.float32)
    policy = spec.obs.index("policy", skill.slices)
    aimed = jnp.arange(2 * GOAL_COUNT) < GOAL_COUNT  # one program for both: half of the worlds go blind

    def act(obs: Any, goal: Any, blind: Any, aimed: Any) -> Any:
        features = obs["features"][seen]
        z = jnp.where(aimed, skill.goal_latent(features, features.at[inside].set(goal)), blind)
        return skill.act(obs["policy"][policy], z)

    @jax.jit
    def run(key: Any) -> Any:
        start_key, z_key = jax.random.split(key)
        starts = jnp.tile(jax.random.split(start_key, GOAL_COUNT), 2)  # the same for both
        blind = jax.vmap(skill.prior.sample)(jax.random.split(z_key, 2 * GOAL_COUNT))
        goal = jnp.tile(jnp.asarray(goals), (2, 1))

        def step(states: Any, _: None) -> Any:
            states = jax.vmap(env.step)(states, jax.vmap(act)(states.obs, goal, blind, aimed))
            return states, jnp.linalg.norm(states.obs["features"][:, seen][:, inside] - goal, axis=-1)

        return jax.lax.scan(step, jax.vmap(env.reset)(starts), None, length=spec.episode_length)[1]

    distance, blind = np.split(np.asarray(run(jax.random.key(seed))), 2, axis=1)
    return {
        "goal_range_m": radius,
        "goal_distance_m": float(distance.min(0).mean()),
        "goal_final_distance_m": float(distance[-1].mean()),
        "goal_reached_3m": float((distance.min(0) < 3.0).mean()),
        "goal_distance_random_m": float(blind.min(0).mean()),
    }


def latent_goals(learner: AnyLearner, skill: Any, state: Any, rolled: ev.Rollouts, seed: int) -> dict[str, float]:
    """Latent goal reaching in the set's descriptor, from the starts of `rolled` (evaluated with the same `seed`).

    A goal's features are those of the start with the descriptor moved to the goal. {} without a descriptor or a rule.
    """
    spec, seen = learner.env.spec, np.asarray(learner.feature_index)
    names = figures.descriptor(spec, seen)
    if not names or not _has_rule(learner):
        return {}
    others = figures.last(ev.values_of(spec, rolled.features, *names))
    start = jnp.asarray(rolled.features[: metrics.ROLLOUTS, 0][:, seen])
    goals = goal_reaching.goals_in(others, len(start), seed)
    scale = np.concatenate([np.full(s.width, s.scale) for s in spec.obs.groups["features"] if s.name in names])
    wanted = start.at[:, _inside(learner, names)].set(jnp.asarray(goals * scale, jnp.float32))
    z = np.asarray(jax.jit(jax.vmap(skill.goal_latent))(start, wanted))
    aimed = skill_eval.roller(learner)(state, z, jax.random.key(seed))
    return goal_reaching.latent_goal_reaching(figures.last(ev.values_of(spec, aimed.features, *names)), others, goals)


def _inside(learner: AnyLearner, names: tuple[str, ...]) -> np.ndarray:
    """Where the objective's feature vector holds the feature slices `names`; empty unless it holds all of them."""
    place = {int(j): i for i, j in enumerate(np.asarray(learner.feature_index))}
    wanted = learner.env.spec.obs.index("features", names)
    return np.array([place[j] for j in wanted]) if set(wanted) <= set(place) else np.zeros(0, int)


def _has_rule(learner: AnyLearner) -> bool:
    return hasattr(learner.objective, "goal_latent")
