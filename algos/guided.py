"""Rollouts that an expert looks at: it says which stage every world is in, and what would be right there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from repertoire.algos.types import Array
from repertoire.envs.expert import Expert


class Lead(NamedTuple):
    """Who acts.

    Attributes:
      beta: share of the stages that the expert leads, drawn as a stage begins. patience: control steps after which it
        takes over one that the learner leads. linger: steps that an episode goes on after the last stage.
      noise: standard deviation of what is added to actions as they are executed.
    """

    beta: Any
    patience: int
    linger: int
    noise: float = 0.0


class Row(struct.PyTreeNode):
    """What is kept of a step: what the policy saw, and what the expert would have done."""

    obs: Array  # [P]
    action: Array  # [A]


class Labelled(struct.PyTreeNode):
    """A rollout [T, N, ...]: rows, their stage, who acted, and whether the episode ended with the step."""

    row: Row
    stage: Array  # [] int32
    error: Array  # [] squared error of the stage's policy there
    led: Array  # [] bool: the learner's action was executed
    cut: Array  # [] bool


class Carry(struct.PyTreeNode):
    """What a rollout hands on, of N worlds: env states, the expert's memory, and per world what is under way."""

    envs: Any
    memory: Any
    stage: Array  # [N] int32; -1 before the first look
    clock: Array  # [N] int32 steps since the stage began
    leads: Array  # [N] bool: the learner leads it
    tried: Array  # [K] stages that the learner led to an end or gave up
    done: Array  # [K] those that it led to an end


def begin(env: Any, expert: Expert, key: Array, worlds: int) -> Carry:
    """Fresh episodes in `worlds` worlds."""
    fresh, none = jnp.zeros(worlds, jnp.int32), jnp.zeros(len(expert.stages))
    envs = jax.vmap(env.reset)(jax.random.split(key, worlds))
    return Carry(envs, _memories(expert, fresh), fresh - 1, fresh, jnp.zeros(worlds, bool), none, none)


def roll(
    env: Any, expert: Expert, policies: Callable[[Array], Array], carry: Carry, key: Array, steps: int, lead: Lead
) -> tuple[Carry, tuple[Labelled, dict[str, Array]]]:
    """`steps` steps in every world: (carry, (Labelled [T, N, ...], env metrics [T, N])).

    `policies` maps observations [N, P] to what each stage's policy would do, [K, N, A].
    """

    def step(carry: Carry, key: Array) -> tuple[Carry, tuple[Labelled, dict[str, Array]]]:
        lead_key, noise_key = jax.random.split(key)
        carry, right = _look(expert, carry, lead_key, lead)
        obs, led = carry.envs.obs["policy"], carry.leads & (carry.clock < lead.patience)
        stage = jnp.minimum(carry.stage, len(expert.stages) - 1)
        own = jnp.take_along_axis(policies(obs), stage[None, :, None], axis=0)[0]
        noise = lead.noise * jax.random.normal(noise_key, right.shape)
        envs = jax.vmap(env.step)(carry.envs, jnp.where(led[:, None], own, right) + noise)
        over = (carry.stage == len(expert.stages)) & (carry.clock >= lead.linger)
        cut = envs.terminated | envs.truncated | over
        labelled = Labelled(Row(obs, right), stage, jnp.square(own - right).sum(-1), led, cut)
        return _next(env, expert, carry, envs, cut, lead.patience), (labelled, envs.metrics)

    return jax.lax.scan(step, carry, jax.random.split(key, steps))


def _look(expert: Expert, carry: Carry, key: Array, lead: Lead) -> tuple[Carry, Array]:
    """(carry, what would be right [N, A]) after the expert has looked at every world."""
    memory, stage, right = jax.vmap(expert.act)(carry.envs, carry.memory)
    new = stage != carry.stage
    clock = jnp.where(new, 0, carry.clock + 1)
    ended = new & carry.leads & (carry.clock < lead.patience)
    given_up = ~new & carry.leads & (clock == lead.patience)
    which = jax.nn.one_hot(carry.stage, len(expert.stages))  # no row before the first stage and after the last
    after = carry.replace(
        memory=memory,
        stage=stage,
        clock=clock,
        leads=jnp.where(new, jax.random.uniform(key, stage.shape) >= lead.beta, carry.leads),
        tried=carry.tried + (which * (ended | given_up)[:, None]).sum(0),
        done=carry.done + (which * ended[:, None]).sum(0),
    )
    return after, jnp.clip(right, -1.0, 1.0)


def _next(env: Any, expert: Expert, carry: Carry, envs: Any, cut: Array, patience: int) -> Carry:
    """After a step to `envs`; fresh episodes where `cut`: the stage that the learner leads then was tried in vain."""
    left = jax.nn.one_hot(carry.stage, len(expert.stages)) * (cut & carry.leads & (carry.clock < patience))[:, None]
    fresh = _memories(expert, carry.stage)
    memory = jax.tree.map(lambda a, b: jax.vmap(jnp.where)(cut, a, b), fresh, carry.memory)
    envs = jax.vmap(env.reset_where)(cut, envs)
    tried = carry.tried + left.sum(0)
    return carry.replace(envs=envs, memory=memory, stage=jnp.where(cut, -1, carry.stage), tried=tried)


def _memories(expert: Expert, worlds: Array) -> Any:
    """What the expert remembers as an episode begins, one for each of `worlds` [N]."""
    return jax.vmap(lambda _: expert.begin())(worlds)
