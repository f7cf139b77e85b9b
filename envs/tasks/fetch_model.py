"""The four scenes of Fetch: numbers, models, and the start that their episodes share."""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

from repertoire.envs.tasks import farama, mjcf_model

FINGERS = ("robot0:r_gripper_finger_joint", "robot0:l_gripper_finger_joint")
#: The hand's quaternion, not normalised: added to the present one, as the original does.
DOWN = (1.0, 0.0, 1.0, 0.0)
#: From the hand's place in the file to where it starts, m.
TO_START = np.array([-0.498, 0.005, -0.431])
#: Where the robot stands, y, m.
BASE_Y = 0.48


class Scene(NamedTuple):
    """What differs between the four envs, lengths in m."""

    file: str
    base: float  # where the robot stands, x
    raised: float  # the hand's height over the others' at the start
    object: tuple[float, float, float] | None = None
    near: float = 0.15  # half-width of the square around the hand in which the object starts
    goals: float = 0.15  # half-width of the square of goals
    ahead: float = 0.0  # how far that lies ahead of the hand
    grips: bool = False  # whether the fingers move; goals are then in the air for half of the episodes


SCENES = {
    "FetchReach": Scene("reach.xml", 0.4049, 0.2),
    "FetchPush": Scene("push.xml", 0.405, 0.0, (1.25, 0.53, 0.4)),
    "FetchSlide": Scene("slide.xml", 0.05, -0.02, (1.7, 1.1, 0.41), near=0.1, goals=0.3, ahead=0.4),
    "FetchPickAndPlace": Scene("pick_and_place.xml", 0.405, 0.2, (1.25, 0.53, 0.4), grips=True),
}
IDS = tuple(f"{name}{kind}-v4" for name in SCENES for kind in ("", "Dense"))


class Settled(NamedTuple):
    """The start that all episodes share: qpos, qvel, where the hand is [3] and how high the object lies, m."""

    qpos: np.ndarray
    qvel: np.ndarray
    hand: np.ndarray
    height: float


def build(scene: Scene) -> mujoco.MjModel:
    """The package's model, with sensors for what is seen and a camera; the weld holds the hand to the mocap body."""
    file = farama.asset("fetch", f"fetch/{scene.file}")
    spec = mjcf_model.load(file)
    site, body, kind = mujoco.mjtObj.mjOBJ_SITE, mujoco.mjtObj.mjOBJ_XBODY, mujoco.mjtSensor
    seen = [
        ("grip_position", kind.mjSENS_FRAMEPOS, site, "robot0:grip"),
        ("grip_velocity", kind.mjSENS_FRAMELINVEL, site, "robot0:grip"),
        ("hand", kind.mjSENS_FRAMEPOS, body, "robot0:gripper_link"),
        ("hand_quat", kind.mjSENS_FRAMEQUAT, body, "robot0:gripper_link"),
    ]
    if scene.object is not None:
        seen += [
            ("object_position", kind.mjSENS_FRAMEPOS, site, "object0"),
            ("object_quat", kind.mjSENS_FRAMEQUAT, site, "object0"),
            ("object_velocity", kind.mjSENS_FRAMELINVEL, site, "object0"),
            ("object_spin", kind.mjSENS_FRAMEANGVEL, site, "object0"),
        ]
    for name, what, of, target in seen:
        spec.add_sensor(name=name, type=what, objtype=of, objname=target)
    watch = mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY
    spec.worldbody.add_camera(name="side", pos=[2.2, -0.6, 1.3], mode=watch, targetbody="table0")
    model = mjcf_model.compiled(file, spec)
    model.eq_data[model.eq_type == int(mujoco.mjtEq.mjEQ_WELD), :7] = [0, 0, 0, 0, 0, 0, 1]  # no offset
    return model


def settle(model: mujoco.MjModel, scene: Scene, substeps: int) -> Settled:
    """Pull the hand to its start for ten control steps, as the original does when it is made."""
    data = mujoco.MjData(model)
    data.joint("robot0:slide0").qpos, data.joint("robot0:slide1").qpos = scene.base, BASE_Y
    if scene.object is not None:
        data.joint("object0:joint").qpos = [*scene.object, 1, 0, 0, 0]
    mujoco.mj_forward(model, data)
    data.mocap_pos[0] = data.site("robot0:grip").xpos + TO_START + [0, 0, scene.raised]
    data.mocap_quat[0] = DOWN
    mujoco.mj_step(model, data, nstep=10 * substeps)
    height = 0.0 if scene.object is None else float(data.site("object0").xpos[2])
    return Settled(data.qpos.copy(), data.qvel.copy(), data.site("robot0:grip").xpos.copy(), height)
