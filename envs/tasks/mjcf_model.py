"""From a foreign MJCF file to the model of a task: which actuators, how they are driven, and the file's fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import mujoco
import numpy as np

from repertoire.envs import menagerie
from repertoire.envs.task import actuator_name
from repertoire.envs.tasks import ground
from repertoire.errors import UserError, unknown

_SCALAR = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
#: Half-width of the plane of `env.floor`, m.
FLOOR = 40
_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))


def load(file: str) -> mujoco.MjSpec:
    """The editable model of `file` (see `menagerie.resolve`), as it stands there. Raises `UserError`."""
    path = menagerie.resolve(file)
    try:
        return mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise _unreadable(file, error) from error


def compiled(file: str, spec: mujoco.MjSpec) -> mujoco.MjModel:
    """`spec` of `file` as a model. Raises `UserError`: what is missing (a mesh, say) shows only here."""
    try:
        return spec.compile()
    except ValueError as error:
        raise _unreadable(file, error) from error


def fingerprint(spec: mujoco.MjSpec, model: mujoco.MjModel) -> str:
    """SHA-256 of a compiled spec as one canonical XML, with its meshes and height fields.

    Included files count; comments, layout and where the files lie do not.
    """
    sha = hashlib.sha256(spec.to_xml().encode())
    for values in (model.mesh_vert, model.hfield_data):
        sha.update(np.ascontiguousarray(values).tobytes())
    return sha.hexdigest()


def world_axes(model: mujoco.MjModel) -> int:
    """How many leading entries of qpos are a horizontal position in the world: 2 on a free joint, else 0 to 2.

    Robots without a free joint move through the world by slides that come first, as HalfCheetah does.
    """
    if model.njnt and model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE:
        return 2
    count = 0
    for kind, axis in zip(model.jnt_type[:2], model.jnt_axis[:2]):
        if kind != mujoco.mjtJoint.mjJNT_SLIDE or abs(axis[2]) > 1e-6:
            break
        count += 1
    return count


def rest(file: str, model: mujoco.MjModel, keyframe: str | None) -> np.ndarray:
    """qpos [nq] of the named keyframe; None: of `home` where there is one, else as the file is written."""
    names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_KEY, i) for i in range(model.nkey)]
    if keyframe is None and "home" not in names:
        return model.qpos0.copy()
    if keyframe is not None and keyframe not in names:
        raise named(f"keyframe of {file}", keyframe, names)
    i = names.index(keyframe or "home")
    return model.key_qpos[i].copy()


def named(kind: str, name: str, names: Sequence[str | None]) -> UserError:
    """`unknown`, or what to say where there is nothing of that kind, or nothing with a name."""
    known = [n for n in names if n]
    return unknown(kind, name, known) if known else UserError(f"unknown {kind} {name!r}: it has none with a name")


def choose(file: str, model: mujoco.MjModel, wanted: Sequence[str] | None) -> list[int]:
    """Ids of the actuators named (all for None), in the model's order."""
    names = [actuator_name(model, i) for i in range(model.nu)]
    if not names:
        raise UserError(f"{file} has no actuators: add an <actuator> section, one entry per driven joint")
    for name in names if wanted is None else wanted:
        if name not in names:
            raise unknown(f"actuator of {file}", name, names)
    if wanted is not None and not wanted:
        raise UserError(f"env.actuators names none: leave it out for all of {', '.join(names)}")
    return [i for i, name in enumerate(names) if wanted is None or name in wanted]


def hold_others(spec: mujoco.MjSpec, model: mujoco.MjModel, chosen: Sequence[int], pose: np.ndarray) -> None:
    """Remove all actuators but `chosen`: position servos leave a spring and a damper at `pose`, others nothing."""
    others = [i for i in range(model.nu) if i not in chosen]
    for i in others:
        if is_servo(model, i) and scalar_joint(model, i) is not None:
            _spring(spec, model, i, pose)
    for key in spec.keys:
        if len(key.ctrl):
            key.ctrl = np.asarray(key.ctrl)[list(chosen)]
    for actuator in [spec.actuators[i] for i in others]:
        spec.delete(actuator)


def servo(spec: mujoco.MjSpec, model: mujoco.MjModel, i: int, kp: float, kd: float) -> None:
    """Make actuator `i` a position servo of its joint (kp N m/rad, kd N m s/rad) within the torque that it can give."""
    joint, actuator = scalar_joint(model, i), spec.actuators[i]
    assert joint is not None
    gear, limits = model.actuator_gear[i, 0], None
    if model.actuator_forcelimited[i]:
        limits = gear * model.actuator_forcerange[i]
    elif model.actuator_ctrllimited[i] and model.actuator_biastype[i] == mujoco.mjtBias.mjBIAS_NONE:
        limits = gear * model.actuator_gainprm[i, 0] * model.actuator_ctrlrange[i]
    actuator.set_to_position(kp=kp, kv=kd)
    actuator.gear = [1, 0, 0, 0, 0, 0]
    actuator.forcelimited = limits is not None
    if limits is not None:
        actuator.forcerange = np.sort(limits)
    actuator.ctrllimited = bool(model.jnt_limited[joint])
    if model.jnt_limited[joint]:
        actuator.ctrlrange = model.jnt_range[joint]


def add_floor(spec: mujoco.MjSpec) -> None:
    """A checkered plane at height 0, so that motion shows, and a light where the model has none."""
    name = "repertoire_floor"
    ground.checker(spec, name, dark=0.5, repeat=4 * FLOOR)  # squares of 0.25 m
    plane = mujoco.mjtGeom.mjGEOM_PLANE
    spec.worldbody.add_geom(type=plane, size=[FLOOR, FLOOR, 1], material=name, rgba=[1, 1, 1, 1])
    if not spec.lights:
        sun = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
        spec.worldbody.add_light(pos=[0, 0, 10], dir=[0.3, 0.2, -1], type=sun)


def is_servo(model: mujoco.MjModel, i: int) -> bool:
    """Whether actuator `i` is a position servo: force = kp (ctrl - length) - kd velocity."""
    gain, bias = model.actuator_gainprm[i], model.actuator_biasprm[i]
    return model.actuator_biastype[i] == mujoco.mjtBias.mjBIAS_AFFINE and gain[0] > 0 and bias[1] == -gain[0]


def scalar_joint(model: mujoco.MjModel, i: int) -> int | None:
    """The hinge or slide that actuator `i` drives, or None."""
    joint = int(model.actuator_trnid[i, 0])
    return joint if model.actuator_trntype[i] in _JOINT and model.jnt_type[joint] in _SCALAR else None


def _spring(spec: mujoco.MjSpec, model: mujoco.MjModel, i: int, pose: np.ndarray) -> None:
    j = scalar_joint(model, i)
    assert j is not None
    joint, square = spec.joints[j], model.actuator_gear[i, 0] ** 2
    kp, kd = square * model.actuator_gainprm[i, 0], -square * model.actuator_biasprm[i, 2]
    own, address = float(model.jnt_stiffness[j]), model.jnt_qposadr[j]
    at = (own * model.qpos_spring[address] + kp * pose[address]) / (own + kp)
    hinge = model.jnt_type[j] == mujoco.mjtJoint.mjJNT_HINGE
    joint.springref = np.degrees(at) if hinge and spec.compiler.degree else at
    joint.stiffness = [own + kp, *np.asarray(joint.stiffness)[1:]]
    joint.damping = [float(model.dof_damping[model.jnt_dofadr[j]]) + kd, *np.asarray(joint.damping)[1:]]


def _unreadable(file: str, error: ValueError) -> UserError:
    return UserError(f"MuJoCo cannot read {file}: {' '.join(str(error).split())}")
