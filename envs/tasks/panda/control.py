"""What an action means: changes of the hand's pose or of the joints, as targets of the joint servos.

Targets live in the task's memory. They never run further from the arm than a leash, so an arm that is held back does
not wind up, and joint targets move no faster than the vendor's speed limits, unless (`joint`) the leash pulls them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from repertoire.envs.tasks.panda import kinematics
from repertoire.envs.types import Array

DT = 0.05  # s per control step
#: What an action of 1 adds to a target per step: m, rad, m per finger (the hand's speed limit is 0.2 m/s).
MOVE, TURN, GRIP = 0.05, 0.3, 0.01
OPEN = 0.04  # m per finger
#: Where the tool centre point may be sent, m.
WORKSPACE = np.array([0.28, -0.36, 0.0]), np.array([0.62, 0.36, 0.4])
LEASH, LEASH_TURN, LEASH_STEPS = 0.1, 0.5, 3.0  # m, sine of an angle, steps of a joint
JOINT_STEP = kinematics.JOINT_SPEED * DT  # rad
FINGERS = "finger_joint1", "finger_joint2"
#: What a contract says of `describe`.
NOTE = "`ctrl` of the graph changes targets; these, as joint angles (rad) and opening (m per finger), are commanded"
#: The tool centre point at (0.45, 0, 0.25), fingers down.
HOME = np.array([0.0, -0.18483, 0.0, -2.49674, 0.0, 2.31191, np.pi / 4])


@struct.dataclass
class Targets:
    """Where the arm was last sent."""

    joints: Array  # [7] rad
    position: Array  # [3] m, of the tool centre point
    rotation: Array  # [3, 3] of the hand
    opening: Array  # [] m per finger


class Mode(NamedTuple):
    """A control mode: a name and the step (m, rad) at action 1 for each entry of the action; the last is the hand's."""

    names: tuple[str, ...]
    steps: tuple[float, ...]


_XYZ, _TURNS = ("x", "y", "z"), ("turn_x", "turn_y", "turn_z")
MODES = {
    "ee_delta": Mode((*_XYZ, "gripper"), (*[MOVE] * 3, GRIP)),
    "ee_pose": Mode((*_XYZ, *_TURNS, "gripper"), (*[MOVE] * 3, *[TURN] * 3, GRIP)),
    "joint": Mode((*[f"joint{i}" for i in range(1, 8)], "gripper"), (*map(float, JOINT_STEP), GRIP)),
}


def start(q: Array, opening: Array) -> Targets:
    """Stay at joint angles `q` [7], but with the fingers down, and at `opening` [] m per finger."""
    return Targets(
        joints=q,
        position=kinematics.forward(q).position,
        rotation=jnp.asarray(kinematics.DOWN, jnp.float32),
        opening=opening,
    )


def follow(mode: str, targets: Targets, action: Array, q: Array) -> Targets:
    """Targets after `action` in [-1, 1] (see `MODES`) of an arm at joint angles `q` [7]."""
    step = action * np.asarray(MODES[mode].steps, np.float32)
    opening = jnp.clip(targets.opening + step[-1], 0.0, OPEN)
    if mode == "joint":
        joints = _leashed_joints(targets.joints + step[:-1], q)
        chain = kinematics.forward(joints)
        return Targets(joints, chain.position, chain.rotation, opening)
    here = kinematics.forward(q)
    position, rotation = _near(targets.position + step[:3], here.position), targets.rotation
    if mode == "ee_pose":
        new = kinematics.turned(rotation, step[3:6])
        lag = jnp.linalg.norm(kinematics.rotation_error(new, here.rotation))
        rotation = jnp.where(lag < LEASH_TURN, new, rotation)
    joints = kinematics.solve(targets.joints, position, rotation, jnp.asarray(HOME, jnp.float32))
    return Targets(_slowed(targets.joints, joints), position, rotation, opening)


def lag(mode: str, targets: Targets, q: Array, opening: Array) -> Array:
    """How far the arm at `q` [7], `opening` [] is behind its targets, one entry per entry of the action."""
    last = (targets.opening - opening)[None]
    if mode == "joint":
        return jnp.concatenate([targets.joints - q, last])
    here = kinematics.forward(q)
    parts = [targets.position - here.position]
    if mode == "ee_pose":
        parts.append(kinematics.rotation_error(targets.rotation, here.rotation))
    return jnp.concatenate([*parts, last])


def describe(mode: str, opening: float) -> dict[str, Any]:
    """`follow`, `lag` and `start` at `opening` (m per finger) as data: `drive` of an export's contract."""
    chain = {
        "joints": list(MODES["joint"].names[:-1]),
        "tilts": kinematics.TILTS.tolist(),
        "offsets": kinematics.OFFSETS.tolist(),
        "tool_offset": [0.0, 0.0, kinematics.FLANGE + kinematics.TCP],
        "tool_turn": np.asarray(kinematics.about_z(jnp.float32(kinematics.HAND_TURN))).tolist(),
    }
    limits = {"low": kinematics.JOINT_LOW, "high": kinematics.JOINT_HIGH, "step": JOINT_STEP}
    return {
        "mode": mode,
        "actuators": list(MODES["joint"].names),
        "note": NOTE,
        "chain": chain,
        "limits": {k: v.tolist() for k, v in limits.items()},
        "solver": {
            "iterations": kinematics.STEPS,
            "damping": kinematics.DAMPING,
            "rest": HOME.tolist(),
            "rest_gain": kinematics.REST_GAIN,
        },
        "targets": {
            "rotation": kinematics.DOWN.tolist(),
            "workspace": [corner.tolist() for corner in WORKSPACE],
            "leash": LEASH,
            "leash_turn": LEASH_TURN,
            "leash_steps": LEASH_STEPS,
        },
        "gripper": {"joints": list(FINGERS), "low": 0.0, "high": OPEN, "start": opening},
    }


def _near(position: Array, here: Array) -> Array:
    """`position` [3] in the workspace and within the leash of `here` [3]."""
    offset = jnp.clip(position, *WORKSPACE) - here
    length = jnp.sqrt(jnp.sum(offset**2) + 1e-12)
    return here + offset * jnp.minimum(1.0, LEASH / length)


def _slowed(old: Array, new: Array) -> Array:
    """As far from `old` [7] to `new` [7] as the joints' speeds allow, all by the same share: the hand stays upright."""
    return old + (new - old) / jnp.maximum(1.0, jnp.max(jnp.abs(new - old) / JOINT_STEP))


def _leashed_joints(joints: Array, q: Array) -> Array:
    """`joints` [7] within their limits and `LEASH_STEPS` steps of `q` [7]."""
    reach = LEASH_STEPS * JOINT_STEP
    near = jnp.clip(joints, q - reach, q + reach)
    return jnp.clip(near, kinematics.JOINT_LOW, kinematics.JOINT_HIGH)
