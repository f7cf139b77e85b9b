"""How well the stages of an expert are imitated: all together as a rule, and each by itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from repertoire.algos import guided
from repertoire.algos.imitation import Imitator
from repertoire.algos.types import Array, Params, Stats
from repertoire.high_level.rules import StatefulRule


def trained(learner: Imitator, state: Any) -> StatefulRule:
    """The learned policies of a training state (one seed) act; the expert says the stage alone."""
    begin, act, _ = _rules(learner)
    return StatefulRule(begin, Partial(act, learner.stats(state), state.params["policy"]["net"]))


def expert(learner: Imitator) -> StatefulRule:
    """The expert itself."""
    begin, _, act = _rules(learner)
    return StatefulRule(begin, Partial(act))


def figures(learner: Imitator, state: Any, key: Array, count: int) -> dict[str, float]:
    """Of every stage, as the learner leads it from where the stage before left off, in `count` worlds for an episode.

    `done_<stage>`: share of the attempts that come to the stage's end within `dagger.patience` steps (after these the
    expert takes over, so that later stages begin all the same). `loss_<stage>`: mean squared error of the action there.
    """
    done, loss = _played(learner, count)(state, key)
    shares = {f"done_{name}": float(done[i]) for i, name in enumerate(learner.stages)}
    return shares | {f"loss_{name}": float(loss[i]) for i, name in enumerate(learner.stages)}


@functools.lru_cache(maxsize=2)
def _rules(learner: Imitator) -> tuple[Partial, Callable[..., Any], Callable[..., Any]]:
    """(start, step of the policies, step of the expert): the same for all states, so that they compile once."""
    machine, last = learner.expert, len(learner.stages) - 1

    def begin(key: Array, state: Any) -> Any:
        return machine.begin()

    def act(stats: Stats, net: Params, key: Array, state: Any, memory: Any) -> tuple[Array, Any]:
        memory, stage, _ = machine.act(state, memory)
        return learner.actions(net, stats, state.obs["policy"])[jnp.minimum(stage, last)], memory

    def right(key: Array, state: Any, memory: Any) -> tuple[Array, Any]:
        memory, _, action = machine.act(state, memory)
        return action, memory

    return Partial(begin), act, right


@functools.lru_cache(maxsize=2)
def _played(learner: Imitator, count: int) -> Callable[[Any, Array], tuple[Array, Array]]:
    """(state, key) -> (share of attempts that succeed [K], loss [K])."""
    lead = guided.Lead(0.0, learner.patience, learner.config.linger)

    @jax.jit
    def run(state: Any, key: Array) -> tuple[Array, Array]:
        begin_key, key = jax.random.split(key)
        carry = guided.begin(learner.env, learner.expert, begin_key, count)
        carry, (seen, _) = learner.roll(state, carry, key, learner.env.spec.episode_length, lead)
        mine = jax.nn.one_hot(seen.stage, len(learner.stages)) * seen.led[..., None]
        error = (mine * seen.error[..., None]).sum((0, 1)) / jnp.maximum(mine.sum((0, 1)), 1.0)
        return carry.done / jnp.maximum(carry.tried, 1.0), error

    return run
