"""Known answers for DADS, LPE, CSF, CIC, BeCL, APS, RND and particle entropy (research 8.1)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from repertoire.algos.types import FeatureBatch
from repertoire.errors import UserError
from repertoire.skills.latent import OneHot, Sphere
from repertoire.skills.objectives.contrastive import Becl, Cic, Csf
from repertoire.skills.objectives.dynamics import Dads, Lpe
from repertoire.skills.objectives.entropy import Aps, Knn, particle_entropy
from repertoire.skills.objectives.novelty import Rnd

KEY = jax.random.key(0)


def steps(features, z, next_features):
    n = len(z)
    return FeatureBatch(features, z, next_features, weight=jnp.ones(n), projected=jnp.zeros(n))


def random_steps(prior, n=256, f=3, follow=0.0):
    """Random states; steps are noise plus `follow` times the latent in the first entries."""
    keys = jax.random.split(KEY, 3)
    z = jax.vmap(prior.sample)(jax.random.split(keys[2], n))
    x, noise = jax.random.normal(keys[0], (n, f)), 0.1 * jax.random.normal(keys[1], (n, f))
    return steps(x, z, x + noise + follow * jnp.pad(z, ((0, 0), (0, f - z.shape[1]))))


def fit(objective, params, data, count):
    """Parameters after `count` gradient steps on one batch."""

    def step(carry, key):
        params, state = carry
        grads = jax.grad(lambda p: objective.loss(p, data, key)[0])(params)
        updates, state = objective.optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(KEY, count)
    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, keys))((params, objective.optimizer.init(params)))
    return params


def zeroed(params):
    return jax.tree.map(jnp.zeros_like, params)


# -- particle entropy ------------------------------------------------------------------------------------------------


def test_particle_entropy_of_a_line_by_hand():
    line = jnp.array([[0.0], [1.0], [3.0], [7.0]])
    one, two = (particle_entropy(line, KEY, k, 4) for k in (1, 2))
    np.testing.assert_allclose(one, np.log1p([1, 1, 2, 4]), rtol=1e-5)
    np.testing.assert_allclose(two, np.log1p([2, 1.5, 2.5, 5]), rtol=1e-5)
    rewards = Knn(neighbours=1).rewards({}, steps(line, jnp.zeros((4, 2)), line), KEY)
    np.testing.assert_allclose(rewards[:, 0], one)


def test_particle_entropy_among_a_few_never_counts_a_point_itself():
    x = 50 + jax.random.normal(KEY, (60, 3))  # far from the origin: no digits may get lost
    chosen = np.asarray(jax.random.permutation(KEY, 60)[:10])
    gap = np.linalg.norm(np.asarray(x)[:, None] - np.asarray(x)[chosen], axis=-1)
    gap[chosen, np.arange(10)] = np.inf
    want = np.log1p(np.sort(gap, axis=1)[:, :3].mean(1))
    np.testing.assert_allclose(particle_entropy(x, KEY, 3, 10), want, rtol=1e-3)
    assert not np.allclose(particle_entropy(x, jax.random.key(1), 3, 10), want)  # other particles next time


# -- RND -------------------------------------------------------------------------------------------------------------


def test_rnd_target_stays_while_the_error_falls():
    objective, data = Rnd(hidden=(16,), lr=1e-2), random_steps(Sphere(2))
    params = objective.init(KEY, 3)
    learned = fit(objective, params, data, 100)
    jax.tree.map(np.testing.assert_array_equal, learned["target"], params["target"])
    before, after = (objective.rewards(p, data, KEY) for p in (params, learned))
    assert after.mean() < 0.3 * before.mean()
    known = {"target": params["target"], "predictor": params["target"]}
    np.testing.assert_array_equal(objective.rewards(known, data, KEY), 0)
    far = data.replace(next_features=20 + data.next_features)
    assert objective.rewards(learned, far, KEY).mean() > 10 * after.mean()  # what is new is rewarded again


# -- APS -------------------------------------------------------------------------------------------------------------


def test_aps_channels_are_entropy_and_the_cosine_with_the_latent():
    objective = Aps(prior=Sphere(2), hidden=())
    params = {"encoder": {"Dense_0": {"kernel": 3 * jnp.eye(2), "bias": jnp.zeros(2)}}}
    data = random_steps(Sphere(2), f=2)
    rewards = objective.rewards(params, data.replace(next_features=data.z), KEY)
    np.testing.assert_allclose(rewards[:, 1], 1, rtol=1e-5)
    np.testing.assert_allclose(rewards[:, 0], particle_entropy(data.z, KEY, 12, 512), atol=1e-4)
    assert rewards.shape[1] == len(objective.channels) == len(objective.weigh(data.z[0]))
    away = objective.rewards(params, data.replace(next_features=-0.2 * data.z), KEY)
    np.testing.assert_allclose(away[:, 1], -1, rtol=1e-5)  # lengths do not matter


def test_aps_learns_features_that_point_along_the_latent():
    objective, data = Aps(prior=Sphere(3), hidden=(16,), lr=1e-2), random_steps(Sphere(3))
    data = data.replace(next_features=data.z @ jnp.array([[0.0, 2, 0], [1, 0, 0], [0, 0, -1]]))
    learned = fit(objective, objective.init(KEY, 3), data, 200)
    assert objective.rewards(learned, data, KEY)[:, 1].mean() > 0.95


# -- CSF -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [Sphere(2), OneHot(5)])
def test_csf_rewards_telescope_and_its_channels_add_up_to_them(prior):
    objective, path, z = Csf(prior=prior, hidden=(8,)), jax.random.normal(KEY, (20, 3)), prior.sample(KEY)
    params, data = objective.init(KEY, 3), steps(path[:-1], jnp.tile(z, (19, 1)), path[1:])
    ends = objective.encode(params, path[-1]) - objective.encode(params, path[0])
    rewards = objective.rewards(params, data, KEY)
    np.testing.assert_allclose(rewards.sum(), ends @ objective.direction(z), rtol=1e-4, atol=1e-5)
    factors = Csf(prior=prior, hidden=(8,), successor=True)
    assert len(factors.channels) == prior.size
    np.testing.assert_allclose(
        factors.rewards(params, data, KEY) @ factors.weigh(z), rewards[:, 0], rtol=1e-4, atol=1e-6
    )


def test_csf_contrast_bounds_the_step():
    """For a step r along z on a circle the bound is r - c log I0(r): at its best I1(r) / I0(r) = 1 / c."""
    objective = Csf(hidden=(), lr=1e-2, negatives=1024)
    data = random_steps(Sphere(2), f=2)
    data = data.replace(next_features=data.features + data.z)
    params = {"encoder": {"Dense_0": {"kernel": 0.1 * jnp.eye(2), "bias": jnp.zeros(2)}}}
    r = np.sqrt(np.linalg.det(fit(objective, params, data, 300)["encoder"]["Dense_0"]["kernel"]))
    angles = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    i0, i1 = (np.mean(np.exp(r * np.cos(angles)) * np.cos(n * angles)) for n in (0, 1))
    np.testing.assert_allclose(i1 / i0, 1 / 5, rtol=0.05)


# -- CIC -------------------------------------------------------------------------------------------------------------


def test_cic_tells_latents_at_chance_until_it_learns_and_never_better_than_one_in_all():
    objective, data = (
        Cic(prior=Sphere(2), hidden=(16,), embedding=8, lr=1e-2, skill=True),
        random_steps(Sphere(2), follow=1.0),
    )
    params = objective.init(KEY, 3)
    blind = {**params, "latent": zeroed(params["latent"])}
    np.testing.assert_allclose(objective.rewards(blind, data, KEY)[:, 1], 0, atol=1e-5)
    learned = objective.rewards(fit(objective, params, data, 200), data, KEY)[:, 1]
    assert 0.7 < learned.mean() <= learned.max() < np.log(257)


def test_cic_rewards_the_entropy_of_the_embedded_state_alone():
    objective, data = Cic(hidden=(8,)), random_steps(Sphere(2))
    params = objective.init(KEY, 3)
    rewards = objective.rewards(params, data.replace(z=jnp.zeros((256, 16))), KEY)
    want = particle_entropy(objective.embed(params, "state", data.next_features), KEY, 16, 512)
    np.testing.assert_allclose(rewards[:, 0], want)
    assert rewards.shape == (256, 1) and objective.channels == ("cic",)


# -- BeCL ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [0.0, 1.0])
def test_becl_reward_by_hand(told):
    """16 samples of each of 4 skills; embeddings that tell nothing, or are one-hot: cosines 1 and 0 over 0.5."""
    objective = Becl(prior=OneHot(4), hidden=(), embedding=4)
    params = {"encoder": {"Dense_0": {"kernel": told * jnp.eye(4), "bias": jnp.zeros(4)}}}
    z = jnp.tile(jnp.eye(4), (16, 1))
    mine, others = 15 * np.exp(2 * told), 48
    np.testing.assert_allclose(objective.rewards(params, steps(z, z, z), KEY), mine / (mine + others), rtol=1e-4)


def test_becl_sample_without_company_earns_what_chance_earns():
    objective = Becl(prior=OneHot(4), hidden=(8,))
    z = jnp.eye(4)[jnp.array([0, *[1] * 7])]
    data = steps(z, z, jax.random.normal(KEY, (8, 3)))
    params = objective.init(KEY, 3)
    np.testing.assert_allclose(objective.rewards(params, data, KEY)[0], 1 / 4, rtol=1e-5)
    grads = jax.grad(lambda p: objective.loss(p, data, KEY)[0])(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


# -- DADS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [Sphere(2), OneHot(4)])
@pytest.mark.parametrize("cls", [Dads, Lpe])
def test_dads_reward_is_zero_where_skills_do_the_same(cls, prior):
    objective, data = cls(prior=prior, hidden=(8,)), random_steps(prior, f=4)
    params = objective.init(KEY, 4)
    same = {**params, "skill": zeroed(params["skill"])}
    np.testing.assert_allclose(objective.rewards(same, data, KEY), 0, atol=1e-4)
    assert jnp.abs(objective.rewards(params, data, KEY)).max() > 1e-4


def test_dads_reward_by_hand():
    """Three skills that step by -1, 0.5 and 1 times the scale, sigma 0.3 plus softplus(0)."""
    objective, means = Dads(prior=OneHot(3), hidden=(), rank=1), np.array([-1.0, 0.5, 1.0])
    params = zeroed(objective.init(KEY, 1))
    params["state"]["Dense_0"]["bias"] = jnp.array([1.0, 0.0, 0.0])  # matrix, offset, raw sigma
    params["skill"]["Dense_0"]["kernel"] = jnp.asarray(means)[:, None]
    params["log_scale"] = jnp.log(jnp.array([2.0]))
    moved, sigma = np.array([-2.0, 0.4, 3.0]), 0.3 + np.log(2)
    log_q = -0.5 * ((moved[:, None] / 2 - means) / sigma) ** 2
    want = np.diag(log_q) - np.log(np.exp(log_q).mean(1))
    data = steps(jnp.zeros((3, 1)), jnp.eye(3), jnp.asarray(moved)[:, None])
    np.testing.assert_allclose(objective.rewards(params, data, KEY)[:, 0], want, rtol=1e-5)


@pytest.mark.parametrize("prior", [Sphere(2), OneHot(3)])
def test_dads_learns_what_skills_do_and_aims_by_it(prior):
    objective = Dads(prior=prior, hidden=(32,), lr=1e-2, alternatives=50)
    data = random_steps(prior, n=512, follow=1.0)
    learned = fit(objective, objective.init(KEY, 3), data, 300)
    rewards = objective.rewards(learned, data, KEY)
    assert 0.9 < rewards.mean() <= rewards.max() < (np.log(51) if not prior.discrete else np.log(3) + 1e-5)
    rms = jnp.sqrt(jnp.square(data.next_features - data.features).mean(0))
    np.testing.assert_allclose(jnp.exp(learned["log_scale"]), rms, rtol=0.1)
    goal = prior.sample(jax.random.key(3))
    aimed = objective.goal_latent(learned, jnp.zeros(3), jnp.pad(5 * goal, (0, 3 - prior.size)))
    assert aimed @ goal > 0.95


def test_dads_bears_a_feature_that_never_moves():
    objective, data = Dads(hidden=(8,), scale_lr=3.0), random_steps(Sphere(2))
    data = data.replace(next_features=data.next_features.at[:, 0].set(data.features[:, 0]))
    learned = fit(objective, objective.init(KEY, 3), data, 60)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(learned))
    assert jnp.isfinite(objective.rewards(learned, data, KEY)).all()


def test_dads_rewards_do_not_depend_on_the_unit_of_the_step():
    objective, data = Dads(hidden=(8,)), random_steps(Sphere(2))
    params = objective.init(KEY, 3)
    larger = data.replace(next_features=data.features + 10 * (data.next_features - data.features))
    scaled = {**params, "log_scale": params["log_scale"] + np.log(10)}
    rewards = objective.rewards(params, data, KEY)
    np.testing.assert_allclose(objective.rewards(scaled, larger, KEY), rewards, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_lpe_encoder_does_not_collapse(spread):
    """Steps are noise, so the encoding easiest to predict is a constant; the spread terms forbid it."""
    objective = Lpe(hidden=(16,), embedding=2, lr=1e-2, spread=spread)
    x, y = jax.random.normal(KEY, (2, 512, 3))
    data = steps(x, jax.vmap(Sphere(2).sample)(jax.random.split(KEY, 512)), y)
    learned = fit(objective, objective.init(KEY, 3), data, 600)
    deviations = jnp.linalg.svd(jnp.cov(objective.encode(learned, x).T), compute_uv=False) ** 0.5
    assert (deviations > 0.8).all() if spread else deviations.min() < 0.3


def test_impossible_settings_are_refused():
    for make, says in [
        (lambda: Knn(neighbours=0), "neighbours >= 1"),
        (lambda: Csf(contrast=0.0), "contrast positive"),
        (lambda: Cic(temperature=0.0), "temperature positive"),
        (lambda: Becl(prior=Sphere(2)), "discrete skills"),
        (lambda: Dads(space="laten"), "did you mean 'latent'"),
        (lambda: Dads(min_std=0.0), "must be positive"),
    ]:
        with pytest.raises(UserError, match=says):
            make()
