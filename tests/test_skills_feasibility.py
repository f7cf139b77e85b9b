"""Effort, energy, tilt and falls of states whose mechanics are known by hand."""

import mujoco
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.skills import feasibility as fe

HINGE = """<mujoco><option gravity="0 0 0"/><worldbody><body><joint name="h" axis="0 1 0"/>
<geom size="0.1" mass="1"/></body></worldbody><actuator>{}</actuator></mujoco>"""
BOX = """<mujoco><worldbody><body pos="0 0 1" quat="1 1 0 0"><freejoint/><geom type="box" size=".1 .1 .1"/></body>
</worldbody></mujoco>"""


def hinge(actuator):
    return mujoco.MjModel.from_xml_string(HINGE.format(actuator))


def test_effort_of_a_geared_motor_by_hand():
    model = hinge('<motor joint="h" gear="2" ctrlrange="-3 3" ctrllimited="true"/>')
    ctrl, qvel = np.array([[1.5], [-3.0], [9.0]]), np.array([[4.0], [-1.0], [0.0]])  # the last one is clipped to 3
    found = fe.traces(model, np.zeros((3, 1)), qvel, ctrl)
    np.testing.assert_allclose(found.force[:, 0], [1.5, -3.0, 3.0])
    effort = fe.effort(model, found, dt=0.1, path=6.0)
    assert effort["force_share_mean"] == pytest.approx((0.5 + 1 + 1) / 3) and effort["force_share_max"] == 1.0
    assert effort["joint_speed_mean"] == pytest.approx(5 / 3) and effort["joint_speed_max"] == 4.0
    assert effort["power_w"] == pytest.approx((1.5 * 8 + 3 * 2) / 3)  # torque 2 x force at the joint
    assert effort["energy_j_m"] == pytest.approx((12 + 6) * 0.1 / 6)
    assert "energy_j_m" not in fe.effort(model, found, dt=0.1, path=0.0)


def test_limits_of_actuators():
    position = hinge('<position joint="h" kp="10" forcerange="-5 4" forcelimited="true"/>')
    assert fe.force_limits(position)[0] == 5.0
    found = fe.traces(position, np.array([[0.1]]), np.zeros((1, 1)), np.array([[0.3]]))
    assert fe.effort(position, found, 0.1, 0.0)["force_share_mean"] == pytest.approx(2 / 5)
    free = hinge('<velocity joint="h" kv="10"/>')
    assert np.isnan(fe.force_limits(free)[0])
    found = fe.traces(free, np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1)))
    assert not [k for k in fe.effort(free, found, 0.1, 0.0) if "force" in k]
    np.testing.assert_allclose(fe.force_limits(registry.make_task("ant").model), 1.0)


def box(quaternions, heights):
    model = mujoco.MjModel.from_xml_string(BOX)
    qpos = np.zeros((len(quaternions), 7))
    qpos[:, 2], qpos[:, 3:] = heights, quaternions
    return model, fe.traces(model, qpos, np.zeros((len(qpos), 6)), np.zeros((len(qpos), 0)))


def test_tilt_is_counted_from_the_pose_at_rest():
    s = np.sqrt(0.5)  # at rest the box is turned by 90 deg about x
    _, found = box([(s, s, 0, 0), (1, 0, 0, 0), (s, -s, 0, 0), (s * s, s * s, s * s, s * s)], 1.0)
    np.testing.assert_allclose(found.tilt, [0, 90, 180, 0], atol=1e-4)  # the last one turned about the world's z
    np.testing.assert_allclose(found.height, 1.0)


def test_falls_by_tilt_and_by_height():
    s = np.sqrt(0.5)
    upright, over = (s, s, 0, 0), (s, -s, 0, 0)
    model, found = box([upright, over, upright, upright, upright], [1, 1, 1, 1, 0.2])
    alive = np.array([[True, True, True], [True, True, False]])
    by_tilt = fe.falls(model, found, alive, 90.0, None)
    assert by_tilt["fallen_rollouts"] == 0.5 and by_tilt["fallen_steps"] == pytest.approx(1 / 5)
    assert by_tilt["tilt_max_deg"] == pytest.approx(180) and by_tilt["tilt_mean_deg"] == pytest.approx(36)
    both = fe.falls(model, found, alive, 90.0, 0.5)
    assert both["fallen_rollouts"] == 1.0 and both["fallen_steps"] == pytest.approx(2 / 5)


@pytest.mark.parametrize("name", ["ant", "half_cheetah", "hopper", "walker2d", "humanoid"])
def test_robots_stand_upright_at_rest(name):
    task = registry.make_task(name)
    model = task.model
    assert fe.can_fall(model)
    rest = fe.traces(model, model.qpos0[None], np.zeros((1, model.nv)), np.zeros((1, model.nu)))
    found = fe.falls(model, rest, np.ones((1, 1), bool), task.fall_tilt_deg, task.fall_height_m)
    assert found["tilt_max_deg"] == pytest.approx(0, abs=1e-4) and found["fallen_steps"] == 0


def test_what_cannot_fall_has_no_such_figures():
    point = registry.make_task("point").model
    found = fe.traces(point, np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)))
    assert fe.falls(point, found, np.ones((1, 1), bool), 90.0, None) == {}


def test_action_rate_leaves_out_what_follows_the_end():
    action = np.array([[[0.0, 0.0], [1.0, 0.5], [1.0, 0.5], [-1.0, -1.0]]])
    assert fe.action_rate(action, np.array([[True, True, True, False]])) == pytest.approx((0.75 + 0.0) / 2)
    assert fe.action_rate(action[:, :1], np.ones((1, 1), bool)) == 0.0
