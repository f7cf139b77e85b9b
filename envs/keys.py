"""Keys of one world: drawn in every world at every step, so what nobody reads must cost nothing."""

from __future__ import annotations

import jax

from repertoire.envs.types import Array


def split(key: Array, count: int = 2) -> tuple[Array, ...]:
    """The same bits as `jax.random.split(key, count)`, each hashed by itself.

    Under `vmap` that is half the cost of one table [worlds, count], and XLA drops the keys that are not used.
    """
    return tuple(jax.random.fold_in(key, i) for i in range(count))
