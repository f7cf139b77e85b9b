"""Frozen skills plus an env are again an `Env`: one macro step holds a skill for k control steps.

So the learner that trained the skills trains the controller (*sequence*), and a controller can be frozen in turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from repertoire.envs.mujoco_env import tree_where
from repertoire.envs.types import Array, Env, EnvSpec, State
from repertoire.errors import UserError
from repertoire.high_level.options import Options


class Trace(struct.PyTreeNode):
    """Low-level steps inside one macro step, [k, ...]: what videos and logs read."""

    qpos: Array
    reward: Array
    alive: Array
    features: Array
    memory: Any


class MacroEnv:
    """`Env` over `Options` with hold length k.

    The macro reward is the sum over the held steps of gamma^i r_i up to and including the first done, and nothing
    after it; the learner discounts macro steps by gamma^k (semi-MDP, Sutton et al. 1999), so k = 1 with a skill that
    passes actions through is the flat env exactly.

    Args:
      env: the task env. options: frozen skills. hold: k. gamma: discount per control step.
    """

    def __init__(self, env: Env, options: Options, hold: int, gamma: float = 1.0) -> None:
        if hold < 1:
            raise UserError(f"controller.hold must be at least 1, got {hold}")
        self.env, self.options, self.hold, self.gamma = env, options, hold, gamma
        self.spec = _macro_spec(env.spec, options, hold)

    def reset(self, key: Array) -> State:
        """Fresh episode."""
        return self.env.reset(key)

    def reset_where(self, mask: Array, state: State) -> State:
        """Fresh episode where `mask`."""
        return self.env.reset_where(mask, state)

    def step(self, state: State, action: Array) -> State:
        """Hold the commanded skill for k control steps; stop at the first done."""
        return self.trace(state, action)[0]

    def trace(self, state: State, action: Array) -> tuple[State, Trace]:
        """`step`, and the low-level steps inside it."""
        command = self.options.resolve(action)
        false = jnp.zeros((), bool)
        start = state.replace(reward=jnp.zeros(()), terminated=false, truncated=false)
        start = start.replace(metrics=jax.tree.map(jnp.zeros_like, state.metrics))

        def low(carry: State, i: Array) -> tuple[State, Trace]:
            alive = ~(carry.terminated | carry.truncated)
            stepped = self.env.step(carry, self.options.act(carry.obs["policy"], command))
            reward = jnp.where(alive, stepped.reward, 0.0)
            merged = stepped.replace(
                reward=carry.reward + self.gamma**i * reward, metrics=_accumulate(carry.metrics, stepped.metrics)
            )
            carry = tree_where(alive, merged, carry)
            return carry, Trace(carry.data.qpos, reward, alive, carry.obs["features"], carry.memory)

        return jax.lax.scan(low, start, jnp.arange(self.hold))


def _accumulate(total: Mapping[str, Array], step: Mapping[str, Array]) -> dict[str, Array]:
    """Reward terms and divergence counts add up over a macro step; other metrics keep their last value."""
    summed = {k: k.startswith("reward/") or k == "diverged" for k in step}
    return {k: total[k] + v if summed[k] else v for k, v in step.items()}


def _macro_spec(spec: EnvSpec, options: Options, hold: int) -> EnvSpec:
    choice = options.mode == "choice"
    size = 1 if choice else options.size
    return dataclasses.replace(
        spec,
        name=f"{spec.name}+{'+'.join(s.name for s in options.skills)}",
        action_size=size,
        action_names=tuple(f"{options.mode}{i}" for i in range(size)),
        action_low=(-1.0,) * size,
        action_high=(1.0,) * size,
        dt=spec.dt * hold,
        episode_length=int(np.ceil(spec.episode_length / hold)),
        discrete=len(options.table[0]) if choice else 0,
    )
