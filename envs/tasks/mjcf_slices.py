"""Observation slices of any model, by name: its root, its joints, bodies and sensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.envs import rotations
from repertoire.envs.tasks.mjcf_model import named, world_axes
from repertoire.envs.types import Array, Data, Slice
from repertoire.errors import UserError, unknown

#: Slices that need no name of a part, and what they hold.
PLAIN = {
    "position": "world position of the root (x, y), m",
    "velocity": "its velocity in the world, m/s",
    "height": "height of a free root, m",
    "orientation": "quaternion of a free root, w first",
    "gravity": "direction of gravity in the root's frame",
    "heading": "cosine and sine of the root's yaw",
    "linear_velocity": "velocity of a free root in its own frame, m/s",
    "angular_velocity": "the same of its rotation, rad/s",
    "joint_pos": "hinges and slides beside the rest pose, rad or m",
    "joint_vel": "their rates",
    "last_action": "the action before",
}
#: `kind:name` slices: what they hold.
NAMED = {
    "joint": "position of a joint",
    "joint_vel": "its rate",
    "body": "world position of a body, m",
    "body_vel": "its velocity in the world, m/s",
    "sensor": "a sensor of the model",
}
_SENSED = {"body": mujoco.mjtSensor.mjSENS_FRAMEPOS, "body_vel": mujoco.mjtSensor.mjSENS_FRAMELINVEL}
_SIZES = {"free": (7, 6), "ball": (4, 3), "slide": (1, 1), "hinge": (1, 1)}


@dataclass(frozen=True)
class Seen:
    """A slice, how to read it from (data, last action), and where a runner gets it (None: it must compute it)."""

    slice: Slice
    read: Callable[[Data, Array], Array]
    source: str | None = None


def slice_name(text: str) -> str:
    """`body:cube` -> `body_cube`: contracts want words."""
    return "".join(c if c.isalnum() else "_" for c in text)


def ask_for_sensors(spec: mujoco.MjSpec, file: str, texts: tuple[str, ...]) -> None:
    """Add the sensors that `body:` and `body_vel:` slices read. Raises `UserError` for a body that is not there."""
    bodies = [b.name for b in spec.bodies]
    for text in dict.fromkeys(texts):
        kind, _, name = text.partition(":")
        if kind not in _SENSED or not name:
            continue
        if name not in bodies:
            raise named(f"body of {file}", name, bodies)
        spec.add_sensor(name=f"seen_{text}", type=_SENSED[kind], objtype=mujoco.mjtObj.mjOBJ_XBODY, objname=name)


@dataclass(frozen=True)
class Slices:
    """The slices of one model.

    Attributes:
      file: for messages. model: compiled, with `ask_for_sensors` done. pose: qpos [nq] at rest. actions: how many.
    """

    file: str
    model: mujoco.MjModel
    pose: np.ndarray
    actions: int

    @property
    def free(self) -> bool:
        """Whether the root hangs on a free joint."""
        return bool(self.model.njnt) and self.model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE

    def defaults(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """(policy, what the critic sees beside it, features) of a model about which nothing is said."""
        joints = ("joint_pos", "joint_vel") if self._scalar().any() else ()
        if self.free:
            policy = ("gravity", "heading", "angular_velocity", *joints, "last_action")
            return policy, ("linear_velocity", "height"), ("position", "velocity", *joints[:1])
        if world_axes(self.model):
            return (*joints, "velocity"), (), ("position", "velocity", *joints[:1])
        return joints, (), joints

    def seen(self, text: str) -> Seen:
        """The slice that `text` names. Raises `UserError` with what there is."""
        kind, colon, name = text.partition(":")
        if colon:
            if kind not in NAMED:
                raise unknown("slice", text, [*PLAIN, *(f"{k}:NAME" for k in NAMED)])
            return self._of_sensor(text, kind, name) if kind in (*_SENSED, "sensor") else self._of_joint(kind, name)
        if text not in PLAIN:
            raise unknown("slice", text, [*PLAIN, *(f"{k}:NAME" for k in NAMED)])
        if text == "last_action":
            return Seen(Slice(text, self.actions), lambda data, action: action, "action")
        if text in ("joint_pos", "joint_vel"):
            return self._joints(text)
        return self._of_root(text)

    def _of_root(self, text: str) -> Seen:
        axes = world_axes(self.model)
        if not (self.free or (axes and text in ("position", "velocity"))):
            raise UserError(
                f"slice {text!r} needs a root that moves: {self.file} begins with no free joint"
                + ("" if text not in ("position", "velocity") else " and no horizontal slide; take body:NAME")
            )
        state = {
            "position": (axes, "m", f"qpos[0:{axes}]"),
            "velocity": (axes, "m/s", f"qvel[0:{axes}]"),
            "height": (1, "m", "qpos[2:3]"),
            "orientation": (4, "1", "qpos[3:7]"),
            "angular_velocity": (3, "rad/s", "qvel[3:6]"),
        }
        if text in state:
            size, unit, source = state[text]
            return Seen(Slice(text, size, unit), _reader(source), source)
        if text == "gravity":
            return Seen(Slice(text, 3), lambda d, a: rotations.gravity(d.qpos[3:7]), "gravity(qpos[3:7])")
        if text == "heading":
            return Seen(Slice(text, 2), lambda d, a: rotations.heading(d.qpos[3:7]), "heading(qpos[3:7])")
        return Seen(Slice(text, 3, "m/s"), lambda d, a: rotations.unrotate(d.qpos[3:7], d.qvel[:3]))

    def _scalar(self) -> np.ndarray:
        """Which joints [njnt] are hinges or slides that do not carry the root through the world."""
        joint = mujoco.mjtJoint
        scalar = np.isin(self.model.jnt_type, [int(joint.mjJNT_HINGE), int(joint.mjJNT_SLIDE)])
        if not self.free:
            scalar[: world_axes(self.model)] = False
        return scalar

    def _joints(self, text: str) -> Seen:
        """All hinges and slides but those that carry the root through the world."""
        model, joint, scalar = self.model, mujoco.mjtJoint, self._scalar()
        if not scalar.any():
            raise UserError(f"slice {text!r} is empty: {self.file} has no joints but its root")
        units = "rad" if (model.jnt_type[scalar] == joint.mjJNT_HINGE).all() else "rad, m"
        if text == "joint_vel":
            v = model.jnt_dofadr[scalar]
            return Seen(Slice(text, len(v), f"{units}/s"), lambda d, a: d.qvel[v], _range("qvel", v))
        q = model.jnt_qposadr[scalar]
        zero, source = jnp.asarray(self.pose[q], jnp.float32), _range("qpos", q)
        source = source and f"{source} - default{source[4:]}"
        return Seen(Slice(text, len(q), units), lambda d, a: d.qpos[q] - zero, source)

    def _of_joint(self, kind: str, name: str) -> Seen:
        model = self.model
        names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, i) for i in range(model.njnt)]
        if name not in names:
            raise named(f"joint of {self.file}", name, names)
        i = names.index(name)
        shape = mujoco.mjtJoint(model.jnt_type[i]).name.removeprefix("mjJNT_").lower()
        part = kind == "joint_vel"
        start = int((model.jnt_dofadr if part else model.jnt_qposadr)[i])
        source = f"{'qvel' if part else 'qpos'}[{start}:{start + _SIZES[shape][part]}]"
        unit = {"free": "m, quaternion", "ball": "quaternion", "slide": "m", "hinge": "rad"}[shape]
        unit = unit if not part else {"free": "m/s, rad/s", "slide": "m/s"}.get(shape, "rad/s")
        return Seen(Slice(slice_name(f"{kind}:{name}"), _SIZES[shape][part], unit), _reader(source), source)

    def _of_sensor(self, text: str, kind: str, name: str) -> Seen:
        model = self.model
        names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_SENSOR, i) for i in range(model.nsensor)]
        wanted = f"seen_{text}" if kind in _SENSED else name
        if wanted not in names:
            raise named(f"sensor of {self.file}", name, [n for n in names if n and not n.startswith("seen_")])
        i = names.index(wanted)
        start, size = int(model.sensor_adr[i]), int(model.sensor_dim[i])
        unit = {"body": "m", "body_vel": "m/s"}.get(kind, "1")

        def read(data: Data, action: Array) -> Array:
            assert data.sensordata is not None
            return data.sensordata[start : start + size]

        return Seen(Slice(slice_name(text), size, unit), read)


@dataclass(frozen=True)
class _Part:
    """`qpos[a:b]` or `qvel[a:b]` of the data."""

    field: str
    start: int
    stop: int

    def __call__(self, data: Data, action: Array) -> Array:
        values: Array = getattr(data, self.field)
        return values[self.start : self.stop]


def _reader(source: str) -> _Part:
    start, stop = source[5:-1].split(":")
    return _Part(source[:4], int(start), int(stop))


def _range(field: str, index: np.ndarray) -> str | None:
    """`qpos[a:b]` of consecutive addresses; None for others."""
    if (np.diff(index) != 1).any():
        return None
    return f"{field}[{index[0]}:{index[-1] + 1}]"
