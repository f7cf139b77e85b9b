"""Cubes on the Panda's table: their model, start, variation, observation; and the env that discovers skills on one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from repertoire.envs.task import at_least
from repertoire.envs.tasks.panda.arm import ArmMemory, Panda, distance, near, uniform
from repertoire.envs.tasks.panda.furniture import COLOURS, FRICTION, HALF, MASS, add_contact, add_cube
from repertoire.envs.types import Array, Data, Slice, Start
from repertoire.errors import UserError

LIFTED = 0.03  # m over where it lay


@struct.dataclass
class CubeMemory(ArmMemory):
    """Targets, and where the first cube lay."""

    origin: Array  # [3] m


@dataclass(frozen=True)
class CubeScene(Panda):
    """The Panda with cubes; the first, `cube`, is the one that tasks are about.

    Attributes:
      vary_size, vary_mass, vary_friction: half-widths of the uniform factors around 1 by which edge, mass and friction
        of the first cube differ from world to world (0: all alike).
      yaw: half-width of the uniform angle of cubes at the start, rad.
    """

    vary_size: float = 0.1
    vary_mass: float = 0.5
    vary_friction: float = 0.25
    yaw: float = 0.3

    coverage_cells: ClassVar[Mapping[str, float]] = {"cube_position": 0.1}
    cubes: ClassVar[tuple[str, ...]] = ("cube",)
    area: ClassVar[tuple[tuple[float, float], tuple[float, float]]] = ((0.38, -0.18), (0.58, 0.18))  # m, x-y corners

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("vary_size", "vary_mass", "vary_friction"):
            value = getattr(self, option)
            if not 0.0 <= value < 1.0:
                raise UserError(f"env {self.name}: env.{option} must be at least 0 and below 1, got {value}")
        at_least(self.name, 0.0, yaw=self.yaw)

    # -- model and start -----------------------------------------------------------------------------------------

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Cubes, and sensors that tell whether a pad touches the first one.

        The first is compiled at its largest: MuJoCo prunes contacts by the size that a geom was compiled with.
        """
        for i, name in enumerate(self.cubes):
            add_cube(spec, name, HALF * (1 + self.vary_size) if i == 0 else HALF, COLOURS[i])
        for side in ("left", "right"):
            add_contact(spec, f"grip_{side}", f"{side}_pad", self.cubes[0])

    def place(self, key: Array, start: Start) -> Start:
        """Cubes at rest, spread over `area`; the first varied."""
        key, vary_key, yaw_key = jax.random.split(key, 3)
        overrides = start.overrides | self._varied(vary_key, start.overrides)
        half = overrides.get("geom_size", jnp.asarray(self.model.geom_size, jnp.float32))
        spots = self.spots(key)
        angles = jax.random.uniform(yaw_key, (len(self.cubes),), minval=-self.yaw, maxval=self.yaw)
        qpos = start.qpos
        for name, spot, angle in zip(self.cubes, spots, angles):
            pose = jnp.array([*spot, half[self.model.geom(name).id, 2], jnp.cos(angle / 2), 0, 0, jnp.sin(angle / 2)])
            first = self._address(name)
            qpos = qpos.at[first : first + 7].set(pose)
        return start.replace(qpos=qpos, overrides=overrides)

    def spots(self, key: Array) -> Array:
        """Where cubes lie at the start, [cubes, 2] m."""
        return uniform(key, *([corner] * len(self.cubes) for corner in self.area))

    def _varied(self, key: Array, drawn: dict[str, Array]) -> dict[str, Array]:
        """Model fields of this world, on top of those `drawn`; empty where nothing varies."""
        ranges = np.array([self.vary_size, self.vary_mass, self.vary_friction], np.float32)
        if not ranges.any():
            return {}
        factors = 1 + ranges * jax.random.uniform(key, (3,), minval=-1.0, maxval=1.0)
        half, mass, friction = factors * jnp.array([HALF, MASS, FRICTION])
        model, body, geom = self.model, self.model.body(self.cubes[0]).id, self.model.geom(self.cubes[0]).id
        base = {k: drawn.get(k, jnp.asarray(getattr(model, k), jnp.float32)) for k in VARIED}
        return {
            "geom_size": base["geom_size"].at[geom].set(half),
            "geom_friction": base["geom_friction"].at[geom, 0].set(friction),
            "body_mass": base["body_mass"].at[body].set(mass),
            "body_inertia": base["body_inertia"].at[body].set(mass * half**2 / 1.5),
        }

    def remember(self, key: Array, data: Data) -> Any:
        """Where the cube lies."""
        return CubeMemory(targets=self.first_targets(data), sent=self.first_sent(key), origin=self.cube(data))

    # -- where things are ----------------------------------------------------------------------------------------

    def _address(self, name: str) -> int:
        return int(self.model.joint(name).qposadr[0])

    def cube(self, data: Data, index: int = 0) -> Array:
        """Centre of a cube [3], m."""
        first = self._address(self.cubes[index])
        return data.qpos[first : first + 3]

    def cube_speed(self, data: Data, index: int = 0) -> Array:
        """Linear velocity of a cube [3], m/s."""
        first = int(self.model.joint(self.cubes[index]).dofadr[0])
        return data.qvel[first : first + 3]

    def cube_half(self, data: Data, index: int = 0) -> Array:
        """Half the edge of a cube [], m."""
        size = data.overrides.get("geom_size", jnp.asarray(self.model.geom_size, jnp.float32))
        return size[self.model.geom(self.cubes[index]).id, 0]

    def grasped(self, data: Data) -> Array:
        """Whether both pads touch the first cube, [] bool."""
        return self.sensed(data, "grip_left") & self.sensed(data, "grip_right")

    def lifted(self, data: Data) -> Array:
        """Whether the first cube is over the table, [] bool."""
        return self.cube(data)[2] > self.cube_half(data) + LIFTED

    def default_pose(self) -> np.ndarray:
        """Cubes in a row across `area`."""
        pose, ((x0, y0), (x1, y1)) = super().default_pose(), self.area
        for i, name in enumerate(self.cubes):
            first = self._address(name)
            pose[first : first + 2] = (x0 + x1) / 2, y0 + (i + 0.5) / len(self.cubes) * (y1 - y0)
        return pose

    # -- observation ---------------------------------------------------------------------------------------------

    def extra_slices(self) -> tuple[Slice, ...]:
        """The first cube's pose, as a camera gives it: position, two axes, and where it lies from the hand."""
        return (
            *super().extra_slices(),
            Slice("cube_position", 3, "m"),
            Slice("cube_axes", 6),
            Slice("cube_offset", 3, "m", scale=5.0),
        )

    def extra_features(self) -> tuple[Slice, ...]:
        """Position of the first cube."""
        return (*super().extra_features(), Slice("cube_position", 3, "m"))

    def extra_critic(self) -> tuple[Slice, ...]:
        """What no sensor of the robot tells: the first cube's velocity, whether each pad touches it, and what varies.

        `cube_properties` are half edge, mass and friction, relative to the ordinary cube.
        """
        return (
            *super().extra_critic(),
            Slice("cube_velocity", 3, "m/s"),
            Slice("grip", 2),
            Slice("cube_properties", 3),
        )

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """The arm's values and the cube's."""
        first, position = self._address(self.cubes[0]), self.cube(data)
        touch = [self.sensed(data, f"grip_{side}") for side in ("left", "right")]
        return {
            **super().observe(data, memory),
            "cube_position": position,
            "cube_axes": axes(data.qpos[first + 3 : first + 7]),
            "cube_velocity": self.cube_speed(data),
            "cube_offset": position - self.hand(data),
            "grip": jnp.stack(touch),
            "cube_properties": self._properties(data),
        }

    def sources(self) -> dict[str, str]:
        """A camera tells where cubes are: their poses are in qpos."""
        at = self.place_of(0)
        cube = {"cube_position": at, "cube_axes": self.axes_of(0), "cube_offset": f"{at} - hand"}
        return {**super().sources(), **cube}

    def place_of(self, index: int) -> str:
        """Source of the centre of a cube."""
        first = self._address(self.cubes[index])
        return f"qpos[{first}:{first + 3}]"

    def axes_of(self, index: int) -> str:
        """Source of the `axes` of a cube."""
        first = self._address(self.cubes[index]) + 3
        return f"axes(qpos[{first}:{first + 4}])"

    def goal_box(self) -> list[list[float]]:
        """Ranges of goals [3] on the table in `area`, m."""
        (x0, y0), (x1, y1) = self.area
        return [[x0, x1], [y0, y1], [HALF * (1 - self.vary_size), HALF * (1 + self.vary_size)]]

    def _properties(self, data: Data) -> Array:
        body, geom = self.model.body(self.cubes[0]).id, self.model.geom(self.cubes[0]).id
        fields = {k: data.overrides.get(k, jnp.asarray(getattr(self.model, k), jnp.float32)) for k in VARIED}
        found = fields["geom_size"][geom, 0], fields["body_mass"][body], fields["geom_friction"][geom, 0]
        return jnp.stack(found) / np.array([HALF, MASS, FRICTION], np.float32)

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `grasped`, `lifted` and `displacement` (m from where the first cube lay)."""
        return {
            **super().measure(data, memory),
            "grasped": self.grasped(data).astype(jnp.float32),
            "lifted": self.lifted(data).astype(jnp.float32),
            "displacement": distance(self.cube(data), memory.origin),
        }


#: Model fields that differ from world to world.
VARIED = ("geom_size", "geom_friction", "body_mass", "body_inertia")


@dataclass(frozen=True)
class PandaCube(CubeScene):
    """No goal: a cube to discover skills on, as SLIM does, with what it needs beside the discovery reward."""

    episode_length: int = 100

    name: ClassVar[str] = "panda_cube"
    doc: ClassVar[str] = "Panda with a cube, no goal: discover skills on it; reward terms reach and safety"
    dense: ClassVar[Mapping[str, float]] = {"reach": 1.0, "safety": 1.0}

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """`reach`: nearness of hand and cube; `safety`: minus the number of kinds of violation."""
        broken = jnp.stack(list(self.violations(data).values())).sum().astype(jnp.float32)
        return {"reach": near(distance(self.hand(data), self.cube(data))), "safety": -broken}


def axes(quat: Array) -> Array:
    """First two columns [6] of the rotation matrix of a quaternion [4]: continuous, unlike the quaternion."""
    w, x, y, z = quat
    first = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    second = [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)]
    return jnp.stack([*first, *second])


def apart(key: Array, area: tuple[tuple[float, float], tuple[float, float]]) -> Array:
    """Where two cubes lie [2, 2], m: one on each half of `area` (its x-y corners), 6 cm apart at least."""
    (x0, _), (x1, y1) = area
    side_key, spot_key = jax.random.split(key)
    side = jnp.where(jax.random.bernoulli(side_key), 1.0, -1.0)
    spots = uniform(spot_key, [(x0, 0.03)] * 2, [(x1, y1)] * 2)
    return spots * jnp.array([[1.0, 1.0], [1.0, -1.0]]) * jnp.stack([jnp.ones(2), side * jnp.ones(2)], axis=1)
