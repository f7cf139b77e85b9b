"""Robots against what is published of them: masses, limits, orders, and that they stand under their own gains."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from mujoco.batch import Batch

from repertoire.envs import registry


@pytest.fixture(scope="module")
def go2():
    return registry.make_task("go2").model


def joint_names(model):
    return [model.joint(i).name for i in range(1, model.njnt)]


def settle(model, seconds):
    """MjData after `seconds` from the keyframe under its targets, and the heights of the root along the way."""
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    heights = []
    while data.time < seconds:
        mujoco.mj_step(model, data)
        heights.append(data.qpos[2])
    return data, np.asarray(heights)


# -- Go2: unitree_ros, robots/go2_description/urdf/go2_description.urdf (2024) and the data sheet ---------------------


def test_go2_weighs_what_the_data_sheet_says(go2):
    """15 kg with battery; in the description: 6.921 + 2 * 0.001 trunk and head, 4 legs of 0.678, 1.152, 0.154, 0.04."""
    assert go2.body_mass.sum() == pytest.approx(6.923 + 4 * (0.678 + 1.152 + 0.154 + 0.04), abs=1e-6)
    assert go2.body_mass.sum() == pytest.approx(15.0, abs=0.1)


def test_go2_has_the_motors_of_the_sdk_in_their_order(go2):
    legs, parts = ("FR", "FL", "RR", "RL"), ("hip", "thigh", "calf")
    assert joint_names(go2) == [f"{leg}_{part}_joint" for leg in legs for part in parts]
    np.testing.assert_array_equal(go2.actuator_trnid[:, 0], np.arange(1, 13))


def test_go2_has_the_published_limits(go2):
    torque = np.tile([23.7, 23.7, 45.43], 4)
    np.testing.assert_allclose(go2.actuator_forcerange, np.stack([-torque, torque], axis=1))
    front, rear = (-1.5708, 3.4907), (-0.5236, 4.5379)
    hip, calf = (-1.0472, 1.0472), (-2.7227, -0.83776)
    expected = [r for thigh in (front, front, rear, rear) for r in (hip, thigh, calf)]
    np.testing.assert_allclose(go2.jnt_range[1:], expected)
    np.testing.assert_allclose(go2.actuator_ctrlrange, expected)


def test_go2_legs_have_the_published_lengths(go2):
    """Thigh and calf of 0.213 m, hips 0.1934 m ahead and 0.0465 + 0.0955 m to the side."""
    data = mujoco.MjData(go2)
    mujoco.mj_forward(go2, data)
    hip, thigh, calf, foot = (data.body("FL_hip").xpos, data.body("FL_thigh").xpos, data.body("FL_calf").xpos,
                              data.site("FL_foot").xpos)  # fmt: skip
    np.testing.assert_allclose(hip - data.body("base").xpos, [0.1934, 0.0465, 0], atol=1e-9)
    assert np.linalg.norm(thigh - hip) == pytest.approx(0.0955)
    assert np.linalg.norm(calf - thigh) == pytest.approx(0.213)
    assert np.linalg.norm(foot - calf) == pytest.approx(0.213, abs=1e-4)


def test_go2_is_symmetric(go2):
    """Left and right legs mirror each other in the xz plane: masses, centres, inertia tensors in the link frame."""

    def link(name):
        i = go2.body(name).id
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, go2.body_iquat[i])
        r = rotation.reshape(3, 3)
        return go2.body_ipos[i], r @ np.diag(go2.body_inertia[i]) @ r.T

    mirror = np.diag([1.0, -1.0, 1.0])
    for end in ("F", "R"):
        for part in ("hip", "thigh", "calf"):
            (left, left_inertia), (right, right_inertia) = link(f"{end}L_{part}"), link(f"{end}R_{part}")
            np.testing.assert_allclose(mirror @ left, right, atol=1e-9)
            np.testing.assert_allclose(mirror @ left_inertia @ mirror, right_inertia, atol=1e-9)


def test_go2_stands_for_five_seconds(go2):
    data, heights = settle(go2, 5.0)
    assert (heights[250:] > 0.22).all() and heights.max() < 0.30  # 0.287 m on legs that do not give way
    assert abs(data.qpos[3]) > 0.99 and np.abs(data.qvel).max() < 0.05
    touching = {go2.geom(g).name for pair in data.contact.geom for g in pair} - {"floor"}
    assert touching == {"FR_foot", "FL_foot", "RR_foot", "RL_foot"}
    weight = 9.81 * go2.body_mass.sum()
    forces = np.zeros((data.ncon, 6))
    for i in range(data.ncon):
        mujoco.mj_contactForce(go2, data, i, forces[i])
    assert forces[:, 0].sum() == pytest.approx(weight, rel=0.02)


def test_go2_motors_never_exceed_their_limits(go2):
    data = mujoco.MjData(go2)
    mujoco.mj_resetDataKeyframe(go2, data, 0)
    rng, largest = np.random.default_rng(0), np.zeros(12)
    low, high = go2.actuator_ctrlrange.T
    for _ in range(100):
        data.ctrl[:] = rng.uniform(low, high)
        mujoco.mj_step(go2, data, nstep=5)
        largest = np.maximum(largest, np.abs(data.actuator_force))
    limits = np.tile([23.7, 23.7, 45.43], 4)
    assert (largest <= limits + 1e-9).all() and (largest > 0.7 * limits).all()


# -- all -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["go2", "g1", "h1"])
def test_no_target_makes_a_robot_explode(name):
    """Targets drawn from all of the joints' ranges, with 30 % more damping than the servos have: 2 s in 16 worlds."""
    task = registry.make_task(name)
    model = task.build()
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    model.actuator_biasprm[:, 2] *= 1.3
    batch, rng = Batch(model, 16, 0), np.random.default_rng(0)
    batch.reset()
    batch.bind("qpos")[:] = model.key_qpos[0]
    low, high = model.actuator_ctrlrange.T
    for _ in range(100):
        batch.bind("ctrl")[:] = rng.uniform(low, high, (16, model.nu))
        batch.step(nstep=task.substeps)
    assert np.abs(batch.bind("qvel")).max() < 200  # rad/s, m/s; NaN compares false
