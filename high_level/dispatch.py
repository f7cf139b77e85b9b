"""Rows sorted into blocks of one skill each: every skill computes only the rows that chose it.

Sparsely gated evaluation as in Shazeer et al. 2017, without capacity: groups are padded to whole blocks, so no row is
ever dropped (MegaBlocks, Gale et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from repertoire.algos.types import Array

#: Sizes that blocks may have, rows. Larger ones compute little faster and pad more.
SIZES = (1, 2, 4, 8, 16)
#: What it costs to fetch the parameters of a block, in rows computed (networks of 256x128 on a CPU: 5 to 8).
FETCH = 6
#: Blocks in one batched call on a CPU, whose cache must hold their parameters; an accelerator computes all at once.
AT_ONCE = 8


class Blocks(NamedTuple):
    """Which rows go where: group of each block [G], its rows [G, B], place of every row [R] among all G B.

    Only the first `used` [] blocks hold rows of their group; what fills a block up are rows of others.
    """

    owner: Array
    rows: Array
    place: Array
    used: Array


def cost(rows: float, groups: int, size: int) -> float:
    """What blocks of `size` cost, in rows computed, where rows fall evenly on groups: half a block of each is empty."""
    return min(rows, rows / size + groups * (size - 1) / size / 2) * (size + FETCH)


def block_size(rows: float, groups: int) -> int:
    """The size of `SIZES` of least cost."""
    return min(SIZES, key=lambda size: cost(rows, groups, size))


def most(rows: int, groups: int, size: int) -> int:
    """Blocks that suffice however rows fall on groups."""
    return (rows + min(groups, rows) * (size - 1)) // size


def sort(index: Array, groups: int, size: int) -> Blocks:
    """Blocks of `size` rows for the groups [R] of rows; a row of group `groups` or above is left out."""
    count, total = len(index), most(len(index), groups, size)
    order = jnp.argsort(index).astype(jnp.int32)
    ordered = index[order]
    first = jnp.searchsorted(ordered, jnp.arange(groups + 1, dtype=index.dtype), method="compare_all").astype(jnp.int32)
    end = jnp.cumsum(-(-jnp.diff(first) // size), dtype=jnp.int32)
    begin = jnp.concatenate([jnp.zeros(1, jnp.int32), end])
    owner = jnp.searchsorted(end, jnp.arange(total, dtype=jnp.int32), side="right", method="compare_all")
    owner = jnp.minimum(owner, groups - 1).astype(jnp.int32)
    within = (jnp.arange(total, dtype=jnp.int32) - begin[owner])[:, None] * size + jnp.arange(size, dtype=jnp.int32)
    rows = order[jnp.minimum(first[owner][:, None] + within, count - 1)]
    group = jnp.minimum(ordered, groups)
    places = begin[group] * size + jnp.arange(count, dtype=jnp.int32) - first[group]
    return Blocks(owner, rows, jnp.zeros(count, jnp.int32).at[order].set(places), end[-1])


def compute(function: Callable[[Array, Array], Array], blocks: Blocks) -> Array:
    """What `function`, of (group [], rows [B]) -> [B, ...], makes of every row, [R, ...]; anything for one left out."""
    total = len(blocks.owner)
    chunk = min(AT_ONCE if jax.default_backend() == "cpu" else total, total)
    short = -total % chunk
    owner, rows = (jnp.pad(x, ((0, short), *[(0, 0)] * (x.ndim - 1))) for x in (blocks.owner, blocks.rows))
    many = jax.vmap(function)
    shape = jax.eval_shape(many, owner, rows)

    def body(i: Array, found: Array) -> Array:
        start = i * chunk
        own, those = (jax.lax.dynamic_slice_in_dim(x, start, chunk) for x in (owner, rows))
        return jax.lax.dynamic_update_slice_in_dim(found, many(own, those), start, 0)

    found = jnp.zeros(shape.shape, shape.dtype)
    found = jax.lax.fori_loop(jnp.zeros((), jnp.int32), -(-blocks.used // chunk), body, found)
    return found.reshape(-1, *found.shape[2:])[blocks.place]
