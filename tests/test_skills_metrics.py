"""Known answers for skill metrics (research 0.2 and 8.1)."""

import numpy as np
import pytest

from repertoire.skills import metrics


def rays(angles, reach):
    s = np.linspace(0, reach, 201)
    return np.stack([np.cos(angles)[:, None] * s, np.sin(angles)[:, None] * s], axis=-1)


@pytest.mark.parametrize(("reach", "even", "random"), [(10, 330, 255), (20, 929, 697), (50, 2617, 2212)])
def test_coverage_of_straight_rays(reach, even, random):
    got = [metrics.coverage(rays(np.arange(48) / 48 * 2 * np.pi + o, reach)) for o in np.linspace(0, 0.1, 8)]
    assert np.mean(got) == pytest.approx(even, rel=0.04)
    rng = np.random.default_rng(0)
    got = [metrics.coverage(rays(rng.uniform(0, 2 * np.pi, 48), reach)) for _ in range(20)]
    assert np.mean(got) == pytest.approx(random, rel=0.05)


def test_coverage_of_sixteen_directions():
    assert metrics.coverage(rays(np.arange(16) / 16 * 2 * np.pi + 0.05, 50.0)) == pytest.approx(937, rel=0.05)


def test_reach():
    assert metrics.reach(rays(np.array([0.3, 2.0]), 7.0)) == pytest.approx(7.0)


def test_binned_mi():
    rng, k, n = np.random.default_rng(0), 4, 20_000
    labels = rng.integers(0, k, n)
    clusters = np.stack([10.0 * labels, np.zeros(n)], 1) + rng.uniform(-0.1, 0.1, (n, 2))
    assert metrics.binned_mi(clusters, labels) == pytest.approx(np.log(k), abs=0.02)
    same = rng.normal(size=(n, 1))
    bias = 30 * (k - 1) / (2 * n)
    assert metrics.binned_mi(same, labels) == pytest.approx(0, abs=4 * bias)


def test_held_out_accuracy_of_separable_and_of_equal_skills():
    rng, k = np.random.default_rng(0), 4
    labels = np.repeat(np.arange(k), 12)
    apart = rng.normal(size=(48, 30, 2)) * 0.1 + labels[:, None, None]
    found = metrics.held_out_accuracy(apart, labels, k)
    assert found["held_out_accuracy"] > 0.98
    assert found["mi_bound"] == pytest.approx(np.log(k), abs=0.1)
    equal = rng.normal(size=(48, 30, 2))
    assert metrics.held_out_accuracy(equal, labels, k)["held_out_accuracy_normalised"] < 0.1
