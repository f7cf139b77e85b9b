"""Known answers of the statistics over seeds."""

import numpy as np
import pytest

from repertoire.errors import UserError
from repertoire.skills import statistics as stats


def test_iqm_by_hand():
    assert stats.iqm(np.array([1, 2, 3, 4, 5, 6, 7, 1000.0])) == 4.5
    assert stats.iqm(np.array([1.0, 2.0, 6.0])) == 3.0  # too few to leave any out
    assert stats.iqm(np.array([[1.0, 5.0], [3.0, 900.0]])) == 4.0  # over runs and tasks together


def test_optimality_gap_by_hand():
    assert stats.optimality_gap(np.array([0.5, 0.75, 3.0])) == pytest.approx(0.25)


def test_intervals_repeat_and_change_with_the_seed():
    scores = np.random.default_rng(0).normal(size=10)
    assert stats.bootstrap(scores) == stats.bootstrap(scores)
    assert stats.bootstrap(scores) != stats.bootstrap(scores, seed=1)
    assert stats.bootstrap(np.full(5, 2.5)) == (2.5, 2.5)


def test_runs_are_resampled_within_their_task():
    scores = np.repeat([[0.0, 10.0, 500.0]], 4, axis=0)  # runs differ by task alone
    assert stats.bootstrap(scores) == (90.0, 90.0)  # (0 + 4 * 10 + 500) / 6


def test_a_bootstrap_of_two_runs_by_hand():
    # means of two draws from {0, 1}: 0, 1/2, 1 with chances 1/4, 1/2, 1/4
    assert stats.bootstrap(np.array([0.0, 1.0])) == (0.0, 1.0)
    assert stats.bootstrap(np.array([0.0, 1.0]), level=0.4) == (0.5, 0.5)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        low, high = stats.bootstrap(rng.normal(size=40), draws=400)
        inside += low <= 0 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_one_run_has_no_interval():
    with pytest.raises(UserError, match="at least 2 runs"):
        stats.bootstrap(np.array([1.0]))
    with pytest.raises(UserError, match="level"):
        stats.bootstrap(np.array([1.0, 2.0]), level=1.0)
