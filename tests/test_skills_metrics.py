"""Known answers for skill metrics (research 0.2 and 8.1)."""

import numpy as np
import pytest

from repertoire.errors import UserError
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
    assert metrics.binned_mi(clusters, labels, 8)[0] == pytest.approx(np.log(k), abs=0.02)


@pytest.mark.parametrize("n", [500, 20_000])
def test_the_bias_of_binned_mi_is_what_values_without_information_show(n):
    rng, k, bins = np.random.default_rng(0), 4, 30
    found = [metrics.binned_mi(rng.uniform(size=(n, 1)), rng.integers(0, k, n), bins) for _ in range(50)]
    information, bias = np.mean(found, axis=0)
    assert bias == pytest.approx((bins - 1) * (k - 1) / (2 * n), rel=0.1)
    assert information == pytest.approx(bias, rel=0.15)


def test_bins_of_all_axes_together_are_about_the_same_number():
    assert [metrics.axis_bins(d) ** d for d in (1, 2, 3)] == [64, 64, 64]


@pytest.mark.parametrize(
    ("rollouts", "reach", "cells"),
    [(48, 5, 83), (48, 10, 255), (48, 20, 697), (48, 40, 1715), (48, 60, 2727), (200, 5, 88), (200, 20, 1221)],
)
def test_straight_ray_cells_against_the_published_simulation(rollouts, reach, cells):
    assert metrics.straight_ray_cells(reach, rollouts) == pytest.approx(cells, rel=0.04)


def test_straight_rays_of_a_planar_robot_fill_both_sides():
    assert metrics.straight_ray_cells(10.0, 48, dim=1) == 21  # cells -10 .. 10, the last for x = 10 itself


def test_coverage_fraction():
    rng = np.random.default_rng(1)
    far, near = (rays(rng.uniform(0, 2 * np.pi, 48), r) for r in (20.0, 10.0))
    assert metrics.coverage_fraction(far, 20.0) == pytest.approx(1.0, abs=0.1)
    assert metrics.coverage_fraction(near, 20.0) == pytest.approx(255 / 697, abs=0.05)
    one_skill = np.repeat(rays(np.array([0.3]), 20.0), 48, axis=0)
    assert metrics.coverage_fraction(one_skill, 20.0) < 0.05
    with pytest.raises(UserError, match="must be positive"):
        metrics.coverage_fraction(far, 0.0)
