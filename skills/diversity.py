"""How many different skills there are: the Vendi score (arXiv 2210.02410) and its relatives (arXiv 2310.12952)."""

from __future__ import annotations

import numpy as np

from repertoire.errors import UserError

#: Eigenvalues below this are rounding: orders q < 1 would count them.
ROUNDING = 1e-12


def vendi(kernel: np.ndarray, q: float = 1.0) -> float:
    """Effective number of different items under a similarity kernel [n, n]: exp of the order-q entropy of spec(K / n).

    1 for n equal items, n for n orthogonal ones. q = 1 is Shannon's entropy (the Vendi score), 2 weighs pairs, infinity
    the commonest item alone; q < 1 weighs rare items up.

    Args:
      kernel: positive semi-definite, ones on the diagonal.
    """
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 2 or not np.allclose(kernel, kernel.T) or not np.allclose(np.diag(kernel), 1.0):
        raise UserError("a Vendi score needs a symmetric kernel with ones on the diagonal")
    if q < 0:
        raise UserError(f"the order of a Vendi score must be at least 0, got {q}")
    share = np.linalg.eigvalsh(kernel / len(kernel))
    share = share[share > ROUNDING]
    if q == 1:
        return float(np.exp(-(share * np.log(share)).sum()))
    return float(1 / share.max() if np.isinf(q) else (share**q).sum() ** (1 / (1 - q)))


def trajectory_distances(paths: np.ndarray) -> np.ndarray:
    """Root mean square distance [n, n] over time between trajectories [n, T, d], each from its own first point."""
    flat = (paths - paths[:, :1]).reshape(len(paths), -1).astype(np.float64)
    norms = np.square(flat).sum(1)
    squared = np.maximum(norms[:, None] + norms - 2 * flat @ flat.T, 0.0)
    np.fill_diagonal(squared, 0.0)
    return np.sqrt(squared / paths.shape[1])


def gaussian_kernel(distances: np.ndarray, bandwidth: float) -> np.ndarray:
    """exp(-d^2 / (2 bandwidth^2)) of distances [n, n]."""
    if bandwidth <= 0:
        raise UserError(f"the bandwidth of a kernel must be positive, got {bandwidth}")
    return np.exp(-0.5 * np.square(distances / bandwidth))


def noise_bandwidth(random: np.ndarray, floor: float) -> float:
    """Bandwidth for one env: median distance between trajectories [n, T, d] of random actions, at least `floor`.

    Skills count as different where they differ by more than chance makes the robot differ. The rule knows the env
    alone, so that scores of any methods and runs on it compare. A median over the set itself would make the score
    blind to scale (skills a metre and a millimetre apart score the same), one over all sets of a comparison would
    change a set's score with the company it is in.
    """
    distances = trajectory_distances(random)
    return max(float(np.median(distances[np.triu_indices(len(distances), 1)])), floor)
