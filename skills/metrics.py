"""How much of its world a skill set reaches: coverage, reach, and how much of a descriptor the skill decides."""

from __future__ import annotations

import functools

import numpy as np

from repertoire.errors import UserError

#: METRA's protocol: 1 m cells, 48 deterministic rollouts.
CELL, ROLLOUTS = 1.0, 48
#: Histogram cells of the binned mutual information, over all axes of the descriptor together.
BINS = 64


def coverage(positions: np.ndarray, cell: float = CELL) -> int:
    """Number of distinct cells that positions [..., d] (m) fall into: floor(x / cell) (METRA's code)."""
    flat = np.asarray(positions).reshape(-1, positions.shape[-1])
    return len(np.unique(np.floor(flat / cell), axis=0))


@functools.lru_cache
def straight_ray_cells(
    reach: float,
    rollouts: int = ROLLOUTS,
    dim: int = 2,
    cell: float = CELL,
    steps: int = 200,
    repeats: int = 32,
    seed: int = 0,
) -> float:
    """Mean coverage of `rollouts` straight rays of `reach` m from the origin in random directions of `dim` axes.

    Each ray has `steps` + 1 evenly spaced points; the mean is over `repeats` draws of the directions.
    """
    direction = np.random.default_rng(seed).normal(size=(repeats, rollouts, 1, dim))
    rays = direction / np.linalg.norm(direction, axis=-1, keepdims=True) * np.linspace(0, reach, steps + 1)[:, None]
    return float(np.mean([coverage(one, cell) for one in rays]))


def coverage_fraction(positions: np.ndarray, ceiling: float, cell: float = CELL) -> float:
    """Coverage of trajectories [K, T, d] (m) as a share of that of K straight rays as long as `ceiling` m.

    The rays' directions are random whatever the prior, so that methods on one robot share a denominator: K rollouts
    of fewer skills cannot reach 1, evenly spread skills can pass it.
    """
    if ceiling <= 0:
        raise UserError(f"the ceiling of a robot's reach must be positive, got {ceiling} m")
    rollouts, steps, dim = positions.shape
    return coverage(positions, cell) / straight_ray_cells(float(ceiling), rollouts, dim, float(cell), steps)


def reach(positions: np.ndarray) -> float:
    """Mean distance between start and end of trajectories [K, T, d], m."""
    return float(np.linalg.norm(positions[:, -1] - positions[:, 0], axis=-1).mean())


def axis_bins(dim: int) -> int:
    """Bins per axis that give a histogram over `dim` axes about `BINS` cells."""
    return round(BINS ** (1 / dim))


def binned_mi(values: np.ndarray, labels: np.ndarray, bins: int) -> tuple[float, float]:
    """(I(value; label), its bias), nats, from a histogram with `bins` per axis: H(all) - mean_z H(z) (braxlines).

    values [N, d], labels [N]. The bias is the difference of Miller's corrections, (occupied cells - 1) / (2 N) for each
    entropy: about bins / (2 N) per label where the value says nothing of the label. It takes samples to be independent;
    those of one rollout are not, so it is a lower bound there.
    """
    edges = [np.linspace(v.min() - 1e-6, v.max() + 1e-6, bins + 1) for v in values.T]

    def entropy(x: np.ndarray) -> np.ndarray:
        counts, _ = np.histogramdd(x, bins=edges)
        p = counts[counts > 0] / len(x)
        return np.array([-(p * np.log(p)).sum(), -(len(p) - 1) / (2 * len(x))])

    groups = [values[labels == k] for k in np.unique(labels)]
    inside = sum(len(g) / len(values) * entropy(g) for g in groups)
    information, bias = entropy(values) - inside
    return float(information), float(bias)
