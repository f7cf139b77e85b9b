"""Shared fixtures. The compilation cache makes repeated test runs cheap; programs with host callbacks skip it."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

os.environ.setdefault("MUJOCO_GL", "")  # gl.pick_gl decides
if not os.environ["MUJOCO_GL"]:
    del os.environ["MUJOCO_GL"]


@pytest.fixture(scope="module", autouse=True)
def _programs_of_a_module() -> Iterator[None]:
    """Compiled programs go with the module that made them: a process that keeps thousands dies in the compiler."""
    yield
    import jax

    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def make_skill() -> Callable[..., Any]:
    """Frozen skills with drawn weights: (spec, name, kind, size, seed) -> `Skill`; nothing to train or compile."""

    def make(spec: Any, name: str = "a", kind: str = "sphere", size: int = 2, seed: int = 0, hidden: int = 8) -> Any:
        from repertoire.skills.skill import Skill, contract

        rng, obs = np.random.default_rng(seed), spec.obs.size("policy")
        sizes, arrays = (obs + size, hidden, spec.action_size), {}
        for i, (a, b) in enumerate(itertools.pairwise(sizes)):
            arrays[f"policy/kernel{i}"] = (rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32)
            arrays[f"policy/bias{i}"] = (0.1 * rng.normal(size=b)).astype(np.float32)
        arrays["obs/mean"] = rng.normal(size=obs).astype(np.float32)
        arrays["obs/var"] = rng.uniform(0.5, 2.0, obs).astype(np.float32)
        manifest = {
            "schema": 1, "name": name, "env": spec.name, "contract": contract(spec), "objective": {"name": "none"},
            "latent": {"kind": kind, "size": size, "hold": 0}, "provenance": {}, "metrics": {},
            "network": {"hidden": [hidden], "activation": "tanh"},
        }  # fmt: skip
        return Skill(manifest, arrays)

    return make


@pytest.fixture(scope="session")
def make_adapter() -> Callable[..., Any]:
    """Adapters with drawn weights: (base, spec, name, seed) -> `Skill`; nothing to train.

    `net` gives A and B, `stats` what a random rollout would measure, the rest is as in `skills.adapters.adapt`.
    """

    def make(base: Any, spec: Any, name: str, seed: int = 0, net: Any = None, stats: Any = None, **adapted: Any) -> Any:
        import jax

        from repertoire.algos import normalize
        from repertoire.algos.learner import Learner
        from repertoire.algos.ppo import PPOConfig
        from repertoire.skills.adapters import adapt, freeze_policy

        learner = Learner(SimpleNamespace(spec=spec), PPOConfig(), adapter=adapt(base, spec, **adapted))
        zero = learner.nets.init(jax.random.key(seed))["policy"]["net"]
        drawn = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(seed), x.shape), zero)
        seen = learner.adapter.statistics(stats or normalize.init(spec.obs.size("policy")))
        params = {"policy": {"net": net or drawn, "head": {}}}
        return freeze_policy(name, learner, SimpleNamespace(params=params, obs_stats={"policy": seen}), {})

    return make


@pytest.fixture(scope="session")
def point_goals() -> Callable[..., Any]:
    """`make(**options)`: a point on open ground and a goal that stays for `hold` steps, native."""
    from repertoire.envs import physics
    from repertoire.envs.mujoco_env import MujocoEnv
    from repertoire.envs.tasks.goals import MovingGoals
    from repertoire.envs.tasks.point import Point

    @dataclass(frozen=True)
    class PointGoals(MovingGoals, Point):
        episode_length: int = 60
        radius: float = 0.3
        goal_range: float = 3.0
        hold: int = 60
        name: ClassVar[str] = "point_goals"
        doc: ClassVar[str] = "for tests"

    def make(**options: Any) -> Any:
        task = PointGoals(**options)
        return MujocoEnv(task, physics.make("native", task.model, task.fields))

    return make


@pytest.fixture(scope="session")
def oracle() -> Any:
    """A skill set of `point` whose latent is the velocity, m/s: relu(z) - relu(-z) of the inputs (velocity, z)."""
    from repertoire.algos import trainer
    from repertoire.algos.learner import Learner
    from repertoire.algos.ppo import PPOConfig
    from repertoire.envs import registry
    from repertoire.skills.freezing import freeze
    from repertoire.skills.objectives import registry as objectives
    from repertoire.skills.skill import Skill

    config = PPOConfig(envs=4, rollout=4, minibatches=2, hidden=(4,), activation="relu")
    learner = Learner(registry.make("point"), config, objectives.make("metra", hidden=(8,)))
    skill = freeze("oracle", learner, trainer.programs(learner).init(trainer.seed_keys(0)), {})
    first, both = np.zeros((4, 4), np.float32), np.concatenate([np.eye(2), -np.eye(2)]).astype(np.float32)
    first[2:] = both.T
    arrays = {"policy/kernel0": first, "policy/kernel1": both}
    arrays |= {"policy/bias0": np.zeros(4, np.float32), "policy/bias1": np.zeros(2, np.float32)}
    return Skill(skill.manifest, {**skill.arrays, **arrays})
