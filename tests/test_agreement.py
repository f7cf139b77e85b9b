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
from repertoire.envs.task import Task
from repertoire.envs.tasks import skillbench
from repertoire.envs.tasks.panda import kinematics
from repertoire.envs.tasks.panda.furniture import HALF
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
    assert off.max() > 0.05 and np.ptp(np.asarray(controls), axis=(0, 1)).min() > 0.01
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


@pytest.mark.slow
def test_a_servo_at_its_limit_and_two_fingers_move_on_mjx_as_on_native(hand):
    """In float64, to what `native` tells in float32. By MJX's own integrator they are 39 mrad and 0.035 mm apart."""
    start = Start(qpos=jnp.asarray(hand.qpos0, jnp.float32)[None], qvel=jnp.zeros((1, hand.nv)), overrides={})
    controls = jnp.asarray([[[0.5, 0.02]], [[-0.5, 0.0]]], jnp.float32)
    with jax.enable_x64(True):
        one, other = (agreement.motion(p(hand), start, controls, 20).qpos for p in (NativePhysics, MjxPhysics))
    assert np.abs(one[-1, 0, :3]).min() > 1e-3
    np.testing.assert_allclose(one, other, atol=1e-6)


# -- whole models ----------------------------------------------------------------------------------------------------

#: Env -> simulated time, s; largest difference of qpos, m and rad; velocities of joints at the start, m/s and rad/s.
#: A cube that slides over a table hops a little, and strikes it again with an edge: 0.12 mm and 1.3e-3 were measured.
MOVING = {
    "panda_reach": (0.2, 1e-4, {}),
    "panda_scene": (0.1, 1e-4, {"cube": (0.3, 0.1), "drawer": (0.2,), "button": (-0.1,)}),
    "h1_button": (0.1, 1e-4, {}),
    "h1_cabinet": (0.1, 1e-4, {"left_door": (-1.0,), "right_door": (1.0,)}),
    "h1_ball": (0.1, 1e-4, {"object": (1.0, 0.5, 0, 0, 10.0, 0)}),
    "h1_box": (0.1, 5e-3, {"object": (0.1, 0.05, 0, 0, 0, 0.3)}),
    "h1_transfer": (0.1, 5e-3, {"object": (0.1, 0.05, 0, 0, 0, 0.3)}),
    "h1_lift": (0.1, 1e-4, {"object": (0.1, 0.05, 0, 0, 0, 0.3)}),
}
#: Env -> the env in `MOVING`, or the robot in `test_humanoids.py`, that has its model.
SAME = {"h1_carry": "h1_lift", "h1_far_reach": "h1"}
#: So far do things start in what they stand on, m: at rounding's distance one backend may see them a substep later, and
#: from deeper they hop. (A cube that slides at 0.3 m/s strikes with its edges: up to 0.9 mm and 0.01 apart in 0.1 s.)
SUNK = 3e-5


def begun(task: Task, rates: dict[str, tuple[float, ...]], steps: int) -> tuple[Start, Any, list[int]]:
    """Two worlds in motion: start, controls, and where the moving joints are in qpos."""
    start, controls = agreement.drawn(task, 2, steps)
    qpos, qvel, places = np.array(start.qpos), np.array(start.qvel), []
    for joint, rate in rates.items():
        found = task.model.joint(joint)
        places.append(int(found.qposadr[0]))
        qvel[:, int(found.dofadr[0]) :][:, : len(rate)] = rate
        if found.type[0] == mujoco.mjtJoint.mjJNT_FREE:
            qpos[:, places[-1] + 2] -= SUNK
    return start.replace(qpos=jnp.asarray(qpos), qvel=jnp.asarray(qvel)), controls, places


def gripped(task: Task, start: Start, controls: Any) -> tuple[Start, Any]:
    """The drawer is unlocked; in the second world the hand closes on the cube in the air."""
    cube = slice(*(int(task.model.joint("cube").qposadr[0]) + i for i in (0, 7)))
    hand = kinematics.forward(start.qpos[1, :7])
    qpos = start.qpos.at[1, 7:9].set(HALF - SUNK).at[1, cube].set(jnp.asarray([*hand.position, 0, 1, 0, 0]))
    return start.replace(qpos=qpos), controls.at[:, 1, 7].set(0.0).at[..., 8].set(0.0)


def test_every_scene_is_compared() -> None:
    """By itself or in another env of the same model; on the H1, which compiles faster than the G1."""
    scenes = {task.name for task in skillbench.TASKS if task.name.startswith("h1")}
    assert scenes == {*SAME, *MOVING} - {"panda_reach", "panda_scene"}
    for pair in SAME.items():
        one, other = (registry.make_task(name).model for name in pair)
        for field in ("body_mass", "geom_size", "geom_pos", "geom_friction", "geom_condim", "actuator_gainprm"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.slow
@pytest.mark.parametrize("name", MOVING)
def test_native_and_mjx_agree_on_what_is_handled(name: str) -> None:
    """Random actions while the objects move, in float64, with the env's own friction cones.

    For 0.04 s to 5e-5, where 3e-7 was measured: contacts stretch the rounding of two programs, which is another on
    other processors. Then to what `MOVING` says.
    """
    task = registry.make_task(name, **({"reset_noise": 0.0, "vary_size": 0.0} if name == "panda_scene" else {}))
    seconds, tolerance, rates = MOVING[name]
    period = task.substeps * task.model.opt.timestep
    start, controls, places = begun(task, rates, round(seconds / period))
    if name == "panda_scene":
        start, controls = gripped(task, start, controls)
    with jax.enable_x64(True):
        one, other = (
            agreement.motion(p(task.model), start, controls, task.substeps).qpos for p in (NativePhysics, MjxPhysics)
        )
    moved = np.abs(one - one[0]).max((0, 1))
    assert moved.max() > 0.01 and (moved[places] > 5e-4).all()
    near = 1 + max(1, round(0.04 / period))
    np.testing.assert_allclose(one[:near], other[:near], atol=5e-5)
    np.testing.assert_allclose(one, other, atol=tolerance)


# -- rows ------------------------------------------------------------------------------------------------------------


def shifted(monkeypatch: pytest.MonkeyPatch, by: dict[int, float]) -> None:
    """Physics of `point` that stays at rest, on all backends but native `by[cone]` m aside after the second step."""

    def motion(physics: Any, start: Start, controls: Any, substeps: int) -> agreement.Motion:
        qpos = np.zeros((1 + len(controls), 2, physics.model.nq))
        if physics.name != "native":
            qpos[2:] += by[int(physics.model.opt.cone)]
        return agreement.Motion(qpos, 1.5)

    monkeypatch.setattr(agreement, "motion", motion)


PYRAMIDAL, ELLIPTIC = (int(c) for c in (mujoco.mjtCone.mjCONE_PYRAMIDAL, mujoco.mjtCone.mjCONE_ELLIPTIC))


@pytest.mark.parametrize(
    ("by", "position", "agrees", "holds", "note"),
    [
        ({PYRAMIDAL: 5e-4}, 5e-4, "yes", 0.3, ""),
        ({PYRAMIDAL: 0.5, ELLIPTIC: 0.0}, 0.0, "yes", 0.3, "with elliptic friction cones; as the env has them 5.0e-01"),
        ({PYRAMIDAL: 0.5, ELLIPTIC: 2e-3}, 2e-3, "NO", 0.1, "with elliptic friction cones"),
        ({PYRAMIDAL: np.nan, ELLIPTIC: np.nan}, np.nan, "NO", 0.1, "with elliptic friction cones"),
    ],
)
def test_a_row_says_how_far_apart_and_until_when(
    by: dict[int, float], position: float, agrees: str, holds: float, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted(monkeypatch, by)
    row = bench_agreement.row("point", {}, "mjx", 0.3)
    assert row["position_m"] == pytest.approx(position, nan_ok=True) and row["angle_rad"] == 0.0
    assert (row["agrees"], row["holds_s"], row["seconds"]) == (agrees, pytest.approx(holds), pytest.approx(0.3))
    assert row["note"].startswith(note) and bool(row["note"]) == bool(note)


def test_what_a_backend_cannot_hold_is_said_in_one_line() -> None:
    with pytest.raises(UserError, match="physics=mjx cannot hold this model"):
        bench_agreement.row("humanoid", {"dynamics": "reference"}, "mjx", 0.2)
    with pytest.raises(UserError, match="did you mean 'mjx'"):
        bench_agreement.row("point", {}, "mjy", 0.2)


def test_rows_come_from_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, said = [], {"point": {"seconds": 0.2, "agrees": "yes", "note": ""}, "ant": "not done after 9 s"}
    monkeypatch.setattr(bench_agreement, "here", lambda: ["mjx"])
    monkeypatch.setattr(elsewhere, "ask", lambda *what: asked.append(what) or said[what[1][0]])
    cfg = config.compose("benchmark", ["rows=[agreement]", "envs=[point,ant,point]", "rival_limit=9"])
    table = benchmark.measure("agreement", cfg)
    point, ant = json.loads(json.dumps(table))["rows"]
    assert [what[1:] for what in asked] == [([name, {}, "mjx", 0.2], 9, "cpu") for name in ("point", "ant")]
    assert (point["agrees"], point["position_m"], ant["agrees"]) == ("yes", None, None)
    assert ant["note"] == "not done after 9 s" and point.keys() == ant.keys()
    benchmark.show(table, benchmark.GROUPS["agreement"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"names": ["pont"]}, "did you mean 'point'"),
        ({"names": ["brax"]}, "brings its own physics"),
        ({"names": ["point"], "options": {"dis": True}}, "did you mean 'disc'"),
        ({"seconds": 0.0}, "seconds and rival_limit must be positive"),
        ({"limit_s": 0.0}, "seconds and rival_limit must be positive"),
    ],
)
def test_bad_input_is_answered_before_anything_runs(
    wrong: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "ask", lambda *_: pytest.fail("asked"))
    with pytest.raises(UserError, match=message):
        bench_agreement.measure(**wrong)


def test_options_of_the_env_are_told_one_by_one() -> None:
    cfg = config.compose("benchmark", ["envs=[point]", "env_options.disc=true", "seconds=1"])
    assert cfg["env_options"] == {"disc": True} and cfg["seconds"] == 1


@pytest.mark.slow
def test_a_user_finds_that_native_and_mjx_agree_on_the_point() -> None:
    rows = bench_agreement.measure(["point"], {"disc": True}, 0.2, 200.0)["rows"]
    (row,) = [r for r in rows if r["backend"] == "mjx"]
    assert row["agrees"] == "yes" and row["compile_s"] > 0, row["note"]
