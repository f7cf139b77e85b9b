"""Known answers for priors (research 8.1)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import rollout
from repertoire.errors import UserError
from repertoire.skills.latent import KINDS, OneHot, Sphere, centred_one_hot, make_prior


@pytest.mark.parametrize("k", [2, 4, 16])
def test_centred_one_hot(k):
    z = centred_one_hot(jax.nn.one_hot(1, k))
    np.testing.assert_allclose(z.sum(), 0, atol=1e-6)
    np.testing.assert_allclose(z[1], 1, rtol=1e-6)
    np.testing.assert_allclose(z[0], -1 / (k - 1), rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(z), np.sqrt(k / (k - 1)), rtol=1e-6)


def test_sphere_samples_have_norm_one_and_mean_zero():
    z = jax.vmap(Sphere(3).sample)(jax.random.split(jax.random.key(0), 100_000))
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=1), 1, atol=1e-5)
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


def test_bad_priors():
    with pytest.raises(UserError, match="did you mean 'sphere'"):
        make_prior("spher", 2)
    with pytest.raises(UserError, match="size >= 1"):
        make_prior("sphere", 0)
