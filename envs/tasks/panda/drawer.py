"""The Panda with a drawer; and the scene: a button unlocks the drawer, the cube goes in, the drawer is shut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco
from flax import struct

from repertoire.envs.expert import Expert
from repertoire.envs.tasks.panda import furniture, script
from repertoire.envs.tasks.panda.arm import ArmMemory, Panda, distance, near
from repertoire.envs.tasks.panda.cubes import CubeMemory, CubeScene
from repertoire.envs.tasks.panda.reach import Solvable
from repertoire.envs.types import Array, Data, Slice, Start
from repertoire.errors import unknown

MOVES = ("open", "close", "either")
OPENED = 0.12  # m: open enough for a cube
STAGES = 4  # unlocked, open, cube inside, shut with the cube inside


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
        return DrawerMemory(targets=self.first_targets(data), goal=goal)

    def extra_slices(self) -> tuple[Slice, ...]:
        """`goal`: how much further the drawer should be open."""
        return (*super().extra_slices(), Slice("goal", 1, "m", scale=5.0))

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `goal`."""
        return {**super().observe(data, memory), "goal": memory.goal - self.drawer(data)}

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


@struct.dataclass
class SceneMemory(CubeMemory):
    """Targets, where the cube lay, and whether the button was pressed."""

    unlocked: Array  # [] bool


@dataclass(frozen=True)
class PandaScene(Solvable, DrawerScene, CubeScene):
    """Press the button, open the drawer, put the cube in, shut the drawer."""

    episode_length: int = 750

    name: ClassVar[str] = "panda_scene"
    doc: ClassVar[str] = "Panda: a button unlocks the drawer, the cube goes in, the drawer is shut; metric stage 0..4"
    dense: ClassVar[Mapping[str, float]] = {"reach": 0.25, "progress": 0.5, "stage": 1.0, "success": 1.0}
    area: ClassVar[tuple[tuple[float, float], tuple[float, float]]] = ((0.42, -0.16), (0.58, -0.06))

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Cube, drawer, its lock and the button."""
        super().furnish(spec)
        furniture.add_lock(spec)
        furniture.add_button(spec)

    def remember(self, key: Array, data: Data) -> SceneMemory:
        """The drawer is locked."""
        base = super().remember(key, data)
        return SceneMemory(targets=base.targets, origin=base.origin, unlocked=jnp.zeros((), bool))

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> SceneMemory:
        """A press unlocks for good."""
        pressed = self.joint(data.qpos, "button") < -furniture.PRESSED
        return super().advance(key, before, data, action, memory, t).replace(unlocked=memory.unlocked | pressed)

    def switches(self, memory: Any) -> Array:
        """The lock."""
        return 1.0 - memory.unlocked.astype(jnp.float32)[None]

    # -- how far it is -------------------------------------------------------------------------------------------

    def button(self, data: Data) -> Array:
        """Top of the button [3], m."""
        return jnp.array(furniture.BUTTON).at[2].add(self.joint(data.qpos, "button"))

    def inside(self, data: Data) -> Array:
        """Whether the cube is in the drawer, [] bool."""
        offset = self.cube(data) - self.drawer_middle(data)
        return (jnp.abs(offset[:2]) < jnp.array(furniture.INSIDE)).all() & (offset[2] < furniture.WALL)

    def stage(self, data: Data, memory: Any) -> Array:
        """0 locked, 1 unlocked, 2 drawer open, 3 cube inside, 4 shut with the cube inside; [] int32."""
        shut, inside = self.drawer(data) <= self.tolerance, self.inside(data)
        opened = self.drawer(data) >= OPENED
        unlocked = jnp.where(inside, jnp.where(shut, 4, 3), jnp.where(opened, 2, 1))
        return jnp.where(memory.unlocked, unlocked, 0)

    def success(self, data: Data, memory: Any) -> Array:
        """The last stage."""
        return self.stage(data, memory) == STAGES

    def _next(self, data: Data, memory: Any) -> tuple[Array, Array]:
        """(point [3] that the hand should go to, share [] that is done of what the next stage needs)."""
        cube, share = self.cube(data), self.drawer(data) / furniture.TRAVEL
        pressing = -self.joint(data.qpos, "button") / furniture.PRESSED
        bringing = near(distance(cube, self.drawer_middle(data)))
        points = jnp.stack([self.button(data), self.handle(data), cube, self.handle(data), self.handle(data)])
        shares = jnp.stack([jnp.clip(pressing, 0.0, 1.0), share, bringing, 1.0 - share, jnp.ones(())])
        stage = self.stage(data, memory)
        return points[stage], shares[stage]

    def extra_slices(self) -> tuple[Slice, ...]:
        """Where the button lies from the hand, whether the lock is open, and the stage."""
        return (
            *super().extra_slices(),
            Slice("button_offset", 3, "m", scale=5.0),
            Slice("unlocked", 1),
            Slice("stage", STAGES + 1),
        )

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds the button's, the lock's and the stage's values."""
        return {
            **super().observe(data, memory),
            "button_offset": self.button(data) - self.hand(data),
            "unlocked": memory.unlocked,
            "stage": jax.nn.one_hot(self.stage(data, memory), STAGES + 1),
        }

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """Adds `stage` (share of the stages that are done), and towards the next one `reach` and `progress`."""
        point, share = self._next(data, memory)
        return {
            **super().terms(before, data, action, memory),
            "reach": near(distance(self.hand(data), point)),
            "progress": share,
            "stage": self.stage(data, memory) / STAGES,
        }

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `stage`."""
        return {**super().measure(data, memory), "stage": self.stage(data, memory).astype(jnp.float32)}

    def expert(self) -> Expert:
        """`press`, `open`, `place`, `shut`."""
        stages = {"press": script.press, "open": script.open_drawer, "place": script.place, "shut": script.shut_drawer}
        return script.expert(self, **stages)
