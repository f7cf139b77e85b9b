"""Known answers for priors (research 8.1)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import rollout
from repertoire.errors import UserError
from repertoire.skills.latent import KINDS, Gaussian, OneHot, Product, Sphere, centred_one_hot, make_prior, product_of


@pytest.mark.parametrize("k", [2, 4, 16])
def test_centred_one_hot(k):
    z = centred_one_hot(jax.nn.one_hot(1, k))
    np.testing.assert_allclose(z.sum(), 0, atol=1e-6)
    np.testing.assert_allclose(z[1], 1, rtol=1e-6)
    np.testing.assert_allclose(z[0], -1 / (k - 1), rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(z), np.sqrt(k / (k - 1)), rtol=1e-6)


def test_sphere_samples_have_norm_one_and_mean_zero():
    z = jax.vmap(Sphere(3).sample)(jax.random.split(jax.random.key(0), 100_000))
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=1), 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(z.mean(0), 0, atol=0.01)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_latents_differ_across_worlds_and_across_jitted_calls(kind):
    prior, draw = make_prior(kind, 8), jax.jit(lambda k: rollout.draw(make_prior(kind, 8), k, 64))
    first, second = draw(jax.random.key(0)), draw(jax.random.key(1))
    assert len(np.unique(np.asarray(first), axis=0)) > 4
    assert not np.array_equal(first, second)
    np.testing.assert_allclose(jax.vmap(prior.project)(first), first, atol=1e-6)  # samples lie on the support


def test_projection():
    np.testing.assert_allclose(Sphere(2).project(jnp.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(jnp.linalg.norm(Sphere(2).project(jnp.zeros(2))), 1)
    np.testing.assert_allclose(OneHot(3).project(jnp.array([0.1, 0.9, 0.3])), [0, 1, 0])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_gaussian_latent_asks_for_a_way_at_its_usual_length(size):
    """METRA's rule knows no lengths; LSD's latents have one, and the way to a goal has none to do with it."""
    prior = Gaussian(size)
    lengths = np.linalg.norm(jax.vmap(prior.sample)(jax.random.split(jax.random.key(0), 20000)), axis=1)
    assert prior.mean_norm == pytest.approx(lengths.mean(), rel=0.02)
    way = jnp.arange(1.0, size + 1)
    for scale in (1e-3, 1.0, 1e3):
        z = prior.along(scale * way)
        np.testing.assert_allclose(z, way * prior.mean_norm / jnp.linalg.norm(way), rtol=1e-5)
    assert (np.asarray(prior.along(jnp.zeros(size))) == 0).all()
    np.testing.assert_allclose(Sphere(2).along(jnp.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_product_draws_each_part_by_itself(weighted):
    prior = product_of([Sphere(2), OneHot(4), OneHot(4)], weighted, hold=7)
    draw = jax.jit(lambda k: rollout.draw(prior, k, 512))
    z = np.asarray(draw(jax.random.key(0)))
    assert z.shape == (512, prior.size) and prior.size == 10 + 3 * weighted and not prior.discrete
    assert not np.array_equal(z, draw(jax.random.key(1)))
    np.testing.assert_allclose(np.linalg.norm(z[:, :2], axis=1), 1, rtol=1e-5)
    first, second = z[:, 2:6].argmax(1), z[:, 6:10].argmax(1)
    assert 0.15 < (first == second).mean() < 0.35  # independent: one in four
    (sphere, one, two), weights = prior.split(jnp.asarray(z))
    assert (sphere.shape, one.shape, two.shape, weights.shape) == ((512, 2), (512, 4), (512, 4), (512, 3))
    if weighted:
        assert (weights >= 0).all()
        np.testing.assert_allclose(jnp.linalg.norm(weights, axis=1), 1, rtol=1e-5)
        assert weights.std(0).min() > 0.1
    else:
        assert (weights == 1).all()
    np.testing.assert_allclose(jax.vmap(prior.project)(z), z, atol=1e-6)


def test_a_product_projects_spreads_and_describes_itself():
    prior = product_of([Sphere(2), OneHot(2)], weighted=True, hold=7)
    z = prior.project(jnp.array([3.0, 4.0, 0.1, 0.9, -1.0, 5.0]))
    np.testing.assert_allclose(z, [0.6, 0.8, 0, 1, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(prior.project(-jnp.ones(6))[4:], np.sqrt([0.5, 0.5]), rtol=1e-6)
    spread = prior.spread(8)
    assert spread.shape == (8, 6) and len(np.unique(spread, axis=0)) == 8 and spread[:, 2].sum() == 4
    assert make_prior(**json.loads(json.dumps(prior.describe()))) == prior == Product(6, 7, prior.parts, True)
    with pytest.raises(UserError, match="follows from its parts"):
        make_prior("product", 5)


def test_bad_priors():
    with pytest.raises(UserError, match="did you mean 'sphere'"):
        make_prior("spher", 2)
    with pytest.raises(UserError, match="size >= 1"):
        make_prior("sphere", 0)
