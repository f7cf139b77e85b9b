"""The PPO learner: one state pytree, and two programs over it, `collect` and `update`.

They are two programs because XLA's persistent cache skips programs with host callbacks: the costly update stays
cacheable, whatever steps the physics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from repertoire.algos import acting, mirroring, normalize, ppo, rollout
from repertoire.algos.adapter import Adapter
from repertoire.algos.advantages import channel_gae, combine, discounts, loudest
from repertoire.algos.signals import Signals, TaskChannel
from repertoire.algos.types import Array, Metrics, Objective, Params, Stats, TrainState, Transition

#: Decay of the running scales of rewards and returns per update.
SCALE_DECAY = 0.95


class Learner:
    """PPO on an env, with or without a skill-discovery objective.

    Args:
      env: an `Env`. config: PPO constants. objective: intrinsic reward, or None for the env's reward alone.
      features: names of the feature slices that the objective sees; None for all.
      total_updates: length of training, for the learning-rate schedule. tasks: reward channels of the env's own terms.
      adapter: the policy is a frozen one, of which low-rank changes are trained; the networks take its shape.
    """

    def __init__(
        self,
        env: Any,
        config: ppo.PPOConfig,
        objective: Objective | None = None,
        features: tuple[str, ...] | None = None,
        total_updates: int = 1,
        tasks: Sequence[TaskChannel] = (),
        adapter: Adapter | None = None,
    ) -> None:
        self.env, self.adapter, self.total_updates = env, adapter, total_updates
        self.config = config = adapter.shape(config) if adapter else config
        self.signals = Signals(env, objective, features, tasks)
        self.objective, self.prior = objective, self.signals.prior
        self.channels, self.feature_index = self.signals.names, self.signals.feature_index
        critics = len(self.channels) if config.critics == "multi" else 1
        self.nets = ppo.actor_critic(env.spec, self.prior.size if self.prior else 0, critics, config, adapter)
        self._mirror = mirroring.of(env, objective) if config.symmetry else None
        adam = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam(eps=1e-5))
        self._adam = adapter.optimizer(adam) if adapter else adam

    @property
    def hold(self) -> int:
        """Control steps in a step of the env: more than one where macro steps hold a skill."""
        return rollout.hold_of(self.env)

    @property
    def steps_per_update(self) -> int:
        """Env steps of one update."""
        return self.config.envs * self.config.rollout

    @property
    def replay_bytes(self) -> int:
        """Nothing is kept."""
        return 0

    # -- state ---------------------------------------------------------------------------------------------------

    def init(self, key: Array) -> TrainState:
        """Initial state; runs a short random rollout to fix feature statistics. Call under `jit`."""
        net_key, objective_key, env_key, warm_key, key = jax.random.split(key, 5)
        params = self.nets.init(net_key)
        begun = acting.start(self.signals, self.config, acting.after(params, objective_key), env_key, warm_key)
        if self.adapter:
            begun["obs_stats"]["policy"] = self.adapter.statistics(begun["obs_stats"]["policy"])
        state = TrainState(
            params=params,
            opt_state=self._adam.init(params),
            lr=jnp.asarray(self.config.lr, jnp.float32),
            reward_scale=jnp.ones(len(self.channels)),
            return_scale=jnp.ones(len(self.channels) if self.config.critics == "multi" else 1),
            key=key,
            **begun,
        )
        return acting.strong(state)

    # -- the two programs ----------------------------------------------------------------------------------------

    def collect(self, state: TrainState) -> tuple[TrainState, Transition, Metrics]:
        """One rollout with the current policy: (state, Transition [T, N, ...], env metrics averaged)."""
        act = self.sampler(state.params["policy"], state.obs_stats["policy"])
        return acting.collect(self.signals, act, state, self.config.rollout)

    def update(self, state: TrainState, batch: Transition) -> tuple[TrainState, Metrics]:
        """Learn from one rollout. Intrinsic rewards come from the objective *before* it is updated."""
        key, shuffle_key = jax.random.split(state.key)
        reward_key = jax.random.fold_in(shuffle_key, 1)
        features = self.signals.feature_batch(state.feature_stats, batch)
        rewards = self.signals.rewards(state.objective, features, batch, reward_key)
        advantage, target, scales = self._advantages(state, batch, rewards)
        data = (self._samples(state, batch, advantage, target), features)
        flat = jax.tree.map(lambda x: x.reshape(self.steps_per_update, *x.shape[2:]), data)
        learned, metrics = self._epochs(state, flat, shuffle_key)
        metrics = jax.tree.map(jnp.mean, metrics)
        stats = {g: self._next_stats(g, s, batch.obs[g]) for g, s in state.obs_stats.items()}
        cells, figures = acting.seen(self.signals, state.visited, batch, rewards)
        metrics |= {**figures, "lr": state.lr, "policy/std": _std(learned.params)}
        metrics |= self.adapter.figures(learned.params) if self.adapter else {}
        update = state.update + 1
        return learned.replace(
            obs_stats=stats,
            reward_scale=scales[0],
            return_scale=scales[1],
            visited=cells,
            key=key,
            update=update,
            lr=self._next_lr(state.lr, update, metrics["policy/kl"]),
        ), metrics

    # -- pieces --------------------------------------------------------------------------------------------------

    def sampler(self, policy: Params, stats: Any) -> rollout.Act:
        """Stochastic policy as an `Act`."""

        def act(key: Array, obs: Array, z: Array) -> tuple[Array, Array]:
            logits = self.nets.policy.apply(policy["net"], acting.inputs(stats, obs, z))
            action = self.nets.head.sample(key, logits, policy["head"])
            return action, self.nets.head.log_prob(action, logits, policy["head"])

        return act

    def _inputs(self, state: TrainState, group: str, obs: dict[str, Array], z: Array) -> Array:
        return acting.inputs(state.obs_stats[group], obs[group], z)

    def _samples(self, state: TrainState, batch: Transition, advantage: Array, target: Array) -> tuple[ppo.Batch, ...]:
        """What PPO learns from, [T, N, ...]: the batch, and its mirror image under `config.symmetry`."""

        def samples(b: Transition) -> ppo.Batch:
            policy_in, value_in = (self._inputs(state, group, b.obs, b.z) for group in ("policy", "critic"))
            return ppo.Batch(policy_in, value_in, b.action, b.log_prob, advantage, target)

        drawn = samples(batch)
        if self._mirror is None:
            return (drawn,)
        image, policy = samples(mirroring.image(self._mirror, batch)), state.params["policy"]
        logits = self.nets.policy.apply(policy["net"], image.policy_in)  # no policy drew it: ratios begin at 1
        return drawn, image._replace(log_prob=self.nets.head.log_prob(image.action, logits, policy["head"]))

    def _critic_rewards(self, state: TrainState, batch: Transition, rewards: Array) -> tuple[Array, Array, Array]:
        """(rewards [T, N, V] of each critic, their weights [T, N, V], new reward scale [C])."""
        cfg, weights = self.config, self.signals.weights(batch.z)
        scale = _running(state.reward_scale, _rms(rewards), state.update)
        if cfg.normalize == "rewards":
            rewards = rewards / scale
        if cfg.critics == "multi":
            return rewards, weights, scale
        return (rewards * weights).sum(-1, keepdims=True), jnp.ones((*rewards.shape[:-1], 1)), scale

    def _advantages(self, state: TrainState, batch: Transition, rewards: Array) -> tuple[Array, Array, tuple[Any, Any]]:
        """Combined advantages [T, N], scaled value targets [T, N, V] and the new reward and return scales."""
        cfg, params = self.config, state.params["value"]
        rewards, weights, reward_scale = self._critic_rewards(state, batch, rewards)
        values = self.nets.value.apply(params, self._inputs(state, "critic", batch.obs, batch.z))
        last = jax.tree.map(lambda x: x[-1:], (batch.next_obs, batch.z))

        def shifted() -> Array:  # within an uncut trajectory V(next_obs_t) = V(obs_{t+1})
            tail = self.nets.value.apply(params, self._inputs(state, "critic", *last))
            return jnp.concatenate([values[1:], tail])

        def full() -> Array:
            return self.nets.value.apply(params, self._inputs(state, "critic", batch.next_obs, batch.z))

        next_values = jax.lax.cond((batch.cut | batch.terminated).any(), full, shifted)
        values, next_values = values * state.return_scale, next_values * state.return_scale
        discount = discounts(batch.missed, cfg.gamma, self.hold)
        ends = (batch.terminated, batch.cut)
        advantages = channel_gae(rewards, values, next_values, *ends, cfg.gamma, cfg.lam, discount)
        returns = advantages + values
        scale = _running(state.return_scale, _rms(returns), state.update)
        combined = combine(advantages, weights, rewards, cfg.normalize == "advantages", loudest(cfg.gamma, cfg.lam))
        return combined, returns / scale, (reward_scale, scale)

    def _epochs(self, state: TrainState, data: Any, key: Array) -> tuple[TrainState, Metrics]:
        size = self.steps_per_update

        def minibatch(state: TrainState, indices_key: tuple[Array, Array]) -> tuple[TrainState, Metrics]:
            indices, step_key = indices_key
            return self._gradient_step(state, jax.tree.map(lambda x: x[indices], data), step_key)

        def epoch(state: TrainState, key: Array) -> tuple[TrainState, Metrics]:
            order_key, step_key = jax.random.split(key)
            order = jax.random.permutation(order_key, size).reshape(self.config.minibatches, -1)
            return jax.lax.scan(minibatch, state, (order, jax.random.split(step_key, self.config.minibatches)))

        return jax.lax.scan(epoch, state, jax.random.split(key, self.config.epochs))

    def _gradient_step(self, state: TrainState, data: Any, key: Array) -> tuple[TrainState, Metrics]:
        images, feature_batch = data
        ppo_batch = jax.tree.map(lambda *x: jnp.concatenate(x), *images)
        grads, metrics = jax.grad(ppo.loss, has_aux=True)(state.params, self.nets, ppo_batch, self.config)
        updates, opt_state = self._adam.update(grads, state.opt_state)
        params = optax.apply_updates(state.params, jax.tree.map(lambda u: -state.lr * u, updates))
        state = state.replace(params=params, opt_state=opt_state)
        objective, objective_opt, more = self.signals.learn(state.objective, state.objective_opt, feature_batch, key)
        return state.replace(objective=objective, objective_opt=objective_opt), metrics | more

    def _next_stats(self, group: str, stats: Stats, obs: Array) -> Stats:
        """Running statistics; those of a frozen policy stand still."""
        return stats if self.adapter and group == "policy" else normalize.update(stats, obs)

    def _next_lr(self, lr: Array, update: Array, kl: Array) -> Array:
        """Adaptive (KL) or linear learning rate."""
        cfg = self.config
        if cfg.target_kl > 0:
            factor = jnp.where(kl > 2 * cfg.target_kl, 1 / 1.5, jnp.where(kl < 0.5 * cfg.target_kl, 1.5, 1.0))
            return jnp.clip(lr * factor, 1e-5, 1e-2)
        return cfg.lr * (1 - (1 - cfg.lr_final) * jnp.minimum(update / self.total_updates, 1.0))


def _rms(x: Array) -> Array:
    """Root mean square [C] of [..., C], kept off zero."""
    return jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(x), axis=tuple(range(x.ndim - 1)))), 1e-3)


def _running(scale: Array, measured: Array, update: Array) -> Array:
    """Running scale; the first measurement counts alone."""
    return jnp.where(update == 0, measured, SCALE_DECAY * scale + (1 - SCALE_DECAY) * measured)


def _std(params: Params) -> Array:
    head = params["policy"]["head"]
    return jnp.exp(head["log_std"]).mean() if "log_std" in head else jnp.zeros(())
