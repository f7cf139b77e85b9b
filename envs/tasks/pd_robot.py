"""Robots under PD position control on a free base, and what pushes do to them."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from importlib import resources
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from repertoire.envs import randomization, rotations
from repertoire.envs.task import at_least
from repertoire.envs.tasks.robot import Robot
from repertoire.envs.tasks.sim_to_real import Sent, SimToReal, delayed, filed
from repertoire.envs.types import Array, Data, Start


@struct.dataclass
class PDMemory(Sent):
    """Actions chosen and pushes to come."""

    push: Array  # [6] m/s (world), rad/s (trunk): the next kick
    push_in: Array  # [] int32 control steps until it comes; 0: with the coming step


@dataclass(frozen=True)
class PDRobot(SimToReal, Robot):
    """A robot on a free joint whose other joints are all driven by position servos, in the same order.

    Joints of objects that a task adds come after the robot's.

    An action of 0 asks for the default pose, of +-1 for `action_scale` beside it.

    Attributes:
      action_scale: rad.
      reset_noise: half-width of the noise on the joints' start, rad.
    """

    action_scale: float = 0.5
    reset_noise: float = 0.1

    substeps: ClassVar[int] = 5
    xml: ClassVar[str] = ""
    any_heading: ClassVar[bool] = False  # whether episodes start with a random heading

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.name, 0.0, reset_noise=self.reset_noise, action_scale=self.action_scale)

    def spec_mjcf(self) -> mujoco.MjSpec:
        """The editable model: the robot alone; subclasses add the world."""
        return mujoco.MjSpec.from_string(resources.files("repertoire.envs.assets").joinpath(self.xml).read_text())

    def build(self) -> mujoco.MjModel:
        """Compile."""
        return self.spec_mjcf().compile()

    def default_pose(self) -> np.ndarray:
        """qpos [nq] of the keyframe `home`."""
        return self.model.key_qpos[0]

    @functools.cached_property
    def joints(self) -> np.ndarray:
        """Joint angles [nu] of the default pose, rad."""
        return self.default_pose()[7 : 7 + self.model.nu].astype(np.float32)

    def angles(self, data: Data) -> Array:
        """Angles of the driven joints [nu], rad."""
        return data.qpos[7 : 7 + self.model.nu]

    def speeds(self, data: Data) -> Array:
        """Rates of the driven joints [nu], rad/s."""
        return data.qvel[6 : 6 + self.model.nu]

    @property
    def dt(self) -> float:
        """Control period, s."""
        return self.substeps * float(self.model.opt.timestep)

    def action_limits(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Joint targets at -1 and +1, rad; the actuators clip them to the joints' ranges."""
        return tuple(map(float, self.joints - self.action_scale)), tuple(map(float, self.joints + self.action_scale))

    def control(self, action: Array, data: Data, memory: Any) -> Array:
        """Joint targets [nu], rad, from the action `latency` steps ago (between two steps: interpolated)."""
        if self.ranges.latency is not None:
            action = delayed(action, memory.actions, memory.latency)
        return jnp.asarray(self.joints) + self.action_scale * action

    def kick(self, data: Data, memory: Any) -> Array | None:
        """The push that is due, if any."""
        if self.ranges.push is None and self.ranges.push_spin is None:
            return None
        return jnp.zeros(self.model.nv).at[:6].set(jnp.where(memory.push_in == 0, memory.push, 0.0))

    def start(self, key: Array) -> Start:
        """Default pose at rest, joints off by `reset_noise`, a model of its own under randomisation."""
        joint_key, yaw_key, model_key = jax.random.split(key, 3)
        noise = jax.random.uniform(joint_key, self.joints.shape, minval=-1.0, maxval=1.0)
        qpos = jnp.asarray(self.default_pose(), jnp.float32).at[7 : 7 + len(noise)].add(self.reset_noise * noise)
        if self.any_heading:
            angle = jax.random.uniform(yaw_key, (), minval=-math.pi, maxval=math.pi)
            qpos = qpos.at[3:7].set(rotations.product(rotations.yaw(angle), qpos[3:7]))
        return Start(qpos=qpos, qvel=jnp.zeros(self.model.nv), overrides=self.overrides(model_key))

    def remember(self, key: Array, data: Data) -> Any:
        """No action so far; latency and first push are drawn."""
        latency_key, push_key = jax.random.split(key)
        sent = self.nothing_sent(latency_key, self.model.nu)
        push, push_in = self._next_push(push_key)
        return PDMemory(actions=sent.actions, latency=sent.latency, push=push, push_in=push_in)

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> Any:
        """File the action; draw the next push where one has just come."""
        push, push_in = self._next_push(key)
        due = memory.push_in == 0
        return memory.replace(
            actions=filed(action, memory.actions),
            push=jnp.where(due, push, memory.push),
            push_in=jnp.where(due, jnp.maximum(push_in, 1), memory.push_in) - 1,
        )

    def _next_push(self, key: Array) -> tuple[Array, Array]:
        """A kick [6], and the number of steps until it comes."""
        speed_key, angle_key, spin_key, time_key = jax.random.split(key, 4)
        speed = _draw(speed_key, (), self.ranges.push)
        angle = jax.random.uniform(angle_key, (), minval=-math.pi, maxval=math.pi)
        linear = speed * jnp.stack([jnp.cos(angle), jnp.sin(angle), jnp.zeros(())])
        steps = jnp.round(_draw(time_key, (), self.ranges.push_interval) / self.dt)
        return jnp.concatenate([linear, _draw(spin_key, (3,), self.ranges.push_spin)]), steps.astype(jnp.int32)


def _draw(key: Array, shape: tuple[int, ...], bounds: randomization.Range | None) -> Array:
    """Uniform in `bounds`; 0 without."""
    low, high = bounds or (0.0, 0.0)
    return jax.random.uniform(key, shape, minval=low, maxval=high)
