"""PPO with several reward channels: configuration and losses. Pure; loops live in `learner`, networks in `networks`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from repertoire.algos import distributions, networks
from repertoire.algos.adapter import Adapter
from repertoire.algos.distributions import Distribution
from repertoire.algos.types import Array, Metrics, Params
from repertoire.errors import UserError, at_least_one, positive, unknown

CRITICS, NORMALIZE = ("multi", "single"), ("advantages", "rewards", "none")


@dataclass(frozen=True)
class PPOConfig:
    """PPO (Schulman et al. 2017) with per-channel critics.

    Attributes:
      envs: parallel worlds. rollout: steps per world and update. epochs, minibatches: passes over a rollout.
      lr: Adam step size. lr_final: factor on `lr` at the end of training (linear; 1 keeps it fixed).
      target_kl: adapt `lr` to hold this KL per update (0: off). gamma, lam: discount and GAE trace.
      clip: ratio clip. entropy: bonus. max_grad_norm: global norm.
      critics: `multi`, one per reward channel, or `single`, one for their weighted sum. normalize: `advantages` of each
      critic before they are weighted and summed, `rewards` of each channel before anything else, or `none` (the
      four corners of SLIM's ablation; a sum of raw advantages is still scaled as a whole).
      hidden, activation: networks of policy and critic. init_log_std: of the Gaussian head.
      stagger: start the first episodes at random times, so that rollouts hold all phases of an episode.
      symmetry: learn from the left-right mirror image of every sample too (Mittal et al. 2024, arXiv 2403.04359); for
      tasks only, on envs that declare one.
    """

    envs: int = 256
    rollout: int = 32
    epochs: int = 2
    minibatches: int = 4
    lr: float = 1e-3
    lr_final: float = 1.0
    target_kl: float = 0.0
    gamma: float = 0.99
    lam: float = 0.95
    clip: float = 0.2
    entropy: float = 0.0
    max_grad_norm: float = 1.0
    critics: str = "multi"
    normalize: str = "advantages"
    hidden: tuple[int, ...] = (256, 128)
    activation: str = "swish"
    init_log_std: float = -1.0
    stagger: bool = True
    symmetry: bool = False

    label: ClassVar[str] = "PPO"

    def __post_init__(self) -> None:
        at_least_one(self, "algo", "envs", "rollout", "epochs", "minibatches", "hidden")
        if (self.envs * self.rollout) % self.minibatches:
            raise UserError(
                f"algo.envs * algo.rollout = {self.envs * self.rollout} must be a multiple of algo.minibatches = "
                f"{self.minibatches}"
            )
        if not 0 < self.gamma <= 1 or not 0 <= self.lam <= 1:
            raise UserError(f"algo.gamma must lie in (0, 1] and algo.lam in [0, 1], got {self.gamma} and {self.lam}")
        if self.critics not in CRITICS:
            raise unknown("algo.critics", self.critics, CRITICS)
        if self.normalize not in NORMALIZE:
            raise unknown("algo.normalize", self.normalize, NORMALIZE)
        positive(self, "algo", "lr", "clip", "max_grad_norm")
        if self.target_kl < 0 or (self.target_kl and self.lr_final != 1):
            raise UserError("algo.target_kl must be at least 0, and needs algo.lr_final=1: it sets the rate itself")


class ActorCritic(NamedTuple):
    """Policy network and head, and a critic with one output per reward channel."""

    policy: networks.Network
    head: Distribution
    value: networks.Network

    def init(self, key: Array) -> Params:
        """Parameters of both."""
        policy_key, value_key = jax.random.split(key)
        policy = {"net": self.policy.init(policy_key), "head": self.head.extra()}
        return {"policy": policy, "value": self.value.init(value_key)}


def actor_critic(
    spec: Any, latent: int, channels: int, config: PPOConfig, adapter: Adapter | None = None
) -> ActorCritic:
    """Networks for an `EnvSpec`: policy sees [policy obs, z], critic sees [critic obs, z].

    With an `adapter` the policy is its frozen one with low-rank changes.
    """
    if adapter is None:
        head = distributions.for_spec(spec, config.init_log_std)
        policy = networks.reader(spec, latent, config.hidden, head.outputs, config.activation)
    else:
        head = distributions.Gaussian(spec.action_size, config.init_log_std, adapter.squash)
        policy = adapter.network()
    value = networks.mlp(spec.obs.size("critic") + latent, config.hidden, channels, config.activation)
    return ActorCritic(policy, head, value)


class Batch(NamedTuple):
    """Minibatch [B, ...] of the PPO loss; inputs are normalised observations with the latent appended."""

    policy_in: Array
    value_in: Array
    action: Array
    log_prob: Array
    advantage: Array  # [B] combined
    target: Array  # [B, C] returns divided by their running scale


#: Largest log ratio that counts.
LOG_RATIO = 20.0
#: Times its advantage, the most that a bad mirror image is charged (dual clip, arXiv 1912.09729): it may lie far in the
#: tail of what the policy draws, where a small step of the mean multiplies the ratio by thousands.
IMAGE_BOUND = 3.0


def loss(params: Params, nets: ActorCritic, batch: Batch, config: PPOConfig) -> tuple[Array, Metrics]:
    """Clipped surrogate + squared value error + entropy bonus, averaged over the minibatch.

    With `config.symmetry` its second half are mirror images, which no policy drew: KL and share of clipped ratios leave
    them out.
    """
    logits = nets.policy.apply(params["policy"]["net"], batch.policy_in)
    extra = params["policy"]["head"]
    log_prob = nets.head.log_prob(batch.action, logits, extra)
    surrogate, kl, clipped = jax.vmap(clipped_surrogate, in_axes=(0, 0, 0, None))(
        log_prob, batch.log_prob, batch.advantage, config.clip
    )
    values = nets.value.apply(params["value"], batch.value_in)
    value_loss = 0.5 * jnp.square(values - batch.target).sum(-1).mean()
    entropy = nets.head.entropy(logits, extra).mean()
    drawn = len(kl) // 2 if config.symmetry else len(kl)
    if config.symmetry:
        surrogate = surrogate.at[drawn:].max(IMAGE_BOUND * jnp.minimum(batch.advantage[drawn:], 0.0))
    total = -surrogate.mean() + value_loss - config.entropy * entropy
    return total, {
        "loss/policy": -surrogate.mean(),
        "loss/value": value_loss,
        "policy/entropy": entropy,
        "policy/kl": kl[:drawn].mean(),
        "policy/clipped": clipped[:drawn].mean(),
    }


def clipped_surrogate(log_prob: Array, old_log_prob: Array, advantage: Array, clip: float) -> tuple[Array, ...]:
    """(surrogate, KL estimate, clipped flag) of one sample; KL is Schulman's k3: r - 1 - log r >= 0."""
    log_ratio = log_prob - old_log_prob
    ratio = jnp.exp(jnp.minimum(log_ratio, LOG_RATIO))  # an infinite one has no gradient
    bounded = jnp.clip(ratio, 1 - clip, 1 + clip)
    surrogate = jnp.minimum(ratio * advantage, bounded * advantage)
    return surrogate, ratio - 1 - log_ratio, (jnp.abs(ratio - 1) > clip).astype(jnp.float32)
