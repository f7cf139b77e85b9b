"""The SAC learner: the same interface as `Learner`, with a replay whose rewards are never stored.

One gradient step goes as METRA's code goes: sample, objective (encoder, dual variable), rewards of the *new*
objective, critics, policy, temperature, target critics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from repertoire.algos import acting, normalize, replay, rollout, sac
from repertoire.algos.advantages import discounts
from repertoire.algos.agents import random_act
from repertoire.algos.signals import Signals, TaskChannel
from repertoire.algos.types import Array, Metrics, Objective, Params, SACState, Transition


class Learned(NamedTuple):
    """The part of a state that gradient steps change."""

    params: Params
    target: Params
    opt_state: dict[str, Any]
    objective: Params
    objective_opt: Any


class SACLearner:
    """SAC on an env, with or without a skill-discovery objective.

    Args:
      env: an `Env` with continuous actions. config: SAC constants. objective: intrinsic reward, or None.
      features: names of the feature slices that the objective sees; None for all.
      total_updates: length of training. tasks: reward channels of the env's own terms.
    """

    adapter = None  # adapters are PPO's

    def __init__(
        self,
        env: Any,
        config: sac.SACConfig,
        objective: Objective | None = None,
        features: tuple[str, ...] | None = None,
        total_updates: int = 1,
        tasks: Sequence[TaskChannel] = (),
    ) -> None:
        self.env, self.config, self.total_updates = env, config, total_updates
        self.signals = Signals(env, objective, features, tasks)
        self.objective, self.prior = objective, self.signals.prior
        self.channels, self.feature_index = self.signals.names, self.signals.feature_index
        self.nets = sac.actor_critic(env.spec, self.prior.size if self.prior else 0, len(self.channels), config)
        self.packer = replay.Packer(env.spec.obs, [t for c in self.signals.tasks for t in c.terms or ()])
        self._adam = {
            "policy": optax.adam(config.lr_policy),
            "q": optax.adam(config.lr_q),
            "log_alpha": optax.adam(config.lr_alpha),
        }

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
        """Memory of the replay, per seed."""
        row = jax.tree.leaves(self._example())
        return self.config.replay * sum(x.size * x.dtype.itemsize for x in row)

    # -- state ---------------------------------------------------------------------------------------------------

    def init(self, key: Array) -> SACState:
        """Initial state; runs a short random rollout to fix feature and observation statistics. Call under `jit`."""
        net_key, objective_key, env_key, warm_key, key = jax.random.split(key, 5)
        params = self.nets.init(net_key)
        state = SACState(
            params=params,
            target=params["q"],
            opt_state={name: adam.init(params[name]) for name, adam in self._adam.items()},
            replay=replay.init(self._example(), self.config.replay),
            key=key,
            **acting.start(self.signals, self.config, acting.after(params, objective_key), env_key, warm_key),
        )
        return acting.strong(state)

    def _example(self) -> replay.Row:
        """Shapes of one row."""

        def one(key: Array) -> replay.Row:
            carry = rollout.begin(self.env, self.prior, key, 1)
            self.signals.check_terms(tuple(carry.envs.metrics))  # before they are looked up
            _, (batch, _) = rollout.collect(self.env, self.prior, random_act(self.env.spec), carry, key, 1)
            return jax.tree.map(lambda x: x[0, 0], self.packer.pack(batch))

        return jax.eval_shape(one, jax.random.key(0))

    # -- the two programs ----------------------------------------------------------------------------------------

    def collect(self, state: SACState) -> tuple[SACState, Transition, Metrics]:
        """One rollout with the current policy, or with random actions until the replay holds `min_replay`."""
        policy, stats = state.params["policy"], state.obs_stats["policy"]
        early, uniform = state.replay.size < self.config.min_replay, random_act(self.env.spec)

        def act(key: Array, obs: Array, z: Array) -> tuple[Array, Array]:
            logits = self.nets.policy.apply(policy["net"], acting.inputs(stats, obs, z))
            action, log_prob = self.nets.head.sample(key, logits)
            return jnp.where(early, uniform(key, obs, z)[0], action), log_prob

        return acting.collect(self.signals, act, state, self.config.rollout)

    def update(self, state: SACState, batch: Transition) -> tuple[SACState, Metrics]:
        """Keep a rollout and take gradient steps; the metrics `reward/...` are those of the objective before them."""
        key, learn_key, reward_key = jax.random.split(state.key, 3)
        features = self.signals.feature_batch(state.feature_stats, batch)
        rewards = self.signals.rewards(state.objective, features, batch, reward_key)
        cells, figures = acting.seen(self.signals, state.visited, batch, rewards)
        kept = replay.insert(state.replay, self.packer.pack(batch))
        state = state.replace(replay=kept, visited=cells, key=key, update=state.update + 1)
        if self.config.statistics == "running":
            stats = {g: normalize.update(s, batch.obs[g]) for g, s in state.obs_stats.items()}
            state = state.replace(obs_stats=stats)
        learned, metrics = self._gradient_steps(state, learn_key)
        metrics |= {**figures, "replay/size": kept.size, "policy/alpha": jnp.exp(learned.params["log_alpha"])}
        return state.replace(**learned._asdict()), metrics

    # -- pieces --------------------------------------------------------------------------------------------------

    def _gradient_steps(self, state: SACState, key: Array) -> tuple[Learned, Metrics]:
        """All gradient steps of an update; none, and metrics of zero, before `min_replay`."""
        steps = self.config.gradient_steps
        learned = Learned(state.params, state.target, state.opt_state, state.objective, state.objective_opt)

        def train(learned: Learned) -> tuple[Learned, Metrics]:
            behind = (state.update - 1) * steps  # counted over updates, or a period longer than one would never end
            todo = (jax.random.split(key, steps), behind + jnp.arange(steps))
            learned, (metrics, found) = jax.lax.scan(lambda had, s: self._gradient_step(had, state, *s), learned, todo)
            learnt = jnp.maximum((todo[1] % self.config.objective_every == 0).sum(), 1)
            return learned, jax.tree.map(jnp.mean, metrics) | jax.tree.map(lambda x: x.sum(0) / learnt, found)

        def skip(learned: Learned) -> tuple[Learned, Metrics]:
            return learned, _zeros(train, learned)[1]

        return jax.lax.cond(state.replay.size >= self.config.min_replay, train, skip, learned)

    def _gradient_step(
        self, had: Learned, state: SACState, key: Array, step: Array
    ) -> tuple[Learned, tuple[Metrics, Metrics]]:
        """One of them, in the order of METRA's code: new values, SAC's metrics and the objective's."""
        sample_key, objective_key, reward_key, next_key, action_key = jax.random.split(key, 5)
        transitions = self.packer.unpack(replay.sample(state.replay, sample_key, self.config.batch))
        features = self.signals.feature_batch(state.feature_stats, transitions)
        objective, objective_opt, found = self._learn_objective(had, features, objective_key, step)
        rewards = self.signals.rewards(objective, features, transitions, reward_key)
        batch = self._batch(state, transitions, self.config.reward_scale * rewards)

        params, opt_state = had.params, had.opt_state
        gamma = discounts(transitions.missed, self.config.gamma, self.hold)
        target = sac.targets(params, had.target, self.nets, batch, gamma, next_key)
        grads, metrics = jax.grad(sac.critic_loss, has_aux=True)(params["q"], self.nets, batch, target)
        params, opt_state = self._step("q", params, opt_state, grads)
        others = (params["q"], params["log_alpha"], self.nets, batch, action_key)
        grads, more = jax.grad(sac.actor_loss, has_aux=True)(params["policy"], *others)
        params, opt_state = self._step("policy", params, opt_state, grads)
        if self.config.alpha_auto:
            wanted = self.config.target_entropy * self.env.spec.action_size
            grads = jax.grad(sac.temperature_loss)(params["log_alpha"], more["policy/entropy"], wanted)
            params, opt_state = self._step("log_alpha", params, opt_state, grads)
        pace = self.config.tau * ((step + 1) % self.config.target_every == 0)
        slow = optax.incremental_update(params["q"], had.target, pace)
        return Learned(params, slow, opt_state, objective, objective_opt), (metrics | more, found)

    def _learn_objective(self, had: Learned, features: Any, key: Array, step: Array) -> tuple[Params, Any, Metrics]:
        """A gradient step of the objective, every `objective_every` steps."""

        def learn(params: Params, opt_state: Any) -> tuple[Params, Any, Metrics]:
            return self.signals.learn(params, opt_state, features, key)

        def skip(params: Params, opt_state: Any) -> tuple[Params, Any, Metrics]:
            return params, opt_state, _zeros(learn, params, opt_state)[2]

        return jax.lax.cond(step % self.config.objective_every == 0, learn, skip, had.objective, had.objective_opt)

    def _batch(self, state: SACState, transitions: Transition, rewards: Array) -> sac.Batch:
        def inputs(group: str, obs: dict[str, Array]) -> Array:
            return acting.inputs(state.obs_stats[group], obs[group], transitions.z)

        return sac.Batch(
            policy_in=inputs("policy", transitions.obs),
            critic_in=inputs("critic", transitions.obs),
            next_policy_in=inputs("policy", transitions.next_obs),
            next_critic_in=inputs("critic", transitions.next_obs),
            action=transitions.action,
            rewards=rewards,
            weights=self.signals.weights(transitions.z),
            terminated=transitions.terminated,
        )

    def _step(self, name: str, params: Params, opt_state: dict[str, Any], grads: Params) -> tuple[Params, Any]:
        """One Adam step of the entry `name`."""
        updates, new = self._adam[name].update(grads, opt_state[name], params[name])
        return {**params, name: optax.apply_updates(params[name], updates)}, {**opt_state, name: new}


def _zeros(function: Any, *args: Any) -> Any:
    """Zeros in the shape of what `function` would return."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *args))
