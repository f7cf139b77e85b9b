"""What a skill set can do, measured: coverage, reach, mutual information, held-out accuracy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from repertoire.algos import networks
from repertoire.algos.types import Array

#: METRA's protocol: 1 m cells, 48 deterministic rollouts.
CELL, ROLLOUTS = 1.0, 48


def coverage(positions: np.ndarray, cell: float = CELL) -> int:
    """Number of distinct cells that positions [..., d] (m) fall into: floor(x / cell) (METRA's code)."""
    flat = np.asarray(positions).reshape(-1, positions.shape[-1])
    return len(np.unique(np.floor(flat / cell), axis=0))


def reach(positions: np.ndarray) -> float:
    """Mean distance between start and end of trajectories [K, T, d], m."""
    return float(np.linalg.norm(positions[:, -1] - positions[:, 0], axis=-1).mean())


def binned_mi(values: np.ndarray, labels: np.ndarray, bins: int = 30) -> float:
    """I(value; label) in nats from a histogram: H(all) - mean_z H(z) (braxlines). values [N, d<=2], labels [N]."""
    edges = [np.linspace(v.min() - 1e-6, v.max() + 1e-6, bins + 1) for v in values.T]

    def entropy(x: np.ndarray) -> float:
        counts, _ = np.histogramdd(x, bins=edges)
        p = counts[counts > 0] / counts.sum()
        return float(-(p * np.log(p)).sum())

    groups = [values[labels == k] for k in np.unique(labels)]
    weights = np.array([len(g) for g in groups]) / len(values)
    return entropy(values) - float(np.dot(weights, [entropy(g) for g in groups]))


def held_out_accuracy(features: np.ndarray, labels: np.ndarray, skills: int, seed: int = 0) -> dict[str, float]:
    """Accuracy and MI lower bound of a *fresh* classifier trained on half of the rollouts, tested on the other.

    Args:
      features: [K, T, F], one rollout per row. labels: skill index of each rollout [K]. skills: number of skills.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    half = len(order) // 2
    mean, std = features.mean((0, 1)), features.std((0, 1)) + 1e-6

    def split(rows: np.ndarray) -> tuple[Array, Array]:
        x = ((features[rows] - mean) / std).reshape(-1, features.shape[-1])
        return jnp.asarray(x, jnp.float32), jnp.repeat(jnp.asarray(labels[rows]), features.shape[1])

    params, net = _fit(*split(order[:half]), skills, seed)
    x, y = split(order[half:])
    log_q = jax.nn.log_softmax(net.apply(params, x))
    accuracy = float((log_q.argmax(-1) == y).mean())
    bound = float(jnp.take_along_axis(log_q, y[:, None], 1).mean() + np.log(skills))
    return {
        "held_out_accuracy": accuracy,
        "held_out_accuracy_normalised": (accuracy - 1 / skills) / (1 - 1 / skills),
        "mi_bound": bound,
        "mi_ceiling": float(np.log(skills)),
    }


def _fit(x: Array, y: Array, skills: int, seed: int, steps: int = 500, batch: int = 512) -> tuple[Any, Any]:
    """Small classifier by Adam."""
    net = networks.mlp(x.shape[-1], (64, 64), skills, "relu")
    init_key, key = jax.random.split(jax.random.key(seed))
    params = net.init(init_key)
    adam = optax.adam(3e-3)

    def nll(params: Any, index: Array) -> Array:
        log_q = jax.nn.log_softmax(net.apply(params, x[index]))
        return -jnp.take_along_axis(log_q, y[index][:, None], 1).mean()

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        params, opt = carry
        grads = jax.grad(nll)(params, jax.random.randint(key, (batch,), 0, len(y)))
        updates, opt = adam.update(grads, opt)
        return (optax.apply_updates(params, updates), opt), None

    (params, _), _ = jax.jit(lambda c, k: jax.lax.scan(step, c, k))(
        (params, adam.init(params)), jax.random.split(key, steps)
    )
    return params, net
