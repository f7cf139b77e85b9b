"""From simulation to a robot, for all robots here: the option `randomize`, and actions that come late."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from repertoire.envs import randomization
from repertoire.envs.task import Task
from repertoire.envs.types import Array


@struct.dataclass
class Sent:
    """Actions chosen, and how late they come."""

    actions: Array  # [k, A] the last ones, newest first
    latency: Array  # [] control steps, drawn per episode


@dataclass(frozen=True)
class SimToReal(Task):
    """Mix-in: a robot whose model, sensors and latency may differ from episode to episode.

    Attributes:
      randomize: domain randomisation: true for the robot's preset, a preset's name, or terms with their ranges.
      play: a policy's showing: without randomisation and sensor noise, whatever `randomize` says.
    """

    randomize: bool | str | Mapping[str, Any] = False
    play: bool = False

    preset: ClassVar[str] = ""  # of domain randomisation
    trunk: ClassVar[str] = ""  # body whose load and centre of mass are randomised

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ranges.base_mass or self.ranges.link_mass:  # what is impossible is named now, not when training starts
            randomization.check_load(self.name, self.ranges, float(self.model.body(self.trunk).mass[0]))

    @functools.cached_property
    def ranges(self) -> randomization.Randomization:
        """Domain randomisation in force."""
        wanted = False if self.play else self.randomize
        return randomization.resolve(self.name, wanted, self.preset)

    def overrides(self, key: Array) -> dict[str, Array]:
        """Model fields of one episode; empty without randomisation."""
        return randomization.draw_overrides(self.model, self.ranges, self.model.body(self.trunk).id, key)

    def nothing_sent(self, key: Array, size: int) -> Sent:
        """No action [size] so far; draws the latency."""
        low, high = self.ranges.latency or (0.0, 0.0)
        return Sent(
            actions=jnp.zeros((max(1, math.ceil(high)), size)),
            latency=jax.random.uniform(key, (), minval=low, maxval=high),
        )


def delayed(action: Array, actions: Array, latency: Array) -> Array:
    """Of `action` [A] and the `actions` [k, A] before it the one of `latency` steps ago; between two: interpolated."""
    known = jnp.concatenate([action[None], actions])
    whole = jnp.floor(latency).astype(jnp.int32)
    late = jnp.minimum(whole + 1, len(known) - 1)
    return known[whole] + (latency - whole) * (known[late] - known[whole])


def filed(action: Array, actions: Array) -> Array:
    """`actions` [k, A] with `action` [A] as the newest; the oldest goes."""
    return jnp.concatenate([action[None], actions[:-1]])
