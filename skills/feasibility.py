"""What skills would ask of a real robot: effort, speed, energy, tilt, falls, jerky actions."""

from __future__ import annotations

import copy
from typing import NamedTuple

import mujoco
import numpy as np


class Traces(NamedTuple):
    """Mechanics of N states under the controls chosen in them; actuator units as in MuJoCo (N m, N, rad/s, m/s)."""

    force: np.ndarray  # [N, nu] actuator force
    speed: np.ndarray  # [N, nu] actuator velocity: force times it is power
    joint_speed: np.ndarray  # [N, J] speed of the actuated joints, rad/s, m/s where they slide
    height: np.ndarray  # [N] m: the root body's origin above the world's
    tilt: np.ndarray  # [N] deg between what is up in the root body at rest and what is up in the world


def traces(model: mujoco.MjModel, qpos: np.ndarray, qvel: np.ndarray, ctrl: np.ndarray) -> Traces:
    """Mechanics of states qpos [N, nq], qvel [N, nv] under ctrl [N, nu], as `mj_forward` gives them.

    They hold for the instant a control is applied, when a position actuator pulls hardest. Contacts and joint limits do
    not enter them, so they are not computed. The model's own constants count, not a world's overrides.
    """
    model = copy.copy(model)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    data = mujoco.MjData(model)
    root, joints = root_body(model), actuated(model)
    data.qpos[:] = model.qpos0
    mujoco.mj_kinematics(model, data)
    up = data.xmat[root].reshape(3, 3)[2].copy()  # the world's z in the body's frame
    out = Traces(*(np.zeros((len(qpos), n)) for n in (model.nu, model.nu, len(joints))), *np.zeros((2, len(qpos))))
    for i in range(len(qpos)):
        data.qpos[:], data.qvel[:], data.ctrl[:] = qpos[i], qvel[i], ctrl[i]
        mujoco.mj_forward(model, data)
        out.force[i], out.speed[i] = data.actuator_force, data.actuator_velocity
        out.joint_speed[i] = np.abs(data.qvel[joints])
        out.height[i] = data.xpos[root, 2]
        out.tilt[i] = np.degrees(np.arccos(np.clip(data.xmat[root].reshape(3, 3)[2] @ up, -1, 1)))
    return out


def root_body(model: mujoco.MjModel) -> int:
    """The body of the first joint: the one that carries the robot through the world."""
    return int(model.jnt_bodyid[0])


def can_fall(model: mujoco.MjModel) -> bool:
    """Whether the root body can both travel and turn: a free joint, or slides and hinges together."""
    kinds = {int(k) for k, body in zip(model.jnt_type, model.jnt_bodyid) if body == root_body(model)}
    joint = mujoco.mjtJoint
    turns = kinds & {int(joint.mjJNT_HINGE), int(joint.mjJNT_BALL)}
    return int(joint.mjJNT_FREE) in kinds or (int(joint.mjJNT_SLIDE) in kinds and bool(turns))


def actuated(model: mujoco.MjModel) -> np.ndarray:
    """Velocity addresses [J] of the hinges and slides that an actuator drives."""
    scalar = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
    driven = model.actuator_trnid[model.actuator_trntype == int(mujoco.mjtTrn.mjTRN_JOINT), 0]
    joints = sorted({int(j) for j in driven if model.jnt_type[j] in scalar})
    return model.jnt_dofadr[joints] if joints else np.zeros(0, int)


def force_limits(model: mujoco.MjModel) -> np.ndarray:
    """Largest force [nu] of each actuator: `forcerange`, or what a pure gain makes of `ctrlrange`; else NaN."""
    declared = np.where(model.actuator_forcelimited, np.abs(model.actuator_forcerange).max(1), np.nan)
    fixed = model.actuator_gaintype == int(mujoco.mjtGain.mjGAIN_FIXED)
    plain = fixed & (model.actuator_biastype == int(mujoco.mjtBias.mjBIAS_NONE)) & (model.actuator_ctrllimited == 1)
    gained = np.abs(model.actuator_gainprm[:, 0]) * np.abs(model.actuator_ctrlrange).max(1)
    return np.fmin(declared, np.where(plain, gained, np.nan))


def effort(model: mujoco.MjModel, found: Traces, dt: float, path: float) -> dict[str, float]:
    """Force shares, joint speeds, power and, where the robot covers ground, energy per metre.

    Power is the sum of |force x velocity| over actuators: braking costs as driving does. `dt` s is the time that each
    state stands for, `path` m the length of the way of all of them.
    """
    out: dict[str, float] = {}
    limits = force_limits(model)
    known = np.isfinite(limits)
    if known.any():
        share = np.abs(found.force[:, known]) / limits[known]
        out |= {"force_share_mean": share.mean(), "force_share_max": share.max()}
    if found.joint_speed.size:
        out |= {"joint_speed_mean": found.joint_speed.mean(), "joint_speed_max": found.joint_speed.max()}
    power = np.abs(found.force * found.speed).sum(1)
    out["power_w"] = power.mean()
    if path > 0:
        out["energy_j_m"] = power.sum() * dt / path
    return {k: float(v) for k, v in out.items()}


def falls(
    model: mujoco.MjModel, found: Traces, alive: np.ndarray, max_tilt: float, min_height: float | None
) -> dict[str, float]:
    """Tilt (deg) and falls of the states that `alive` [K, T] keeps, in its order; {} where the root cannot fall.

    A robot has fallen where it tilts by more than `max_tilt` deg or sinks below `min_height` m.
    """
    if not can_fall(model):
        return {}
    fallen = np.zeros(alive.shape, bool)
    fallen[alive] = (found.tilt > max_tilt) | (found.height < (-np.inf if min_height is None else min_height))
    return {
        "tilt_mean_deg": float(found.tilt.mean()),
        "tilt_max_deg": float(found.tilt.max()),
        "fallen_rollouts": float(fallen.any(1).mean()),
        "fallen_steps": float(fallen[alive].mean()),
    }


def action_rate(action: np.ndarray, alive: np.ndarray) -> float:
    """Mean |a_t - a_(t-1)| per step and entry of actions [K, T, A] in [-1, 1], over steps that both count."""
    change = np.abs(np.diff(action, axis=1)).mean(-1)
    both = alive[:, 1:] & alive[:, :-1]
    return float(change[both].mean()) if both.any() else 0.0
