"""Normalisation, distributions, networks: known answers and properties."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.algos import networks, normalize
from repertoire.algos.distributions import LOG_STD_MAX, Categorical, Gaussian
from repertoire.algos.ppo import PPOConfig
from repertoire.errors import UserError


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.integers(1, 40), st.floats(-50, 50), st.floats(0.1, 20))
def test_running_statistics_equal_the_statistics_of_everything(n, m, mean, std):
    rng = np.random.default_rng(n * 100 + m)
    x = rng.normal(mean, std, (n + m, 3)).astype(np.float32)
    stats = normalize.update(normalize.update(normalize.init(3), jnp.asarray(x[:n])), jnp.asarray(x[n:]))
    prior = 1e-4 / (n + m)  # weight of the initial mean 0 and variance 1
    np.testing.assert_allclose(stats.mean, x.mean(0), rtol=2e-3, atol=2e-3 * std)
    np.testing.assert_allclose(stats.var, x.var(0), rtol=1e-2, atol=1e-3 + 1.5 * prior * (np.abs(x).max() ** 2 + 1))


def test_normalised_outliers_are_clipped():
    stats = normalize.update(normalize.init(1), jnp.linspace(-1, 1, 100)[:, None])
    assert normalize.apply(stats, jnp.array([1e6]))[0] == normalize.CLIP
    assert normalize.apply(stats, jnp.array([1e6]), clip=None)[0] > 1e5


def test_gaussian_log_prob_and_entropy_agree_with_scipy_free_formulas():
    head = Gaussian(2, -0.5)
    extra, mean, action = head.extra(), jnp.array([0.3, -0.2]), jnp.array([0.0, 0.5])
    std = np.exp(-0.5)
    want = sum(
        -0.5 * ((a - m) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi)) for a, m in zip(action, mean, strict=True)
    )
    np.testing.assert_allclose(head.log_prob(action, mean, extra), want, rtol=1e-5)
    np.testing.assert_allclose(head.entropy(mean, extra), 2 * (0.5 * np.log(2 * np.pi * np.e) - 0.5), rtol=1e-5)


def test_standard_deviations_are_bounded_and_never_nan():
    head = Gaussian(1, 1e6)
    assert jnp.isfinite(head.log_prob(jnp.array([3.0]), jnp.zeros(1), head.extra()))
    samples = head.sample(jax.random.key(0), jnp.zeros(1), head.extra())
    assert abs(float(samples[0])) < 6 * np.exp(LOG_STD_MAX)


def test_categorical_by_hand():
    head, logits = Categorical(3), jnp.log(jnp.array([0.2, 0.5, 0.3]))
    np.testing.assert_allclose(head.log_prob(jnp.array(1), logits, {}), np.log(0.5), rtol=1e-5)
    np.testing.assert_allclose(head.entropy(logits, {}), -sum(p * np.log(p) for p in (0.2, 0.5, 0.3)), rtol=1e-5)
    assert int(head.mode(logits)) == 1


@pytest.mark.parametrize("activation", sorted(networks.ACTIVATIONS))
def test_layers_compute_what_the_network_computes(activation):
    net = networks.mlp(4, (8, 5), 3, activation)
    params, x = net.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (7, 4))
    layers = networks.dense_layers(params)
    np.testing.assert_allclose(networks.apply_layers(layers, x, activation), net.apply(params, x), rtol=1e-5, atol=1e-6)
    assert networks.count(params) == 4 * 8 + 8 + 8 * 5 + 5 + 5 * 3 + 3


@pytest.mark.parametrize(
    "bad", [{"envs": 0}, {"gamma": 1.5}, {"lr": -1.0}, {"minibatches": 7, "envs": 4, "rollout": 4}, {"epochs": 0}]
)
def test_impossible_settings_say_so(bad):
    with pytest.raises(UserError, match="algo"):
        PPOConfig(**bad)


def test_no_seed_or_member_shares_a_batched_factorisation():
    """Two batched QRs at once wait for each other's threads for good: initialisers of a batch run one after another."""
    network = networks.ensemble(networks.mlp(3, (8,), 2), 2)
    keys = jax.random.split(jax.random.key(0), 3)
    program = jax.jit(jax.vmap(network.init)).lower(keys).as_text()
    calls = [line for line in program.splitlines() if "geqrf" in line and "tensor<" in line]
    assert calls and not any(re.search(r"tensor<\d+x\d+x\d+xf32>", line) for line in calls), calls
    batched = jax.vmap(network.init)(keys)
    for ours, alone in zip(jax.tree.leaves(batched), jax.tree.leaves(network.init(keys[1]))):
        np.testing.assert_allclose(ours[1], alone, rtol=1e-5, atol=1e-6)
