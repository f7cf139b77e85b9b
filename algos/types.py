"""Contracts between learners and everything that plugs into them: transitions, objectives, latent priors, states."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import optax
from flax import struct

Array = jax.Array
Metrics = dict[str, Array]
Params = Any


class Transition(struct.PyTreeNode):
    """One step of one world; a rollout stacks them as [T, N, ...].

    `next_obs` is the true next observation, never that of the episode after a reset. `cut` marks steps after which
    the return must bootstrap although the MDP goes on: truncation, or a skill switch.
    """

    obs: dict[str, Array]
    next_obs: dict[str, Array]
    z: Array  # [D] latent the action was conditioned on ([0] without skills)
    action: Array  # [A] or [] int32
    log_prob: Array  # []
    task_reward: Array  # []
    terminated: Array  # [] bool
    cut: Array  # [] bool


class LatentPrior(Protocol):
    """Prior over skill latents and the clock that redraws them."""

    size: int
    hold: int  # control steps until the latent is redrawn inside an episode; 0 = once per episode

    discrete: bool

    def sample(self, key: Array) -> Array:
        """One latent [size]."""
        ...


class Objective(Protocol):
    """An intrinsic reward with parameters of its own. All functions are pure."""

    name: str
    channels: tuple[str, ...]
    weights: tuple[float, ...]  # of the channels' normalised advantages in the policy's advantage
    prior: LatentPrior
    optimizer: optax.GradientTransformation

    def init(self, key: Array, features: int) -> Params:
        """Parameters for feature vectors [features] (already normalised by fixed statistics)."""
        ...

    def reward(self, params: Params, features: Array, z: Array, next_features: Array) -> Array:
        """Reward channels [C] of one transition."""
        ...

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """Loss [] over a minibatch [B, ...], and metrics."""
        ...


class FeatureBatch(struct.PyTreeNode):
    """What objectives learn from: normalised features before and after, and the latent, [B, ...]."""

    features: Array
    z: Array
    next_features: Array


class Stats(struct.PyTreeNode):
    """Mean, variance and count of a vector."""

    mean: Array
    var: Array
    count: Array


class TrainState(struct.PyTreeNode):
    """Everything a training run is: restoring it resumes exactly."""

    params: Params  # {"policy": ..., "value": ...}
    opt_state: Any
    lr: Array  # []
    objective: Params  # None without objective
    objective_opt: Any
    obs_stats: dict[str, Stats]  # running, for policy and critic
    feature_stats: Stats  # fixed after warm-up
    return_scale: Array  # [C] running scale of returns
    envs: Any  # env State [N]
    z: Array  # [N, D]
    clock: Array  # [N] int32 steps until the latent is redrawn
    visited: Array  # [G, G] bool: cells the root visited in training
    key: Array
    update: Array  # [] int32
