"""Backends held together: the figures themselves, the arm's integrator, and MJX on the Panda and on SkillBench."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.envs.physics import agreement, implicit
from repertoire.envs.physics.mjx import MjxPhysics
from repertoire.envs.physics.native import NativePhysics
from repertoire.envs.types import Start
from repertoire.errors import UserError
from repertoire.scripts import bench_agreement, benchmark, config, elsewhere

#: A servo at its limit, and one that closes two fingers through a tendon: on branches of their own, behind the arm.
HAND = """
<mujoco>
  <compiler angle="radian" autolimits="true"/>
  <option timestep="0.002" integrator="implicitfast"/>
  <default><joint damping="0.5"/><geom contype="0" conaffinity="0" size="0.02" mass="0.2"/></default>
  <worldbody><body name="arm">
    <joint name="arm" axis="0 1 0"/><geom pos="0.3 0 0" mass="2"/>
    <body name="left" pos="0.4 0 0"><joint name="left" type="slide" axis="0 1 0"/><geom/></body>
    <body name="right" pos="0.4 0 0"><joint name="right" type="slide" axis="0 -1 0"/><geom/></body>
  </body><body name="free" pos="1 0 0"><freejoint/><geom/></body></worldbody>
  <tendon><fixed name="opening"><joint joint="left" coef="0.5"/><joint joint="right" coef="0.5"/></fixed></tendon>
  <actuator>
    <position name="arm" joint="arm" kp="400" kv="40" forcerange="-12 12"/>
    <position name="hand" tendon="opening" kp="200" kv="100"/>
  </actuator>
</mujoco>
"""


@pytest.fixture(scope="module")
def hand():
    return mujoco.MjModel.from_xml_string(HAND)


# -- figures ---------------------------------------------------------------------------------------------------------


def test_positions_and_angles_are_told_apart(hand):
    assert agreement.is_position(hand).tolist() == [False, True, True, True, True, True, False, False, False, False]
    one = np.zeros((3, 2, hand.nq))
    other = one.copy()
    other[1, 0, 0], other[2, 1, 4], other[2, 0, 9] = -0.3, 0.02, 0.1
    found = agreement.apart(hand, one, other)
    np.testing.assert_allclose(found["m"], [0.0, 0.0, 0.02])
    np.testing.assert_allclose(found["rad"], [0.0, 0.3, 0.1])


def test_starts_and_controls_are_those_of_random_actions():
    task = registry.make_task("go2")
    start, controls = agreement.drawn(task, 2, 3)
    assert controls.shape == (3, 2, 12) and start.qpos.shape == (2, task.model.nq)
    off = np.abs(np.asarray(controls) - task.default_pose()[7:])
    assert 0.05 < off.max() and np.ptp(np.asarray(controls), axis=(0, 1)).min() > 0.01
    again = agreement.drawn(task, 2, 3)
    np.testing.assert_array_equal(controls, again[1])


# -- the arm's integrator --------------------------------------------------------------------------------------------


def test_axes_are_related_along_the_way_to_the_root(hand):
    free = np.ones((6, 6))
    expected = np.zeros((9, 9))
    expected[:3, :3] = [[1, 1, 1], [1, 1, 0], [1, 0, 1]]  # two fingers of one arm
    expected[3:, 3:] = free
    np.testing.assert_array_equal(implicit.related(hand), expected)
    assert implicit.uses(hand) and not implicit.uses(registry.make_task("point").model)


def test_a_servo_at_its_limit_and_two_fingers_move_on_mjx_as_on_native(hand):
    """In float64, to what `native` tells in float32. By MJX's own integrator they are 39 mrad and 0.035 mm apart."""
    start = Start(qpos=jnp.asarray(hand.qpos0, jnp.float32)[None], qvel=jnp.zeros((1, hand.nv)), overrides={})
    controls = jnp.asarray([[[0.5, 0.02]], [[-0.5, 0.0]]], jnp.float32)
    with jax.enable_x64(True):
        one, other = (agreement.motion(p(hand), start, controls, 20).qpos for p in (NativePhysics, MjxPhysics))
    assert np.abs(one[-1, 0, :3]).min() > 1e-3
    np.testing.assert_allclose(one, other, atol=1e-6)
