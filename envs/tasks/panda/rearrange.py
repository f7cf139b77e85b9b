"""Two cubes to two goals, in any order: the rearrangement of OGBench's cube-double, on the Panda's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from repertoire.envs.expert import Expert
from repertoire.envs.task import Marker
from repertoire.envs.tasks.panda import script
from repertoire.envs.tasks.panda.arm import near, uniform
from repertoire.envs.tasks.panda.cubes import LIFTED, CubeMemory, CubeScene, apart, axes
from repertoire.envs.tasks.panda.furniture import COLOURS, add_contact
from repertoire.envs.tasks.panda.reach import Solvable
from repertoire.envs.types import Array, Data, Slice, State

#: Pairs of goals drawn, and how far from each other and from both cubes the pair that is taken lies, m.
CANDIDATES, AWAY = 64, 0.08


@struct.dataclass
class RearrangeMemory(CubeMemory):
    """Targets, where the first cube lay, and where both should be."""

    goals: Array  # [2, 3] m


@dataclass(frozen=True)
class PandaRearrange(Solvable, CubeScene):
    """Each cube has a goal of its own; which one comes first is free."""

    episode_length: int = 500

    name: ClassVar[str] = "panda_rearrange"
    doc: ClassVar[str] = "Panda: bring two cubes to a place each, within 4 cm, in any order"
    cubes: ClassVar[tuple[str, ...]] = ("cube", "other")
    dense: ClassVar[Mapping[str, float]] = {
        "reach": 0.5, "grasp": 0.25, "lift": 0.5, "goal": 2.0, "placed": 1.0, "success": 3.0,
    }  # fmt: skip

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Adds sensors that tell whether a pad touches the other cube."""
        super().furnish(spec)
        for side in ("left", "right"):
            add_contact(spec, f"grip_{side}_other", f"{side}_pad", self.cubes[1])

    def spots(self, key: Array) -> Array:
        """One cube on each half of the area."""
        return apart(key, self.area)

    def remember(self, key: Array, data: Data) -> RearrangeMemory:
        """Draw the goals."""
        base = super().remember(key, data)
        return RearrangeMemory(targets=base.targets, sent=base.sent, origin=base.origin, goals=self.draw(key, data))

    def draw(self, key: Array, data: Data) -> Array:
        """Goals [2, 3] on the table, m: the first pair `AWAY` from each other and from both cubes."""
        pairs = jax.vmap(lambda k: uniform(k, *([corner] * 2 for corner in self.area)))(
            jax.random.split(key, CANDIDATES)
        )
        cubes = self.both(data)[:, :2]
        between = jnp.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=-1)
        beside = jnp.linalg.norm(pairs[:, :, None] - cubes, axis=-1).min((1, 2))
        free = jnp.minimum(jnp.minimum(between, beside), AWAY)
        heights = jnp.stack([self.cube_half(data, i) for i in range(2)])
        return jnp.concatenate([pairs[jnp.argmax(free)], heights[:, None]], axis=1)

    def both(self, data: Data) -> Array:
        """Centres of the cubes [2, 3], m."""
        return jnp.stack([self.cube(data, i) for i in range(2)])

    def missing(self, data: Data, memory: RearrangeMemory) -> Array:
        """Distance of each cube from its goal [2], m."""
        return jnp.linalg.norm(memory.goals - self.both(data), axis=1)

    def placed(self, data: Data, memory: RearrangeMemory) -> Array:
        """Which cubes are within `tolerance` of their goals, [2] bool."""
        return self.missing(data, memory) <= self.tolerance

    def gripped(self, data: Data) -> Array:
        """Which cubes both pads touch, [2] bool."""
        other = self.sensed(data, "grip_left_other") & self.sensed(data, "grip_right_other")
        return jnp.stack([self.grasped(data), other])

    def success(self, data: Data, memory: Any) -> Array:
        """Both are."""
        return self.placed(data, memory).all()

    def extra_slices(self) -> tuple[Slice, ...]:
        """`goal` of the first cube, pose and goal of the other: goals from where the cubes lie."""
        return (
            *super().extra_slices(),
            Slice("goal", 3, "m", scale=5.0),
            Slice("other_position", 3, "m"),
            Slice("other_axes", 6),
            Slice("other_offset", 3, "m", scale=5.0),
            Slice("other_goal", 3, "m", scale=5.0),
        )

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds goals and the other cube."""
        ways, first = memory.goals - self.both(data), self._address(self.cubes[1])
        return {
            **super().observe(data, memory),
            "goal": ways[0],
            "other_position": self.cube(data, 1),
            "other_axes": axes(data.qpos[first + 3 : first + 7]),
            "other_offset": self.cube(data, 1) - self.hand(data),
            "other_goal": ways[1],
        }

    def sources(self) -> dict[str, str]:
        """Each goal is of its cube."""
        at = self.place_of(1)
        return {
            **super().sources(),
            "goal": f"command.goal - {self.place_of(0)}",
            "other_position": at,
            "other_axes": self.axes_of(1),
            "other_offset": f"{at} - hand",
            "other_goal": f"command.other_goal - {at}",
        }

    def commands(self) -> dict[str, tuple[list[list[float]], int]]:
        """Both goals, for a whole episode."""
        return dict.fromkeys(("goal", "other_goal"), (self.goal_box(), 0))

    def asked(self, data: Data, memory: RearrangeMemory) -> dict[str, Array]:
        """Both goals."""
        return {"goal": memory.goals[0], "other_goal": memory.goals[1]}

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """Adds `goal` (mean over cubes), `placed` (their share), and `reach`, `grasp` and `lift`, half for each cube.

        A placed cube has earned its half of these; the other half is for the one that the hand is at. So to place a
        cube never costs anything.
        """
        cubes, placed = self.both(data), self.placed(data, memory)
        halves = jnp.stack([self.cube_half(data, i) for i in range(2)])
        held = self.gripped(data) & ~placed
        up = held & (cubes[:, 2] > halves + LIFTED)
        reach = jnp.where(placed, 0.0, near(jnp.linalg.norm(cubes - self.hand(data), axis=1))).max()
        done = placed.sum(dtype=jnp.float32)
        return {
            **super().terms(before, data, action, memory),
            "reach": (done + reach) / 2,
            "grasp": (done + held.any()) / 2,
            "lift": (done + up.any()) / 2,
            "goal": near(self.missing(data, memory)).mean(),
            "placed": placed.mean(dtype=jnp.float32),
        }

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `placed`, how many cubes are at their goals, and `goal_distance`, the mean, m."""
        count, missing = self.placed(data, memory).sum().astype(jnp.float32), self.missing(data, memory)
        return {**super().measure(data, memory), "placed": count, "goal_distance": missing.mean()}

    def expert(self) -> Expert:
        """`first`, `second`: one cube after the other."""
        return script.expert(self, first=script.rearrange(0), second=script.rearrange(1))

    def markers(self, state: State) -> list[Marker]:
        """The goals, in the colours of their cubes."""
        spots = [tuple(map(float, goal)) for goal in np.asarray(state.memory.goals)]
        return [((x, y, z), 0.02, (*colour[:3], 0.5)) for (x, y, z), colour in zip(spots, COLOURS)]
