"""Composition in parameter space: known answers, macro env, freezing, learning (research hierarchy 3.1)."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import normalize, trainer
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level import frozen
from repertoire.high_level import registry as controllers
from repertoire.high_level.compose import Compose, ComposeConfig
from repertoire.high_level.macro_env import MacroEnv
from repertoire.skills.adapters import merge
from repertoire.skills.skill import Skill

KEY = jax.random.key(0)
CLAMP = ComposeConfig(squash="clamp")
CONFIG = PPOConfig(envs=32, rollout=32, minibatches=4, hidden=(16,), lr=3e-3)


SIZE = {"latent": (0.6, 0.8), "rank": 2, "scale": 1.5}


@pytest.fixture(scope="module")
def point():
    return registry.make_spec("point")


@pytest.fixture(scope="module")
def env():
    return registry.make("point_maze", radius=3.5, hold=True)


@pytest.fixture(scope="module")
def base(make_skill, point):
    return make_skill(point, "base", seed=1)


@pytest.fixture(scope="module")
def mixed(env, base, point, make_adapter):
    """Adapters of one base: two that know of the goal and scale it differently, one that does not."""
    size = env.spec.obs.size("policy")
    wide = normalize.init(size).replace(mean=jnp.full(size, 0.5), var=jnp.full(size, 4.0))
    first, third = (
        make_adapter(base, s, name, seed, **SIZE) for s, name, seed in ((env.spec, "a", 1), (point, "c", 3))
    )
    return first, make_adapter(base, env.spec, "b", 2, stats=wide, **SIZE), third


def act(composer, obs, coefficients):
    return composer.act(obs, composer.resolve(jnp.asarray(coefficients)))[0]


def alone(env, skill, obs, z=()):
    return skill.act(obs[env.spec.obs.index("policy", skill.slices)], jnp.asarray(z))


OBS = 2 * jax.random.normal(KEY, (3, 6))


@pytest.mark.parametrize("obs", OBS)
def test_coefficients_of_one_adapter_and_of_none(env, base, mixed, obs):
    composer = Compose(mixed, env.spec, CLAMP)
    assert composer.names == ("a/coefficient", "b/coefficient", "c/coefficient")
    for i, skill in enumerate(mixed):
        np.testing.assert_allclose(act(composer, obs, np.eye(3)[i]), alone(env, skill, obs), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(act(composer, obs, np.zeros(3)), alone(env, base, obs, (0.6, 0.8)), rtol=1e-5, atol=1e-5)


def test_several_at_once_are_one_network_of_summed_weights(env, base, mixed, make_adapter):
    same = mixed[0], make_adapter(base, env.spec, "d", 5, **SIZE)
    composer = Compose(same, env.spec, CLAMP)
    assert len(composer.inputs.entries) == 6  # what both read alike is read once
    for c in ([0.5, 0.5], [1.5, -0.7]):
        want = merge(same, c, "m").act(OBS[0], jnp.zeros(0))
        np.testing.assert_allclose(act(composer, OBS[0], c), want, rtol=1e-5, atol=1e-5)
    apart = 0.5 * (alone(env, same[0], OBS[0]) + alone(env, same[1], OBS[0]))
    assert np.abs(act(composer, OBS[0], [0.5, 0.5]) - apart).max() > 1e-3  # not the mean of their actions


def test_coefficients_are_bounded(env, mixed):
    for squash, at_one in (("clamp", 1.0), ("tanh", 2 * np.tanh(0.5))):
        composer = Compose(mixed, env.spec, ComposeConfig(squash=squash, limit=2.0))
        np.testing.assert_allclose(composer.resolve(jnp.array([90.0, -90.0, 1.0])), [2.0, -2.0, at_one], rtol=1e-6)
    held = composer.resolve(jnp.array([0.0, -90.0, 0.0]))
    np.testing.assert_allclose(composer.acting(held), [1 / 3, 0.0, 2 / 3, 0.0], rtol=1e-6)
    assert composer.actors == ("base", "a", "b", "c")
    np.testing.assert_allclose(composer.metrics(held)["coefficient"], 2 / 3, rtol=1e-6)
    assert composer.sample(KEY).shape == composer.zero().shape == (3,)


@pytest.mark.parametrize("squash", ["tanh", "clamp"])
def test_what_is_bounded_already_reaches_the_limit(env, mixed, squash):
    composer = Compose(mixed, env.spec, ComposeConfig(squash, limit=2.0, bounded=True))
    np.testing.assert_allclose(composer.resolve(jnp.array([1.0, -1.0, 0.25])), [2.0, -2.0, 0.5], rtol=1e-6)
    shared = Compose(mixed, env.spec, ComposeConfig("share", bounded=True))
    np.testing.assert_allclose(shared.resolve(jnp.array([1.0, -1.0, -1.0])), [1.0, 0.0, 0.0], atol=2e-3)  # decided
    np.testing.assert_allclose(shared.resolve(jnp.array([0.0, 1.0, -1.0])), [1 / 3, 2 / 3, 0.0], atol=2e-3)
    np.testing.assert_allclose(shared.resolve(-jnp.ones(3)), np.full(3, 1 / 3), atol=1e-6)  # not none


def test_what_cannot_be_composed_says_so(env, base, mixed, make_adapter):
    with pytest.raises(UserError, match="base is no adapter: make one with `repertoire train"):
        Compose((mixed[0], base), env.spec)
    with pytest.raises(UserError, match=r"one base at one latent: a has latent \[0.6.*, e has \[1.0, 0.0\]"):
        Compose((mixed[0], make_adapter(base, env.spec, "e", latent=(1.0, 0.0))), env.spec)
    with pytest.raises(UserError, match="did you mean 'clamp'"):
        ComposeConfig(squash="clam")
    with pytest.raises(UserError, match=r"controller\.limit must be positive"):
        ComposeConfig(limit=0.0)


def test_a_composed_controller_is_a_skill(env, mixed):
    learner = Learner(MacroEnv(env, Compose(mixed, env.spec), 2), CONFIG)
    params, size = learner.nets.init(KEY), env.spec.obs.size("policy")
    params = jax.tree.map(lambda x: x + 0.2, params)
    state = SimpleNamespace(params=params, obs_stats={"policy": normalize.init(size)})
    made = frozen.freeze("composed", learner, state, {})
    again = frozen.opened(Skill(made.manifest, made.arrays))
    assert [s.digest() for s in again.composer.skills] == [s.digest() for s in mixed]
    assert controllers.make(again.composer.describe(), mixed, env.spec).config == ComposeConfig()
    logits = learner.nets.policy.apply(params["policy"]["net"], normalize.apply(normalize.init(size), OBS[0]))
    want = act(learner.env.composer, OBS[0], logits)
    np.testing.assert_allclose(again.act(OBS[0], jnp.zeros(0)), want, rtol=1e-5, atol=1e-5)
    assert [f.name for f in again.fields] == ["clock", "coefficients"]


@pytest.fixture(scope="module")
def right(point, make_skill):
    """A skill whose latent is the velocity, m/s, and whose first hidden unit is 1 at (1, 0): relu(z) - relu(-z)."""
    drawn, both = make_skill(point, "right", hidden=4), np.concatenate([np.eye(2), -np.eye(2)]).astype(np.float32)
    arrays = {k: np.zeros_like(v) for k, v in drawn.arrays.items()} | {"obs/var": np.ones(2, np.float32)}
    arrays["policy/kernel0"][2:], arrays["policy/kernel1"] = both.T, both
    return Skill({**drawn.manifest, "network": {"hidden": [4], "activation": "relu"}}, arrays)


def change(env, b):
    """A and B that add `b` [2] to the action of `right` at (1, 0), where the scale is 1.5."""
    first = {"a": jnp.zeros((env.spec.obs.size("policy"), 2)), "b": jnp.zeros((2, 4))}
    last = {"a": jnp.zeros((4, 2)).at[0, 0].set(1.0), "b": jnp.zeros((2, 2)).at[0].set(jnp.asarray(b) / 1.5)}
    return {"Dense_0": first, "Dense_1": last}


@pytest.mark.slow
def test_a_controller_learns_coefficients_and_its_adapters_stay_as_they_are(env, right, make_adapter):
    """From the corner of the u the goal is straight down; the base goes right, the adapters up or twice as fast."""
    changes, start = {"up": (0.0, 1.0), "fast": (1.0, 0.0)}, {**SIZE, "latent": (1.0, 0.0)}
    skills = [make_adapter(right, env.spec, name, net=change(env, b), **start) for name, b in changes.items()]
    before = [s.digest() for s in skills]
    composer = Compose(skills, env.spec, CLAMP)
    np.testing.assert_allclose(act(composer, OBS[0], [-1.0, -1.0]), [0.0, -1.0], atol=1e-6)
    learner = Learner(MacroEnv(env, composer, 5), CONFIG)
    compiled = trainer.programs(learner)
    events = trainer.train(compiled, compiled.init(trainer.seed_keys(0)), 50, learner.hold)
    rewards = [event.metrics["env/reward"] for event in events]
    assert max(rewards[:5]) < 1.0 and min(rewards[-3:]) > 3.0, rewards  # of 5 in a macro step of 5
    assert [s.digest() for s in composer.skills] == before
