"""SAC with several reward channels: configuration and losses. Pure; the loop lives in `sac_learner`.

Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905) whose twin critics have one output per channel, as DUSDi's
one Q per factor (arXiv 2410.11251). The policy maximises sum_c w_c(z) Q_c - alpha log pi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from repertoire.algos import networks
from repertoire.algos.distributions import TanhGaussian
from repertoire.algos.types import Array, Metrics, Params
from repertoire.errors import UserError, at_least_one, positive, unknown

STATISTICS = ("running", "fixed")


@dataclass(frozen=True)
class SACConfig:
    """SAC; the defaults are METRA's (its official code), the networks smaller.

    Attributes:
      envs: parallel worlds. rollout: steps per world and update. stagger: start the first episodes at random times.
      utd: gradient steps per env step. batch: transitions per gradient step. replay: transitions kept. min_replay:
        transitions before the first gradient step; until then actions are uniform.
      lr_policy, lr_q, lr_alpha: Adam step sizes. gamma: discount. tau: pace of the target critics, which move every
        `target_every` gradient steps. objective_every: gradient steps per gradient step of the objective.
      alpha: (initial) temperature. alpha_auto: adapt it. target_entropy: what it is adapted to, per action dimension.
      reward_scale: factor on all rewards.
      ensemble: critics; the one with the lowest value counts. hidden, activation: of policy and critics.
      statistics: observations are normalised by those of all rollouts so far, `running`, or by those of random actions
        at the start, `fixed`: what lies ten of their standard deviations away is then seen no more.
    """

    envs: int = 8
    rollout: int = 200
    stagger: bool = False
    utd: float = 0.03125
    batch: int = 256
    replay: int = 1_000_000
    min_replay: int = 10_000
    lr_policy: float = 1e-4
    lr_q: float = 1e-4
    lr_alpha: float = 1e-4
    gamma: float = 0.99
    tau: float = 5e-3
    target_every: int = 1
    objective_every: int = 1
    alpha: float = 0.01
    alpha_auto: bool = True
    target_entropy: float = -0.5
    reward_scale: float = 1.0
    ensemble: int = 2
    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    statistics: str = "running"

    def __post_init__(self) -> None:
        at_least_one(self, "algo", "envs", "rollout", "batch", "target_every", "objective_every", "ensemble", "hidden")
        positive(self, "algo", "lr_policy", "lr_q", "lr_alpha", "alpha")
        if self.statistics not in STATISTICS:
            raise unknown("algo.statistics", self.statistics, STATISTICS)
        if not 0 < self.gamma <= 1 or not 0 < self.tau <= 1:
            raise UserError(f"algo.gamma and algo.tau must lie in (0, 1], got {self.gamma} and {self.tau}")
        steps = self.envs * self.rollout
        if self.gradient_steps < 1:
            raise UserError(
                f"algo.utd = {self.utd} gradient steps per env step make none of algo.envs * algo.rollout = {steps} "
                "steps: raise one of them"
            )
        if self.replay < steps or not 0 <= self.min_replay <= self.replay:
            raise UserError(
                f"algo.replay = {self.replay} must hold a rollout ({steps} transitions) and algo.min_replay = "
                f"{self.min_replay}"
            )

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of one update."""
        return round(self.utd * self.envs * self.rollout)

    @property
    def label(self) -> str:
        """For plans."""
        return f"SAC, {self.gradient_steps} gradient steps of {self.batch} per update"


class ActorCritic(NamedTuple):
    """Policy network and head, the ensemble of critics [E, ..., C], and the initial temperature."""

    policy: networks.Network
    head: TanhGaussian
    q: networks.Network
    alpha: float

    def init(self, key: Array) -> Params:
        """Parameters of all three."""
        policy_key, q_key = jax.random.split(key)
        return {
            "policy": {"net": self.policy.init(policy_key)},
            "q": self.q.init(q_key),
            "log_alpha": jnp.log(jnp.asarray(self.alpha)),
        }


def actor_critic(spec: Any, latent: int, channels: int, config: SACConfig) -> ActorCritic:
    """Networks for an `EnvSpec`: policy sees [policy obs, z], critics see [critic obs, z, action].

    Raises `UserError` where actions are choices.
    """
    if spec.discrete:
        raise UserError(
            f"algo=sac needs continuous actions and env {spec.name} has {spec.discrete} choices: use algo=ppo, or a "
            "controller without choices (controller=sequence controller.mode=latent controller.termination=fixed, or "
            "controller=blend)"
        )
    head, cfg = TanhGaussian(spec.action_size), config
    policy = networks.reader(spec, latent, cfg.hidden, head.outputs, cfg.activation)
    width = spec.obs.size("critic") + latent + spec.action_size
    member = networks.mlp(width, cfg.hidden, channels, cfg.activation)
    return ActorCritic(policy, head, networks.ensemble(member, cfg.ensemble), cfg.alpha)


class Batch(NamedTuple):
    """Minibatch [B, ...]; inputs are normalised observations with the latent appended."""

    policy_in: Array
    critic_in: Array
    next_policy_in: Array
    next_critic_in: Array
    action: Array
    rewards: Array  # [B, C]
    weights: Array  # [B, C]
    terminated: Array


def pessimistic(q: Array, weights: Array) -> Array:
    """Values [C] of the critic, of [E, C], whose weighted sum is lowest.

    Not the lowest of each channel: under a negative weight that would be the optimist's choice.
    """
    return q[jnp.argmin(q @ weights)]


def soft_target(
    rewards: Array, next_q: Array, weights: Array, entropy: Array, terminated: Array, gamma: Array | float
) -> Array:
    """Targets [C] of the channels of one transition.

    The entropy bonus is split over the channels by w_c / |w|^2: of all splits whose weighted sum is the bonus, the
    smallest. So sum_c w_c target_c is the target of ordinary SAC on the weighted reward, and one channel of weight
    one is SAC itself.

    Args:
      rewards: [C]. next_q: [E, C] of the target critics at the next observation and an action of the policy there.
      weights: [C]. entropy: -alpha log pi of that action. terminated: nothing follows. gamma: discount.
    """
    share = weights / jnp.maximum(jnp.square(weights).sum(), 1e-6)
    value = pessimistic(next_q, weights) + share * entropy
    return rewards + gamma * jnp.where(terminated, 0.0, value)


def targets(params: Params, target: Params, nets: ActorCritic, batch: Batch, gamma: Array | float, key: Array) -> Array:
    """`soft_target` [B, C] of a minibatch; `gamma` is one for all, or [B]."""
    logits = nets.policy.apply(params["policy"]["net"], batch.next_policy_in)
    action, log_prob = nets.head.sample(key, logits)
    next_q = nets.q.apply(target, jnp.concatenate([batch.next_critic_in, action], axis=-1))
    entropy = -jnp.exp(params["log_alpha"]) * log_prob
    one = jax.vmap(soft_target, in_axes=(0, 1, 0, 0, 0, 0 if isinstance(gamma, jax.Array) else None))
    return one(batch.rewards, next_q, batch.weights, entropy, batch.terminated, gamma)


def critic_loss(q: Params, nets: ActorCritic, batch: Batch, target: Array) -> tuple[Array, Metrics]:
    """Half the squared error to targets [B, C], summed over critics and channels, averaged over the minibatch."""
    values = nets.q.apply(q, jnp.concatenate([batch.critic_in, batch.action], axis=-1))
    loss = 0.5 * jnp.square(values - target).sum((0, 2)).mean()
    return loss, {"loss/value": loss, "value/mean": (values.mean(0) * batch.weights).sum(-1).mean()}


def actor_loss(
    policy: Params, q: Params, log_alpha: Array, nets: ActorCritic, batch: Batch, key: Array
) -> tuple[Array, Metrics]:
    """alpha log pi - (weighted value of the more pessimistic critic), averaged over the minibatch."""
    logits = nets.policy.apply(policy["net"], batch.policy_in)
    action, log_prob = nets.head.sample(key, logits)
    values = nets.q.apply(q, jnp.concatenate([batch.critic_in, action], axis=-1))
    lowest = (values * batch.weights).sum(-1).min(0)
    loss = (jnp.exp(log_alpha) * log_prob - lowest).mean()
    return loss, {"loss/policy": loss, "policy/entropy": -log_prob.mean(), "policy/std": nets.head.std(logits).mean()}


def temperature_loss(log_alpha: Array, entropy: Array, target: float) -> Array:
    """Pulls the policy's `entropy` [] towards `target`: alpha rises while it is below."""
    return log_alpha * jax.lax.stop_gradient(entropy - target)
