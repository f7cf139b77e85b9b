"""The scene: a button unlocks the drawer, the cube goes in, the drawer is shut."""

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
from repertoire.envs.tasks.panda.arm import distance, near
from repertoire.envs.tasks.panda.cubes import CubeMemory, CubeScene
from repertoire.envs.tasks.panda.drawer import DrawerScene
from repertoire.envs.tasks.panda.reach import Solvable
from repertoire.envs.types import Array, Data, Slice

OPENED = 0.12  # m: open enough for a cube
STAGES = 4  # unlocked, open, cube inside, shut with the cube inside


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
        return SceneMemory(targets=base.targets, sent=base.sent, origin=base.origin, unlocked=jnp.zeros((), bool))

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

    def sources(self) -> dict[str, str]:
        """Perception tells where the button is, and what has been done."""
        return {**super().sources(), "button_offset": "command.button - hand"}

    def asked(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `button`, the place of its top."""
        return {**super().asked(data, memory), "button": self.button(data)}

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
