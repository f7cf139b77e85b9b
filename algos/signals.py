"""Reward signals: an objective's channels and the env's own reward terms, as every learner needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from repertoire.algos import normalize, rollout
from repertoire.algos.agents import random_act
from repertoire.algos.types import Array, FeatureBatch, Metrics, Objective, Params, Stats, Transition
from repertoire.errors import UserError, unknown

#: Random-action rollout that fixes the feature statistics of metric objectives (as CSD's code does); steps are control
#: steps, but at least 8 steps of the env.
WARMUP_STEPS, WARMUP_WORLDS = 50, 256
#: A feature that random actions hardly move (std below this, in its own unit) keeps that unit: divided by next to
#: nothing, a drawer that opens for the first time would be worth more than all else together.
STILL = 1e-3


@dataclass(frozen=True)
class TaskChannel:
    """A reward channel made of terms of the env's own reward.

    Attributes:
      name: of the channel. weight: of its normalised advantage. terms: reward terms summed; None: the whole reward.
    """

    name: str = "task"
    weight: float = 1.0
    terms: tuple[str, ...] | None = None

    def reward(self, batch: Transition) -> Array:
        """Reward of every transition, [...]."""
        if self.terms is None:
            return batch.task_reward
        return sum((batch.terms[t] for t in self.terms), start=jnp.zeros_like(batch.task_reward))


class Warmup(NamedTuple):
    """Statistics of a random-action rollout."""

    policy: Stats
    critic: Stats
    features: Stats


class Signals:
    """Rewards, their weights, and the learning of the objective behind them.

    Args:
      env: an `Env`. objective: intrinsic reward, or None. features: names of the feature slices that the objective
      sees; None for all. tasks: channels of the env's own reward; without objective and channels, the whole reward.
    """

    def __init__(
        self,
        env: Any,
        objective: Objective | None = None,
        features: tuple[str, ...] | None = None,
        tasks: Sequence[TaskChannel] = (),
    ) -> None:
        self.env, self.objective = env, objective
        self.tasks = tuple(tasks) if objective or tasks else (TaskChannel(),)
        self.prior = objective.prior if objective else None
        self.feature_index = env.spec.obs.index("features", features)
        self.names = (*(objective.channels if objective else ()), *(t.name for t in self.tasks))
        if len(set(self.names)) < len(self.names):
            raise UserError(f"reward channels need different names, got {', '.join(self.names)}")

    def check_terms(self, metrics: Sequence[str]) -> None:
        """Raise `UserError` for a channel of a reward term that the env's `metrics` do not have."""
        known = [m[len(rollout.TERM) :] for m in metrics if m.startswith(rollout.TERM)]
        for channel in self.tasks:
            if channel.terms and not known:
                raise UserError(
                    f"channels.{channel.name}.terms: env {self.env.spec.name} has no reward terms; without terms= the "
                    "channel is its whole reward"
                )
            for term in channel.terms or ():
                if term not in known:
                    raise unknown(f"reward term of channel {channel.name}", term, known)

    def init(self, key: Array) -> tuple[Params, Any]:
        """(parameters, optimiser state) of the objective; (None, None) without one."""
        if self.objective is None:
            return None, None
        params = self.objective.init(key, len(self.feature_index))
        return params, self.objective.optimizer.init(params)

    def warm_up(self, key: Array) -> Warmup:
        """Observation and feature statistics from a short random-action rollout."""
        begin_key, roll_key = jax.random.split(key)
        carry = rollout.begin(self.env, None, begin_key, WARMUP_WORLDS)
        steps = max(8, WARMUP_STEPS // rollout.hold_of(self.env))
        _, (batch, _) = rollout.collect(self.env, None, random_act(self.env.spec), carry, roll_key, steps)

        def stats(x: Array) -> Stats:
            return normalize.update(normalize.init(x.shape[-1]), x)

        raw = self._raw(batch.obs)
        features = normalize.init(raw.shape[-1])
        if self.objective is None or self.objective.standardise:
            features = _scales(stats(raw))
        return Warmup(stats(batch.obs["policy"]), stats(batch.obs["critic"]), features)

    def feature_batch(self, stats: Stats, batch: Transition) -> FeatureBatch:
        """What the objective sees of transitions [..., ...], features normalised by fixed statistics."""
        young = batch.age < (self.objective.mask if self.objective else 0)
        return FeatureBatch(
            features=normalize.apply(stats, self._raw(batch.obs), clip=None),
            z=batch.z,
            next_features=normalize.apply(stats, self._raw(batch.next_obs), clip=None),
            weight=jnp.where(young, 0.0, 1.0),
            projected=batch.projected,
        )

    def rewards(self, params: Params, features: FeatureBatch, batch: Transition, key: Array) -> Array:
        """All channels [..., C] of transitions [...]: the objective's, then the task's."""
        parts = [channel.reward(batch)[..., None] for channel in self.tasks]
        if self.objective is not None:
            shape = batch.task_reward.shape
            flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(shape) :]), features)
            rewards = self.objective.rewards(params, flat, key)
            parts.insert(0, rewards.reshape(*shape, rewards.shape[-1]))
        return jnp.concatenate(parts, axis=-1)

    def weights(self, z: Array) -> Array:
        """Channel weights [..., C] under latents [..., D]."""
        shape = z.shape[:-1]
        own = jnp.asarray(np.asarray([t.weight for t in self.tasks], np.float32))
        own = jnp.broadcast_to(own, (*shape, len(self.tasks)))
        if self.objective is None:
            return own
        intrinsic = jax.vmap(self.objective.weigh)(z.reshape(-1, z.shape[-1]))
        return jnp.concatenate([intrinsic.reshape(*shape, intrinsic.shape[-1]), own], axis=-1)

    def learn(self, params: Params, opt_state: Any, batch: FeatureBatch, key: Array) -> tuple[Params, Any, Metrics]:
        """One gradient step of the objective on a minibatch [B]."""
        if self.objective is None:
            return params, opt_state, {}
        grads, metrics = jax.grad(self.objective.loss, has_aux=True)(params, batch, key)
        updates, opt_state = self.objective.optimizer.update(grads, opt_state, params)
        metrics = {f"{self.objective.name}/{k}": v for k, v in metrics.items()}
        return optax.apply_updates(params, updates), opt_state, metrics

    def _raw(self, obs: dict[str, Array]) -> Array:
        return obs["features"][..., self.feature_index]


def _scales(stats: Stats) -> Stats:
    """`stats` with unit variance for features that stand still."""
    return stats.replace(var=jnp.where(stats.var < STILL**2, 1.0, stats.var))
