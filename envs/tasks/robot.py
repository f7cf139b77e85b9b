"""What all robots here share: a root position in the world frame, and room for a task's own observations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import mujoco

from repertoire.envs import rotations
from repertoire.envs.task import Task
from repertoire.envs.types import Array, Data, Slice


@dataclass(frozen=True)
class Robot(Task):
    """A robot whose first `root` entries of qpos are its world position.

    A task on a robot keeps the robot's slices (names, sizes, units, scales) and appends `extra_slices`, so that a
    skill that was trained on the bare robot finds its own inputs by name in every task.
    """

    root: ClassVar[int] = 2  # leading qpos entries that are world position (x, y), kept out of `policy`

    def spec_mjcf(self) -> mujoco.MjSpec:
        """The editable model, the robot's joints first; tasks add bodies here."""
        raise NotImplementedError

    def build(self) -> mujoco.MjModel:
        """Compile."""
        return self.spec_mjcf().compile()

    def extra_slices(self) -> tuple[Slice, ...]:
        """Slices that a task appends to what policy and critic see."""
        return ()

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Distance of the root from the origin, m."""
        return {"distance": jnp.linalg.norm(data.qpos[: self.root])}

    def fallen(self, data: Data) -> Array:
        """Whether the trunk leans too far or is too low, [] bool; the root is free, or planar (x, height, pitch)."""
        upright = -rotations.gravity(data.qpos[3:7])[2] if self.root == 2 else jnp.cos(data.qpos[2])
        low = False if self.fall_height_m is None else data.qpos[self.root] < self.fall_height_m
        return ~(upright > math.cos(math.radians(self.fall_tilt_deg))) | low
