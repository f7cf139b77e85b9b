"""The Panda with a drawer, to open or to shut."""

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
from repertoire.envs.tasks.panda import furniture, script
from repertoire.envs.tasks.panda.arm import ArmMemory, Panda, distance, near
from repertoire.envs.tasks.panda.reach import Solvable
from repertoire.envs.types import Array, Data, Slice, Start
from repertoire.errors import unknown

MOVES = ("open", "close", "either")


@dataclass(frozen=True)
class DrawerScene(Panda):
    """Mix-in: a drawer on the table."""

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add the drawer."""
        super().furnish(spec)
        furniture.add_drawer(spec)

    def drawer(self, data: Data) -> Array:
        """How far the drawer is open [], m."""
        return self.joint(data.qpos, "drawer")

    def drawer_middle(self, data: Data) -> Array:
        """Middle of the drawer at the height of the table [3], m."""
        return jnp.array([*furniture.SHUT_AT, 0.0]) - self.drawer(data) * jnp.array([0.0, 1.0, 0.0])

    def handle(self, data: Data) -> Array:
        """Middle of the handle [3], m."""
        return self.drawer_middle(data) + jnp.array(furniture.HANDLE)

    def extra_slices(self) -> tuple[Slice, ...]:
        """How far the drawer is open, and where its handle lies from the hand."""
        return (
            *super().extra_slices(),
            Slice("drawer", 1, "m", scale=5.0),
            Slice("handle_offset", 3, "m", scale=5.0),
        )

    def extra_critic(self) -> tuple[Slice, ...]:
        """How fast the drawer opens."""
        return (*super().extra_critic(), Slice("drawer_rate", 1, "m/s"))

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds the drawer's values."""
        return {
            **super().observe(data, memory),
            "drawer": self.drawer(data),
            "drawer_rate": self.joint(data.qvel, "drawer"),
            "handle_offset": self.handle(data) - self.hand(data),
        }

    def sources(self) -> dict[str, str]:
        """Perception tells how far the drawer is open, in qpos, and where its handle is."""
        return {**super().sources(), "drawer": self.opened(), "handle_offset": "command.handle - hand"}

    def opened(self) -> str:
        """Source of how far the drawer is open."""
        first = int(self.model.joint("drawer").qposadr[0])
        return f"qpos[{first}:{first + 1}]"

    def asked(self, data: Data, memory: Any) -> dict[str, Array]:
        """`handle`, its place."""
        return {**super().asked(data, memory), "handle": self.handle(data)}

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `drawer_open`, m."""
        return {**super().measure(data, memory), "drawer_open": self.drawer(data)}


@struct.dataclass
class DrawerMemory(ArmMemory):
    """Targets, and how far open the drawer should be."""

    goal: Array  # [] m


@dataclass(frozen=True)
class PandaDrawer(Solvable, DrawerScene):
    """Open a drawer, or shut it.

    Attributes:
      move: `open`, `close`, or `either` (drawn at the start of each episode).
    """

    episode_length: int = 150
    move: str = "open"

    name: ClassVar[str] = "panda_drawer"
    doc: ClassVar[str] = "Panda: open (or shut) a drawer by its handle, to within 4 cm"
    dense: ClassVar[Mapping[str, float]] = {"reach": 0.5, "goal": 1.0, "success": 1.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.move not in MOVES:
            raise unknown("move", self.move, MOVES)

    def place(self, key: Array, start: Start) -> Start:
        """The drawer shut where it is to be opened, else open."""
        share = {"open": 0.0, "close": 1.0, "either": 0.5}[self.move]
        opened = jnp.where(jax.random.bernoulli(key, share), furniture.TRAVEL, 0.0)
        return start.replace(qpos=start.qpos.at[int(self.model.joint("drawer").qposadr[0])].set(opened))

    def remember(self, key: Array, data: Data) -> DrawerMemory:
        """The goal is the other end."""
        goal = jnp.where(self.drawer(data) < furniture.TRAVEL / 2, furniture.TRAVEL, 0.0)
        return DrawerMemory(targets=self.first_targets(data), sent=self.first_sent(key), goal=goal)

    def extra_slices(self) -> tuple[Slice, ...]:
        """`goal`: how much further the drawer should be open."""
        return (*super().extra_slices(), Slice("goal", 1, "m", scale=5.0))

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `goal`."""
        return {**super().observe(data, memory), "goal": memory.goal - self.drawer(data)}

    def sources(self) -> dict[str, str]:
        """Goals are of the drawer."""
        return {**super().sources(), "goal": f"command.goal - {self.opened()}"}

    def commands(self) -> dict[str, tuple[list[list[float]], int]]:
        """`goal`: the end that is asked for; with `either` the other one, which only who looks can tell."""
        ends = {"open": [furniture.TRAVEL] * 2, "close": [0.0, 0.0]}
        return {"goal": ([ends[self.move]], 0)} if self.move in ends else {}

    def default_pose(self) -> np.ndarray:
        """The drawer open where it is to be shut."""
        pose = super().default_pose()
        pose[int(self.model.joint("drawer").qposadr[0])] = furniture.TRAVEL if self.move == "close" else 0.0
        return pose

    def success(self, data: Data, memory: Any) -> Array:
        """Within `tolerance` of the goal."""
        return jnp.abs(memory.goal - self.drawer(data)) <= self.tolerance

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """Adds `reach` (hand to handle) and `goal` (share of the way that is done)."""
        return {
            **super().terms(before, data, action, memory),
            "reach": near(distance(self.hand(data), self.handle(data))),
            "goal": 1.0 - jnp.abs(memory.goal - self.drawer(data)) / furniture.TRAVEL,
        }

    def expert(self) -> Expert:
        """One stage, `drawer`."""
        return script.expert(self, drawer=script.move_drawer)
