"""One call for all worlds: functions over a flat axis of worlds that stay callable under any nest of `vmap`s."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from repertoire.envs.types import Array


def over_worlds(function: Callable[..., Any], ndim: int = 0) -> Callable[..., Any]:
    """Lift `function`, whose arguments and results carry one leading axis of worlds, to unbatched arguments.

    `vmap` of the result, nested or not, calls `function` once with all worlds flattened. So a `lax.cond` inside it
    sees one predicate for the batch (under a plain `vmap` both branches would run), and buffers can be sized by the
    number of worlds.

    Args:
      function: pytrees of arrays [n, ...] in and out.
      ndim: leading axes of the lifted function's arguments; 0 for one world.
    """

    @jax.custom_batching.custom_vmap
    def lifted(*args: Any) -> Any:
        lead = jax.tree.leaves(args)[0].shape[:ndim]
        out = function(*jax.tree.map(lambda x: x.reshape((math.prod(lead), *x.shape[ndim:])), args))
        return jax.tree.map(lambda x: x.reshape((*lead, *x.shape[1:])), out)

    @lifted.def_vmap
    def rule(size: int, batched: Any, *args: Any) -> tuple[Any, Any]:
        def whole(x: Array, is_batched: bool) -> Array:
            return x if is_batched else jnp.broadcast_to(x, (size, *x.shape))

        out = over_worlds(function, ndim + 1)(*jax.tree.map(whole, args, tuple(batched)))
        return out, jax.tree.map(lambda _: True, out)

    return lifted
