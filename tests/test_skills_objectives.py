"""Known answers for DIAYN and METRA (research 8.1)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from repertoire.algos.types import FeatureBatch
from repertoire.errors import UserError
from repertoire.skills.latent import OneHot, Sphere, make_prior
from repertoire.skills.objectives import registry
from repertoire.skills.objectives.diayn import Diayn
from repertoire.skills.objectives.distance import Density, reduce
from repertoire.skills.objectives.metric import Csd, Lsd, Metra

KEY = jax.random.key(0)


def zeroed(params):
    return jax.tree.map(jnp.zeros_like, params)


def batch(n=256, f=3, prior=None):
    prior = prior or Sphere(2)
    keys = jax.random.split(KEY, 3)
    z = jax.vmap(prior.sample)(jax.random.split(keys[2], n))
    return steps(jax.random.normal(keys[0], (n, f)), z, jax.random.normal(keys[1], (n, f)))


def steps(features, z, next_features):
    n = len(z)
    return FeatureBatch(features, z, next_features, weight=jnp.ones(n), projected=jnp.zeros(n))


@pytest.mark.parametrize("k", [4, 8])
def test_diayn_reward_is_zero_at_chance_and_log_k_when_perfect(k):
    objective = Diayn(prior=OneHot(k), logit_clip=50.0, spectral=False)
    params, z = zeroed(objective.init(KEY, 3)), jax.nn.one_hot(2, k)
    np.testing.assert_allclose(objective.reward(params, jnp.ones(3), z, jnp.ones(3)), [0.0], atol=1e-6)
    np.testing.assert_allclose(objective.log_q(params, jnp.ones(3), z), -np.log(k), rtol=1e-6)  # without -log p
    last = max(params["discriminator"], key=lambda n: int(n.split("_")[1]))
    params["discriminator"][last]["bias"] = 1000.0 * z
    np.testing.assert_allclose(objective.reward(params, jnp.ones(3), z, jnp.ones(3)), [np.log(k)], rtol=1e-4)
    assert objective.ceiling() == pytest.approx(np.log(k))


def test_diayn_logit_clip_bounds_the_posterior():
    objective = Diayn(prior=OneHot(8), logit_clip=5.0, spectral=False)
    params = zeroed(objective.init(KEY, 3))
    params["discriminator"]["Dense_2"]["bias"] = 1e6 * (2 * jax.nn.one_hot(0, 8) - 1)
    posterior = jax.nn.softmax(objective.logits(params, jnp.ones(3)))
    np.testing.assert_allclose(posterior[0], 1 / (1 + 7 * np.exp(-10)), rtol=1e-5)


def test_a_spectral_discriminator_is_lipschitz():
    objective = Diayn(prior=OneHot(4), logit_clip=1e6, spectral=True)
    params = jax.tree.map(lambda x: 50 * x, objective.init(KEY, 3))
    x = jax.random.normal(KEY, (200, 3))
    rises = jnp.linalg.norm(objective.logits(params, x[:100]) - objective.logits(params, x[100:]), axis=1)
    assert (rises <= 1.05 * jnp.linalg.norm(x[:100] - x[100:], axis=1)).all()
    rough = Diayn(prior=OneHot(4), logit_clip=1e6, spectral=False)
    wild = jnp.linalg.norm(rough.logits(params, x[:100]) - rough.logits(params, x[100:]), axis=1)
    assert (wild > 100 * rises).any()  # so the assertion above can fail


@pytest.mark.parametrize("kind", ["one_hot", "sphere", "gaussian"])
def test_diayn_learns_to_tell_separable_features_apart(kind):
    objective = registry.make("diayn", prior=kind, skills=4, lr=1e-2, spectral=False)
    z = jax.vmap(objective.prior.sample)(jax.random.split(KEY, 256))
    data = steps(z, z, z)  # features that give the latent away
    params = objective.init(KEY, 4)
    before, _ = objective.loss(params, data, KEY)
    params = fit(objective, params, data, 300)
    after, metrics = objective.loss(params, data, KEY)
    assert after < before - 0.3
    assert metrics["mi_bound"] > 0.9
    if kind == "one_hot":
        assert metrics["accuracy"] > 0.99


def fit(objective, params, data, steps):
    opt = objective.optimizer

    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda p: objective.loss(p, data, KEY)[0])(params)
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = opt.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


@pytest.mark.parametrize("prior", [Sphere(2), OneHot(5)])
def test_metra_rewards_telescope(prior):
    objective = Metra(prior=prior)
    params, path, z = objective.init(KEY, 3), jax.random.normal(KEY, (20, 3)), prior.sample(KEY)
    total = sum(objective.reward(params, path[t], z, path[t + 1])[0] for t in range(19))
    ends = objective.encode(params, path[-1]) - objective.encode(params, path[0])
    np.testing.assert_allclose(total, ends @ objective.direction(z), rtol=1e-4, atol=1e-5)


def test_spectral_lsd_leaves_log_lambda_alone():
    objective = Lsd()
    params = {**objective.init(KEY, 3), "log_dual": jnp.float32(100.0)}  # exp of it is infinite
    grads = jax.grad(lambda p: objective.loss(p, batch(), KEY)[0])(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads)) and grads["log_dual"] == 0
    assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(grads["encoder"]))


def test_diayn_refuses_a_prior_that_it_has_no_density_of():
    with pytest.raises(UserError, match="not of ball"):
        Diayn(prior=make_prior("ball", 2))


def test_constraint_forms_and_ceilings():
    step = jnp.array([0.8, 0.6])
    np.testing.assert_allclose(reduce(jnp.square(step), "mean"), 0.5, rtol=1e-6)
    np.testing.assert_allclose(reduce(jnp.square(step), "l2"), 1.0, rtol=1e-6)
    assert Metra(form="mean").ceiling() == pytest.approx(np.sqrt(2))
    assert Metra(form="l2").ceiling() == Metra(match="norm").ceiling() == pytest.approx(1.0)
    assert Metra(prior=OneHot(16)).ceiling() == pytest.approx(4.13, abs=0.01)
    assert Metra(prior=OneHot(16), form="l2").ceiling() == pytest.approx(1.033, abs=0.001)


@pytest.mark.parametrize(("scale", "rises"), [(100.0, True), (0.0, False)])
def test_dual_rises_while_violated_and_falls_while_satisfied(scale, rises):
    objective = Metra()
    params = jax.tree.map(lambda x: x * scale, objective.init(KEY, 3))
    params["log_dual"] = jnp.log(30.0)
    encoder, duals = params["encoder"], [30.0]
    state = objective.optimizer.init(params)
    for _ in range(5):
        grads = jax.grad(lambda p: objective.loss(p, batch(), KEY)[0])(params)
        updates, state = objective.optimizer.update(grads, state, params)
        params = {**optax.apply_updates(params, updates), "encoder": encoder}  # the violation is held fixed
        duals.append(float(jnp.exp(params["log_dual"])))
    assert (np.diff(duals) > 0).all() if rises else (np.diff(duals) < 0).all()
    np.testing.assert_allclose(np.abs(np.diff(np.log(duals))), objective.dual_lr, rtol=1e-2)  # Adam: full pace


def test_policy_reward_excludes_the_penalty_and_the_dual():
    objective, params = Metra(), Metra().init(KEY, 3)
    louder = {**params, "log_dual": params["log_dual"] + 5}
    args = (jnp.ones(3), jnp.array([1.0, 0.0]), jnp.zeros(3))
    assert objective.reward(params, *args) == objective.reward(louder, *args)


def test_dual_gradient_does_not_reach_the_encoder_nor_back():
    objective, params = Metra(), Metra().init(KEY, 3)
    grads = jax.grad(lambda p: objective.loss(p, batch(), KEY)[0])(params)
    step = objective.encode(params, batch().next_features) - objective.encode(params, batch().features)
    gap = jnp.minimum(1 - jnp.square(step).mean(-1), objective.slack).mean()
    np.testing.assert_allclose(grads["log_dual"], gap, rtol=1e-5)


def test_csd_distance_ignores_a_common_factor_of_sigma_and_weighs_the_small_one():
    density, features = Density(hidden=(4,)), jnp.zeros(3)
    params = zeroed(density.init(KEY, 3))  # mu = 0

    def squared(log_sigma, step):
        params["Dense_1"]["bias"] = jnp.concatenate([jnp.zeros(3), jnp.asarray(log_sigma)])
        return density.squared(params, features, jnp.asarray(step), "mean")

    step = [0.3, -0.2, 0.5]
    np.testing.assert_allclose(squared([0.0] * 3, step), np.mean(np.square(step)), rtol=1e-6)
    np.testing.assert_allclose(squared([2.0] * 3, step), squared([0.0] * 3, step), rtol=1e-5)
    small = squared([-6.0, 0.0, 0.0], [0.3, 0.0, 0.0])  # sigma_0 = e^-6: weight e^12 over the geometric mean e^4
    np.testing.assert_allclose(small, 0.3**2 * np.exp(8) / 3, rtol=1e-4)
    assert small > 100 * squared([-6.0, 0.0, 0.0], [0.0, 0.3, 0.3])


def test_csd_density_learns_its_steps_and_nothing_else_moves_it():
    objective = Csd(hidden=(16,))
    params = objective.init(KEY, 3)
    grads = jax.grad(lambda p: objective.loss(p, batch(), KEY)[0])(params)
    nll = jax.grad(lambda d: objective.metric.nll(d, batch().features, batch().next_features).mean())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads["distance"], nll(params["distance"]))
    noise = jax.random.normal(KEY, (2048, 2)) * jnp.array([1.0, 0.1])
    data = steps(jnp.zeros((2048, 2)), jnp.zeros((2048, 2)).at[:, 0].set(1.0), 0.5 + noise)
    learned = fit(Csd(hidden=(16,), lr=1e-2), Csd(hidden=(16,)).init(KEY, 2), data, 500)["distance"]
    mean, log_sigma = Csd().metric.step(learned, jnp.zeros(2))
    np.testing.assert_allclose(mean, 0.5, atol=0.05)
    np.testing.assert_allclose(jnp.exp(log_sigma), [1.0, 0.1], rtol=0.1)


def test_lsd_encoder_is_lipschitz_by_construction():
    objective = Lsd(hidden=(32, 32))
    params = jax.tree.map(lambda x: 30 * x, objective.init(KEY, 3))
    x, y = batch().features, batch().next_features
    moved = jnp.linalg.norm(objective.encode(params, x) - objective.encode(params, y), axis=1)
    assert (moved <= 1.05 * jnp.linalg.norm(x - y, axis=1)).all()


def test_norm_matching_pays_for_the_step_that_z_asks_for():
    objective = Metra(match="norm", sigma=10.0, prior=Sphere(2), hidden=())
    params = objective.init(KEY, 2)
    params["encoder"]["Dense_0"] = {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}
    z, zero = jnp.array([0.6, 0.0]), jnp.zeros(2)
    np.testing.assert_allclose(objective.reward(params, zero, z, z), [1.0])
    np.testing.assert_allclose(objective.reward(params, zero, z, 2 * z), [1 / (1 + 10 * 0.36)], rtol=1e-6)
    np.testing.assert_allclose(objective.reward(params, zero, z, zero), objective.reward(params, zero, z, 2 * z))


@pytest.mark.parametrize("name", sorted(registry.OBJECTIVES))
def test_samples_of_no_weight_do_not_teach(name):
    objective = registry.make(name)
    data = batch(prior=objective.prior, f=3)
    loud = data.replace(next_features=data.next_features.at[:128].mul(1e3), weight=data.weight.at[:128].set(0.0))
    quiet = data.replace(weight=loud.weight)
    params = jax.jit(objective.init, static_argnums=1)(KEY, 3)
    gradient = jax.jit(jax.grad(lambda p, d: objective.loss(p, d, KEY)[0]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        gradient(params, loud),
        gradient(params, quiet),
    )


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UserError, match="did you mean 'metra'"):
        registry.make("metro")
    with pytest.raises(UserError, match="dual_lr"):
        registry.make("metra", dual_rl=1)
    with pytest.raises(UserError, match="at least 2 skills"):
        registry.make("diayn", skills=1)
    assert {r["name"] for r in registry.describe()} == set(registry.OBJECTIVES)
    assert make_prior("sphere", 2).size == 2
