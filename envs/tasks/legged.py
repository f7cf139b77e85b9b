"""Legged robots: what they sense, how they stand on the ground, terms of style, falls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.envs import rotations, symmetry
from repertoire.envs.symmetry import Mirror
from repertoire.envs.task import at_least
from repertoire.envs.tasks import ground
from repertoire.envs.tasks.pd_robot import PDRobot
from repertoire.envs.types import Array, Data, ObsSpec, Slice
from repertoire.errors import UserError, unknown

#: Style of D3 (Cathomen et al. 2025), per second: its terms and weights.
STYLE = {
    "torque": -1e-3,
    "joint_acceleration": -1e-5,
    "action_rate": -0.2,
    "action_norm": -0.4,
    "contacts": -30.0,
    "height": -10.0,
    "orientation": -10.0,
}


@dataclass(frozen=True)
class Legged(PDRobot):
    """A robot on legs. Reward terms are rates: each is multiplied by the control period, as in Isaac Lab.

    Attributes:
      terminate: end the episode on a fall.
      history: values that the policy sees of all that the robot measures, oldest first; 1 for the present alone.
      ground: `flat` or `rough` (a height field of `roughness` m).
    """

    episode_length: int = 1000
    weights: Mapping[str, float] = field(default_factory=lambda: dict(STYLE))
    terminate: bool = False
    history: int = 1
    ground: str = "flat"
    roughness: float = 0.06

    fields: ClassVar[tuple[str, ...]] = ("sensordata", "actuator_force")
    feet: ClassVar[tuple[str, ...]] = ()  # sites; shapes whose names begin so may touch the ground
    reward_terms: ClassVar[tuple[str, ...]] = (
        "alive", "torque", "joint_velocity", "joint_acceleration", "action_rate", "action_norm", "contacts", "height",
        "orientation", "joint_limits",
    )  # fmt: skip
    stance: ClassVar[float] = 0.0  # m, height of the root that the style asks for
    fall_tilt_deg: ClassVar[float] = 60.0
    fall_height_m: ClassVar[float] = 0.0
    #: Sensor noise under randomisation, half-widths: those of MuJoCo Playground.
    noise: ClassVar[Mapping[str, float]] = {"gravity": 0.05, "gyro": 0.2, "joint_pos": 0.03, "joint_vel": 1.5}

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.name, 0.0, roughness=self.roughness)
        at_least(self.name, 1, history=self.history)
        if self.ground not in ground.GROUNDS:
            raise unknown("ground", self.ground, ground.GROUNDS)
        if self.ground == "rough" and not self.roughness:
            raise UserError(f"env {self.name}: rough ground needs a roughness above 0 m; env.ground=flat has none")

    def spec_mjcf(self) -> mujoco.MjSpec:
        """Adds the ground, and a touch sensor for each of the robot's shapes."""
        spec = super().spec_mjcf()
        for geom in (g for g in spec.geoms if g.conaffinity):
            spec.add_sensor(
                name=f"touch_{geom.name}", type=mujoco.mjtSensor.mjSENS_CONTACT, objtype=mujoco.mjtObj.mjOBJ_GEOM,
                objname=geom.name, intprm=[1, 0, 1],
            )  # fmt: skip
        ground.add(spec, self.ground, self.roughness)
        return spec

    @functools.cached_property
    def _touch(self) -> tuple[np.ndarray, np.ndarray]:
        """Places in sensordata of each foot's shapes [F, k], and of all other shapes."""
        model = self.model
        names = {i: mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_SENSOR, i) for i in range(model.nsensor)}
        places = {
            n.removeprefix("touch_"): int(model.sensor_adr[i]) for i, n in names.items() if n.startswith("touch_")
        }
        feet = [[a for n, a in places.items() if n.startswith(foot)] for foot in self.feet]
        own = {a for foot in feet for a in foot}
        return np.asarray(feet), np.asarray([a for a in places.values() if a not in own])

    @functools.cached_property
    def foot_sites(self) -> np.ndarray:
        """Ids [F] of the feet's sites."""
        return np.asarray([self.model.site(name).id for name in self.feet])

    def obs_spec(self) -> ObsSpec:
        """policy: what the robot measures; critic: also velocity, height, feet; features: position and posture."""
        policy = (*(self._measured(s) for s in self._sensed()), *self.extra_slices())
        critic = (*self._sensed(), *self.extra_slices(), *self._privileged())
        n = self.model.nu
        features = (
            Slice("position", 2, "m"), Slice("planar_velocity", 2, "m/s"), Slice("heading", 2),
            Slice("yaw_rate", 1, "rad/s"), Slice("height", 1, "m"), Slice("gravity", 3), Slice("joint_pos", n, "rad"),
        )  # fmt: skip
        return ObsSpec({"policy": policy, "critic": critic, "features": features})

    def _sensed(self) -> tuple[Slice, ...]:
        n = self.model.nu
        return (
            Slice("gravity", 3), Slice("heading", 2), Slice("gyro", 3, "rad/s", scale=0.25),
            Slice("joint_pos", n, "rad"), Slice("joint_vel", n, "rad/s", scale=0.05), Slice("last_action", n),
        )  # fmt: skip

    def _measured(self, s: Slice) -> Slice:
        """`s` with its noise and history."""
        noise = self.noise.get(s.name, 0.0) * self.ranges.noise
        return Slice(s.name, s.size, s.unit, s.scale, noise, self.history)

    def _privileged(self) -> tuple[Slice, ...]:
        return (Slice("velocity", 3, "m/s"), Slice("height", 1, "m"), Slice("feet", len(self.feet)))

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Values of all slices; velocities are in the trunk's frame, `planar_velocity` along the heading and left."""
        q = data.qpos[3:7]
        heading = rotations.heading(q)
        (c, s), (vx, vy) = heading, data.qvel[:2]
        return {
            "gravity": rotations.gravity(q),
            "heading": heading,
            "gyro": data.qvel[3:6],
            "joint_pos": self.angles(data) - self.joints,
            "joint_vel": self.speeds(data),
            "last_action": memory.actions[0],
            "velocity": rotations.unrotate(q, data.qvel[:3]),
            "height": data.qpos[2:3],
            "feet": self.feet_down(data).astype(jnp.float32),
            "position": data.qpos[:2],
            "planar_velocity": jnp.stack([c * vx + s * vy, c * vy - s * vx]),
            "yaw_rate": rotations.rotate(q, data.qvel[3:6])[2:],
        }

    def mirror(self) -> Mirror | None:
        """Left and right; worlds of their own under randomisation are as likely as their mirror images."""
        q, v, joints = symmetry.model_flips(self.model, self.default_pose())
        feet = symmetry.site_flip(self.model, self.default_pose(), self.foot_sites)
        vectors = {"gravity": symmetry.VECTOR, "velocity": symmetry.VECTOR, "gyro": symmetry.AXIAL}
        vectors |= dict.fromkeys(("heading", "position", "planar_velocity"), symmetry.PLANAR)
        vectors |= {"yaw_rate": symmetry.YAW, "height": symmetry.same(1)}
        own = {"joint_pos": q.part(7), "joint_vel": v.part(6), "last_action": joints, "feet": feet}
        return Mirror(q, v, joints, vectors | own)

    def sources(self) -> dict[str, str]:
        """All that the policy sees can be had from joint encoders and an IMU."""
        n = self.model.nu
        return {
            **super().sources(),
            "gravity": "gravity(qpos[3:7])",
            "heading": "heading(qpos[3:7])",
            "gyro": "qvel[3:6]",
            "joint_pos": f"qpos[7:{7 + n}] - default[7:{7 + n}]",
            "joint_vel": f"qvel[6:{6 + n}]",
            "last_action": "action",
        }

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """The terms that have a weight, times the control period."""
        rates = self.rates(before, data, action, memory)
        return {name: self.dt * rates[name]() for name in self.weights}

    def rates(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Callable[[], Array]]:
        """All terms per second, by name; costs are positive here and have negative weights."""
        assert data.actuator_force is not None
        torque, gravity, joints = data.actuator_force, rotations.gravity(data.qpos[3:7]), self.angles(data)
        acceleration = (self.speeds(data) - self.speeds(before)) / self.dt
        low, high = self.model.jnt_range[1 : 1 + self.model.nu].T
        soft = 0.05 * (high - low)  # 90 % of the range is free
        return {
            "alive": lambda: jnp.ones(()),
            "torque": lambda: _squares(torque),
            "joint_velocity": lambda: _squares(self.speeds(data)),
            "joint_acceleration": lambda: _squares(acceleration),
            "action_rate": lambda: _squares(action - memory.actions[0]),
            "action_norm": lambda: _squares(action),
            "contacts": lambda: self.other_contacts(data),
            "height": lambda: jnp.square(data.qpos[2] - self.stance),
            "orientation": lambda: _squares(gravity[:2]),
            "joint_limits": lambda: jnp.sum(jnp.maximum(jnp.maximum(low + soft - joints, joints - high + soft), 0.0)),
        }

    def feet_down(self, data: Data) -> Array:
        """Whether each foot touches the ground, [F] bool."""
        assert data.sensordata is not None
        return (data.sensordata[self._touch[0]] > 0).any(axis=1)

    def other_contacts(self, data: Data) -> Array:
        """How many shapes beside the feet touch the ground, []."""
        assert data.sensordata is not None
        return jnp.sum(data.sensordata[self._touch[1]] > 0).astype(jnp.float32)

    def terminated(self, data: Data, memory: Any) -> Array:
        """A fall, where that ends the episode."""
        return self.fallen(data) & self.terminate

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `fallen`, and power in W that the motors put into the joints."""
        assert data.actuator_force is not None
        power = jnp.sum(jnp.maximum(data.actuator_force * self.speeds(data), 0.0))
        return {**super().measure(data, memory), "fallen": self.fallen(data).astype(jnp.float32), "power": power}


def _squares(x: Array) -> Array:
    return jnp.sum(jnp.square(x))
