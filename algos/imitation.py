"""Imitation of an expert in stages: DAgger (Ross, Gordon, Bagnell 2011), one policy per stage.

The expert's state machine looks at the true state, says which stage it is and what would be right there; the learner
acts, and learns what would have been right where it came to. As with all learners, `collect` and `update` are pure.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from repertoire.algos import acting, guided, networks, normalize, replay
from repertoire.algos.dagger import DAggerConfig
from repertoire.algos.distributions import Distribution, Gaussian
from repertoire.algos.types import Array, LatentPrior, Metrics, Objective, Params, Stats
from repertoire.envs.expert import Expert

#: Least variance of an observation: what the data hardly vary is not blown up.
FLOOR = 1e-3
#: Decay per update of the counts of stages that the learner led.
FORGET = 0.95


class Nets(NamedTuple):
    """The policy of one stage and its head; `init` gives parameters of all K, stacked."""

    policy: networks.Network
    head: Distribution
    stages: int

    @property
    def all(self) -> networks.Network:
        """All policies at once: [..., P] -> [K, ..., A]."""
        return networks.ensemble(self.policy, self.stages)

    def init(self, key: Array) -> Params:
        """Parameters with a leading [K]."""
        return {"policy": {"net": self.all.init(key)}}


class ImitationState(struct.PyTreeNode):
    """Everything of a run: restoring it resumes exactly."""

    params: Params
    opt_state: Any
    obs_stats: dict[str, Stats]
    rows: replay.Replay  # [K, capacity, ...]
    carry: guided.Carry
    key: Array
    update: Array  # [] int32
    objective: None = None


class Imitator:
    """Learns one policy for each stage of an expert.

    Args:
      env: an `Env` with vector actions. expert: of its task. config: constants. total_updates: length of training.
    """

    objective: Objective | None = None
    prior: LatentPrior | None = None
    adapter: Any = None
    feature_index: Any = None
    channels: tuple[str, ...] = ()
    hold = 1

    def __init__(self, env: Any, expert: Expert, config: DAggerConfig, total_updates: int = 1) -> None:
        self.env, self.expert, self.config, self.total_updates = env, expert, config, total_updates
        self.stages, spec = expert.stages, env.spec
        policy = networks.mlp(
            spec.obs.size("policy"), config.hidden, spec.action_size, config.activation, out_scale=0.01
        )
        self.nets = Nets(policy, Gaussian(spec.action_size, 0.0), len(expert.stages))
        self._adam = optax.scale_by_adam()

    @property
    def steps_per_update(self) -> int:
        """Env steps of one update."""
        return self.config.envs * self.config.rollout

    @property
    def patience(self) -> int:
        """Control steps that the learner gets for a stage."""
        return min(self.config.patience, max(self.env.spec.episode_length // 2, 1))

    @property
    def replay_bytes(self) -> int:
        """Memory of the rows."""
        spec = self.env.spec
        return 4 * len(self.stages) * self.config.capacity * (spec.obs.size("policy") + spec.action_size)

    # -- state ---------------------------------------------------------------------------------------------------

    def init(self, key: Array) -> ImitationState:
        """Initial state. Call under `jit`."""
        net_key, env_key, key = jax.random.split(key, 3)
        params, spec = self.nets.init(net_key), self.env.spec
        example = guided.Row(jnp.zeros(spec.obs.size("policy")), jnp.zeros(spec.action_size))
        state = ImitationState(
            params=params,
            opt_state=self._adam.init(params),
            obs_stats={"policy": normalize.init(spec.obs.size("policy"))},
            rows=jax.vmap(lambda _: replay.init(example, self.config.capacity))(jnp.arange(len(self.stages))),
            carry=guided.begin(self.env, self.expert, acting.after(params, env_key), self.config.envs),
            key=key,
            update=jnp.zeros((), jnp.int32),
        )
        return acting.strong(state)

    def stage_state(self, state: ImitationState, index: int) -> Any:
        """What freezing reads of a learner of one policy: `params` and `obs_stats` of stage number `index`."""
        net = jax.tree.map(lambda x: x[index], state.params["policy"]["net"])
        return SimpleNamespace(params={"policy": {"net": net}}, obs_stats={"policy": self.stats(state)})

    @staticmethod
    def stats(state: ImitationState) -> Stats:
        """The normaliser that policies read through."""
        stats = state.obs_stats["policy"]
        return stats.replace(var=jnp.maximum(stats.var, FLOOR))

    # -- the two programs ----------------------------------------------------------------------------------------

    def collect(self, state: ImitationState) -> tuple[ImitationState, guided.Labelled, Metrics]:
        """One rollout: (state, Labelled [T, N, ...], env metrics averaged)."""
        key, roll_key = jax.random.split(state.key)
        beta = self.expert_share(state.update)
        lead = guided.Lead(beta, self.patience, self.config.linger, self.config.noise)
        carry, (batch, measured) = self.roll(state, state.carry, roll_key, self.config.rollout, lead)
        metrics = {f"env/{k}": v.mean() for k, v in measured.items()}
        metrics |= {f"done/{s}": carry.done[i] / jnp.maximum(carry.tried[i], 1e-6) for i, s in enumerate(self.stages)}
        metrics |= {"learner/beta": beta, "learner/led": batch.led.mean()}
        return state.replace(key=key, carry=carry), batch, metrics

    def update(self, state: ImitationState, batch: guided.Labelled) -> tuple[ImitationState, Metrics]:
        """Keep the rollout's rows, then take gradient steps on rows of all rollouts that are kept."""
        key, step_key = jax.random.split(state.key)
        rows, stage = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (batch.row, batch.stage))
        mine = stage == jnp.arange(len(self.stages))[:, None]
        stats = state.obs_stats["policy"]
        seen, begun = normalize.update(stats, rows.obs), state.update < self.config.warmup * self.total_updates
        stats = jax.tree.map(lambda new, old: jnp.where(begun, new, old), seen, stats)
        state = state.replace(
            rows=jax.vmap(replay.insert_where, (0, None, 0))(state.rows, rows, mine), obs_stats={"policy": stats}
        )
        state, losses = self._learn(state, step_key)
        metrics = {"loss/value": losses.sum(-1).mean(), "learner/lr": self._lr(state.update)}
        metrics |= {f"loss/{name}": losses[:, i].mean() for i, name in enumerate(self.stages)}
        tallies = {"tried": FORGET * state.carry.tried, "done": FORGET * state.carry.done}
        return state.replace(key=key, update=state.update + 1, carry=state.carry.replace(**tallies)), metrics

    # -- pieces --------------------------------------------------------------------------------------------------

    def actions(self, net: Params, stats: Stats, obs: Array) -> Array:
        """What each stage's policy would do, [..., P] -> [K, ..., A]."""
        return self.nets.head.mode(self.nets.all.apply(net, normalize.apply(stats, obs)))

    def roll(self, state: ImitationState, carry: guided.Carry, key: Array, steps: int, lead: guided.Lead) -> Any:
        """`guided.roll` with the policies of `state`."""
        net, stats = state.params["policy"]["net"], self.stats(state)

        def policies(obs: Array) -> Array:
            return self.actions(net, stats, obs)

        return guided.roll(self.env, self.expert, policies, carry, key, steps, lead)

    def expert_share(self, update: Array) -> Array:
        """Share of the stages that the expert leads, []."""
        cfg, done = self.config, update / self.total_updates
        fallen = (done - cfg.warmup) / max(cfg.decay - cfg.warmup, 1e-6)
        return jnp.where(done < cfg.warmup, 1.0, 1.0 - (1.0 - cfg.beta) * jnp.clip(fallen, 0.0, 1.0))

    def _learn(self, state: ImitationState, key: Array) -> tuple[ImitationState, Array]:
        """Adam steps on batches of every stage: (state, losses [steps, K]; 0 for a stage without rows)."""
        rate, stats, some = self._lr(state.update), self.stats(state), state.rows.size > 0

        def loss(params: Params, inputs: Array, wanted: Array) -> tuple[Array, Array]:
            found = self.nets.head.mode(jax.vmap(self.nets.policy.apply)(params["policy"]["net"], inputs))
            each = jnp.where(some, jnp.square(found - wanted).sum(-1).mean(-1), 0.0)
            return each.sum(), each

        def step(carry: tuple[Params, Any], key: Array) -> tuple[tuple[Params, Any], Array]:
            params, opt_state = carry
            keys = jax.random.split(key, len(self.stages))
            rows = jax.vmap(replay.sample, (0, 0, None))(state.rows, keys, self.config.batch)
            grads, losses = jax.grad(loss, has_aux=True)(params, normalize.apply(stats, rows.obs), rows.action)
            updates, opt_state = self._adam.update(grads, opt_state)
            return (optax.apply_updates(params, jax.tree.map(lambda u: -rate * u, updates)), opt_state), losses

        keys = jax.random.split(key, self.config.steps)
        (params, opt_state), losses = jax.lax.scan(step, (state.params, state.opt_state), keys)
        return state.replace(params=params, opt_state=opt_state), losses

    def _lr(self, update: Array) -> Array:
        """Half a cosine."""
        done = jnp.minimum(update / self.total_updates, 1.0)
        return self.config.lr * (self.config.lr_final + (1 - self.config.lr_final) * 0.5 * (1 + jnp.cos(jnp.pi * done)))
