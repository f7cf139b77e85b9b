"""Blends, switches, products, residuals and parameterized skills: known answers (research 8.1)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level import registry as registry_of_controllers
from repertoire.high_level.bank import Bank
from repertoire.high_level.blend import Blend, BlendConfig
from repertoire.high_level.sequence import Choice, Latent, Parameterized
from repertoire.scripts import config, pinning
from repertoire.skills.skill import Skill

SPEC = registry.make_spec("ant")
KEY = jax.random.key(0)
OBS = jax.random.normal(KEY, (SPEC.obs.size("policy"),))
LEGS = {"front": ["hip_[12]", "ankle_[12]"], "back": ["*_3", "*_4"]}


@pytest.fixture(scope="module")
def skills(make_skill):
    """Two of one shape, one of another, one of the first again, one without latent continuity."""
    return (
        make_skill(SPEC, "a", seed=1),
        make_skill(SPEC, "b", "gaussian", 3, seed=2, hidden=16),
        make_skill(SPEC, "c", seed=3),
        make_skill(SPEC, "d", "one_hot", 4, seed=4),
    )


def alone(skill, z):
    """What the env would apply of the skill's action."""
    return jnp.clip(skill.act(OBS, skill.prior.project(z)), -1, 1)


def action_of(blend, goals, weights, residual=()):
    """Controller action from its parts: goals per skill, raw weights [n, G]."""
    parts = [*goals, np.asarray(weights).ravel() if len(blend.skills) > 1 else [], residual]
    return jnp.concatenate([jnp.asarray(p, jnp.float32).ravel() for p in parts])


def result(blend, action):
    return blend.act(OBS, blend.resolve(action))[0]


GOALS = ([0.6, 0.8], [0.3, -0.2, 0.1], [0.0, 1.0], [0.0, 2.0, 0.0, 1.0])


def test_a_bank_acts_as_each_skill_alone(skills):
    latents = [s.prior.project(jnp.asarray(z)) for s, z in zip(skills, GOALS)]
    actions, memory = Bank(skills, SPEC).act(OBS, latents, ())
    want = [s.act(OBS, z) for s, z in zip(skills, latents)]
    np.testing.assert_allclose(actions, jnp.stack(want), atol=1e-6)
    assert memory == ()


def test_a_bank_of_skills_that_read_different_slices(make_skill):
    richer = registry.make_spec("ant_multi_goals")  # posture, rates, goal
    mixed = (make_skill(richer, "goal", seed=1), make_skill(SPEC, "blind", seed=2), make_skill(SPEC, "too", seed=3))
    obs = jax.random.normal(KEY, (richer.obs.size("policy"),))
    actions, _ = Bank(mixed, richer).act(obs, [jnp.array([1.0, 0.0])] * 3, ())
    own = obs[richer.obs.index("policy", mixed[1].slices)]
    np.testing.assert_allclose(actions[0], mixed[0].act(obs, jnp.array([1.0, 0.0])), atol=1e-6)
    np.testing.assert_allclose(actions[2], mixed[2].act(own, jnp.array([1.0, 0.0])), atol=1e-6)


@pytest.mark.parametrize("combine", ["blend", "switch", "multiply"])
@settings(max_examples=20, deadline=None)
@given(raw=st.lists(st.floats(-30, 30, width=32), min_size=8, max_size=8))
def test_weights_of_every_joint_sum_to_one(skills, combine, raw):
    blend = Blend(skills, SPEC, BlendConfig(combine=combine, groups=LEGS))
    weights = blend.weights(blend.resolve(action_of(blend, GOALS, raw)))
    assert weights.shape == (4, 8) and float(weights.min()) >= 0
    np.testing.assert_allclose(weights.sum(0), 1.0, atol=1e-6)


@pytest.mark.parametrize("combine", ["blend", "switch", "multiply"])
def test_one_hot_weights_equal_the_single_skill(skills, combine):
    blend = Blend(skills, SPEC, BlendConfig(combine=combine, squash="clamp"))
    for i, skill in enumerate(skills):
        weights = np.full((4, 8), -100.0)
        weights[i] = 100.0
        clamped = jnp.clip(jnp.asarray(GOALS[i]), -1, 1)
        got = result(blend, action_of(blend, GOALS, weights))  # a batched program against one of its own
        np.testing.assert_allclose(got, alone(skill, clamped), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(blend.weights(blend.resolve(action_of(blend, GOALS, weights)))[i], 1.0)


@pytest.mark.parametrize("combine", ["blend", "switch", "multiply"])
def test_identical_skills_blend_to_themselves(skills, combine):
    blend = Blend((skills[0],) * 3, SPEC, BlendConfig(combine=combine, squash="clamp"))
    weights = np.random.default_rng(0).normal(size=(3, 8))
    got = result(blend, action_of(blend, [GOALS[0]] * 3, weights))
    np.testing.assert_allclose(got, alone(skills[0], jnp.asarray(GOALS[0])), atol=1e-6)


def test_blending_is_the_weighted_sum_joint_by_joint(skills):
    blend = Blend(skills[:2], SPEC, BlendConfig(sharpness=1.0, squash="clamp"))
    weights = np.zeros((2, 8))
    weights[1, :4] = np.log(3.0)  # a quarter and three quarters on the first joints, halves on the others
    got = result(blend, action_of(blend, GOALS[:2], weights))
    a, b = (alone(s, jnp.asarray(z)) for s, z in zip(skills[:2], GOALS))
    np.testing.assert_allclose(got, np.where(np.arange(8) < 4, 0.25 * a + 0.75 * b, 0.5 * (a + b)), atol=1e-6)


def test_all_actuators_may_share_one_weight(skills):
    one, told = (Blend(skills[:2], SPEC, BlendConfig(groups=g)) for g in ("all", {"all": ["*"]}))
    assert one.groups == told.groups == ("all",) and not one.joint_group.any()
    with pytest.raises(UserError, match=r"unknown controller\.groups 'body'"):
        BlendConfig(groups="body")


def test_one_pattern_is_a_list_of_one(skills):
    told, one = ({"hips": hips, "rest": ["ankle_*"]} for hips in (["hip_*"], "hip_*"))
    one, told = (Blend(skills[:2], SPEC, BlendConfig(groups=groups)) for groups in (one, told))
    assert one.groups == told.groups and (one.joint_group == told.joint_group).all()
    assert one.describe() == told.describe() and one.describe()["groups"][0] == ["hips", ["hip_*"]]
    with pytest.raises(UserError, match=r"controller\.groups\.hips must be a list, got 3"):
        BlendConfig(groups={"hips": 3})


def test_groups_share_weights(skills):
    blend = Blend(skills[:2], SPEC, BlendConfig(groups=LEGS, sharpness=1.0))
    assert blend.groups == ("front", "back") and blend.size == 2 + 3 + 2 * 2
    assert blend.names[-4:] == ("a/weight/front", "a/weight/back", "b/weight/front", "b/weight/back")
    weights = blend.weights(blend.resolve(action_of(blend, GOALS[:2], [[0, np.log(3)], [0, 0]])))
    front = np.array([name[-1] in "12" for name in SPEC.action_names])
    np.testing.assert_allclose(weights[0], np.where(front, 0.5, 0.75), atol=1e-6)


def test_multiply_is_the_mean_of_the_product_of_gaussians(skills):
    config = BlendConfig(combine="multiply", sharpness=1.0, squash="clamp")
    a, b = (Skill(s.manifest, {**s.arrays, "policy/std": std}) for s, std in zip(skills, (np.full(8, 0.1), np.ones(8))))
    got = result(Blend((a, b), SPEC, config), action_of(Blend((a, b), SPEC, config), GOALS[:2], np.zeros((2, 8))))
    want = (100 * alone(a, jnp.asarray(GOALS[0])) + alone(b, jnp.asarray(GOALS[1]))) / 101  # precision-weighted
    np.testing.assert_allclose(got, want, atol=1e-6)
    # Gaussians of one width: the blend
    equal, weights = Blend(skills[:2], SPEC, config), np.random.default_rng(0).normal(size=(2, 8))
    action = action_of(equal, GOALS[:2], weights)
    plain = Blend(skills[:2], SPEC, dataclasses.replace(config, combine="blend"))
    np.testing.assert_allclose(result(equal, action), result(plain, action), atol=1e-6)
    assert "no action std is stored with a, b" in equal.notes[0] and Blend((a, b), SPEC, config).notes == ()


def test_a_residual_of_zero_is_the_skill_and_others_are_bounded(skills):
    blend = Blend(skills[:1], SPEC, BlendConfig(residual=0.2, squash="clamp"))
    assert blend.size == 2 + 8 and blend.mode == "blend+residual"
    skill = alone(skills[0], jnp.asarray(GOALS[0]))
    np.testing.assert_array_equal(result(blend, action_of(blend, GOALS[:1], (), np.zeros(8))), skill)
    far = result(blend, action_of(blend, GOALS[:1], (), np.array([9, -9, 0.5, 0, 0, 0, 0, 0])))
    np.testing.assert_allclose(far - skill, [0.2, -0.2, 0.1, 0, 0, 0, 0, 0], atol=1e-6)


def test_clamped_sub_goals_have_no_gradient_outside_and_tanh_has(make_skill):
    skill = make_skill(SPEC, "g", "gaussian", 2)
    for squash, outside in (("clamp", 0.0), ("tanh", 1.0)):
        blend = Blend((skill,), SPEC, BlendConfig(squash=squash, limit=0.5))
        slope = jax.grad(lambda a, b=blend: b.resolve(a).latents[0].sum())
        assert (jnp.abs(slope(jnp.array([0.9, -0.9]))) > 0).all() == bool(outside)
        assert (slope(jnp.array([0.1, -0.1])) > 0.5).all()
        np.testing.assert_allclose(blend.resolve(jnp.array([50.0, -50.0])).latents[0], [0.5, -0.5], rtol=1e-6)


def test_weight_entropy(skills):
    blend = Blend(skills[:2], SPEC, BlendConfig())
    even = blend.resolve(action_of(blend, GOALS[:2], np.zeros((2, 8))))
    sure = blend.resolve(action_of(blend, GOALS[:2], np.stack([np.full(8, 50.0), np.zeros(8)])))
    np.testing.assert_allclose(blend.metrics(even)["weight_entropy"], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(blend.metrics(sure)["weight_entropy"], 0.0, atol=1e-6)
    assert Blend(skills[:1], SPEC).metrics(even) == {}


def test_parameterized_skills_act_with_their_own_latent(skills):
    composer = Parameterized(skills, SPEC)
    assert (composer.discrete, composer.parameters, composer.size) == (4, (2, 3, 2, 4), 12)
    for i, skill in enumerate(skills):
        action = jnp.concatenate([jnp.array([float(i)]), *map(jnp.asarray, GOALS)])
        got, _ = composer.act(OBS, composer.resolve(action))
        want = skill.act(OBS, skill.prior.project(jnp.asarray(GOALS[i])))
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_who_acts_is_told_by_every_composer(skills):
    blend = Blend(skills[:2], SPEC, BlendConfig(sharpness=1.0))
    weights = np.zeros((2, 8))
    weights[1, :4] = np.log(3.0)  # a quarter on the first four joints, a half on the others
    held = blend.resolve(action_of(blend, GOALS[:2], weights))
    np.testing.assert_allclose(blend.acting(held), [0.375, 0.625], rtol=1e-6)
    assert blend.actors == ("a", "b")
    choice = Choice(skills, SPEC, per_skill=2)
    assert choice.actors == ("a/0", "a/1", "b/2", "b/3", "c/4", "c/5", "d/6", "d/7", "d/8", "d/9")
    assert choice.acting(choice.resolve(jnp.asarray(7))).tolist() == [0.0] * 7 + [1.0, 0.0, 0.0]
    several = Parameterized(skills, SPEC)
    action = jnp.zeros(several.size).at[0].set(2.0)
    assert several.acting(several.resolve(action)).tolist() == [0.0, 0.0, 1.0, 0.0]
    latent = Latent(skills[:1], SPEC)
    np.testing.assert_allclose(latent.acting(latent.resolve(jnp.array([3.0, 4.0]))), [0.6, 0.8], rtol=1e-6)
    assert latent.actors == latent.names


@pytest.mark.parametrize("make", [Blend, Choice, Parameterized])
def test_random_actions_have_the_shape_of_actions(skills, make):
    composer = make(skills, SPEC)
    action = composer.sample(KEY)
    assert action.shape == composer.zero().shape
    leaves = jax.tree.leaves(composer.resolve(action))
    assert [leaf.size for leaf in leaves] == [f.size for f in composer.fields]
    assert [bool(f.choices) for f in composer.fields] == [jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in leaves]


def test_what_cannot_be_combined_says_so(skills, make_skill):
    slow = dict(skills[1].manifest, contract={**skills[1].manifest["contract"], "dt": 0.01})
    with pytest.raises(UserError, match=r"skill b runs every 0.01 s, env ant steps every 0.05 s"):
        Blend((skills[0], Skill(slow, skills[1].arrays)), SPEC)
    with pytest.raises(UserError, match="skill x does not fit env ant: it drives 6 actuators"):
        other = registry.make_spec("half_cheetah")
        cheetah = make_skill(dataclasses.replace(other, obs=SPEC.obs), "x")
        Blend((skills[0], cheetah), SPEC)
    with pytest.raises(UserError, match="did you mean 'switch'"):
        BlendConfig(combine="swich")
    with pytest.raises(UserError, match="did you mean 'clamp'"):
        BlendConfig(squash="clam")
    with pytest.raises(UserError, match=r"controller\.std must be positive"):
        BlendConfig(std=0.0)
    with pytest.raises(UserError, match=r"controller.residual must lie in \[0, 1\]"):
        BlendConfig(residual=2.0)
    with pytest.raises(UserError, match="must hold every actuator once: hip_1 is in none"):
        Blend(skills, SPEC, BlendConfig(groups={"legs": ["ankle_*"], "back": ["hip_[234]"]}))
    with pytest.raises(UserError, match="once: hip_1 is in all and front"):
        Blend(skills, SPEC, BlendConfig(groups={"all": ["*"], "front": ["hip_1"]}))
    with pytest.raises(UserError, match=r"controller\.groups\.tail matches none"):
        Blend(skills, SPEC, BlendConfig(groups={"all": ["*"], "tail": ["tail_*"]}))


@pytest.mark.parametrize("squash", ["tanh", "clamp"])
def test_what_is_bounded_already_reaches_the_limit(make_skill, squash):
    """SAC's actions are the tanh of something: another tanh would end at 0.76 of the limit."""
    skill = make_skill(SPEC, "g", "gaussian", 3)
    blend = Blend((skill,), SPEC, BlendConfig(squash=squash, limit=2.0, bounded=True))
    (z,) = blend.resolve(jnp.array([1.0, -0.5, 7.0])).latents
    np.testing.assert_allclose(z, [2.0, -1.0, 2.0], rtol=1e-6)
    again = registry_of_controllers.make(blend.describe(), (skill,), SPEC)
    assert again.config.bounded and not Blend((skill,), SPEC).config.bounded


def test_only_sac_tells_composers_that_squash():
    def bounded(kind, algo, *more):
        told = config.compose("train_controller", [f"controller={kind}", f"algo={algo}", *more]) | {"skills": []}
        stored = pinning.pinned(told, "train-controller")["controller"].get("bounded", False)
        assert stored == pinning.scaled(told)["controller"].get("bounded", False)
        return stored

    assert all(bounded(kind, "sac") for kind in ("blend", "switch", "residual", "compose", "allocate"))
    assert not any(bounded(kind, "ppo") for kind in ("blend", "compose"))
    assert not any(bounded(kind, "sac") for kind in ("sequence", "parameterized"))
    assert not bounded("blend", "sac", "controller.bounded=false")  # as a run from before it was said


def test_runs_store_one_group_of_all_as_they_did_before_it_had_a_word():
    told = config.compose("train_controller", ["controller=switch"]) | {"skills": []}
    assert told["controller"]["groups"] == "all"
    assert pinning.pinned(told, "train-controller")["controller"]["groups"] == {"all": ["*"]}


@pytest.mark.parametrize("how", [{}, {"limit": 2.0}, {"squash": "clamp"}, {"bounded": True}])
def test_random_goals_have_the_distribution_of_the_priors(make_skill, how):
    skills = [make_skill(SPEC, kind, kind, size) for kind, size in (("sphere", 2), ("command", 2), ("one_hot", 3))]
    blend = Blend(skills, SPEC, BlendConfig(**how))
    draw = jax.jit(jax.vmap(lambda key: blend.resolve(blend.sample(key)).latents))
    sphere, command, choice = (np.asarray(z) for z in draw(jax.random.split(KEY, 8000)))
    angle = np.arctan2(sphere[:, 1], sphere[:, 0])
    assert abs(np.cos(4 * angle).mean()) < 0.04  # a tanh of each entry turns latents to the diagonals
    np.testing.assert_allclose(np.quantile(command, [0.05, 0.25, 0.75, 0.95]), [-0.9, -0.5, 0.5, 0.9], atol=0.03)
    np.testing.assert_allclose(choice.mean(0), 1 / 3, atol=0.03)


def test_random_goals_beyond_the_limit_end_there(make_skill):
    blend = Blend([make_skill(SPEC, "g", "gaussian", 1)], SPEC, BlendConfig(limit=0.5))
    (z,) = jax.jit(jax.vmap(lambda key: blend.resolve(blend.sample(key)).latents))(jax.random.split(KEY, 2000))
    assert float(jnp.abs(z).max()) == pytest.approx(0.4995, rel=1e-4)
    assert float((jnp.abs(z) < 0.2).mean()) == pytest.approx(0.1585, abs=0.03)
