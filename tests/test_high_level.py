"""Macro env: known answers (research 8.1), on a point with hand-made skills."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import trainer
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level import goals
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.sequence import Choice, Latent, SequenceConfig, sequence
from repertoire.scripts import task_eval
from repertoire.skills.freezing import freeze
from repertoire.skills.objectives import registry as objectives
from repertoire.skills.skill import Skill

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def env():
    return registry.make("point_maze", radius=10.0, hold=True)  # a reward at every step: there is something to learn


@pytest.fixture(scope="module")
def skill():
    """An untrained skill set of `point`."""
    config = PPOConfig(envs=4, rollout=4, minibatches=2, hidden=(8,))
    learner = Learner(registry.make("point"), config, objectives.make("metra", hidden=(8,)))
    state = trainer.programs(learner).init(trainer.seed_keys(0))
    skill = freeze("walk", learner, state, {})
    arrays = dict(skill.arrays)
    arrays["policy/kernel1"] = arrays["policy/kernel1"] * 100  # so that skills differ visibly
    return Skill(skill.manifest, arrays)


def macro(env, skill, hold, gamma=1.0):
    return MacroEnv(env, Latent((skill,), env.spec), hold, gamma)


def test_macro_step_equals_the_manual_loop(env, skill):
    m, z = macro(env, skill, 5, gamma=0.9), jnp.array([0.6, 0.8])
    state = manual = jax.jit(m.reset)(KEY)
    got = jax.jit(m.step)(state, z)
    index, total = env.spec.obs.index("policy", skill.slices), 0.0
    step = jax.jit(env.step)
    for i in range(5):
        manual = step(manual, skill.act(manual.obs["policy"][index], z))
        total += 0.9**i * float(manual.reward)
    np.testing.assert_allclose(got.data.qpos, manual.data.qpos, atol=1e-6)  # one program against five
    np.testing.assert_allclose(got.reward, total, rtol=1e-5)
    assert int(got.t) == 5


def test_hold_one_is_the_flat_env_with_relabelled_actions(env, skill):
    m, z = macro(env, skill, 1, gamma=0.9), jnp.array([0.0, 1.0])
    state = jax.jit(m.reset)(KEY)
    index = env.spec.obs.index("policy", skill.slices)
    with jax.disable_jit():  # op by op, so that nothing but the arithmetic itself is compared
        flat = env.step(state, skill.act(state.obs["policy"][index], z))
        held = m.step(state, z)
    jax.tree.map(np.testing.assert_array_equal, _plain(flat), _plain(held))


def _plain(tree):
    keys = jax.dtypes.prng_key
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, keys) else x, tree)


def test_rewards_after_the_first_done_are_masked(env, skill):
    m = macro(env, skill, 10)
    state = jax.jit(m.reset)(KEY).replace(t=jnp.asarray(env.spec.episode_length - 3, jnp.int32))
    after, trace = jax.jit(m.trace)(state, jnp.array([1.0, 0.0]))
    assert bool(after.truncated) and int(after.t) == env.spec.episode_length
    assert trace.alive.tolist() == [True] * 3 + [False] * 7
    np.testing.assert_array_equal(trace.acting, np.tile([1.0, 0.0], (10, 1)))
    assert (np.asarray(trace.reward)[3:] == 0).all()
    assert (np.asarray(trace.qpos)[3:] == np.asarray(trace.qpos)[2]).all()


def test_an_end_inside_an_option_is_no_time_out(skill):
    """Arrival at the second step of six: terminated, not truncated; one reward, discounted once; nothing after it."""
    env = registry.make("point_maze", reset_noise=0.0)
    m = MacroEnv(env, Latent((skill,), env.spec), 6, gamma=0.5)
    state, z, step = jax.jit(env.reset)(KEY), jnp.array([1.0, 0.0]), jax.jit(env.step)
    own = env.spec.obs.index("policy", skill.slices)
    ahead = step(step(state, skill.act(state.obs["policy"][own], z)), skill.act(state.obs["policy"][own], z))
    beyond = ahead.data.qpos + (env.task.radius - 1e-3) * ahead.data.qvel / jnp.linalg.norm(ahead.data.qvel)
    state = state.replace(memory=state.memory.replace(goal=beyond))
    after, trace = jax.jit(m.trace)(state, z)
    assert bool(after.terminated) and not bool(after.truncated)
    first = int(trace.alive.sum()) - 1
    assert trace.alive.tolist() == [True] * (first + 1) + [False] * (5 - first) and 0 < first < 5
    np.testing.assert_allclose(after.reward, 0.5**first, rtol=1e-6)
    assert np.asarray(trace.reward).tolist() == [float(i == first) for i in range(6)]


def test_skill_output_is_bit_identical_with_and_without_the_wrapper(env, skill):
    composer = Latent((skill,), env.spec)
    obs, z = jax.random.normal(KEY, (env.spec.obs.size("policy"),)), jnp.array([1.0, 0.0])
    own = obs[env.spec.obs.index("policy", skill.slices)]
    np.testing.assert_array_equal(composer.act(obs, composer.resolve(z))[0], skill.act(own, z))


def test_latents_are_projected(env, skill):
    z, _ = Latent((skill,), env.spec).resolve(jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(z, [0.6, 0.8], rtol=1e-6)


def test_choices_of_two_skill_sets_act_as_each_alone(env, skill):
    other = Skill(skill.manifest, {k: v * (-1 if k == "policy/kernel1" else 1) for k, v in skill.arrays.items()})
    choice = Choice((skill, other), env.spec, per_skill=4)
    assert MacroEnv(env, choice, 2).spec.discrete == 8
    obs = jax.random.normal(KEY, (env.spec.obs.size("policy"),))
    own, z = obs[env.spec.obs.index("policy", skill.slices)], skill.prior.spread(4)
    act = jax.jit(jax.vmap(lambda a: choice.act(obs, choice.resolve(a))[0]))
    got = act(jnp.arange(8))  # a batch of different choices: each row its own skill
    want = [skill.act(own, jnp.asarray(v)) for v in z] + [other.act(own, jnp.asarray(v)) for v in z]
    np.testing.assert_allclose(got, jnp.stack(want), atol=1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "sphere", "one_hot"])
def test_choices_list_latents_of_the_prior(env, skill, kind):
    manifest = {**skill.manifest, "latent": {"kind": kind, "size": 3, "hold": 0}}
    other = Skill(manifest, skill.arrays)
    choice = Choice((other,), env.spec, per_skill=5)
    assert choice.discrete == (3 if kind == "one_hot" else 5)
    np.testing.assert_array_equal(choice.latents()[0], other.prior.spread(choice.discrete))
    traced = jax.jit(lambda: Choice((other,), env.spec, per_skill=5).latents()[0] * jnp.ones(()))()
    np.testing.assert_allclose(traced, choice.latents()[0], atol=1e-6)


def test_zero_shot_rule_points_along_phi_of_the_goal(env, skill):
    m = macro(env, skill, 5)
    state = jax.jit(m.reset)(KEY)
    z = goals.zero_shot(m)(KEY, state)
    np.testing.assert_allclose(jnp.linalg.norm(z), 1, rtol=1e-5)
    names = tuple(s["name"] for s in skill.manifest["contract"]["features"])
    features = state.obs["features"][env.spec.obs.index("features", names)]
    scale = next(s.scale for s in env.spec.obs.groups["policy"] if s.name == "goal")
    goal = features.at[:2].add(state.obs["policy"][env.spec.obs.index("policy", ("goal",))] / scale)
    np.testing.assert_allclose(z, skill.goal_latent(features, goal), rtol=1e-5)


def test_skills_of_features_that_a_task_does_not_show_have_no_zero_shot_rule(env, make_skill):
    """They act there all the same, so the baselines of an evaluation leave the rule out."""
    seen = make_skill(registry.make_spec("point", smooth={"velocity": 0.5}))
    m = macro(env, seen, 5)
    with pytest.raises(UserError, match="on the feature 'smooth_velocity', which env point_maze does not show"):
        goals.zero_shot(m)
    assert set(task_eval.controller_baselines(m)) == {"random"}
    along = {**seen.manifest["contract"], "features": [{"name": "position", "size": 1}]}
    with pytest.raises(UserError, match=r"goal of env point_maze has 2 entries, the position .* 1: no zero-shot"):
        goals.zero_shot(macro(env, Skill({**seen.manifest, "contract": along}, seen.arrays), 5))


def test_skills_do_not_change_when_a_controller_learns(env, skill):
    before = skill.digest()
    config = PPOConfig(envs=8, rollout=4, minibatches=2, hidden=(8,))
    learner = Learner(macro(env, skill, 5), config)
    compiled = trainer.programs(learner)
    start = compiled.init(trainer.seed_keys(0))
    first = jax.tree.leaves(start.params)[0].copy()
    (event,) = trainer.train(compiled, start, 1)
    assert not np.array_equal(first, jax.tree.leaves(event.state.params)[0])  # it did learn
    assert skill.digest() == before


def test_what_does_not_fit_says_so(env, skill):
    with pytest.raises(UserError, match="does not fit env ant"):
        Latent((skill,), registry.make_spec("ant"))
    with pytest.raises(UserError, match="at least one skill"):
        Choice((), env.spec)
    with pytest.raises(UserError, match="did you mean 'latent'"):
        sequence((skill,), env.spec, SequenceConfig(mode="laten"))
    with pytest.raises(UserError, match="mode=latent drives one skill set"):
        sequence((skill, skill), env.spec, SequenceConfig())
    with pytest.raises(UserError, match="hold must be at least 1"):
        macro(env, skill, 0)
    slower = dataclasses.replace(env.spec, dt=1.0)
    with pytest.raises(UserError, match=r"steps every 1.0 s"):
        Latent((skill,), slower)
