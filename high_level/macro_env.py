"""Frozen skills plus an env are again an `Env`: one macro step holds a command for k control steps.

So the learner that trained the skills trains controllers of every kind, and a controller can be frozen in turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from repertoire.envs.mujoco_env import tree_where
from repertoire.envs.task import TASK
from repertoire.envs.types import Array, Env, State
from repertoire.errors import UserError, unknown
from repertoire.high_level.composer import Composer
from repertoire.high_level.types import Command, StatefulSkill

#: Prefix of the composer's own metrics.
OWN = "controller/"


class Trace(struct.PyTreeNode):
    """Low-level steps inside one macro step, [k, ...]: what videos and logs read. For `acting` see `Composer`."""

    qpos: Array
    reward: Array
    alive: Array
    features: Array
    memory: Any
    acting: Array
    measured: dict[str, Array]  # the env's metrics, without reward terms


class MacroEnv:
    """`Env` over a `Composer` with hold length k.

    The macro reward is the sum over the held steps of gamma^i r_i up to and including the first done, and nothing
    after it; the learner discounts macro steps by gamma^k, or gamma^j where time ran out after j control steps
    (semi-MDP, Sutton et al. 1999), so k = 1 with a skill that passes actions through is the flat env exactly.

    Args:
      env: the task env. composer: frozen skills and how they are driven. hold: k. gamma: discount per control step.
      reads: policy slices of `env` that a controller's policy reads, beside what the composer shows it; (): all.
    """

    def __init__(
        self, env: Env, composer: Composer, hold: int, gamma: float = 1.0, reads: tuple[str, ...] = ()
    ) -> None:
        if hold < 1:
            raise UserError(f"controller.hold must be at least 1, got {hold}")
        self.env, self.composer, self.hold, self.gamma = env, composer, hold, gamma
        self.spec = dataclasses.replace(composer.spec(hold), reads=_checked(env, reads, composer))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of this combination, a line each."""
        below = [s for s in self.composer.skills if isinstance(s, StatefulSkill) and self.hold % s.hold]
        odd = (f"{s.name} decides every {s.hold} steps, and anew whenever it is called upon" for s in below)
        servos = any(kp or kd for _, kp, kd in self.env.spec.gains.values())
        old = [s.name for s in self.composer.skills if servos and "gains" not in s.manifest["contract"]]
        line = "does not say with which kp and kd it was trained: that they are those of the env is unchecked"
        return (
            *self.composer.notes,
            *(f"{line}: every {self.hold} here" for line in odd),
            *(f"{name} {line}" for name in old),
        )

    def reset(self, key: Array) -> State:
        """Fresh episode."""
        state = self.env.reset(key)
        return state.replace(metrics={**state.metrics, **jax.tree.map(jnp.zeros_like, self._measured())})

    def reset_where(self, mask: Array, state: State) -> State:
        """Fresh episode where `mask`."""
        return self.env.reset_where(mask, state)

    def sample(self, key: Array, state: State) -> Array:
        """Random macro action: random skills with random latents."""
        return self.composer.sample(key)

    def step(self, state: State, action: Array) -> State:
        """Hold the command for k control steps; stop at the first done."""
        return self.trace(state, action)[0]

    def trace(self, state: State, action: Array) -> tuple[State, Trace]:
        """`step`, and the low-level steps inside it."""
        after, _, trace = self.run(state, self.composer.resolve(action))
        return after, trace

    def run(self, state: State, command: Command) -> tuple[State, Command, Trace]:
        """Hold `command`: the state after it, what the command has become, and the low-level steps."""
        false, acting = jnp.zeros((), bool), self.composer.acting(command)
        start = state.replace(reward=jnp.zeros(()), terminated=false, truncated=false)
        start = start.replace(metrics={k: jnp.zeros_like(v) for k, v in state.metrics.items() if OWN not in k})

        def low(carry: tuple[State, Command], i: Array) -> tuple[tuple[State, Command], Trace]:
            before, command = carry
            alive = ~(before.terminated | before.truncated)
            low_action, command = self.composer.act(before.obs["policy"], command)
            stepped = self.env.step(before, low_action)
            reward = jnp.where(alive, stepped.reward, 0.0)
            merged = stepped.replace(
                reward=before.reward + self.gamma**i * reward,
                metrics=_accumulate(before.metrics, stepped.metrics, self.gamma**i),
            )
            after = tree_where(alive, merged, before)
            measured = {k: v for k, v in stepped.metrics.items() if not k.startswith(("reward/", OWN))}
            seen = Trace(after.data.qpos, reward, alive, after.obs["features"], after.memory, acting, measured)
            return (after, command), seen

        (after, command), trace = jax.lax.scan(low, (start, command), jnp.arange(self.hold))
        own = {OWN + k: v for k, v in self.composer.metrics(command).items()}
        return after.replace(metrics={**after.metrics, **own}), command, trace

    def _measured(self) -> Mapping[str, Any]:
        """Shapes of the composer's metrics."""
        own = jax.eval_shape(lambda: self.composer.metrics(self.composer.resolve(self.composer.zero())))
        return {OWN + k: v for k, v in own.items()}


def _checked(env: Env, reads: tuple[str, ...], composer: Composer) -> tuple[str, ...]:
    """`reads`, and what `composer` shows. Raises `UserError` for a slice that the env does not have."""
    names = [s.name for s in env.spec.obs.groups["policy"]]
    for name in reads:
        if name == TASK and TASK not in names:
            raise UserError(f"env {env.spec.name} has one task: give it several, env.tasks={{a: {{...}}, b: {{...}}}}")
        if name not in names:
            raise unknown(f"policy slice of env {env.spec.name} in controller.reads", name, names)
    return (*reads, *(s.name for s in composer.seen)) if reads else ()


def _accumulate(total: Mapping[str, Array], step: Mapping[str, Array], discount: Array) -> dict[str, Array]:
    """Reward terms add up discounted, as the reward does; divergences are counted; of others the last value stays."""

    def one(name: str, value: Array) -> Array:
        if name.startswith("reward/"):
            return total[name] + discount * value
        return total[name] + value if name == "diverged" else value

    return {k: one(k, v) for k, v in step.items()}
