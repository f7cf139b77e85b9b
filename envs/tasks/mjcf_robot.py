"""The robot of any MJCF file: its model, how it is driven, where it starts."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.envs import menagerie
from repertoire.envs.task import actuator_name, at_least
from repertoire.envs.tasks import mjcf_model
from repertoire.envs.tasks.robot import Robot
from repertoire.envs.types import Array, Data, Start
from repertoire.errors import UserError, unknown, words

CONTROLS = ("direct", "position")
#: Control period that `decimation` aims at where none is given, s.
CONTROL_DT = 0.02


@dataclass(frozen=True)
class MjcfRobot(Robot):
    """A robot from a file.

    Attributes:
      file: path of the MJCF, or `menagerie:<robot>/<file>.xml`. sha256: its fingerprint, where it must be one (runs pin
        it); another model is refused.
      actuators: names of those that act, None for all; the others hold their joints at rest (servos) or are gone.
      control_mode: `direct` (-1 .. 1 is the actuator's ctrlrange) or `position` (targets around the rest pose).
      action_scale: of `position`: rad or m beside the rest pose at +-1.
      kp, kd: of `position`: gains, N m/rad and N m s/rad, that turn motors into position servos; None: the model's own.
      decimation: physics steps per control step; None: as many as are nearest to 0.02 s.
      keyframe: the rest pose; None: `home` where the model has it, else the pose in which it is written.
      reset_noise: half-width of the noise on hinges and slides at the start, rad or m, within their limits.
      floor: add a plane at height 0, for files that hold the robot alone.
    """

    file: str = ""
    sha256: str = ""
    actuators: tuple[str, ...] | None = None
    control_mode: str = "direct"
    action_scale: float = 0.5
    kp: float | None = None
    kd: float | None = None
    decimation: int | None = None
    keyframe: str | None = None
    reset_noise: float = 0.05
    floor: bool = False

    def __post_init__(self) -> None:
        """Build the model, so that whatever a config gets wrong is said before anything is compiled."""
        super().__post_init__()
        self._adopt(actuators=names("actuators", self.actuators))
        if not self.file:
            raise UserError(f"env {self.name} needs a model: model=path/to/robot.xml")
        if self.control_mode not in CONTROLS:
            raise unknown("env.control_mode", self.control_mode, CONTROLS)
        if self.control_mode == "direct" and (self.kp is not None or self.kd is not None):
            raise UserError("env.kp and env.kd are gains of env.control_mode=position: give that too")
        if self.kp is None and self.kd is not None:
            raise UserError("env.kd needs env.kp: without it the model's own gains stay")
        at_least(self.name, 0.0, reset_noise=self.reset_noise, action_scale=self.action_scale)
        at_least(self.name, 0.0, **{k: v for k in ("kp", "kd") if (v := getattr(self, k)) is not None})
        if self.decimation is not None:
            at_least(self.name, 1, decimation=self.decimation)
        if self.sha256 not in ("", self.fingerprint):
            raise UserError(
                f"{self.file} has changed: its sha256 is {self.fingerprint[:12]}, this wants {self.sha256[:12]}; bring "
                "the old file back, or train on the new one"
            )
        steps = self.decimation or max(1, round(CONTROL_DT / float(self.model.opt.timestep)))
        self._adopt(root=mjcf_model.world_axes(self.model), substeps=steps)

    def _adopt(self, **values: Any) -> None:
        """Set what other tasks fix in their class and this one learns from its options and its file."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @functools.cached_property
    def _original(self) -> tuple[mujoco.MjModel, str]:
        """The model as the file has it, and its fingerprint."""
        spec = mjcf_model.load(self.file)
        model = mjcf_model.compiled(self.file, spec)
        return model, mjcf_model.fingerprint(spec, model)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file's model, whatever the options do to it."""
        return self._original[1]

    def source_model(self) -> tuple[str, str]:
        """The file and its fingerprint: a skill fits no other."""
        named = self.file if self.file.startswith(menagerie.PREFIX) else Path(self.file).name
        return named, self.fingerprint

    @functools.cached_property
    def _chosen(self) -> list[int]:
        return mjcf_model.choose(self.file, self._original[0], self.actuators)

    @functools.cached_property
    def _rest(self) -> np.ndarray:
        return mjcf_model.rest(self.file, self._original[0], self.keyframe)

    def spec_mjcf(self) -> mujoco.MjSpec:
        """The editable model: the file's, with the floor and servos that the options ask for."""
        spec, model = mjcf_model.load(self.file), self._original[0]
        if self.floor:
            mjcf_model.add_floor(spec)
        if self.control_mode == "position":
            self._drive(spec, model)
        mjcf_model.hold_others(spec, model, self._chosen, self._rest)
        return spec

    def _drive(self, spec: mujoco.MjSpec, model: mujoco.MjModel) -> None:
        """Position servos on all chosen actuators."""
        names = {i: actuator_name(model, i) for i in self._chosen}
        wrong = [n for i, n in names.items() if mjcf_model.scalar_joint(model, i) is None]
        if wrong:
            raise UserError(
                f"env.control_mode=position needs actuators on hinges or slides; {', '.join(wrong)} are not"
            )
        if self.kp is None:
            motors = [n for i, n in names.items() if not mjcf_model.is_servo(model, i)]
            if motors:
                raise UserError(f"{', '.join(motors)} have no position gains: give env.kp=... env.kd=...")
            return
        for i in self._chosen:
            mjcf_model.servo(spec, model, i, self.kp, self.kd or 0.0)

    def build(self) -> mujoco.MjModel:
        """Compile."""
        model = mjcf_model.compiled(self.file, self.spec_mjcf())
        if self.control_mode == "direct":
            free = [actuator_name(model, i) for i in range(model.nu) if not model.actuator_ctrllimited[i]]
            if free:
                raise UserError(f"actuators without ctrlrange: {', '.join(free)}; give them one in {self.file}")
        return model

    def default_pose(self) -> np.ndarray:
        """qpos [nq] of the rest pose."""
        return self._rest

    @property
    def dt(self) -> float:
        """Control period, s."""
        return self.substeps * float(self.model.opt.timestep)

    def action_limits(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """ctrlrange, or joint targets at -1 and +1 in actuator units (joint units times the gear)."""
        if self.control_mode == "direct":
            return super().action_limits()
        model = self.model
        gear = model.actuator_gear[:, 0]
        centre = gear * self._rest[model.jnt_qposadr[model.actuator_trnid[:, 0]]]
        low, high = centre - np.abs(gear) * self.action_scale, centre + np.abs(gear) * self.action_scale
        return tuple(map(float, low)), tuple(map(float, high))

    def control(self, action: Array, data: Data, memory: Any) -> Array:
        """Actuator controls [nu] between `action_limits`."""
        low, high = (jnp.asarray(x, jnp.float32) for x in self.action_limits())
        return low + (action + 1) * 0.5 * (high - low)

    def start(self, key: Array) -> Start:
        """The rest pose, with noise on hinges and slides."""
        model, joint = self.model, mujoco.mjtJoint
        scalar = np.isin(model.jnt_type, [int(joint.mjJNT_HINGE), int(joint.mjJNT_SLIDE)])
        q, limited = model.jnt_qposadr[scalar], model.jnt_limited[scalar].astype(bool)
        low, high = np.where(limited, model.jnt_range[scalar].T, [[-np.inf], [np.inf]])
        noise = jax.random.uniform(key, (len(q),), minval=-self.reset_noise, maxval=self.reset_noise)
        pose = jnp.asarray(self._rest, jnp.float32)
        return Start(qpos=pose.at[q].set(jnp.clip(pose[q] + noise, low, high)), qvel=jnp.zeros(model.nv))


def names(option: str, value: Any) -> tuple[str, ...] | None:
    """`value` of `env.<option>`: a list of names, one name alone, or None."""
    return None if value is None else words(f"env.{option}", value)
