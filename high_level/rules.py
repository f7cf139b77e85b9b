"""Rules decide without a policy; some remember something within an episode. And what they read of a state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jax.tree_util import Partial

from repertoire.algos.types import Array
from repertoire.envs.types import EnvSpec, State
from repertoire.errors import UserError, unknown

#: (key, env state) -> action of the env at hand (macro action for controllers).
Rule = Callable[[Array, State], Array]


class StatefulRule(NamedTuple):
    """A `Rule` with memory, a pytree of arrays.

    Attributes:
      start: (key, first state of an episode) -> memory.
      step: (key, state, memory) -> (macro action, memory).
    """

    start: Callable[[Array, State], Any]
    step: Callable[[Array, State, Any], tuple[Array, Any]]


@runtime_checkable
class Remembering(Protocol):
    """What has the two functions of a `StatefulRule`, and what they are made of beside them."""

    def start(self, key: Array, state: State) -> Any:
        """Memory at the start of an episode."""
        ...

    def step(self, key: Array, state: State, memory: Any) -> tuple[Array, Any]:
        """Macro action and memory."""
        ...


#: What decides without a policy.
Decider = Rule | Remembering


def stateful(decider: Decider) -> StatefulRule:
    """`decider` as a `StatefulRule`."""
    return StatefulRule(decider.start, decider.step) if isinstance(decider, Remembering) else memoryless(decider)


def memoryless(rule: Rule) -> StatefulRule:
    """`rule` as a `StatefulRule`."""
    return StatefulRule(_forget, Partial(_recall, as_partial(rule)))


def as_partial(rule: Callable[..., Any]) -> Partial:
    """`rule` as a pytree, whose leaves are the arrays of a `Partial`."""
    return rule if isinstance(rule, Partial) else Partial(rule)


def _forget(key: Array, state: State) -> tuple[()]:
    return ()


def _recall(rule: Rule, key: Array, state: State, memory: Any) -> tuple[Array, Any]:
    return rule(key, state), memory


def position_index(spec: EnvSpec) -> np.ndarray:
    """Indices of the world position in the feature vector. Raises `UserError` for an env without it."""
    if "position" not in {s.name for s in spec.obs.groups["features"]}:
        raise UserError(f"env {spec.name} has no `position` among its features: nothing to plan a way with")
    # 32 bits: JAX takes 64-bit constants for either, which fails where a check switches precisions
    return spec.obs.index("features", ("position",)).astype(np.int32)


@dataclass(frozen=True, eq=False)  # told apart by identity, as functions are: jit asks
class Reader:
    """A policy slice in its own unit, as a function of the state.

    Attributes:
      index: its entries [n] in the policy group. scale: factor that it was observed with.
    """

    index: np.ndarray
    scale: float

    def __call__(self, state: State) -> Array:
        """Value [n]."""
        return state.obs["policy"][self.index] / self.scale


def reader(spec: EnvSpec, name: str) -> Reader:
    """Reader of the policy slice `name`. Raises `UserError` where the env has none of that name."""
    slices = {s.name: s for s in spec.obs.groups["policy"]}
    if name not in slices:
        raise unknown(f"policy slice of env {spec.name}", name, slices)
    return Reader(spec.obs.index("policy", (name,)).astype(np.int32), slices[name].scale)


def goal_offset(spec: EnvSpec) -> Reader | None:
    """Where the goal lies from the robot, m; None for an env without a `goal` slice."""
    return reader(spec, "goal") if "goal" in {s.name for s in spec.obs.groups["policy"]} else None
