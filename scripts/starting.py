"""Skills that learn to begin where others leave off: `train-skills starts.skills=[...]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.starts import BankedEnv
from repertoire.errors import UserError
from repertoire.high_level import frozen, handoff
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.sequence import Choice
from repertoire.scripts import build
from repertoire.skills.library import Library

#: Options made from each skill set; macro steps of a world, which end in as many starts.
PER_SKILL, STEPS = 16, 4


@dataclass(frozen=True)
class StartsConfig:
    """Where episodes of training begin.

    Attributes:
      skills: library references of those that leave off; none: as the env says. share: of the episodes, in (0, 1].
      hold: control steps of each skill. states: how many are recorded, at most.
    """

    skills: tuple[str, ...] = ()
    share: float = 0.5
    hold: int = 25
    states: int = 1024

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"starts.share must lie above 0 and at most at 1, got {self.share}")
        if self.hold < 1 or self.states < STEPS:
            raise UserError(f"starts.hold must be at least 1 and starts.states {STEPS}, got {self.hold}, {self.states}")


def env_of(config: Mapping[str, Any]) -> Any:
    """The env that a config trains skills in. Raises `UserError` for skills that do not fit it."""
    env, starts = build.env_of(config), build.dataclass_of(StartsConfig, config["starts"], "starts")
    if not starts.skills:
        return env
    if not isinstance(env, MujocoEnv):
        raise UserError(f"env {env.spec.name} keeps its state to itself: starts.skills cannot be used there")
    store = Library(config["library"])
    skills = [frozen.load(store, reference) for reference in starts.skills]
    macro = MacroEnv(env, Choice(skills, env.spec, PER_SKILL), starts.hold)
    key = jax.random.fold_in(jax.random.key(config["seed"]), 1)
    qpos, qvel = handoff.ends(macro, key, starts.states // STEPS, STEPS)
    if not len(qpos):
        raise UserError(f"every episode of {', '.join(starts.skills)} ended in env {env.spec.name}: lower starts.hold")
    print(f"starts: {len(qpos)} states in which {', '.join(starts.skills)} left off, of {starts.share:.0%} of episodes")
    return BankedEnv(env, qpos, qvel, starts.share)
