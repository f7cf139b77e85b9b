"""The Panda on its table: published numbers, kinematics, control, tasks by hand numbers, scripts that solve them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.envs.physics.native import NativePhysics
from repertoire.envs.tasks.panda import control, furniture, kinematics, script
from repertoire.errors import UserError

#: Compile fast, run slowly.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
HOME = jnp.asarray(control.HOME, jnp.float32)
DOWN = jnp.asarray(kinematics.DOWN, jnp.float32)
#: The posture that the vendor calls ready, and where MoveIt's panda demo puts the flange then.
READY = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])
READY_FLANGE = (0.306891, 0.0, 0.590282)

_forward = jax.jit(kinematics.forward)
_solve = jax.jit(kinematics.solve, static_argnums=4)


@functools.cache
def env_of(name, **options):
    return registry.make(name, "native", **options)


def quick(function):
    return jax.jit(function, compiler_options=QUICK)


# -- the model against published numbers ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return registry.make_task("panda_reach").model


def test_masses_are_the_published_ones(model):
    """Gaz et al. 2019 (links 1-7), the vendor's franka_description (link 0, hand, fingers); vendor: about 18 kg."""
    published = [0.629769, 4.970684, 0.646926, 3.228604, 3.587895, 1.225946, 1.666555, 0.735522, 0.73, 0.015, 0.015]
    names = [*(f"link{i}" for i in range(8)), "hand", "left_finger", "right_finger"]
    np.testing.assert_allclose([model.body(n).mass[0] for n in names], published, atol=1e-9)
    assert float(model.body_mass.sum()) == pytest.approx(17.45, abs=0.01)
    assert float(model.body_mass.sum()) == pytest.approx(18.0, rel=0.05)


def test_limits_are_the_published_ones(model):
    """The vendor's "Robot and interface specifications": limits for Panda."""
    joints = [model.joint(f"joint{i}") for i in range(1, 8)]
    low = [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]
    high = [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]
    torque = [87, 87, 87, 87, 12, 12, 12]
    np.testing.assert_array_equal([j.range for j in joints], np.stack([low, high], 1))
    np.testing.assert_array_equal(model.jnt_actfrcrange[[j.id for j in joints], 1], torque)
    np.testing.assert_array_equal(model.actuator_forcerange[:7, 1], torque)
    assert model.jnt_actgravcomp[:7].all()  # so that the limits hold for what carries the arm, too
    np.testing.assert_array_equal(kinematics.JOINT_LOW, low)
    np.testing.assert_array_equal(kinematics.JOINT_HIGH, high)
    np.testing.assert_array_equal(kinematics.JOINT_SPEED, [2.175] * 4 + [2.61] * 3)
    np.testing.assert_array_equal([model.joint(f"finger_joint{i}").range for i in (1, 2)], [[0, 0.04]] * 2)


def test_timing_is_20_hz_over_500_hz():
    spec = registry.make_spec("panda_reach")
    assert (spec.dt, spec.physics_dt) == (pytest.approx(0.05), pytest.approx(0.002)) and spec.dt == control.DT


def test_the_arm_holds_itself_and_an_object_of_a_kilogram(model):
    data = mujoco.MjData(model)
    data.qpos[:9], data.ctrl[:] = [*READY, 0.04, 0.04], [*READY, 0.04]
    mujoco.mj_step(model, data, nstep=500)
    np.testing.assert_allclose(data.qpos[:7], READY, atol=1e-6)
    data.xfrc_applied[model.body("hand").id, 2] = -9.81
    mujoco.mj_step(model, data, nstep=500)
    np.testing.assert_allclose(data.qpos[:7], READY, atol=0.01)


# -- kinematics -----------------------------------------------------------------------------------------------------


def test_the_ready_posture_is_where_the_vendor_says():
    chain = _forward(jnp.asarray(READY, jnp.float32))
    np.testing.assert_allclose(chain.position + np.array([0, 0, kinematics.TCP]), READY_FLANGE, atol=2e-6)
    np.testing.assert_allclose(chain.rotation, DOWN, atol=1e-6)


def test_kinematics_are_those_of_the_model(model):
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    jacobian = jax.jit(lambda q: kinematics.jacobian(kinematics.forward(q)))
    for _ in range(20):
        q = rng.uniform(kinematics.JOINT_LOW, kinematics.JOINT_HIGH).astype(np.float32)
        data.qpos[:7] = q
        mujoco.mj_forward(model, data)
        site, linear, angular = data.site("tcp"), np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jacSite(model, data, linear, angular, model.site("tcp").id)
        chain = _forward(q)
        np.testing.assert_allclose(chain.position, site.xpos, atol=1e-5)
        np.testing.assert_allclose(chain.rotation.ravel(), site.xmat, atol=1e-5)
        np.testing.assert_allclose(jacobian(q), np.concatenate([linear, angular])[:, :7], atol=1e-5)


def test_least_squares_reach_every_corner_of_the_workspace():
    low, high = control.WORKSPACE
    for corner in np.stack(np.meshgrid(*np.stack([low, high], 1)), -1).reshape(-1, 3):
        chain = _forward(_solve(HOME, jnp.asarray(corner, jnp.float32), DOWN, HOME, 60))
        np.testing.assert_allclose(chain.position, corner, atol=2e-3)
        np.testing.assert_allclose(chain.rotation, DOWN, atol=2e-2)


def test_out_of_reach_stays_within_the_limits():
    q = _solve(HOME, jnp.array([2.0, 0.0, 0.5]), DOWN, HOME, 60)
    assert np.isfinite(q).all() and (q >= kinematics.JOINT_LOW).all() and (q <= kinematics.JOINT_HIGH).all()


def test_a_turn_is_the_rotation_that_it_says():
    quarter = kinematics.turned(jnp.eye(3), jnp.array([0.0, 0.0, np.pi / 2]))
    np.testing.assert_allclose(quarter, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6)
    small = kinematics.turned(DOWN, jnp.array([0.01, -0.02, 0.03]))
    np.testing.assert_allclose(kinematics.rotation_error(small, DOWN), [0.01, -0.02, 0.03], atol=1e-4)
    np.testing.assert_allclose(kinematics.turned(DOWN, jnp.zeros(3)), DOWN, atol=1e-6)


# -- control --------------------------------------------------------------------------------------------------------


@functools.cache
def follower(mode):
    return jax.jit(lambda targets, action, q: control.follow(mode, targets, action, q))


def at_home():
    return control.start(HOME, jnp.float32(0.02))


def after(mode, action, steps=3):
    """Targets after `action` and some steps of none, of an arm that follows at once: joints take time to catch up."""
    targets = follower(mode)(at_home(), action, HOME)
    for _ in range(steps):
        targets = follower(mode)(targets, jnp.zeros_like(action), targets.joints)
    return targets


@pytest.mark.parametrize(
    ("mode", "names", "size"),
    [
        ("ee_delta", ("x", "y", "z", "gripper"), 4),
        ("ee_pose", ("x", "turn_z", "gripper"), 7),
        ("joint", ("joint1",), 8),
    ],
)
def test_actions_are_declared(mode, names, size):
    spec = registry.make_spec("panda_reach", control_mode=mode)
    assert spec.action_size == size == len(spec.action_low) and set(names) <= set(spec.action_names)
    assert spec.obs.index("policy", ("lag",)).size == size


def test_home_is_where_it_is_said_to_be():
    chain = _forward(HOME)
    np.testing.assert_allclose(chain.position, [0.45, 0.0, 0.25], atol=1e-4)
    np.testing.assert_allclose(chain.rotation, DOWN, atol=1e-4)


def test_an_action_moves_the_hand_by_five_centimetres():
    targets = at_home()
    for axis in range(3):
        moved = after("ee_delta", -jnp.eye(4)[axis])
        expected = targets.position - 0.05 * jnp.eye(3)[axis]
        np.testing.assert_allclose(moved.position, expected, atol=1e-6)
        chain = _forward(moved.joints)
        np.testing.assert_allclose(chain.position, expected, atol=1e-3)
        np.testing.assert_allclose(chain.rotation, DOWN, atol=1e-2)
    closed = follower("ee_delta")(targets, -jnp.eye(4)[3], HOME)
    assert float(closed.opening) == pytest.approx(0.01)
    np.testing.assert_allclose(closed.joints, HOME, atol=1e-4)


def test_a_pose_action_turns_the_hand():
    turned = after("ee_pose", 0.5 * jnp.eye(7)[5])
    np.testing.assert_allclose(kinematics.rotation_error(turned.rotation, DOWN), [0, 0, np.sin(0.15)], atol=1e-5)
    np.testing.assert_allclose(_forward(turned.joints).rotation, turned.rotation, atol=1e-2)
    np.testing.assert_allclose(_forward(turned.joints).position, at_home().position, atol=1e-3)


def test_a_joint_action_moves_that_joint_at_its_full_speed():
    moved = follower("joint")(at_home(), jnp.eye(8)[4], HOME)
    np.testing.assert_allclose(moved.joints - HOME, [0, 0, 0, 0, 2.61 * 0.05, 0, 0], atol=1e-6)
    np.testing.assert_allclose(moved.position, _forward(moved.joints).position, atol=1e-6)


@pytest.mark.parametrize("mode", control.MODES)
def test_targets_respect_limits_speeds_and_the_leash(mode):
    """Whatever is asked of an arm that does not move."""
    size, rng, targets = len(control.MODES[mode].names), np.random.default_rng(0), at_home()
    hand = _forward(HOME)
    for i in range(60):
        wild = rng.uniform(-1, 1, size) if i < 30 else np.ones(size)
        new = follower(mode)(targets, jnp.asarray(wild, jnp.float32), HOME)
        assert (np.abs(new.joints - targets.joints) <= control.JOINT_STEP * 1.001).all()
        assert (new.joints >= kinematics.JOINT_LOW - 1e-6).all() and (new.joints <= kinematics.JOINT_HIGH + 1e-6).all()
        assert 0.0 <= float(new.opening) <= control.OPEN
        targets = new
    if mode == "joint":
        assert (np.abs(targets.joints - HOME) <= 3 * control.JOINT_STEP + 1e-6).all()
    else:
        assert float(jnp.linalg.norm(targets.position - hand.position)) <= control.LEASH + 1e-6
        assert float(jnp.linalg.norm(kinematics.rotation_error(targets.rotation, hand.rotation))) < control.LEASH_TURN


def test_the_hand_is_not_sent_out_of_the_workspace():
    targets, q = at_home(), HOME
    for _ in range(20):  # an arm that follows at once
        targets = follower("ee_delta")(targets, jnp.array([1.0, 0.0, -1.0, 0.0]), q)
        q = targets.joints
    np.testing.assert_allclose(targets.position, [control.WORKSPACE[1][0], 0.0, control.WORKSPACE[0][2]], atol=1e-5)
    np.testing.assert_allclose(_forward(q).position, targets.position, atol=2e-3)


# -- tasks ----------------------------------------------------------------------------------------------------------


@functools.cache
def begun(name, seed=0, **options):
    """(task, state) at the start of an episode."""
    env = env_of(name, **options)
    return env.task, quick(env.reset)(jax.random.key(seed))


def with_qpos(task, data, **values):
    """`data` with entries of qpos replaced, by joint name."""
    qpos = data.qpos
    for name, value in values.items():
        first, value = int(task.model.joint(name).qposadr[0]), jnp.atleast_1d(jnp.asarray(value, jnp.float32))
        qpos = qpos.at[first : first + len(value)].set(value)
    return data.replace(qpos=qpos)


def with_sensors(task, data, *names):
    """`data` in which exactly the contact sensors `names` found something."""
    found = [float(task.model.sensor(i).name in names) for i in range(task.model.nsensor)]
    return data.replace(sensordata=jnp.array(found))


def test_success_is_within_four_centimetres():
    task, state = begun("panda_pick_place")
    for offset, wanted in ((0.0, 1.0), (0.039, 1.0), (0.041, 0.0)):
        data = with_qpos(task, state.data, cube=state.memory.goal + jnp.array([0.0, offset, 0.0]))
        terms = task.terms(data, data, None, state.memory)
        assert float(terms["success"]) == wanted == float(task.measure(data, state.memory)["success"])
        assert float(terms["goal"]) == pytest.approx(1 - np.tanh(offset / 0.2), abs=1e-5)
        goal = task.observe(data, state.memory)["goal"]
        np.testing.assert_allclose(goal, [0.0, -offset, 0.0], atol=1e-6)


def test_goals_lie_away_from_the_cube_and_as_often_in_the_air_as_asked():
    task, state = begun("panda_pick_place")
    draw = quick(jax.vmap(lambda k: task.draw(k, state.data)))
    goals = np.asarray(draw(jax.random.split(jax.random.key(1), 200)))
    assert (np.linalg.norm(goals[:, :2] - task.cube(state.data)[:2], axis=1) > 0.1).all()
    assert (goals[:, :2] >= task.area[0]).all() and (goals[:, :2] <= task.area[1]).all()
    assert 70 < (goals[:, 2] > 0.05).sum() < 130 and goals[:, 2].max() <= 0.25


def test_sparse_is_success_alone_and_weights_replace_defaults():
    assert registry.make_task("panda_push", reward="sparse").weights == {
        "reach": 0.0, "goal": 0.0, "grasp": 0.0, "lift": 0.0, "success": 1.0,
    }  # fmt: skip
    mixed = registry.make_task("panda_reach", reward="sparse", weights={"reach": 0.1}).weights
    assert mixed == {"reach": 0.1, "success": 1.0}
    assert registry.make_task("panda_reach").weights == {"reach": 1.0, "success": 1.0}


def test_safety_counts_each_kind_of_violation():
    task, state = begun("panda_cube")
    fine = with_sensors(task, state.data)
    cases = {
        "table": with_sensors(task, fine, "touch_left"),
        "joint": with_qpos(task, fine, joint5=kinematics.JOINT_HIGH[4] - 0.01),
        "speed": fine.replace(qvel=fine.qvel.at[0].set(2.2)),
        "workspace": with_qpos(task, fine, joint1=1.2),
    }
    assert float(task.terms(fine, fine, None, state.memory)["safety"]) == 0.0
    for kind, data in cases.items():
        assert [k for k, v in task.violations(data).items() if v] == [kind]
        assert float(task.terms(fine, data, None, state.memory)["safety"]) == -1.0
    held = with_sensors(task, fine, "grip_left", "grip_right")
    assert not any(task.violations(held).values()) and bool(task.grasped(held))
    assert not bool(task.grasped(with_sensors(task, fine, "grip_left")))


def test_discovery_features_are_hand_cube_and_gripper():
    task, state = begun("panda_cube")
    assert [(s.name, s.size) for s in task.obs_spec().groups["features"]] == [
        ("ee_position", 3), ("cube_position", 3), ("opening", 1),
    ]  # fmt: skip
    moved = with_qpos(task, state.data, cube=task.cube(state.data) + jnp.array([0.3, 0.4, 0.0]))
    assert float(task.measure(moved, state.memory)["displacement"]) == pytest.approx(0.5, abs=1e-5)
    assert 50 <= task.episode_length <= 100


def test_a_stacked_cube_lies_on_the_other_one_and_nothing_holds_it():
    task, state = begun("panda_stack")
    base = task.cube(state.data, 1)
    apart = quick(jax.vmap(task.spots))(jax.random.split(jax.random.key(0), 100))
    assert float(jnp.linalg.norm(apart[:, 0] - apart[:, 1], axis=-1).min()) >= 0.06
    top = base + jnp.array([0.0, 0.0, 0.02 + float(task.cube_half(state.data))])
    np.testing.assert_allclose(task.target(state.data, state.memory), top, atol=1e-6)
    done = with_sensors(task, with_qpos(task, state.data, cube=top))
    held = with_sensors(task, done, "grip_left", "grip_right")
    assert [float(task.measure(d, state.memory)["stage"]) for d in (done, held)] == [4.0, 3.0]
    beside = with_sensors(task, with_qpos(task, state.data, cube=base + jnp.array([0.041, 0.0, 0.0])))
    assert not bool(task.success(beside, state.memory))


def test_rearranged_cubes_count_in_any_order():
    task, state = begun("panda_rearrange")
    data, memory = with_sensors(task, state.data), state.memory
    look = quick(lambda d: (task.measure(d, memory), task.terms(d, d, None, memory)))
    for there in ((), (0,), (1,), (0, 1)):
        moved = with_qpos(task, data, **{task.cubes[i]: memory.goals[i] for i in there})
        measured, terms = look(moved)
        assert float(measured["placed"]) == len(there) == 2 * float(terms["placed"])
        assert float(measured["success"]) == (len(there) == 2) and float(terms["success"]) == float(measured["success"])
        assert (float(terms["reach"]) == 1.0) == (len(there) == 2)
        nearness = [1.0 if i in there else 1 - np.tanh(float(task.missing(data, memory)[i]) / 0.2) for i in range(2)]
        assert float(terms["goal"]) == pytest.approx(np.mean(nearness), abs=1e-5)
    swapped = with_qpos(task, data, cube=memory.goals[1], other=memory.goals[0])
    assert float(look(swapped)[0]["placed"]) == 0.0  # each cube has a goal of its own


def test_a_cube_at_its_goal_has_earned_its_half_of_grasp_and_lift():
    task, state = begun("panda_rearrange")
    held = with_sensors(task, state.data, "grip_left_other", "grip_right_other")
    up = with_qpos(task, held, other=task.cube(held, 1) + jnp.array([0.0, 0.0, 0.1]))
    cases = {"held": (held, 0.5, 0.0), "up": (up, 0.5, 0.5)}
    cases["placed"] = with_qpos(task, held, other=state.memory.goals[1]), 0.5, 0.5
    for name, (data, grasp, lift) in cases.items():
        terms = task.terms(data, data, None, state.memory)
        assert (float(terms["grasp"]), float(terms["lift"])) == (grasp, lift), name


def test_to_place_a_cube_costs_nothing():
    task, state = begun("panda_rearrange")
    held = with_sensors(task, state.data, "grip_left_other", "grip_right_other")

    def earned(above):
        data = with_qpos(task, held, other=state.memory.goals[1] + jnp.array([0.0, 0.0, above]))
        terms = task.terms(data, data, None, state.memory)
        return sum(task.weights[name] * float(terms[name]) for name in task.weights)

    assert earned(0.0) > earned(0.039) > earned(0.041)


def test_goals_of_a_rearrangement_lie_apart_from_each_other_and_from_the_cubes():
    task, state = begun("panda_rearrange")
    goals = np.asarray(quick(jax.vmap(lambda k: task.draw(k, state.data)))(jax.random.split(jax.random.key(1), 100)))
    cubes = np.asarray(task.both(state.data))[:, :2]
    assert np.linalg.norm(goals[:, 0] - goals[:, 1], axis=-1).min() >= 0.08
    assert np.linalg.norm(goals[:, :, None, :2] - cubes, axis=-1).min() >= 0.08
    assert (goals[..., :2] >= task.area[0]).all() and (goals[..., :2] <= task.area[1]).all()
    np.testing.assert_allclose(goals[:, 0, 2], float(task.cube_half(state.data)), atol=1e-6)


# -- what varies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("vary_size", {"geom_size", "body_inertia"}),
        ("vary_mass", {"body_mass", "body_inertia"}),
        ("vary_friction", {"geom_friction"}),
    ],
)
def test_a_variation_changes_what_it_says_and_only_that(option, changed):
    none = {"vary_size": 0.0, "vary_mass": 0.0, "vary_friction": 0.0}
    task = registry.make_task("panda_cube", **{**none, option: 0.2})
    plain = registry.make_task("panda_cube", **none)
    assert jax.eval_shape(plain.start, jax.random.key(0)).overrides == {}
    starts = quick(jax.vmap(task.start))(jax.random.split(jax.random.key(0), 64))
    for field, values in starts.overrides.items():
        ratio = np.asarray(values) / np.where(getattr(plain.model, field) == 0, 1, getattr(plain.model, field))
        others = np.abs(ratio - np.asarray(ratio)[:1]).reshape(64, -1).max(0) > 1e-6
        assert others.any() == (field in changed), field
    field, row, base = {
        "vary_size": ("geom_size", task.model.geom("cube").id, 0.02),
        "vary_mass": ("body_mass", task.model.body("cube").id, 0.1),
        "vary_friction": ("geom_friction", task.model.geom("cube").id, 0.8),
    }[option]
    factor = np.asarray(starts.overrides[field])[:, row].reshape(64, -1)[:, 0] / base
    assert 0.8 <= factor.min() < 0.85 and 1.15 < factor.max() <= 1.2
    reset = quick(jax.vmap(env_of("panda_cube", **{**none, option: 0.2}).reset))
    state = reset(jax.random.split(jax.random.key(0), 2))
    seen = state.obs["critic"][:, task.obs_spec().index("critic", ("cube_properties",))]
    assert (np.ptp(seen, axis=0) > 1e-3).sum() == 1


def test_a_cube_rests_at_its_own_height_and_slides_as_far_as_its_friction_lets_it():
    """Coulomb: a cube thrown at v stops after v^2 / (2 mu g), unless mu is above 1: then it tips over."""
    task = registry.make_task("panda_cube", vary_friction=0.2, yaw=0.0)
    physics, n = NativePhysics(task.model), 8
    start = quick(jax.vmap(task.start))(jax.random.split(jax.random.key(0), n))
    first, speed = int(task.model.joint("cube").qposadr[0]), 1.0
    qvel = start.qvel.at[:, int(task.model.joint("cube").dofadr[0])].set(speed)
    data = jax.vmap(physics.init)(start.qpos, qvel, start.overrides)
    still = jnp.tile(jnp.append(HOME, 0.04), (n, 1))
    last = jax.vmap(lambda d, u: physics.step(d, u, 250))(data, still)
    cube, geom = last.qpos[:, first : first + 3], task.model.geom("cube").id
    half, friction = start.overrides["geom_size"][:, geom, 2], start.overrides["geom_friction"][:, geom, 0]
    np.testing.assert_allclose(cube[:, 2], half, atol=3e-4)
    slid = cube[:, 0] - start.qpos[:, first]
    np.testing.assert_allclose(slid, speed**2 / (2 * friction * 9.81), rtol=0.1)
    assert float(np.ptp(friction)) > 0.15 and float(np.ptp(half)) > 1e-3


# -- drawer and scene -----------------------------------------------------------------------------------------------


def test_the_lock_holds_the_drawer_against_fifty_newtons():
    model = registry.make_task("panda_scene").model
    data, address = mujoco.MjData(model), int(model.joint("drawer").qposadr[0])
    data.qpos[:7] = data.ctrl[:7] = control.HOME
    data.xfrc_applied[model.body("drawer").id, 1] = -50.0
    opened = []
    for lock in (1.0, 0.0):
        data.ctrl[model.actuator("lock").id] = lock
        mujoco.mj_step(model, data, nstep=250)
        opened.append(float(data.qpos[address]))
    assert 0.0 <= opened[0] < 0.004 and opened[1] == pytest.approx(furniture.TRAVEL, abs=0.01)


def test_a_press_unlocks_for_good():
    task, state = begun("panda_scene")
    still = jnp.zeros(4)
    np.testing.assert_array_equal(task.switches(state.memory), [1.0])
    advance = quick(lambda data, memory: task.advance(None, data, data, still, memory, None))
    light = with_qpos(task, state.data, button=-0.005)
    assert not bool(advance(light, state.memory).unlocked)
    memory = advance(with_qpos(task, state.data, button=-0.01), state.memory)
    assert bool(memory.unlocked) and bool(advance(light, memory).unlocked)
    np.testing.assert_array_equal(task.switches(memory), [0.0])
    assert task.control(still, state.data, memory).shape == (task.model.nu,)


def test_the_scene_has_four_stages():
    task, state = begun("panda_scene")
    x, y = furniture.SHUT_AT
    inside = {opened: jnp.array([x, y - opened, 0.03]) for opened in (0.0, 0.15)}
    unlocked = state.memory.replace(unlocked=jnp.ones((), bool))
    stages = [
        (state.memory, {}),
        (unlocked, {"drawer": 0.05}),
        (unlocked, {"drawer": 0.15}),
        (unlocked, {"drawer": 0.15, "cube": inside[0.15]}),
        (unlocked, {"drawer": 0.0, "cube": inside[0.0]}),
    ]
    look = quick(lambda d, m: (task.measure(d, m), task.terms(d, d, None, m), task.observe(d, m)))
    for stage, (memory, values) in enumerate(stages):
        measured, terms, seen = look(with_qpos(task, state.data, **values), memory)
        assert float(measured["stage"]) == stage
        assert float(terms["stage"]) == stage / 4 and float(terms["success"]) == (stage == 4)
        np.testing.assert_array_equal(seen["stage"], np.eye(5)[stage])
    above = with_qpos(task, state.data, drawer=0.15, cube=inside[0.15] + jnp.array([0, 0, 0.1]))
    assert int(task.stage(above, unlocked)) == 2


@pytest.mark.parametrize(("move", "start", "goal"), [("open", 0.0, 0.16), ("close", 0.16, 0.0)])
def test_a_drawer_starts_at_the_other_end(move, start, goal):
    task, state = begun("panda_drawer", move=move)
    assert float(task.drawer(state.data)) == pytest.approx(start) and float(state.memory.goal) == pytest.approx(goal)
    for opened, wanted in ((start, False), (0.08, False), (abs(goal - 0.03), True), (goal, True)):
        assert bool(task.success(with_qpos(task, state.data, drawer=opened), state.memory)) is wanted


# -- options that cannot be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("panda_reach", {"control_mode": "ee_delt"}, "did you mean 'ee_delta'"),
        ("panda_reach", {"reward": "spars"}, "did you mean 'sparse'"),
        ("panda_reach", {"tolerance": -0.1}, "tolerance must be at least 0"),
        ("panda_reach", {"weights": {"reech": 1.0}}, "did you mean 'reach'"),
        ("panda_cube", {"vary_size": 1.0}, "vary_size must be at least 0 and below 1"),
        ("panda_cube", {"yaw": float("nan")}, "yaw"),
        ("panda_pick_place", {"air": 1.5}, "air must be between 0 and 1"),
        ("panda_drawer", {"move": "opens"}, "did you mean 'open'"),
    ],
)
def test_impossible_options_are_named(name, options, message):
    with pytest.raises(UserError, match=message) as error:
        registry.make_task(name, **options)
    assert "\n" not in str(error.value)


def test_scripts_drive_the_hand_only():
    task = registry.make_task("panda_pick_place", control_mode="joint")
    with pytest.raises(UserError, match="control_mode=ee_delta"):
        task.expert()


# -- scripts --------------------------------------------------------------------------------------------------------


def test_ways_lead_over_what_lies_between():
    way = jax.jit(lambda here, there: script._way(jnp.asarray(here), jnp.asarray(there), (0.01, 0.01)))
    there = (0.5, 0.1, 0.05)
    np.testing.assert_allclose(way((0.5, -0.2, 0.02), there), [0.0, 0.0, 0.16], atol=1e-6)  # up first
    np.testing.assert_allclose(way((0.5, -0.2, 0.18), there), [0.0, 0.3, 0.0], atol=1e-6)
    np.testing.assert_allclose(way((0.5, 0.07, 0.18), there), [0.0, 0.03, -0.01], atol=1e-6)  # 2 cm aside: 12 up
    np.testing.assert_allclose(way((0.505, 0.1, 0.18), there), [-0.005, 0.0, -0.13], atol=1e-6)


def test_what_is_held_is_not_let_go_where_it_would_not_be_taken():
    grip = functools.partial(script._grip, box=(0.01, 0.01, 0.01))
    for offset, closing, wanted in ((0.009, False, True), (0.015, False, False), (0.015, True, True)):
        assert bool(grip(jnp.array([0.0, offset, 0.0]), closing=jnp.asarray(closing))) is wanted
    assert not bool(grip(jnp.array([0.0, 0.021, 0.0]), closing=jnp.asarray(True)))


def test_a_stage_ends_once_its_end_has_held_for_a_while():
    task, state = begun("panda_scene")
    expert = task.expert()
    assert expert.stages == ("press", "open", "place", "shut")
    look = quick(expert.act)
    memory, stage, action = look(state, expert.begin())
    down = jnp.array(furniture.BUTTON) - task.hand(state.data)
    assert int(stage) == 0 and float(action[3]) == -1.0  # the fingers shut
    np.testing.assert_array_equal(np.sign(action[:2]), np.sign(down[:2]))
    unlocked = state.replace(memory=state.memory.replace(unlocked=jnp.ones((), bool)))  # and the hand is up
    stages = []
    for _ in range(script.SETTLE + 2):
        memory, stage, _ = look(unlocked, memory)
        stages.append(int(stage))
    assert stages == [0] * script.SETTLE + [1, 1]


# -- solved -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("panda_reach", 30),
        ("panda_pick_place", 80),
        ("panda_stack", 90),
        ("panda_rearrange", 130),
        ("panda_drawer", 50),
        ("panda_scene", 150),
    ],
)
def test_the_expert_solves_the_task_in_every_world_stage_by_stage(name, steps):
    env, worlds = env_of(name), 8
    expert = env.task.expert()

    def step(carry, _):
        state, memory = carry
        memory, stage, action = jax.vmap(expert.act)(state, memory)
        state = jax.vmap(env.step)(state, action)
        return (state, memory), (state.metrics["success"], state.metrics["diverged"], stage)

    @quick
    def run(keys):
        state, memory = jax.vmap(env.reset)(keys), jax.vmap(lambda _: expert.begin())(keys)
        return jax.lax.scan(step, (state, memory), None, length=steps)[1]

    success, diverged, stage = map(np.asarray, run(jax.random.split(jax.random.key(0), worlds)))
    np.testing.assert_array_equal(success[-1], np.ones(worlds))
    assert steps <= env.spec.episode_length and float(diverged.sum()) == 0.0
    np.testing.assert_array_equal(stage[0], 0)
    np.testing.assert_array_equal(stage[-1], len(expert.stages))  # over
    assert set(np.unique(np.diff(stage, axis=0))) == {0, 1}  # no stage is left out
