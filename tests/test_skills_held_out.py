"""What a fresh model should and should not find in rollouts it has not seen."""

import numpy as np
import pytest

from repertoire.skills import figures, held_out
from repertoire.skills.latent import OneHot, Sphere, product_of

K, STEPS = 4, 30


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


def test_accuracy_of_separable_and_of_equal_skills(rng):
    labels = np.repeat(np.arange(K), 12)
    apart = rng.normal(size=(48, STEPS, 2)) * 0.1 + labels[:, None, None]
    found = held_out.held_out_accuracy(apart, labels, K)
    assert found["held_out_accuracy"] > 0.98 and found["held_out_accuracy_rollout"] == 1.0
    assert found["mi_bound"] == pytest.approx(np.log(K), abs=0.1)
    equal = held_out.held_out_accuracy(rng.normal(size=(48, STEPS, 2)), labels, K)
    assert equal["held_out_accuracy_normalised"] < 0.1
    assert equal["held_out_accuracy_rollout"] < 0.6


def test_a_rollout_says_more_than_a_step(rng):
    labels = np.repeat(np.arange(K), 30)
    corner = np.stack([labels % 2, labels // 2], 1)[:, None]
    noisy = rng.normal(size=(120, STEPS, 2)) + 1.5 * corner
    found = held_out.held_out_accuracy(noisy, labels, K)
    assert 0.4 < found["held_out_accuracy"] < 0.75
    assert found["held_out_accuracy_rollout"] > 0.95


def test_cosine_of_latents_that_show_and_of_latents_that_do_not(rng):
    z = rng.normal(size=(96, 2))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    shown = 10 * z[:, None] + rng.normal(size=(96, STEPS, 2))
    found = held_out.held_out_cosine(shown, z)
    assert found["held_out_cosine"] > 0.98 and found["held_out_r2"] > 0.95
    noisy = held_out.held_out_cosine(z[:, None] + rng.normal(size=(96, STEPS, 2)), z)
    assert noisy["held_out_cosine_rollout"] > noisy["held_out_cosine"] + 0.1
    hidden = held_out.held_out_cosine(rng.normal(size=(96, STEPS, 2)), z)
    assert abs(hidden["held_out_cosine"]) < 0.2 and hidden["held_out_r2"] < 0.05


def test_few_rollouts_of_many_skills_are_split_skill_by_skill(rng):
    labels = np.tile(np.arange(16), 3)
    apart = rng.normal(size=(48, STEPS, 16)) * 0.01 + np.eye(16)[labels][:, None]
    found = held_out.held_out_accuracy(apart, labels, 16)
    assert found["held_out_accuracy"] > 0.98 and found["held_out_accuracy_rollout"] == 1.0


def test_parts_of_a_product_are_read_one_by_one(rng):
    prior = product_of([Sphere(2), OneHot(4)], weighted=True)
    z = prior.spread(96)
    hidden = figures._read_from(rng.normal(size=(96, STEPS, 2)), z, prior)
    assert abs(hidden["held_out_cosine"]) < 0.2 and hidden["held_out_accuracy_normalised"] < 0.15
    half = np.repeat(z[:, None, :2], STEPS, 1) + 0.1 * rng.normal(size=(96, STEPS, 2))
    shown = figures._read_from(half, z, prior)
    assert shown["held_out_cosine"] > 0.95 and shown["held_out_accuracy_normalised"] < 0.15
