"""Statistics over seeds (Agarwal et al. 2021, arXiv 2108.13264): IQM, optimality gap, stratified bootstrap intervals.

Scores are [runs] of one task or [runs, tasks]; every task has the same number of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy import stats

from repertoire.errors import UserError


class Statistic(Protocol):
    """Scores, an axis (None: all entries) -> a number, or one for each entry along the other axes."""

    def __call__(self, scores: np.ndarray, axis: int | None = None) -> np.ndarray:
        """The statistic."""
        ...


def iqm(scores: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean of the middle half of the scores; the plain mean of fewer than four."""
    return np.asarray(stats.trim_mean(scores, 0.25, axis=axis))


def optimality_gap(scores: np.ndarray, axis: int | None = None) -> np.ndarray:
    """How far scores fall short of 1 on average; what exceeds 1 counts no more than 1 (divide by another target)."""
    return 1 - np.minimum(scores, 1.0).mean(axis)


def bootstrap(
    scores: np.ndarray, statistic: Statistic = iqm, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of `statistic` under resampling of runs with replacement, within each task by itself.

    The same input and seed give the same interval. With few runs it is too narrow: it cannot leave their range.
    """
    scores = np.asarray(scores, float)
    scores = scores[:, None] if scores.ndim == 1 else scores
    runs, tasks = scores.shape
    if runs < 2 or not 0 < level < 1:
        raise UserError(f"a bootstrap interval needs at least 2 runs and a level inside (0, 1), got {runs} and {level}")
    picked = np.random.default_rng(seed).integers(0, runs, (draws, runs, tasks))
    resampled = np.take_along_axis(scores[None], picked, axis=1).reshape(draws, -1)
    low, high = np.quantile(statistic(resampled, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def normal(means: Sequence[float], halves: Sequence[float]) -> tuple[float, float]:
    """95 % normal interval of the mean over runs, of their means [n] over episodes and half-widths [n] of those.

    Both variances count in full: runs may have been evaluated on the same episodes, of which more runs are no more.
    """
    spread = 1.96 * np.std(means, ddof=1) / np.sqrt(len(means))
    middle, half = np.mean(means), np.hypot(np.mean(halves), spread)
    return float(middle - half), float(middle + half)
