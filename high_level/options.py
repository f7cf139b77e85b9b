"""Options that the controller ends itself: at every decision it goes on with what is held, or hands over.

The alternative, a duration emitted with the option (dynamic action repetition, Lakshminarayanan et al. 2017), makes
decisions of unequal length, each with a discount and a trace of its own. Here every decision holds for equally many
control steps, unless the episode ends, and what is held is part of the state and of what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from repertoire.algos.types import Array, Metrics
from repertoire.envs.mujoco_env import tree_where
from repertoire.envs.types import Env, Slice, State
from repertoire.errors import UserError, unknown
from repertoire.high_level.composer import Composer
from repertoire.high_level.macro_env import OWN, MacroEnv, Trace
from repertoire.high_level.types import Command, Field

TERMINATION = ("fixed", "learned")
#: Reward term of the price of handing over, and the metric that is 1 where an option begins.
COST, BEGUN = "reward/deliberation", OWN + "begun"


@dataclass(frozen=True)
class TerminationConfig:
    """When an option ends.

    Attributes:
      termination: `fixed`, after `controller.hold` control steps; `learned`, when the controller says so, and after
        `controller.hold` control steps at the latest. every: of a learned one, control steps between its decisions.
      switch_cost: of a learned one, reward lost for handing over (deliberation cost, Harb et al. 2017). An episode's
        first option is free.
    """

    termination: str = "fixed"
    every: int = 5
    switch_cost: float = 0.0

    def __post_init__(self) -> None:
        if self.termination not in TERMINATION:
            raise unknown("controller.termination", self.termination, TERMINATION)
        if self.termination == "fixed" and (self.every, self.switch_cost) != (TerminationConfig.every, 0.0):
            raise UserError("controller.every and controller.switch_cost need controller.termination=learned")
        if not 0 <= self.switch_cost < float("inf"):
            raise UserError(f"controller.switch_cost must be at least 0, got {self.switch_cost}")


class Option(Composer):
    """What `inner` emits, or one choice more: to keep what is held. Command: (age [] in control steps, inner command).

    The keeping choice is the last; the others keep their numbers, and their parameters, if `inner` has a vector. Where
    there is nothing to keep - at the start, where the age is 0, and after `longest` - it stands for the zero action of
    `inner`: so the log probability of an action always covers all of it that matters.

    Args:
      inner: composer without options. every: control steps between decisions. longest: of an option, control steps.
    """

    def __init__(self, inner: Composer, every: int, longest: int) -> None:
        if every < 1 or longest < every or longest % every:
            raise UserError(
                "controller.termination=learned needs controller.every >= 1 and a controller.hold that is a multiple "
                f"of it, got {every} and {longest}"
            )
        self.skills, self.env, self.bank, self.notes = inner.skills, inner.env, inner.bank, inner.notes
        self.inner, self.every, self.longest = inner, every, longest
        self.mode = f"{inner.mode}+keep"
        self.discrete = max(inner.discrete, 1) + 1
        self.names, sizes = inner.names, inner.parameters
        if not inner.discrete:
            self.names, sizes = ("choice", *inner.names), (inner.size,)
        self.parameters = (*sizes, 0) if sizes else ()
        width = 1 + sum(f.size * max(f.choices, 1) for f in inner.fields)
        self.seen = (Slice("held_option", width),)

    @property
    def fields(self) -> tuple[Field, ...]:
        """Age and what `inner` holds."""
        return (Field("age", 1, self.longest + 1), *self.inner.fields)

    def resolve(self, action: Array) -> Command:
        """A new option."""
        emitted = action if self.inner.discrete else action[1:]
        return jnp.zeros((), jnp.int32), self.inner.resolve(jnp.where(self._keeps(action), self.inner.zero(), emitted))

    def renew(self, action: Array, command: Command) -> Command:
        """What is held, or a new option."""
        on = self._keeps(action) & self.lasts(command)
        return tree_where(on, command, self.resolve(action))

    def view(self, command: Command) -> Array:
        """Age as a share of the longest, and all that is held, indices as one-hot vectors; zeros where nothing is."""
        age, held = command
        leaves = zip(self.inner.fields, jax.tree.leaves(held), strict=True)
        seen = [jax.nn.one_hot(x, f.choices) if f.choices else x for f, x in leaves]
        return jnp.concatenate([(age / self.longest)[None], *map(jnp.ravel, seen)]) * (age > 0)

    def act(self, obs: Array, command: Command) -> tuple[Array, Command]:
        """Of `inner`."""
        age, held = command
        action, held = self.inner.act(obs, held)
        return action, (age + 1, held)

    def sample(self, key: Array) -> Array:
        """`draw` where an option is held."""
        return self.draw(key, jnp.ones((), bool))

    def draw(self, key: Array, lasts: Array) -> Array:
        """A random option; where the held one `lasts`, with probability 1 - every / longest to keep that."""
        keep_key, key = jax.random.split(key)
        new, keep = self.inner.sample(key), self.discrete - 1
        new = new if self.inner.discrete else jnp.concatenate([jnp.zeros(1), new])
        last = jnp.full_like(new, keep) if new.ndim == 0 else jnp.zeros_like(new).at[0].set(keep)
        return jnp.where(lasts & jax.random.bernoulli(keep_key, 1 - self.every / self.longest), last, new)

    def lasts(self, command: Command) -> Array:
        """Whether there is something that can be kept."""
        age, _ = command
        return (age > 0) & (age < self.longest)

    @property
    def actors(self) -> tuple[str, ...]:
        """Of `inner`."""
        return self.inner.actors

    def acting(self, command: Command) -> Array:
        """Of `inner`."""
        return self.inner.acting(command[1])

    def metrics(self, command: Command) -> Metrics:
        """Of `inner`."""
        return self.inner.metrics(command[1])

    def describe(self) -> dict[str, Any]:
        """Of `inner`, and when its options end."""
        return {**self.inner.describe(), "ends": {"every": self.every, "longest": self.longest}}

    def _keeps(self, action: Array) -> Array:
        index = action[0] if self.parameters else action
        return index.astype(jnp.int32) == self.discrete - 1


class Held(struct.PyTreeNode):
    """Memory of an `OptionEnv`: the task's, and what is held."""

    task: Any
    command: Command


class OptionEnv(MacroEnv):
    """`MacroEnv` whose state holds the current option from one decision to the next.

    Observations end in what `Option.view` says of it. Handing over costs `cost`, in the reward and as the term
    `deliberation`; the metric `controller/begun` is 1 where an option begins, so options last hold / its mean control
    steps.

    Args:
      env, gamma, reads: as in `MacroEnv`; hold is `composer.every`. cost: see `TerminationConfig.switch_cost`.
    """

    composer: Option

    def __init__(
        self, env: Env, composer: Option, gamma: float = 1.0, cost: float = 0.0, reads: tuple[str, ...] = ()
    ) -> None:
        super().__init__(env, composer, composer.every, gamma, reads)
        self.cost = cost

    def reset(self, key: Array) -> State:
        """Fresh episode: nothing is held."""
        state, zero = super().reset(key), jnp.zeros(())
        shapes = jax.eval_shape(lambda: self.composer.resolve(self.composer.zero()))
        command = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return self._sealed(state, command, {COST: zero, BEGUN: zero})

    def reset_where(self, mask: Array, state: State) -> State:
        """Fresh episode where `mask`."""
        before, held, own = self._opened(state)
        nothing = jax.tree.map(jnp.zeros_like, held)
        return self._sealed(super().reset_where(mask, before), tree_where(mask, nothing, held), own)

    def sample(self, key: Array, state: State) -> Array:
        """Random options: to keep one is drawn only where there is one, or it would be the zero action."""
        return self.composer.draw(key, self.composer.lasts(state.memory.command))

    def trace(self, state: State, action: Array) -> tuple[State, Trace]:
        """One decision, and the low-level steps that follow it."""
        before, held, _ = self._opened(state)
        command = self.composer.renew(action, held)
        begun = command[0] == 0
        price = self.cost * (begun & (held[0] > 0))
        after, command, trace = self.run(before, command)
        own = {COST: -price, BEGUN: begun.astype(jnp.float32)}
        return self._sealed(after.replace(reward=after.reward - price), command, own), trace

    def _opened(self, state: State) -> tuple[State, Command, dict[str, Array]]:
        """(state of the macro env within, what is held, own metrics)."""
        obs = {k: v[: self.env.spec.obs.size(k)] for k, v in state.obs.items()}
        own = {k: v for k, v in state.metrics.items() if k in (COST, BEGUN)}
        rest = {k: v for k, v in state.metrics.items() if k not in own}
        return state.replace(obs=obs, metrics=rest, memory=state.memory.task), state.memory.command, own

    def _sealed(self, state: State, command: Command, own: dict[str, Array]) -> State:
        """`_opened` undone."""
        seen = self.composer.view(command)
        obs = {k: v if k == "features" else jnp.concatenate([v, seen]) for k, v in state.obs.items()}
        return state.replace(obs=obs, metrics={**state.metrics, **own}, memory=Held(state.memory, command))


def macro_env(
    env: Env,
    composer: Composer,
    hold: int,
    gamma: float,
    config: TerminationConfig,
    reads: tuple[str, ...] = (),
) -> MacroEnv:
    """`MacroEnv`, or an `OptionEnv` where termination is learned."""
    if config.termination == "fixed":
        return MacroEnv(env, composer, hold, gamma, reads)
    return OptionEnv(env, Option(composer, config.every, hold), gamma, config.switch_cost, reads)
