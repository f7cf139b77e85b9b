"""Which skills a task is made of: a task x skill allocation matrix, learned with an inventory of low-rank skills.

After Polytropon ("Combining Modular Skills in Multitask Learning", Ponti et al. 2022): allocations are Bernoulli,
relaxed so that they have a gradient, and a task's weights are the base and the mean of its skills. Pure functions;
whoever trains several tasks brings the loss. A row is also a set of coefficients for `skills.adapters.merge`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from repertoire.algos.types import Array
from repertoire.errors import UserError


def sample(key: Array, logits: Array, temperature: float = 1.0) -> Array:
    """Relaxed Bernoulli draws [tasks, skills] in (0, 1) of probabilities sigmoid(`logits`) (binary concrete).

    The draw lies above 1/2 with exactly that probability, at any temperature; towards 0 it becomes binary.
    """
    if not temperature > 0:
        raise UserError(f"the temperature of an allocation must be positive, got {temperature}")
    return jax.nn.sigmoid((logits + jax.random.logistic(key, logits.shape)) / temperature)


def normalised(allocation: Array) -> Array:
    """Rows [..., skills] >= 0 divided by their sums: the mean over a task's skills. A row of zeros stays zero."""
    return allocation / jnp.maximum(allocation.sum(-1, keepdims=True), 1e-6)


def effective(kernel: Array, a: Array, b: Array, weights: Array) -> Array:
    """Kernels [tasks, in, out] of all tasks: `kernel` [in, out] + sum over skills of weight A B.

    Args:
      a: [skills, in, r]. b: [skills, r, out], times the scale of the changes.
      weights: [tasks, skills], see `normalised`.
    """
    return kernel + jnp.einsum("ts,sir,sro->tio", weights, a, b)
