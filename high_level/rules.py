"""Rules that remember something within an episode, and what planning rules read of a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.tree_util import Partial

from repertoire.algos.types import Array
from repertoire.envs.types import EnvSpec, State
from repertoire.errors import UserError
from repertoire.high_level.goals import Rule


class StatefulRule(NamedTuple):
    """A `Rule` with memory, a pytree of arrays.

    Attributes:
      start: (key, first state of an episode) -> memory.
      step: (key, state, memory) -> (macro action, memory).
    """

    start: Callable[[Array, State], Any]
    step: Callable[[Array, State, Any], tuple[Array, Any]]


def memoryless(rule: Rule) -> StatefulRule:
    """`rule` as a `StatefulRule`."""
    return StatefulRule(_forget, Partial(_recall, rule if isinstance(rule, Partial) else Partial(rule)))


def _forget(key: Array, state: State) -> tuple[()]:
    return ()


def _recall(rule: Rule, key: Array, state: State, memory: Any) -> tuple[Array, Any]:
    return rule(key, state), memory


def position_index(spec: EnvSpec) -> np.ndarray:
    """Indices of the world position in the feature vector. Raises `UserError` for an env without it."""
    if "position" not in {s.name for s in spec.obs.groups["features"]}:
        raise UserError(f"env {spec.name} has no `position` among its features: nothing to plan a way with")
    return spec.obs.index("features", ("position",))


def goal_offset(spec: EnvSpec) -> Callable[[State], Array] | None:
    """Where the goal lies from the robot, m, as a function of the state; None for an env without a `goal` slice."""
    found = [s for s in spec.obs.groups["policy"] if s.name == "goal"]
    if not found:
        return None
    index, scale = spec.obs.index("policy", ("goal",)), found[0].scale
    return lambda state: state.obs["policy"][index] / scale
