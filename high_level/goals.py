"""Controllers that need no training: the zero-shot goal rule and random skills. Both emit macro actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from repertoire.algos.types import Array
from repertoire.envs.types import State
from repertoire.errors import UserError
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.rules import Rule, goal_offset
from repertoire.high_level.sequence import Latent
from repertoire.skills.skill import Skill


@dataclass(frozen=True, eq=False)  # told apart by identity, as functions are: jit asks
class ZeroShot:
    """z along phi(goal) - phi(s) (METRA), recomputed at every macro step: a `Rule`.

    The goal's features are the current ones with `position` moved there.

    Attributes:
      skill: with a goal rule. ahead: where the goal lies from the robot, m.
      features: entries of the skill's features in the env's feature group.
    """

    skill: Skill
    ahead: Callable[[State], Array]
    features: np.ndarray

    def __call__(self, key: Array, state: State) -> Array:
        """Latent [D]."""
        features = state.obs["features"][self.features]
        return self.skill.goal_latent(features, features.at[self.skill.position].add(self.ahead(state)))


def zero_shot(env: MacroEnv) -> ZeroShot:
    """The goal rule of the skill set that `env` drives, towards the policy slice `goal`.

    Raises `UserError` where there is no such rule: another kind of controller, task, or way of discovery.
    """
    skill, spec = env.composer.skills[0], env.env.spec
    if not isinstance(env.composer, Latent):
        raise UserError("the zero-shot goal rule needs controller.mode=latent")
    ahead = goal_offset(spec)
    if ahead is None:
        raise UserError(f"env {spec.name} has no `goal` slice, so there is no zero-shot goal rule")
    if not skill.position.size:
        raise UserError(f"skill {skill.name} was not discovered on `position` features: no zero-shot goal rule")
    have = {s.name for s in spec.obs.groups["features"]}
    if missing := [name for name in skill.features if name not in have]:
        raise UserError(
            f"skill {skill.name} was discovered on the feature {missing[0]!r}, which env {spec.name} does not show: no "
            "zero-shot goal rule"
        )
    if len(ahead.index) != skill.position.size:
        raise UserError(
            f"the goal of env {spec.name} has {len(ahead.index)} entries, the position that skill {skill.name} was "
            f"discovered on {skill.position.size}: no zero-shot goal rule"
        )
    if not skill.has_goal_rule:
        raise UserError(f"objective {skill.manifest['objective']['name']} has no zero-shot goal rule")
    return ZeroShot(skill, ahead, spec.obs.index("features", skill.features).astype(np.int32))


def random_skills(env: MacroEnv) -> Rule:
    """Random skills, latents and weights, drawn afresh at every macro step."""
    return env.sample
