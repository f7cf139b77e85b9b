"""Known answers of the Vendi score (research 8.1) and of the kernel it is taken with."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import UserError
from repertoire.skills import diversity

ORDERS = (0.0, 0.1, 0.5, 1.0, 2.0, np.inf)
CLUSTERS = np.kron(np.eye(2), np.ones((5, 5)))


@pytest.mark.parametrize("q", ORDERS)
def test_known_kernels(q):
    assert diversity.vendi(np.eye(7), q) == pytest.approx(7)
    assert diversity.vendi(np.ones((7, 7)), q) == pytest.approx(1)
    assert diversity.vendi(CLUSTERS, q) == pytest.approx(2)


def test_unequal_clusters_by_hand():
    kernel = np.zeros((4, 4))
    kernel[:3, :3] = kernel[3, 3] = 1.0  # shares 3/4 and 1/4
    assert diversity.vendi(kernel) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))
    assert diversity.vendi(kernel, 2) == pytest.approx(1 / (0.75**2 + 0.25**2))
    assert diversity.vendi(kernel, np.inf) == pytest.approx(4 / 3)
    assert diversity.vendi(kernel, 0) == pytest.approx(2)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000))
def test_higher_orders_never_score_more(seed):
    paths = np.random.default_rng(seed).normal(size=(12, 5, 2))
    kernel = diversity.gaussian_kernel(diversity.trajectory_distances(paths), 1.0)
    found = [diversity.vendi(kernel, q) for q in ORDERS]
    assert found == sorted(found, reverse=True) and found[-1] >= 1 - 1e-9 and found[0] <= 12 + 1e-9


def test_distances_are_rms_over_time_from_the_start():
    t = np.linspace(0, 1, 5)
    paths = np.stack([np.stack([0 * t, t], 1), np.stack([7 + 3 * t, t], 1), np.stack([-2 + 0 * t, t + 4], 1)])
    found = diversity.trajectory_distances(paths)
    assert found[0, 1] == pytest.approx(3 * np.sqrt(np.mean(t**2)))
    assert found[0, 2] == pytest.approx(0, abs=1e-6)  # elsewhere, but the same way
    assert np.array_equal(found, found.T)


def test_the_bandwidth_is_the_noise_of_the_env_but_at_least_a_cell():
    t = np.linspace(0, 1, 11)
    walks = np.array([0.0, 1.0, 3.0])[:, None, None] * t[:, None]  # pairwise 1, 2, 3 times the root mean square of t
    assert diversity.noise_bandwidth(walks, 0.1) == pytest.approx(2 * np.sqrt(np.mean(t**2)))
    assert diversity.noise_bandwidth(walks, 5.0) == 5.0
    assert diversity.noise_bandwidth(np.zeros((4, 11, 2)), 0.1) == 0.1


def test_more_reach_is_more_diverse_under_one_bandwidth():
    angle, t = np.arange(48) / 48 * 2 * np.pi, np.linspace(0, 1, 50)
    star = np.stack([np.cos(angle), np.sin(angle)], 1)[:, None] * t[:, None]
    scores = [diversity.vendi(diversity.gaussian_kernel(diversity.trajectory_distances(r * star), 1.0)) for r in (1, 9)]
    assert scores[0] < 3 and scores[1] > 4 * scores[0]


def test_what_is_no_kernel_is_refused():
    with pytest.raises(UserError, match="ones on the diagonal"):
        diversity.vendi(2 * np.eye(3))
    with pytest.raises(UserError, match="order"):
        diversity.vendi(np.eye(3), -1)
    with pytest.raises(UserError, match="bandwidth"):
        diversity.gaussian_kernel(np.zeros((2, 2)), 0.0)
