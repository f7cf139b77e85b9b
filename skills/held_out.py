"""Can a fresh model tell from held-out rollouts which skill it sees? Half of the rollouts train it, half test it."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from repertoire.algos import networks
from repertoire.algos.types import Array

HIDDEN, LR, STEPS, BATCH = (64, 64), 3e-3, 500, 512


class Split(NamedTuple):
    """Standardised features [R, T, F] and targets [R, ...] of R rollouts to train on and of R' to test on."""

    x: Array
    y: Array
    test_x: Array
    test_y: Array


def held_out_accuracy(features: np.ndarray, labels: np.ndarray, skills: int, seed: int = 0) -> dict[str, float]:
    """Accuracy and MI lower bound of a fresh classifier, per step and per rollout.

    A rollout goes to the skill with the largest mean log posterior over its steps.

    Args:
      features: [K, T, F], one rollout per row. labels: skill index of each rollout [K]. skills: number of skills.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    split = _split(features, labels.astype(np.int32), *_shared(order, labels))
    log_q = jax.nn.log_softmax(_predict(split, jax.random.key(seed), skills, "classify"))
    accuracy = float((log_q.argmax(-1) == split.test_y[:, None]).mean())
    bound = float(jnp.take_along_axis(log_q, split.test_y[:, None, None], -1).mean() + np.log(skills))
    return {
        "held_out_accuracy": accuracy,
        "held_out_accuracy_normalised": (accuracy - 1 / skills) / (1 - 1 / skills),
        "held_out_accuracy_rollout": float((log_q.mean(1).argmax(-1) == split.test_y).mean()),
        "mi_bound": bound,
        "mi_ceiling": float(np.log(skills)),
    }


def held_out_cosine(features: np.ndarray, z: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Cosine and R^2 between continuous latents [K, D] and what a fresh regression reads from features [K, T, F].

    Per step, and (cosine) per rollout, from the mean prediction over its steps. R^2 is over all entries together and
    negative where the mean of the test latents predicts better.
    """
    order = np.random.default_rng(seed).permutation(len(z))
    split = _split(features, z.astype(np.float32), order[: len(z) // 2], order[len(z) // 2 :])
    found = _predict(split, jax.random.key(seed), z.shape[1], "regress")
    wanted = split.test_y[:, None]
    spread = jnp.square(split.test_y - split.test_y.mean(0)).sum(-1).mean()
    return {
        "held_out_cosine": float(_cosine(found, wanted).mean()),
        "held_out_cosine_rollout": float(_cosine(found.mean(1), split.test_y).mean()),
        "held_out_r2": float(1 - jnp.square(found - wanted).sum(-1).mean() / spread),
    }


def _cosine(a: Array, b: Array) -> Array:
    scale = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return (a * b).sum(-1) / jnp.maximum(scale, 1e-8)


def _shared(order: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rollouts to train on and to test on: every other one of each skill, or no one would know the skills left out."""
    turn = np.asarray([np.sum(labels[order[:i]] == labels[k]) for i, k in enumerate(order)])
    return order[turn % 2 == 0], order[turn % 2 == 1]


def _split(features: np.ndarray, targets: np.ndarray, train: np.ndarray, test: np.ndarray) -> Split:
    x = (features - features.mean((0, 1))) / (features.std((0, 1)) + 1e-6)
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(targets)
    return Split(x[train], y[train], x[test], y[test])


@functools.partial(jax.jit, static_argnames=("out", "task"))
def _predict(split: Split, key: Array, out: int, task: str) -> Array:
    """Outputs [R', T, out] for the test rollouts of a small network fitted by Adam to the training ones."""
    rollouts, length, size = split.x.shape
    net = networks.mlp(size, HIDDEN, out, "relu")
    init_key, key = jax.random.split(key)
    params, adam = net.init(init_key), optax.adam(LR)

    def loss(params: Any, x: Array, y: Array) -> Array:
        found = net.apply(params, x)
        if task == "regress":
            return jnp.square(found - y).sum(-1).mean()
        return optax.softmax_cross_entropy_with_integer_labels(found, y).mean()

    def step(carry: Any, key: Array) -> tuple[Any, None]:
        params, opt = carry
        index = jax.random.randint(key, (BATCH,), 0, rollouts * length)
        grads = jax.grad(loss)(params, split.x.reshape(-1, size)[index], split.y[index // length])
        updates, opt = adam.update(grads, opt)
        return (optax.apply_updates(params, updates), opt), None

    (params, _), _ = jax.lax.scan(step, (params, adam.init(params)), jax.random.split(key, STEPS))
    return net.apply(params, split.test_x)
