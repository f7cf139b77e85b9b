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
    task_reward: Array  # [] the env's own reward
    terms: dict[str, Array]  # its weighted terms, [] each
    terminated: Array  # [] bool
    cut: Array  # [] bool
    age: Array  # [] int32 control steps since the latent was drawn
    projected: Array  # [] return of the episode, at its present rate if the rollout ends before; -inf: no beginning
    missed: Array | None = None  # [] int32 control steps that the episode's end cut off a macro step; None: of one step


#: Ends of the names of leaves that states had not from the beginning; an older checkpoint means zeros.
LATER = (".replay.rows.missed",)


class LatentPrior(Protocol):
    """Prior over skill latents and the clock that redraws them."""

    @property
    def size(self) -> int:
        """Length of the latent."""
        ...

    @property
    def hold(self) -> int:
        """Control steps until the latent is redrawn inside an episode; 0 = once per episode."""
        ...

    @property
    def discrete(self) -> bool:
        """Whether latents are one-hot."""
        ...

    def sample(self, key: Array) -> Array:
        """One latent [size]."""
        ...


class FeatureBatch(struct.PyTreeNode):
    """What objectives reward and learn from: normalised features before and after, and the latent, [B, ...]."""

    features: Array
    z: Array
    next_features: Array
    weight: Array  # [B] of the sample in the loss: 0 shortly after a latent was drawn (`Objective.mask`)
    projected: Array  # [B] see `Transition`


class Objective(Protocol):
    """An intrinsic reward with parameters of its own. All functions are pure."""

    name: str
    channels: tuple[str, ...]
    prior: LatentPrior
    optimizer: optax.GradientTransformation
    mask: int  # control steps after a latent is drawn that `loss` leaves out: the old skill still shows in them
    standardise: bool  # features in standard deviations of a random rollout, or in their own units

    def init(self, key: Array, features: int) -> Params:
        """Parameters for feature vectors [features] (already normalised by fixed statistics)."""
        ...

    def rewards(self, params: Params, batch: FeatureBatch, key: Array) -> Array:
        """Reward channels [B, C] of transitions [B]."""
        ...

    def weigh(self, z: Array) -> Array:
        """Weights [C] of the channels' normalised advantages in the advantage of a policy that follows latent z."""
        ...

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """Loss [] over a minibatch [B, ...], and metrics."""
        ...


class Stats(struct.PyTreeNode):
    """Mean, variance and count of a vector."""

    mean: Array
    var: Array
    count: Array


class RunState(struct.PyTreeNode):
    """What a training run of any learner is made of, beside its networks: restoring the whole resumes exactly."""

    objective: Params  # None without objective
    objective_opt: Any
    obs_stats: dict[str, Stats]  # for policy and critic
    feature_stats: Stats  # fixed after warm-up
    envs: Any  # env State [N]
    z: Array  # [N, D]
    clock: Array  # [N] int32 steps until the latent is redrawn
    age: Array  # [N] int32 steps since it was drawn
    earned: Array  # [N] task return of the episode so far; -inf where it lacks its beginning
    visited: Array  # [G, G] bool: cells the root visited in training
    key: Array
    update: Array  # [] int32


class TrainState(RunState):
    """State of PPO; `obs_stats` run on."""

    params: Params  # {"policy": ..., "value": ...}
    opt_state: Any
    lr: Array  # []
    reward_scale: Array  # [R] running root mean square of each reward
    return_scale: Array  # [C] running scale of each critic's returns


class SACState(RunState):
    """State of SAC; `obs_stats` are fixed after warm-up."""

    params: Params  # {"policy": ..., "q": ensemble [E, ...], "log_alpha": []}
    target: Params  # slow copy of "q"
    opt_state: dict[str, Any]  # of each entry of `params`
    replay: Any  # `replay.Replay`


class AnyLearner(Protocol):
    """What the training loop, evaluation and freezing know of a learner. `init`, `collect` and `update` are pure."""

    env: Any
    config: Any
    total_updates: int
    objective: Objective | None
    prior: LatentPrior | None
    channels: tuple[str, ...]
    feature_index: Any
    nets: Any  # `policy` (a network), its `head`, and `init(key)` of all parameters
    adapter: Any  # `adapter.Adapter` whose low-rank changes are the policy's parameters, or None

    def __hash__(self) -> int:
        """By identity: compiled programs are kept per learner."""
        ...

    @property
    def hold(self) -> int:
        """Control steps in a step of the env."""
        ...

    @property
    def steps_per_update(self) -> int:
        """Env steps of one update."""
        ...

    @property
    def replay_bytes(self) -> int:
        """Memory that stored transitions take, per seed."""
        ...

    def init(self, key: Array) -> Any:
        """Initial state."""
        ...

    def collect(self, state: Any) -> tuple[Any, Any, Metrics]:
        """One rollout: (state, `Transition` or `guided.Labelled` [T, N, ...], env metrics)."""
        ...

    def update(self, state: Any, batch: Any) -> tuple[Any, Metrics]:
        """Learn; the metric `loss/value` must stay finite."""
        ...
