"""Controllers that need no training: the zero-shot goal rule and random skills. Both emit macro actions."""

from __future__ import annotations

from collections.abc import Callable

import jax

from repertoire.algos.types import Array
from repertoire.envs.types import State
from repertoire.errors import UserError
from repertoire.high_level.macro_env import MacroEnv

#: (key, env state) -> macro action.
Rule = Callable[[Array, State], Array]


def zero_shot(env: MacroEnv) -> Rule:
    """z along phi(goal) - phi(s) (METRA), recomputed at every macro step.

    The goal is the env's policy slice `goal` (relative to the root, m); the goal's features are the current ones with
    `position` moved there.
    """
    skill, spec = env.options.skills[0], env.env.spec
    if env.options.mode != "latent":
        raise UserError("the zero-shot goal rule needs controller.mode=latent")
    if "goal" not in {s.name for s in spec.obs.groups["policy"]}:
        raise UserError(f"env {spec.name} has no `goal` slice, so there is no zero-shot goal rule")
    if not skill.position.size:
        raise UserError(f"skill {skill.name} was not discovered on `position` features: no zero-shot goal rule")
    if not skill.has_goal_rule:
        raise UserError(f"objective {skill.manifest['objective']['name']} has no zero-shot goal rule")
    goal_index = spec.obs.index("policy", ("goal",))
    scale = next(s.scale for s in spec.obs.groups["policy"] if s.name == "goal")
    feature_index = spec.obs.index("features", skill.features)

    def rule(key: Array, state: State) -> Array:
        features = state.obs["features"][feature_index]
        goal = features.at[skill.position].add(state.obs["policy"][goal_index] / scale)
        return skill.goal_latent(features, goal)

    return rule


def random_skills(env: MacroEnv) -> Rule:
    """A fresh random skill at every macro step."""
    if env.options.mode == "latent":
        prior = env.options.skills[0].prior
        return lambda key, state: prior.sample(key)
    choices = env.spec.discrete
    return lambda key, state: jax.random.randint(key, (), 0, choices)
