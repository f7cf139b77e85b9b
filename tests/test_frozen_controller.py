"""Controllers of every kind in the macro env, frozen into the library, and under another controller."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import trainer
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.algos.types import Stats
from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level import frozen, goals
from repertoire.high_level.blend import Blend, BlendConfig
from repertoire.high_level.frozen import FrozenController, freeze
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.sequence import Choice, Latent, Parameterized
from repertoire.skills.library import Library
from repertoire.skills.skill import Skill

KEY = jax.random.key(0)
CONFIG = PPOConfig(envs=8, rollout=4, minibatches=2, hidden=(8,))


@pytest.fixture(scope="module")
def env():
    return registry.make("point_maze", radius=10.0, hold=True)  # a reward at every step: there is something to learn


@pytest.fixture(scope="module")
def skills(make_skill):
    """Skills of the bare point: they know nothing of goals."""
    point = registry.make_spec("point")
    return make_skill(point, "a", seed=1), make_skill(point, "b", seed=2)


def trained(env, composer, hold=5):
    """A learner over `composer` and its state after one update."""
    learner = Learner(MacroEnv(env, composer, hold), CONFIG)
    compiled = trainer.programs(learner)
    start = compiled.init(trainer.seed_keys(0))
    before = jax.tree.leaves(start.params["policy"]["net"])[0].copy()
    (event,) = trainer.train(compiled, start, 1)
    state = trainer.seed_state(event.state, 0, 1)
    assert not np.array_equal(before, jax.tree.leaves(state.params["policy"]["net"])[0])  # it did learn
    return learner, state, event.metrics


def drawn(env, composer, hold, seed=0):
    """A learner over `composer` and as much of a state as freezing reads: nothing to compile."""
    learner, key = Learner(MacroEnv(env, composer, hold), CONFIG), jax.random.key(seed)
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(key, x.shape), learner.nets.init(key))
    size = env.spec.obs.size("policy")
    stats = Stats(jnp.full(size, 0.1), jnp.full(size, 2.0), jnp.ones(()))
    return learner, SimpleNamespace(params=params, obs_stats={"policy": stats})


@pytest.fixture(scope="module")
def blended(env, skills):
    """A blend of the two skills."""
    return drawn(env, Blend(skills, env.spec), hold=2)


@pytest.fixture(scope="module")
def controller(blended):
    """It frozen, to be told where to go."""
    return freeze("walker", *blended, {"run": "r"}, command="goal", command_range=2.0)


@pytest.mark.slow
def test_skills_do_not_change_when_a_blend_learns(env, skills):
    learner, _, metrics = trained(env, Blend(skills, env.spec), hold=2)
    fresh = [Skill(s.manifest, {k: np.array(v) for k, v in s.arrays.items()}).digest() for s in skills]
    assert [s.digest() for s in learner.env.composer.skills] == fresh
    assert 0 < float(np.ravel(metrics["env/controller/weight_entropy"])[0]) <= np.log(2)


@pytest.mark.slow
def test_a_parameterized_controller_learns(env, skills):
    learner, state, metrics = trained(env, Parameterized(skills, env.spec))
    assert np.isfinite(metrics["loss/policy"]).all() and np.isfinite(metrics["policy/entropy"]).all()
    logits = state.params["policy"]["net"]["Dense_1"]["kernel"]
    assert logits.shape == (8, 2 + 4)  # two choices, two latents of two entries
    rule = goals.random_skills(learner.env)
    assert rule(KEY, None).shape == (5,)


def test_hold_one_with_one_skill_is_the_flat_env(env, skills):
    macro = MacroEnv(env, Blend(skills[:1], env.spec, BlendConfig(squash="clamp", residual=0.1)), 1, gamma=0.9)
    state, index = jax.jit(macro.reset)(KEY), env.spec.obs.index("policy", skills[0].slices)
    action = jnp.array([0.6, 0.8, 0.0, 0.0])
    with jax.disable_jit():  # op by op, so that nothing but the arithmetic itself is compared
        flat = env.step(state, skills[0].act(state.obs["policy"][index], skills[0].prior.project(action[:2])))
        held = macro.step(state, action)
    jax.tree.map(np.testing.assert_array_equal, _plain(flat), _plain(held))


def _plain(tree):
    keys = jax.dtypes.prng_key
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, keys) else x, tree)


def test_a_frozen_controller_acts_as_the_trained_one(env, blended, controller):
    learner, state = blended
    obs, stats = jax.random.normal(KEY, (env.spec.obs.size("policy"),)), state.obs_stats["policy"]
    logits = learner.nets.policy.apply(
        state.params["policy"]["net"], jnp.clip((obs - stats.mean) / jnp.sqrt(jnp.maximum(stats.var, 1e-8)), -10, 10)
    )
    composer = learner.env.composer
    want, _ = composer.act(obs, composer.resolve(learner.nets.head.mode(logits)))
    own = obs[env.spec.obs.index("policy", controller.slices)]
    goal = obs[env.spec.obs.index("policy", ("goal",))]
    z = goal / (2.0 * next(s.scale for s in env.spec.obs.groups["policy"] if s.name == "goal"))
    np.testing.assert_allclose(controller.act(own, z), want, atol=1e-5)
    assert controller.slices == ("velocity", "position") and controller.prior.size == 2
    np.testing.assert_array_equal(controller.prior.project(jnp.array([3.0, -0.5])), [1.0, -0.5])


def test_it_decides_every_hold_steps(env, controller):
    z, memory, sizes = jnp.array([1.0, 0.0]), controller.start(), []
    for i in range(4):
        obs = jnp.full(4, float(i))
        _, memory = controller.step(obs, z, memory)
        sizes.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(memory)[1:]]))
    assert np.array_equal(sizes[0], sizes[1]) and np.array_equal(sizes[2], sizes[3])
    assert not np.array_equal(sizes[1], sizes[2])
    assert [f.name for f in controller.fields] == ["clock", "a/z", "b/z", "weights", "residual"]


def test_the_library_holds_it_whole(tmp_path, skills, controller):
    library = Library(tmp_path)
    library.add(skills[0])
    reference = library.add(controller)
    opened = frozen.load(library, reference)
    assert isinstance(opened, FrozenController) and opened.digest() == controller.digest()
    assert [s["digest"] for s in opened.manifest["controller"]["skills"]] == [s.digest() for s in skills]
    z, obs = jnp.array([0.2, -0.4]), jnp.array([0.5, 0.1, -0.3, 2.0])
    np.testing.assert_array_equal(opened.act(obs, z), controller.act(obs, z))
    assert type(frozen.load(library, "a")) is Skill
    card = (library.path(reference) / "card.md").read_text()
    assert "Controller (blend, held 2 steps) over a, b" in card and opened.digest() in card
    assert "latent: its command `goal`, size 2" in card and "objective saw" not in card


@pytest.mark.parametrize("groups", [{"z": ["x"], "a": ["y"]}, {"a": ["y"], "z": ["x"]}, "all"])
def test_groups_come_back_in_their_order(tmp_path, env, skills, groups):
    """It is the layout of the weights, and manifests are written in alphabetical order."""
    made = freeze("c", *drawn(env, Blend(skills, env.spec, BlendConfig(groups=groups)), hold=2), {})
    library = Library(tmp_path)
    opened = frozen.load(library, library.add(made))
    assert opened.composer.groups == made.composer.groups == tuple(groups if isinstance(groups, dict) else ["all"])
    assert opened.composer.names == made.composer.names and opened.digest() == made.digest()
    obs = jax.random.normal(KEY, (8, env.spec.obs.size("policy")))
    act = [jax.vmap(lambda x, c=c: c.act(x, jnp.zeros(0)))(obs) for c in (made, opened)]
    np.testing.assert_allclose(*act, rtol=1e-5, atol=1e-6)


def test_groups_of_older_entries_are_a_mapping(env, skills):
    made = freeze("c", *drawn(env, Blend(skills, env.spec, BlendConfig(groups={"a": ["x"], "b": ["y"]})), hold=2), {})
    composer = {**made.manifest["controller"]["composer"], "groups": {"a": ["x"], "b": ["y"]}}
    older = {**made.manifest, "controller": {**made.manifest["controller"], "composer": composer}}
    assert FrozenController(older, made.arrays).composer.names == made.composer.names


def test_a_skill_exchanged_within_is_found(controller):
    arrays = {k: v + (k == "skills/1/policy/bias0") for k, v in controller.arrays.items()}
    with pytest.raises(UserError, match="the skill b within is not the one that was frozen"):
        FrozenController(controller.manifest, arrays)


@pytest.mark.slow
def test_three_levels(env, skills, controller):
    """A choice over (a blend of two skills, a skill), itself frozen, under a latent controller."""
    middle = Choice((controller, skills[0]), env.spec, per_skill=3)
    upper = freeze("upper", *drawn(env, middle, hold=4, seed=1), {}, command="goal")
    assert json.dumps(upper.manifest)  # a library entry
    top = MacroEnv(env, Latent((upper,), env.spec), 8, gamma=0.9)
    assert top.notes == () and "upper decides every 4 steps" in MacroEnv(env, top.composer, 6).notes[0]
    z, start = jnp.array([0.3, -0.7]), jax.jit(top.reset)(KEY)
    got = jax.jit(top.step)(start, z)
    # by hand: the clocks of both levels, one control step after the other
    step, below = jax.jit(env.step), jax.jit(upper.step)
    own, memory, state, total = env.spec.obs.index("policy", upper.slices), upper.start(), start, 0.0
    for i in range(8):
        action, memory = below(state.obs["policy"][own], z, memory)
        state = step(state, action)
        total += 0.9**i * float(state.reward)
    np.testing.assert_allclose(got.data.qpos, state.data.qpos, atol=1e-5)
    np.testing.assert_allclose(got.reward, total, rtol=1e-4)
    inner = upper.composer.skills[0]
    assert isinstance(inner, FrozenController) and [s.name for s in inner.composer.skills] == ["a", "b"]


def test_a_controller_without_command_is_one_choice(env, blended, skills):
    quiet = freeze("quiet", *blended, {})
    assert quiet.prior.size == 0 and quiet.slices == tuple(s.name for s in env.spec.obs.groups["policy"])
    choice = Choice((quiet, skills[0]), env.spec, per_skill=3)
    assert choice.discrete == 1 + 3
    product = Blend((quiet, skills[0]), env.spec, BlendConfig(combine="multiply"))
    assert product.std.shape == (2, 2) and "quiet" in product.notes[0]  # its own noise was on commands
    with pytest.raises(UserError, match="quiet has no latent to drive"):
        Latent((quiet,), env.spec)
    with pytest.raises(UserError, match="no policy slice 'gaol' to command; it has velocity, position, goal"):
        freeze("x", *blended, {}, command="gaol")
    with pytest.raises(UserError, match="does not fit env point"):
        Choice((quiet,), registry.make_spec("point"))
