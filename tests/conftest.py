"""Shared fixtures. The compilation cache makes repeated test runs cheap; programs with host callbacks skip it."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("MUJOCO_GL", "")  # gl.pick_gl decides
if not os.environ["MUJOCO_GL"]:
    del os.environ["MUJOCO_GL"]


@pytest.fixture(scope="session")
def oracle():
    """A skill set of `point` whose latent is the velocity, m/s: relu(z) - relu(-z) of the inputs (velocity, z)."""
    import numpy as np

    from repertoire.algos import trainer
    from repertoire.algos.learner import Learner
    from repertoire.algos.ppo import PPOConfig
    from repertoire.envs import registry
    from repertoire.skills.objectives import registry as objectives
    from repertoire.skills.skill import Skill, freeze

    config = PPOConfig(envs=4, rollout=4, minibatches=2, hidden=(4,), activation="relu")
    learner = Learner(registry.make("point"), config, objectives.make("metra", hidden=(8,)))
    skill = freeze("oracle", learner, trainer.programs(learner).init(trainer.seed_keys(0)), {})
    first, both = np.zeros((4, 4), np.float32), np.concatenate([np.eye(2), -np.eye(2)]).astype(np.float32)
    first[2:] = both.T
    arrays = {"policy/kernel0": first, "policy/kernel1": both}
    arrays |= {"policy/bias0": np.zeros(4, np.float32), "policy/bias1": np.zeros(2, np.float32)}
    return Skill(skill.manifest, {**skill.arrays, **arrays})
