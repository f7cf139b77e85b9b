"""Objectives made of others: factors side by side (D3, DUSDi) and a gate (SMERL)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos.types import FeatureBatch
from repertoire.errors import UserError
from repertoire.scripts import build, config
from repertoire.skills.freezing import freeze
from repertoire.skills.objectives import registry
from repertoire.skills.objectives.factor import Factor
from repertoire.skills.skill import Skill

KEY = jax.random.key(0)
LAYOUT = [["position", 2], ["velocity", 3]]
POSITION = {"name": "position", "features": ["position"], "options": {"hidden": [8]}}
VELOCITY = {
    "name": "speed",
    "objective": "diayn",
    "features": ["velocity[0:2]"],
    "skills": 4,
    "options": {"hidden": [8]},
}
SMALL = ["env=point", "algo.envs=8", "algo.rollout=4", "algo.minibatches=2", "algo.hidden=[8]", "total_steps=64"]


def batch(objective, n=64):
    keys = jax.random.split(KEY, 3)
    x, y = jax.random.normal(keys[0], (2, n, 5))
    z = jax.vmap(objective.prior.sample)(jax.random.split(keys[1], n))
    return FeatureBatch(x, z, y, weight=jnp.ones(n), projected=jnp.linspace(-1, 1, n))


def two(**options):
    return registry.make("factored", factors=[POSITION, VELOCITY], layout=LAYOUT, **options)


def same(ours, theirs):
    """Equal but for the rounding of two differently compiled programs."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["metra", "diayn"])
def test_one_factor_is_the_plain_objective(name):
    plain = registry.make(name, hidden=[8], hold=3, lr=1e-2)
    factor = {"name": "all", "objective": name, "options": {"hidden": [8]}}
    factored = registry.make("factored", factors=[factor], hold=3, lr=1e-2)
    assert factored.prior.parts[0].describe() == plain.prior.describe() | {"hold": 0}
    assert factored.prior.hold == 3 and factored.channels == ("all",)
    params, data = factored.init(KEY, 5), batch(plain)
    own = params["all"]["own"]
    same(factored.rewards(params, data, KEY), plain.rewards(own, data, KEY))
    same(factored.weigh(data.z[0]), plain.weigh(data.z[0]))
    ours, theirs = (jax.jit(jax.grad(lambda p, o=o: o.loss(p, data, KEY)[0])) for o in (factored, plain))
    jax.tree.map(same, ours(params)["all"]["own"], grads := theirs(own))
    updates, _ = factored.optimizer.update(ours(params), factored.optimizer.init(params), params)
    alone, _ = plain.optimizer.update(grads, plain.optimizer.init(own), own)
    jax.tree.map(same, updates["all"]["own"], alone)
    goal = (jnp.zeros(5), jnp.ones(5))
    same(factored.goal_latent(params, *goal), plain.goal_latent(own, *goal))


def test_each_factor_sees_its_own_features_and_latent():
    objective = two()
    params, data = objective.init(KEY, 5), batch(objective)
    rewards = objective.rewards(params, data, KEY)
    assert objective.channels == ("position", "speed") and rewards.shape == (64, 2)
    moved = {  # which channels (position, speed) a change of each feature reaches
        0: (True, False), 1: (True, False), 2: (False, True), 3: (False, True), 4: (False, False),
    }  # fmt: skip
    for i, reached in moved.items():
        other = objective.rewards(params, data.replace(next_features=data.next_features.at[:, i].add(1)), KEY)
        assert tuple(bool(x) for x in (other != rewards).any(0)) == reached
    turned = objective.rewards(params, data.replace(z=data.z.at[:, :2].multiply(-1)), KEY)
    np.testing.assert_allclose(turned, rewards * jnp.array([-1, 1]), rtol=1e-5, atol=1e-7)


def test_channel_weights_are_the_latents_own():
    objective = two(weighted=True)
    z = jnp.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.6, 0.8])
    np.testing.assert_allclose(objective.weigh(z), [0.6, 0.8])
    csf = {**POSITION, "objective": "csf", "options": {"hidden": [8], "successor": True}}
    inner = registry.make("factored", factors=[csf, VELOCITY], layout=LAYOUT, weighted=True)
    assert inner.channels == ("position_csf_0", "position_csf_1", "speed")
    np.testing.assert_allclose(inner.weigh(z), [0.6 * 1, 0.6 * 0, 0.8])
    assert inner.rewards(inner.init(KEY, 5), batch(inner), KEY).shape == (64, 3)


def test_anti_term_charges_what_the_other_factors_tell():
    plain, anti = two(), two(anti=0.1)
    params, data = anti.init(KEY, 5), batch(anti)
    blind = {n: {**p, "probe": jax.tree.map(jnp.zeros_like, p["probe"])} for n, p in params.items()}
    blind["speed"]["probe"]["discriminator"]["Dense_2"]["bias"] = jnp.array([1e3, 0, 0, 0]) - 1e3 * (1 - jnp.eye(4)[0])
    gap = plain.rewards(params, data, KEY) - anti.rewards(blind, data, KEY)
    told = np.where(data.z[:, 2] == 1, np.log(4), np.log(4) - 10)  # logits are clipped to -5 and 5
    np.testing.assert_allclose(gap[:, 1], 0.1 * told, rtol=1e-3)
    leak = params["position"]["probe"]["discriminator"]["Dense_0"]["kernel"]
    assert leak.shape[0] == 2 and params["speed"]["probe"]["discriminator"]["Dense_0"]["kernel"].shape[0] == 2
    _, metrics = anti.loss(params, data, KEY)
    assert {"position/dual", "position/leak", "speed/accuracy", "speed/leak"} <= set(metrics)
    state = anti.optimizer.init(params)
    jax.tree.map(lambda a, b: None, params, anti.optimizer.update(params, state, params)[0])  # same structure


def test_goal_rule_serves_the_factors_that_have_one():
    rnd = {"name": "new", "objective": "rnd", "features": ["velocity"], "options": {"hidden": [8]}}
    objective = registry.make("factored", factors=[POSITION, rnd], layout=LAYOUT, weighted=True)
    params, goal = objective.init(KEY, 5), (jnp.zeros(5), jnp.ones(5))
    z = objective.goal_latent(params, *goal)
    mine = objective.objectives[0].goal_latent(params["position"]["own"], goal[0][:2], goal[1][:2])
    np.testing.assert_allclose(z[:2], mine)
    np.testing.assert_allclose(z[-2:], [1, 0])
    assert not hasattr(registry.make("factored", factors=[rnd], layout=LAYOUT), "goal_latent")


def test_a_factor_may_see_one_slice_alone():
    assert Factor.of({"name": "where", "features": "position"}).features == ("position",)
    with pytest.raises(UserError, match=r"features of where must be a list, got 2"):
        Factor.of({"name": "where", "features": 2})


def test_bad_factors_are_refused():
    for factors, more, says in [
        ([], {}, "at least one factor"),
        ([POSITION, POSITION], {}, "another name"),
        ([{"name": "a b"}], {}, "letters, digits"),
        ([{"name": "a", "feature": ["position"]}], {}, "did you mean 'features'"),
        ([{"name": "a", "objective": "metro"}], {}, "did you mean 'metra'"),
        ([{"name": "a", "features": ["positon"]}], {"layout": LAYOUT}, "did you mean 'position'"),
        ([{"name": "a", "features": ["velocity[3:4]"]}], {"layout": LAYOUT}, "velocity has 3 entries"),
        ([POSITION], {"anti": 0.1}, "needs two factors"),
        ([POSITION, {**POSITION, "name": "again"}], {"anti": 0.1, "layout": LAYOUT}, "different features"),
        ([POSITION], {"prior": "one_hot"}, "follows from its factors"),
    ]:
        with pytest.raises(UserError, match=says):
            registry.make("factored", factors=factors, **more)
    with pytest.raises(UserError, match="must list all 5 features"):
        registry.make("factored", factors=[POSITION]).init(KEY, 5)


# -- SMERL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "opens"), [(10.0, 9.0), (-10.0, -11.0), (0.0, 0.0)])
def test_gate_opens_at_the_target_less_its_tolerance(target, opens):
    gate = registry.make("smerl", inner="metra", inner_options={"hidden": [8]}, target=target, scale=0.5)
    inner = registry.make("metra", hidden=[8])
    params, data = gate.init(KEY, 5), batch(inner)
    returns = jnp.where(jnp.arange(64) % 2 == 0, opens - 0.01, opens + 0.01)
    rewards = gate.rewards(params, data.replace(projected=returns), KEY)
    np.testing.assert_array_equal(rewards[::2], 0)
    np.testing.assert_array_equal(rewards[1::2], inner.rewards(params, data, KEY)[1::2])
    assert not gate.open(jnp.asarray(-jnp.inf))  # of an episode that lacks its beginning
    assert gate.channels == ("smerl_metra",) and gate.prior == inner.prior
    np.testing.assert_array_equal(gate.weigh(data.z[0]), [0.5])
    loss, metrics = gate.loss(params, data.replace(projected=returns), KEY)
    assert loss == inner.loss(params, data, KEY)[0] and metrics["open"] == 0.5
    np.testing.assert_array_equal(
        gate.goal_latent(params, *data.features[:2]), inner.goal_latent(params, *data.features[:2])
    )


def test_gate_takes_the_latent_of_what_it_gates_unless_told():
    assert registry.make("smerl", inner="becl", hold=5).prior.describe() == {"kind": "one_hot", "size": 16, "hold": 5}
    assert registry.make("smerl", inner="metra", prior="one_hot", skills=3).behind.prior.kind == "one_hot"
    gate = registry.make("smerl", inner="factored", inner_options={"factors": [POSITION, VELOCITY]}, layout=LAYOUT)
    assert gate.channels == ("smerl_position", "smerl_speed")
    assert not hasattr(registry.make("smerl", inner="rnd"), "goal_latent")
    with pytest.raises(UserError, match="did you mean 'metra'"):
        registry.make("smerl", inner="metro")


# -- from a config, and frozen ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", config.options("objective"))
def test_every_objective_config_builds(name):
    env = ["env=ant"] if name == "factored_ant" else ["env=point_disc"] if name == "slim" else []
    learner = build.learner_of("train-skills", config.compose("train_skills", [*SMALL, *env, f"objective={name}"]))
    assert len(learner.channels) >= 1 and learner.objective.name in registry.OBJECTIVES


@pytest.mark.parametrize("name", ["factored", "smerl", "lpe"])
def test_a_frozen_skill_rebuilds_its_objective(name):
    more = ["objective.anti=0.1"] if name == "factored" else []
    learner = build.learner_of("train-skills", config.compose("train_skills", [*SMALL, f"objective={name}", *more]))
    objective, size = learner.objective, len(learner.feature_index)
    shapes = jax.eval_shape(learner.init, KEY)
    state = jax.tree.map(
        lambda s: KEY if jnp.issubdtype(s.dtype, jax.dtypes.prng_key) else np.ones(s.shape, s.dtype), shapes
    )
    state = state.replace(objective=objective.init(KEY, size))
    frozen = freeze("mine", learner, state, {}, ("position",))
    again = Skill(json.loads(json.dumps(frozen.manifest)), frozen.arrays)
    assert again.prior == objective.prior == again.objective().prior and again.has_goal_rule
    assert again.objective().channels == objective.channels
    raw, normalised = (jnp.zeros(size), jnp.ones(size)), (-jnp.ones(size), jnp.zeros(size))  # mean 1, variance 1
    np.testing.assert_allclose(again.goal_latent(*raw), objective.goal_latent(state.objective, *normalised), rtol=1e-5)


def test_spans_say_which_features_and_latents_belong_together():
    layout = [["position", 2], ["velocity", 2], ["height", 1]]
    factors = [
        {"name": "where", "objective": "metra", "features": ["position"], "skills": 2},
        {"name": "how", "objective": "diayn", "features": ["velocity", "height"], "skills": 3},
    ]
    spans = registry.make("factored", factors=factors, layout=layout, weighted=True).spans
    assert {k: (f.tolist(), z.tolist()) for k, (f, z) in spans.items()} == {
        "where": ([0, 1], [0, 1]),
        "how": ([2, 3, 4], [2, 3, 4]),
    }
