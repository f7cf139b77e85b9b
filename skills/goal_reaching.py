"""Latent goal reaching (braxlines): how near to a goal in descriptor space the skill chosen for it stays."""

from __future__ import annotations

import numpy as np


def box(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(centre [d], half-width [d]) of the box that descriptors [..., d] span."""
    flat = values.reshape(-1, values.shape[-1])
    low, high = flat.min(0), flat.max(0)
    return (low + high) / 2, (high - low) / 2


def goals_in(values: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` goals, uniform in the box that descriptors [..., d] span, [count, d]."""
    centre, half = box(values)
    return centre + half * np.random.default_rng(seed).uniform(-1, 1, (count, values.shape[-1]))


def latent_goal_reaching(aimed: np.ndarray, others: np.ndarray, goals: np.ndarray) -> dict[str, float]:
    """Mean distance over time to goals [G, d] of the skills chosen for them, and what random and best skills leave.

    Args:
      aimed: descriptors [G, T, d] of the skill chosen for each goal. others: descriptors [K, T, d] of the skill set.
    """
    chosen = np.linalg.norm(aimed - goals[:, None], axis=-1).mean(1)
    every = np.stack([np.linalg.norm(others - goal, axis=-1).mean(1) for goal in goals])  # [G, K]
    return {
        "lgr_distance": float(chosen.mean()),
        "lgr_distance_random": float(every.mean()),
        "lgr_distance_best": float(every.min(1).mean()),
        "lgr_range": float(box(others)[1].mean()),
    }
