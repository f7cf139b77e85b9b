"""Envs of Brax and Playground as ours, ours as Brax's."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from flax import struct

from repertoire.algos import trainer
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.envs import playground_env, registry
from repertoire.envs.as_brax import BraxView, brax_trainers
from repertoire.envs.foreign import Options
from repertoire.errors import UserError
from repertoire.skills import evaluate, figures
from repertoire.skills.objectives import registry as objectives

FEATURES = {"position": "policy[0:1]", "speed": "policy[1:2]"}


def fast(**options):
    """Brax's smallest env: its velocity grows by 0.02 with each positive action, its place by 0.02 times that."""
    return registry.make("brax", id="fast", features=FEATURES, **options)


@struct.dataclass
class PlaygroundState:
    """The fields of `mujoco_playground.State`."""

    data: object
    obs: object
    reward: jax.Array
    done: jax.Array
    metrics: dict
    info: dict


class Slider:
    """A Playground env in its interface: a mass on a slide, pushed; asymmetric observation; writes into `info`."""

    action_size, dt, sim_dt = 1, 0.1, 0.05
    mj_model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><joint type='slide' axis='1 0 0'/><geom size='0.1'/></body></worldbody></mujoco>"
    )

    def reset(self, rng):
        data = SimpleData(jax.random.uniform(rng, (1,)), jnp.zeros(1))
        return PlaygroundState(data, self.obs(data), jnp.zeros(()), jnp.zeros(()), {"reward/x": jnp.zeros(())},
                               {"rng": rng, "step": 0})  # fmt: skip

    def step(self, state, action):
        state.info["rng"], _ = jax.random.split(state.info["rng"])
        state.info["step"] = state.info["step"] + 1
        qvel = state.data.qvel + action
        data = SimpleData(state.data.qpos + 0.1 * qvel, qvel)
        done = (jnp.abs(data.qpos[0]) > 5.0).astype(jnp.float32)
        return state.replace(data=data, obs=self.obs(data), reward=data.qpos[0], done=done,
                             metrics={"reward/x": data.qpos[0]})  # fmt: skip

    def obs(self, data):
        return {"state": data.qvel, "privileged_state": jnp.concatenate([data.qvel, data.qpos])}


@struct.dataclass
class SimpleData:
    qpos: jax.Array
    qvel: jax.Array


def slider(**options):
    return playground_env.wrap(Slider(), Options(id="Slider", **options))


def roll(env, actions, seed=0):
    def step(s, a):
        s = env.step(s, a)
        return s, s

    return jax.jit(lambda key, a: jax.lax.scan(step, env.reset(key), a)[1])(jax.random.key(seed), jnp.asarray(actions))


def test_a_brax_env_steps_as_brax_does():
    states = roll(fast(episode_length=3), [[1.0], [1.0], [-1.0]])
    np.testing.assert_allclose(states.obs["policy"], [[0.0004, 0.02], [0.0012, 0.04], [0.002, 0.04]], atol=1e-6)
    np.testing.assert_allclose(states.obs["features"], states.obs["policy"])
    np.testing.assert_allclose(states.reward, states.metrics["reward/env"])
    np.testing.assert_array_equal(states.truncated, [False, False, True])
    assert not states.terminated.any()


def test_ant_of_brax_is_described_without_compiling():
    env = registry.make("brax", id="ant", engine="spring")
    assert [(s.name, s.size) for s in env.spec.obs.groups["features"]][:2] == [("position", 2), ("velocity", 2)]
    assert env.spec.action_size == 8 and env.spec.dt == pytest.approx(0.05)
    assert env.physics.name == "brax (spring)" and isinstance(env.physics.model, mujoco.MjModel)
    before = jax.eval_shape(env.reset, jax.random.key(0))
    after = jax.eval_shape(env.step, before, jnp.zeros(8))
    assert jax.tree.structure(before) == jax.tree.structure(after)


def test_a_playground_env_steps_terminates_and_starts_afresh():
    env = slider()
    assert [s.name for s in env.spec.obs.groups["features"]] == ["position", "velocity", "obs"]
    assert (env.spec.obs.size("policy"), env.spec.obs.size("critic"), env.spec.name) == (1, 2, "playground:Slider")
    states = roll(env, np.ones((12, 1), np.float32))
    np.testing.assert_allclose(states.data.qvel[:, 0], np.arange(1, 13))
    np.testing.assert_allclose(states.obs["critic"][:, 1], states.data.qpos[:, 0])
    np.testing.assert_array_equal(states.terminated, states.data.qpos[:, 0] > 5.0)
    assert states.terminated[-1] and not states.terminated[0]
    np.testing.assert_allclose(states.metrics["playground/reward/x"], states.data.qpos[:, 0])
    np.testing.assert_array_equal(states.data.backend.info["step"], np.arange(1, 13))

    many = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 3))
    again = jax.vmap(env.reset_where)(jnp.asarray([True, False, True]), many)
    moved = (again.data.qpos != many.data.qpos)[:, 0]
    np.testing.assert_array_equal(moved, [True, False, True])


def test_a_world_that_diverges_keeps_its_last_finite_state():
    env = slider()
    states = roll(env, [[1.0], [np.nan], [1.0]])
    np.testing.assert_array_equal(states.truncated, [False, True, False])
    np.testing.assert_allclose(states.data.qvel[:, 0], [1, 1, 2])
    assert states.reward[1] == 0.0 and states.metrics["diverged"][1] == 1.0
    np.testing.assert_array_equal(states.data.backend.info["step"], [1, 1, 2])  # theirs may write into `info`


def test_a_foreign_task_tells_videos_how_to_look_at_it():
    assert fast().task.camera == "follow"


@pytest.mark.slow
def test_skills_are_discovered_in_a_brax_env():
    env = fast(episode_length=8)
    config = PPOConfig(envs=8, rollout=8, minibatches=2, hidden=(8,))
    learner = Learner(env, config, objectives.make("metra", hidden=(8,)), ("position",))
    compiled = trainer.programs(learner)
    (event,) = trainer.train(compiled, compiled.init(trainer.seed_keys(0)), 1)
    assert np.isfinite(event.metrics["reward/metra"])
    z = evaluate.sample_latents(learner.prior, 6, 0)
    keys = jax.random.split(jax.random.key(0), 6)
    run = jax.jit(lambda z, keys: evaluate.roll(env, lambda key, obs, z: jnp.ones(1), z, keys, 8))
    rolled = jax.tree.map(np.asarray, run(jnp.asarray(z), keys))
    assert rolled.positions.shape == (6, 9, 1) and rolled.features.shape == (6, 9, 2)
    assert figures.ground(env, rolled, rolled)["reach_m"] == pytest.approx(0.0144, abs=1e-5)  # 0.02^2 (1 + ... + 8)
    assert figures.feasible(env, rolled) == {"action_rate": 0.0}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("brax", {}, "needs the name of one of its envs"),
        ("brax", {"id": "antt"}, "did you mean 'ant'"),
        ("brax", {"id": "fast", "engine": "bullet"}, "env.engine must be one of"),
        ("brax", {"id": "fast", "features": {"position": "policy[1:3]"}}, "has 2 entries"),
        ("brax", {"id": "fast", "features": {"position": "obs[1:2]"}}, r"must be qpos\[a:b\]"),
        ("brax", {"id": "fast", "coverage": {"place": 1.0}}, "feature slice of env.coverage"),
        ("brax", {"id": "fast", "features": {}}, "env.features wants slice: part"),
        ("brax", {"id": "fast", "weights": {"fwd": 1.0}}, "reward term"),
        ("brax", {"id": "fast", "weights": {"env": float("nan")}}, "env.weights.env must be finite, got nan"),
        ("brax", {"id": "fast", "episode_length": 0}, "episode_length"),
        ("brax", {"idd": "fast"}, "did you mean 'id'"),
    ],
)
def test_one_line_says_what_is_wrong(name, options, message):
    with pytest.raises(UserError, match=message):
        registry.make(name, **options)


def test_foreign_envs_bring_their_physics_and_playground_its_extra():
    with pytest.raises(UserError, match="brings its own physics"):
        registry.make("brax", "native", id="fast")
    if importlib.util.find_spec("mujoco_playground") is None:
        with pytest.raises(UserError, match=r"pip install 'repertoire-rl\[playground\]'"):
            registry.make("playground", id="CartpoleBalance")


def test_our_env_seen_by_brax():
    env = registry.make("point", "native", episode_length=5)
    view = BraxView(env)
    state = jax.jit(view.reset)(jax.random.PRNGKey(0))
    step = jax.jit(view.step)
    for _ in range(6):
        state = step(state, jnp.ones(2))
    assert state.obs.shape == (view.observation_size,) and view.action_size == 2 and view.backend == "native"
    assert state.done == 0.0  # time limits are Brax's
    assert state.pipeline_state.t == 6
    with pytest.raises(UserError, match="discrete"):
        BraxView(SimpleNamespace(spec=SimpleNamespace(name="macro", discrete=4)))


@pytest.mark.slow
def test_brax_ppo_trains_our_env():
    from brax.training.agents.ppo import networks
    from brax.training.agents.ppo import train as ppo

    view = BraxView(registry.make("point", "native", episode_length=8))
    small = {"policy_hidden_layer_sizes": (8,), "value_hidden_layer_sizes": (8,)}
    with brax_trainers():
        _, params, metrics = ppo.train(
            environment=view, num_timesteps=64, episode_length=8, num_envs=4, batch_size=4, num_minibatches=1,
            unroll_length=4, num_updates_per_batch=1, num_evals=1, num_eval_envs=4, seed=1,
            network_factory=lambda *a, **k: networks.make_ppo_networks(*a, **k, **small),
        )  # fmt: skip
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    assert metrics["eval/avg_episode_length"] == 8.0
