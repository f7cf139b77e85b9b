"""Any MJCF file as an env from a config: actuators, control, start, observations, rewards by name."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from repertoire.envs import menagerie, rotations
from repertoire.envs.task import actuator_name, at_least
from repertoire.envs.tasks import mjcf_model
from repertoire.envs.tasks.mjcf_slices import Seen, Slices, ask_for_sensors, slice_name
from repertoire.envs.tasks.robot import Robot
from repertoire.envs.types import Array, Data, ObsSpec, Start
from repertoire.errors import UserError, unknown

CONTROLS = ("direct", "position")
#: Reward terms, per step; costs are positive and want negative weights.
TERMS = ("forward", "alive", "control", "action_rate")
#: Control period that `decimation` aims at where none is given, s.
CONTROL_DT = 0.02


@struct.dataclass
class LastAction:
    """The action before."""

    action: Array  # [A] in [-1, 1]


@dataclass(frozen=True)
class Mjcf(Robot):
    """The robot of an MJCF file.

    Attributes:
      file: path of the MJCF, or `menagerie:<robot>/<file>.xml`. sha256: its fingerprint, where it must be one (runs pin
        it); another model is refused.
      actuators: names of those that act, None for all; the others hold their joints at rest (servos) or are gone.
      control: `direct` (-1 .. 1 is the actuator's ctrlrange) or `position` (targets around the rest pose).
      action_scale: of `position`: rad or m beside the rest pose at +-1.
      kp, kd: of `position`: gains, N m/rad and N m s/rad, that turn motors into position servos; None: the model's own.
      decimation: physics steps per control step; None: as many as are nearest to 0.02 s.
      keyframe: the rest pose; None: `home` where the model has it, else the pose in which it is written.
      reset_noise: half-width of the noise on hinges and slides at the start, rad or m, within their limits.
      floor: add a plane at height 0, for files that hold the robot alone.
      policy, privileged, features: slices (see `mjcf_slices`) of the policy, those that only the critic sees beside
        them, and those that objectives see; None: what suits the root.
      coverage: feature slice -> side of the cells in which its coverage is counted, in its own unit.
      terminate: end the episode when the root has fallen: it tilts by more than `max_tilt` deg or sinks below
        `min_height` m.
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
    policy: tuple[str, ...] | None = None
    privileged: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    coverage: Mapping[str, float] = field(default_factory=lambda: {"position": 1.0})
    terminate: bool = False
    max_tilt: float = 60.0
    min_height: float | None = None

    name: ClassVar[str] = "mjcf"
    doc: ClassVar[str] = "any MJCF file: model=path/to/robot.xml, or model=menagerie:unitree_go2/scene.xml"
    reward_terms: ClassVar[tuple[str, ...]] = TERMS

    def __post_init__(self) -> None:
        """Build the model, so that whatever a config gets wrong is said before anything is compiled."""
        super().__post_init__()
        for option in ("actuators", "policy", "privileged", "features"):
            value = getattr(self, option)
            if value is not None:  # a list, or one name alone
                object.__setattr__(self, option, (value,) if isinstance(value, str) else tuple(value))
        if not self.file:
            raise UserError("env mjcf needs a model: model=path/to/robot.xml")
        if self.control_mode not in CONTROLS:
            raise unknown("env.control_mode", self.control_mode, CONTROLS)
        at_least(self.name, 0.0, reset_noise=self.reset_noise, action_scale=self.action_scale)
        at_least(self.name, 0.0, **{k: v for k in ("kp", "kd") if (v := getattr(self, k)) is not None})
        at_least(self.name, 1e-9, **{f"coverage.{k}": v for k, v in self.coverage.items()})
        if self.decimation is not None:
            at_least(self.name, 1, decimation=self.decimation)
        # What other tasks fix in their class, this one learns from its file.
        for attribute, value in self._learned().items():
            object.__setattr__(self, attribute, value)
        self._check_rewards()

    def _learned(self) -> dict[str, Any]:
        model = self.model
        if self.sha256 not in ("", self.fingerprint):
            raise UserError(
                f"{self.file} has changed: its sha256 is {self.fingerprint[:12]}, this wants {self.sha256[:12]}; bring "
                "the old file back, or train on the new one"
            )
        step = float(model.opt.timestep)
        names = {s.slice.name for s in self._groups["features"]}
        cells = {slice_name(k): v for k, v in self.coverage.items()}
        for cell in cells:
            if cell not in names and cell != "position":
                raise unknown("feature slice of env.coverage", cell, names)
        return {
            "root": mjcf_model.world_axes(model),
            "substeps": self.decimation or max(1, round(CONTROL_DT / step)),
            "fields": ("sensordata",) if model.nsensor else (),
            "coverage_cells": cells,
            "fall_tilt_deg": self.max_tilt,
            "fall_height_m": self.min_height,
            "weights": {k: float(w) for k, w in self.weights.items() if w},
        }

    def _check_rewards(self) -> None:
        if self.terminate and not self.slices.free:
            raise UserError(f"env.terminate asks whether the root fell, but {self.file} begins with no free joint")
        for term in self.weights:
            if term not in TERMS:
                raise unknown("reward term of env mjcf", term, TERMS)
        if "forward" in self.weights and not self.root:
            raise UserError(f"reward term 'forward' needs a root that moves, which {self.file} has not")

    # -- the model -----------------------------------------------------------------------------------------------

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

    def origin(self) -> dict[str, str]:
        """The file and its fingerprint: a skill fits no other."""
        named = self.file if self.file.startswith(menagerie.PREFIX) else Path(self.file).name
        return {"model": named, "model_sha256": self.fingerprint}

    @functools.cached_property
    def _chosen(self) -> list[int]:
        return mjcf_model.choose(self.file, self._original[0], self.actuators)

    @functools.cached_property
    def _rest(self) -> tuple[np.ndarray, np.ndarray | None]:
        return mjcf_model.rest(self.file, self._original[0], self.keyframe)

    def spec_mjcf(self) -> mujoco.MjSpec:
        """The editable model: the file's, with floor, servos and sensors that the options ask for."""
        spec, model = mjcf_model.load(self.file), self._original[0]
        if self.floor:
            spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[40, 40, 1], rgba=[0.8, 0.8, 0.8, 1])
        if self.control_mode == "position":
            self._drive(spec, model)
        mjcf_model.hold_others(spec, model, self._chosen, self._rest[0])
        texts = (*(self.policy or ()), *(self.privileged or ()), *(self.features or ()))
        ask_for_sensors(spec, self.file, texts)
        return spec

    def _drive(self, spec: mujoco.MjSpec, model: mujoco.MjModel) -> None:
        """Position servos on all chosen actuators."""
        names = {i: actuator_name(model, i) for i in self._chosen}
        wrong = [n for i, n in names.items() if mjcf_model.scalar_joint(model, i) is None]
        if wrong:
            raise UserError(f"env.control_mode=position needs actuators on hinges or slides; {', '.join(wrong)} are not")
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
        return self._rest[0]

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
        centre = gear * self._rest[0][model.jnt_qposadr[model.actuator_trnid[:, 0]]]
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
        pose = jnp.asarray(self._rest[0], jnp.float32)
        return Start(qpos=pose.at[q].set(jnp.clip(pose[q] + noise, low, high)), qvel=jnp.zeros(model.nv))

    # -- observation ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def slices(self) -> Slices:
        """All that can be seen of the model."""
        return Slices(self.file, self.model, self._rest[0], self.model.nu)

    @functools.cached_property
    def _groups(self) -> dict[str, tuple[Seen, ...]]:
        asked = (self.policy, self.privileged, self.features)
        policy, privileged, features = (d if a is None else a for a, d in zip(asked, self.slices.defaults()))
        texts = {"policy": policy, "critic": (*policy, *privileged), "features": features}
        for group, names in texts.items():
            if not names:
                raise UserError(f"env mjcf: {group} has no slices: name some, such as joint_pos")
        return {group: tuple(self.slices.seen(t) for t in dict.fromkeys(names)) for group, names in texts.items()}

    def obs_spec(self) -> ObsSpec:
        """The slices asked for."""
        return ObsSpec({group: tuple(s.slice for s in seen) for group, seen in self._groups.items()})

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Values of all slices."""
        seen = {s.slice.name: s for group in self._groups.values() for s in group}
        return {name: s.read(data, memory.action) for name, s in seen.items()}

    def sources(self) -> dict[str, str]:
        """Of all slices that joint encoders and an IMU give."""
        return {s.slice.name: s.source for s in self._groups["policy"] if s.source is not None}

    def remember(self, key: Array, data: Data) -> LastAction:
        """No action so far."""
        return LastAction(jnp.zeros(self.model.nu))

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> LastAction:
        """File the action."""
        return LastAction(action)

    # -- rewards -------------------------------------------------------------------------------------------------

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """The terms that have a weight: `forward` in m/s along x, `alive` 1 until a fall, squares of the action."""
        terms = {
            "forward": lambda: (data.qpos[0] - before.qpos[0]) / self.dt,
            "alive": lambda: 1.0 - self.fallen(data).astype(jnp.float32),
            "control": lambda: jnp.sum(jnp.square(action)),
            "action_rate": lambda: jnp.sum(jnp.square(action - memory.action)),
        }
        return {name: terms[name]() for name in self.weights}

    def fallen(self, data: Data) -> Array:
        """Whether a free root tilts too far or lies too low, [] bool; never without one."""
        if not self.slices.free:
            return jnp.zeros((), bool)
        upright = -rotations.gravity(data.qpos[3:7])[2] > math.cos(math.radians(self.max_tilt))
        low = -math.inf if self.min_height is None else self.min_height
        return ~upright | (data.qpos[2] < low)

    def terminated(self, data: Data, memory: Any) -> Array:
        """A fall, where that ends the episode."""
        return self.fallen(data) & self.terminate
