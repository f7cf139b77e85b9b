"""Agents that need no training: a sanity floor under every figure."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from repertoire.algos.rollout import Act
from repertoire.algos.types import Array
from repertoire.envs.types import EnvSpec


def random_act(spec: EnvSpec) -> Act:
    """The random agent: uniform actions."""

    def act(key: Array, obs: Array, z: Array) -> tuple[Array, Array]:
        if spec.discrete and not spec.parameters:
            return jax.random.randint(key, (), 0, spec.discrete), jnp.zeros(())
        vector = jax.random.uniform(key, (spec.action_size,), minval=-1.0, maxval=1.0)
        if spec.parameters:
            vector = vector.at[0].set(jax.random.randint(jax.random.fold_in(key, 1), (), 0, spec.discrete))
        return vector, jnp.zeros(())

    return act
