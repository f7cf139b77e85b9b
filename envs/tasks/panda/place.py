"""Move a cube to where it should be: push, pick and place, stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from repertoire.envs.expert import Expert
from repertoire.envs.task import Marker
from repertoire.envs.tasks.panda import script
from repertoire.envs.tasks.panda.arm import distance, near, uniform
from repertoire.envs.tasks.panda.cubes import CubeMemory, CubeScene, apart
from repertoire.envs.tasks.panda.furniture import HALF
from repertoire.envs.tasks.panda.reach import Solvable, goal_marker
from repertoire.envs.types import Array, Data, Slice, State
from repertoire.errors import UserError

CANDIDATES, AWAY = 8, 0.1  # goals drawn, m: the first one this far from the cube is taken
AIR = 0.08, 0.25  # m: heights of goals over the table


@struct.dataclass
class PlaceMemory(CubeMemory):
    """Targets, where the cube lay, and where it should be."""

    goal: Array  # [3] m


@dataclass(frozen=True)
class Place(Solvable, CubeScene):
    """A goal for the first cube; the tasks below differ in where it is."""

    def remember(self, key: Array, data: Data) -> Any:
        """Draw the goal."""
        base = super().remember(key, data)
        return PlaceMemory(targets=base.targets, sent=base.sent, origin=base.origin, goal=self.draw(key, data))

    def draw(self, key: Array, data: Data) -> Array:
        """A goal [3], m: on the table, in the cubes' area, `AWAY` from the cube."""
        spots = jax.vmap(lambda k: uniform(k, *self.area))(jax.random.split(key, CANDIDATES))
        far = jnp.linalg.norm(spots - self.cube(data)[:2], axis=1) > AWAY
        return jnp.append(spots[jnp.argmax(far)], self.cube_half(data))

    def target(self, data: Data, memory: Any) -> Array:
        """Where the cube should be now [3], m."""
        return memory.goal

    def extra_slices(self) -> tuple[Slice, ...]:
        """`goal`: where the goal lies from the cube."""
        return (*super().extra_slices(), Slice("goal", 3, "m", scale=5.0))

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `goal`."""
        return {**super().observe(data, memory), "goal": self.target(data, memory) - self.cube(data)}

    def sources(self) -> dict[str, str]:
        """Goals are of the cube."""
        return {**super().sources(), "goal": f"command.goal - {self.place_of(0)}"}

    def commands(self) -> dict[str, tuple[list[list[float]], int]]:
        """`goal`, for a whole episode."""
        return {**super().commands(), "goal": (self.goal_box(), 0)}

    def success(self, data: Data, memory: Any) -> Array:
        """The cube's centre is within `tolerance` of the goal."""
        return self.missing(data, memory) <= self.tolerance

    def missing(self, data: Data, memory: Any) -> Array:
        """Distance of the cube from the goal [], m."""
        return distance(self.cube(data), self.target(data, memory))

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """Adds `reach` (hand to cube), `goal` (cube to goal), `grasp` and `lift`."""
        return {
            **super().terms(before, data, action, memory),
            "reach": near(distance(self.hand(data), self.cube(data))),
            "goal": near(self.missing(data, memory)),
            "grasp": self.grasped(data).astype(jnp.float32),
            "lift": (self.lifted(data) & self.grasped(data)).astype(jnp.float32),
        }

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `goal_distance`, m."""
        return {**super().measure(data, memory), "goal_distance": self.missing(data, memory)}

    def markers(self, state: State) -> list[Marker]:
        """The goal."""
        return [goal_marker(state.memory.goal)]


@dataclass(frozen=True)
class PandaPush(Place):
    """Push the cube over the table, with the gripper closed at the start."""

    episode_length: int = 100

    name: ClassVar[str] = "panda_push"
    doc: ClassVar[str] = "Panda: push a cube to a place on the table, within 4 cm"
    opening: ClassVar[float] = 0.0
    dense: ClassVar[Mapping[str, float]] = {"reach": 0.5, "goal": 1.0, "grasp": 0.0, "lift": 0.0, "success": 1.0}


@dataclass(frozen=True)
class PandaPickPlace(Place):
    """Bring the cube to a place on the table or over it.

    Attributes:
      air: share of the goals that are over the table.
    """

    episode_length: int = 150
    air: float = 0.5

    name: ClassVar[str] = "panda_pick_place"
    doc: ClassVar[str] = "Panda: bring a cube to a place on the table or up to 25 cm over it, within 4 cm"
    dense: ClassVar[Mapping[str, float]] = {"reach": 0.5, "grasp": 0.25, "lift": 0.5, "goal": 2.0, "success": 1.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.air <= 1.0:
            raise UserError(f"env {self.name}: air must be between 0 and 1, got {self.air}")

    def draw(self, key: Array, data: Data) -> Array:
        """A goal [3], m: on the table, or as often as `air` says over it."""
        key, air_key, height_key = jax.random.split(key, 3)
        goal = super().draw(key, data)
        height = jax.random.uniform(height_key, minval=AIR[0], maxval=AIR[1])
        return goal.at[2].set(jnp.where(jax.random.bernoulli(air_key, self.air), height, goal[2]))

    def commands(self) -> dict[str, tuple[list[list[float]], int]]:
        """`goal` over the table, where there are such: between those and the ones on the table none was trained."""
        *across, _ = table = self.goal_box()
        return {**super().commands(), "goal": ([*across, list(AIR)] if self.air else table, 0)}

    def expert(self) -> Expert:
        """`take`, `bring`."""
        return script.expert(self, take=script.take, bring=script.bring)


@dataclass(frozen=True)
class PandaStack(Place):
    """Put the cube on another one and let go."""

    episode_length: int = 200

    name: ClassVar[str] = "panda_stack"
    doc: ClassVar[str] = "Panda: put a cube on another one, within 4 cm of its place, and let go"
    dense: ClassVar[Mapping[str, float]] = {"reach": 0.5, "grasp": 0.25, "lift": 0.5, "goal": 2.0, "success": 3.0}
    cubes: ClassVar[tuple[str, ...]] = ("cube", "base")

    def spots(self, key: Array) -> Array:
        """One cube on each half of the area."""
        return apart(key, self.area)

    def target(self, data: Data, memory: Any) -> Array:
        """On the other cube, wherever that is now."""
        return self.cube(data, 1) + jnp.array([0.0, 0.0, 1.0]) * (HALF + self.cube_half(data))

    def draw(self, key: Array, data: Data) -> Array:
        """On the other cube as it lies at the start."""
        return self.target(data, None)

    def extra_slices(self) -> tuple[Slice, ...]:
        """Adds `base_position`, that of the other cube."""
        return (*super().extra_slices(), Slice("base_position", 3, "m"))

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `base_position`."""
        return {**super().observe(data, memory), "base_position": self.cube(data, 1)}

    def sources(self) -> dict[str, str]:
        """Adds `base_position`."""
        return {**super().sources(), "base_position": self.place_of(1)}

    def commands(self) -> dict[str, tuple[list[list[float]], int]]:
        """`goal` has no range: it is over the other cube by half of both edges, which differ."""
        return {}

    def asked(self, data: Data, memory: Any) -> dict[str, Array]:
        """`goal` follows the other cube."""
        return {"goal": self.target(data, memory)}

    def success(self, data: Data, memory: Any) -> Array:
        """In its place, on no support but the other cube: no pad touches it, and it is still."""
        touched = self.sensed(data, "grip_left") | self.sensed(data, "grip_right")
        still = jnp.linalg.norm(self.cube_speed(data)) < 0.05
        return super().success(data, memory) & ~touched & still

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `stage`: 0 nothing, 1 grasped, 2 lifted, 3 over the other cube, 4 stacked."""
        held, up = self.grasped(data), self.grasped(data) & self.lifted(data)
        over = up & (jnp.linalg.norm((self.cube(data) - self.target(data, memory))[:2]) < HALF)
        stage = jnp.where(self.success(data, memory), 4.0, jnp.stack([held, up, over]).sum().astype(jnp.float32))
        return {**super().measure(data, memory), "stage": stage}

    def expert(self) -> Expert:
        """`take`, `stack`."""
        return script.expert(self, take=script.take, stack=script.stack)
