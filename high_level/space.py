"""Macro actions as plain vectors, which can be searched, sampled and fed to a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from repertoire.algos.types import Array
from repertoire.high_level import goals
from repertoire.high_level.macro_env import MacroEnv


class Space(NamedTuple):
    """What is searched: vectors of `size` entries.

    Attributes:
      decode: search vector -> macro action. encode: macro action -> what learned dynamics see of it [size].
      sample: key -> random macro action.
    """

    size: int
    decode: Callable[[Array], Array]
    encode: Callable[[Array], Array]
    sample: Callable[[Array], Array]


def space_of(env: MacroEnv) -> Space:
    """Macro actions of `env` as vectors: latents as they are, choices as scores of which the greatest wins."""
    rule = goals.random_skills(env)

    def sample(key: Array) -> Array:
        return rule(key, None)  # type: ignore[arg-type]  # random skills look at no state

    n = env.spec.discrete
    if n:
        return Space(n, jnp.argmax, lambda action: jax.nn.one_hot(action, n), sample)
    return Space(env.spec.action_size, lambda x: x, lambda action: env.composer.resolve(action)[0], sample)
