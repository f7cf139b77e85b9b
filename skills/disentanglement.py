"""Does each part of a latent rule its own factor of the state? DCI (Eastwood and Williams, ICLR 2018).

The importance of latent part i for state factor j is the drop of held-out R^2 when part i is shuffled among rollouts.
It is 0 where a part does nothing or a factor cannot be predicted, and it treats all columns of a part together, which
the impurity importances of trees do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from repertoire.errors import UserError

#: Shuffles of each latent part that its importance is averaged over.
SHUFFLES = 8


class Importance(NamedTuple):
    """How much each of L latent parts explains of each of F state factors."""

    matrix: np.ndarray  # [L, F] drop of held-out R^2, at least 0
    explained: np.ndarray  # [F] held-out R^2 with all parts, at least 0


def dci_scores(matrix: np.ndarray) -> tuple[float, float]:
    """(disentanglement, completeness), both in [0, 1], of an importance matrix [L, F].

    Disentanglement: 1 - entropy of a latent part's importances over the factors (base F), parts weighted by their sum.
    Completeness: the same over the parts of each factor (base L). Both are 0 where nothing is explained.
    """
    if min(matrix.shape) < 2:
        raise UserError(f"DCI needs at least 2 latent parts and 2 state factors, got {matrix.shape}")
    return _concentration(matrix), _concentration(matrix.T)


def _concentration(rows: np.ndarray) -> float:
    """1 - normalised entropy of each row, weighted by the rows' sums."""
    total = rows.sum(1)
    share = rows[total > 0] / total[total > 0, None]
    if not len(share):
        return 0.0
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(1) / np.log(rows.shape[1])
    return float(np.average(1 - entropy, weights=total[total > 0]))


def importance(
    z: np.ndarray, features: np.ndarray, parts: Sequence[np.ndarray], factors: Sequence[np.ndarray], seed: int = 0
) -> Importance:
    """Importance of latent parts for state factors, by a random forest from latents to features.

    Args:
      z: latent of each rollout [N, D]. features: what the rollout did [N, F], one row each (a mean, an end point).
      parts: columns of z of each latent part. factors: columns of `features` of each state factor.
    """
    from sklearn.ensemble import RandomForestRegressor

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(z))
    train, test = order[: len(z) // 2], order[len(z) // 2 :]
    scaled = (features - features.mean(0)) / (features.std(0) + 1e-8)
    matrix, explained = np.zeros((len(parts), len(factors))), np.zeros(len(factors))
    for j, columns in enumerate(factors):
        y = scaled[:, columns]
        forest = RandomForestRegressor(random_state=seed).fit(z[train], y[train].squeeze())
        whole = _r2(forest.predict(z[test]), y[test])
        explained[j] = max(whole, 0.0)
        for i, part in enumerate(parts):
            mixed = [_r2(forest.predict(_shuffled(z[test], part, rng)), y[test]) for _ in range(SHUFFLES)]
            matrix[i, j] = max(whole - max(float(np.mean(mixed)), 0.0), 0.0)
    return Importance(matrix, explained)


def dci(
    z: np.ndarray, features: np.ndarray, parts: Sequence[np.ndarray], factors: Sequence[np.ndarray], seed: int = 0
) -> dict[str, float]:
    """Disentanglement, completeness and informativeness (mean held-out R^2 of the factors); see `importance`."""
    found = importance(z, features, parts, factors, seed)
    disentanglement, completeness = dci_scores(found.matrix)
    return {
        "dci_disentanglement": disentanglement,
        "dci_completeness": completeness,
        "dci_informativeness": float(found.explained.mean()),
    }


def _shuffled(z: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mixed = z.copy()
    mixed[:, part] = z[rng.permutation(len(z))][:, part]
    return mixed


def _r2(found: np.ndarray, wanted: np.ndarray) -> float:
    """R^2 over all columns together; 0 for what does not vary."""
    spread = np.square(wanted - wanted.mean(0)).sum()
    return float(1 - np.square(found.reshape(wanted.shape) - wanted).sum() / spread) if spread > 1e-12 else 0.0
