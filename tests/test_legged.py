"""Go2: what it observes, what its terms are, by hand numbers; commands, falls, rough ground."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from repertoire.envs import registry, rotations
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.physics.native import NativePhysics
from repertoire.envs.tasks import velocity
from repertoire.errors import UserError

NONE = jnp.zeros(12)
#: Compile fast, run slowly.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.fixture(scope="module")
def task():
    return registry.make_task("go2_velocity", reset_noise=0.0)


@pytest.fixture(scope="module")
def data(task):
    """The default pose at rest, feet at the ground."""
    physics = NativePhysics(task.model, task.fields)
    qpos = jnp.asarray(task.default_pose(), jnp.float32)
    return physics.init(qpos, jnp.zeros(18))


@pytest.fixture(scope="module")
def memory(task, data):
    return task.remember(jax.random.key(0), data)


def turned(data, axis, angle):
    """`data` with the trunk turned about `axis` (0, 1, 2) of the world."""
    q = jnp.asarray([np.cos(angle / 2), *np.eye(3)[axis] * np.sin(angle / 2)])
    return data.replace(qpos=data.qpos.at[3:7].set(q))


def rate(task, data, memory, name, before=None, action=NONE):
    return float(task.rates(before or data, data, action, memory)[name]())


def touching(task, data, *names):
    """`data` in which only shapes whose names are given touch the ground."""
    model = task.model
    places = [int(model.sensor(f"touch_{name}").adr[0]) for name in names]
    touch = jnp.zeros_like(data.sensordata)
    return data.replace(sensordata=touch.at[jnp.asarray(places, int)].set(1.0))


FEET = ("FR_foot", "FL_foot", "RR_foot", "RL_foot")

# -- rotations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_rotations_are_mujocos(seed):
    rng = np.random.default_rng(seed)
    p, q, v = rng.normal(size=4), rng.normal(size=4), rng.normal(size=3)
    p, q = p / np.linalg.norm(p), q / np.linalg.norm(q)
    turned_v, pq = np.zeros(3), np.zeros(4)
    mujoco.mju_rotVecQuat(turned_v, v, q)
    mujoco.mju_mulQuat(pq, p, q)
    np.testing.assert_allclose(rotations.rotate(jnp.asarray(q), jnp.asarray(v)), turned_v, atol=1e-6)
    np.testing.assert_allclose(rotations.unrotate(jnp.asarray(q), jnp.asarray(turned_v)), v, atol=1e-6)
    np.testing.assert_allclose(rotations.product(jnp.asarray(p), jnp.asarray(q)), pq, atol=1e-6)
    np.testing.assert_allclose(
        rotations.heading(rotations.yaw(jnp.asarray(v[0]))), [np.cos(v[0]), np.sin(v[0])], atol=1e-6
    )


# -- observation -----------------------------------------------------------------------------------------------------


def test_the_robot_sees_gravity_from_its_own_frame(task, data, memory):
    sees = {axis: task.observe(turned(data, axis, 0.5), memory) for axis in range(3)}
    s, c = np.sin(0.5), np.cos(0.5)
    np.testing.assert_allclose(sees[0]["gravity"], [0, -s, -c], atol=1e-6)  # rolled to its right
    np.testing.assert_allclose(sees[1]["gravity"], [s, 0, -c], atol=1e-6)  # nose down
    np.testing.assert_allclose(sees[2]["gravity"], [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(sees[2]["heading"], [c, s], atol=1e-6)
    np.testing.assert_allclose(sees[1]["heading"], [1, 0], atol=1e-6)


def test_velocities_are_in_the_robots_frame(task, data, memory):
    moving = turned(data, 2, np.pi / 2).replace(qvel=jnp.arange(18.0) + 1)
    sees = task.observe(moving, memory)
    np.testing.assert_allclose(sees["velocity"], [2, -1, 3], atol=1e-5)  # world x is its right
    np.testing.assert_allclose(sees["planar_velocity"], [2, -1], atol=1e-5)
    np.testing.assert_allclose(sees["gyro"], [4, 5, 6])
    np.testing.assert_allclose(sees["yaw_rate"], [6], atol=1e-5)
    np.testing.assert_allclose(sees["joint_vel"], np.arange(7, 19))


def test_joints_are_seen_beside_the_default_pose(task, data, memory):
    np.testing.assert_allclose(task.observe(data, memory)["joint_pos"], 0, atol=1e-6)
    bent = data.replace(qpos=data.qpos.at[9].add(0.2))
    np.testing.assert_allclose(task.observe(bent, memory)["joint_pos"], 0.2 * np.eye(12)[2], atol=1e-6)


def test_actions_are_targets_beside_the_default_pose(task, data, memory):
    np.testing.assert_allclose(task.control(NONE, data, memory), [0, 0.9, -1.8] * 4, atol=1e-6)
    np.testing.assert_allclose(task.control(NONE + 1, data, memory), [0.5, 1.4, -1.3] * 4, atol=1e-6)
    low, high = task.action_limits()
    np.testing.assert_allclose(np.mean([low, high], axis=0), [0, 0.9, -1.8] * 4, atol=1e-6)
    np.testing.assert_allclose(np.subtract(high, low), 1.0, atol=1e-6)


def test_the_policy_knows_what_a_robot_knows(task):
    groups = {g: [s.name for s in slices] for g, slices in task.obs_spec().groups.items()}
    measured = ["gravity", "gyro", "joint_pos", "joint_vel", "last_action"]  # no heading: yaw drifts
    assert groups["policy"] == [*measured, "command"]
    assert groups["critic"] == [*measured, "command", "velocity", "height", "feet", *velocity.CLOCKS]
    assert groups["features"][0] == "position" and set(task.sources()) == {*groups["policy"], "heading"}


# -- style -----------------------------------------------------------------------------------------------------------


def test_style_terms_by_hand(task, data, memory):
    strained = data.replace(actuator_force=jnp.full(12, 2.0), qvel=data.qvel.at[6].set(0.5))
    assert rate(task, strained, memory, "torque") == pytest.approx(48.0)
    assert rate(task, strained, memory, "joint_velocity") == pytest.approx(0.25)
    assert rate(task, strained, memory, "joint_acceleration", before=data) == pytest.approx((0.5 / 0.02) ** 2)
    assert rate(task, data, memory, "action_norm", action=NONE + 0.5) == pytest.approx(3.0)
    chosen = memory.replace(actions=memory.actions.at[0].set(0.2))
    assert rate(task, data, chosen, "action_rate", action=NONE + 0.5) == pytest.approx(12 * 0.09)
    assert rate(task, turned(data, 1, 0.5), memory, "orientation") == pytest.approx(np.sin(0.5) ** 2)
    low = data.replace(qpos=data.qpos.at[2].set(0.17))
    assert rate(task, low, memory, "height") == pytest.approx(0.01)


def test_only_other_shapes_than_feet_are_undesired(task, data, memory):
    standing = touching(task, data, *FEET)
    assert rate(task, standing, memory, "contacts") == 0.0 and task.feet_down(standing).all()
    lying = touching(task, data, "FL_foot", "base", "RR_calf", "head")
    assert rate(task, lying, memory, "contacts") == 3.0
    np.testing.assert_array_equal(task.feet_down(lying), [False, True, False, False])


def test_joint_limits_cost_beyond_nine_tenths_of_the_range(task, data, memory):
    assert rate(task, data, memory, "joint_limits") == 0.0
    bent = data.replace(qpos=data.qpos.at[7].set(1.0))  # the hip's limit is 1.0472: 0.942 is free
    assert rate(task, bent, memory, "joint_limits") == pytest.approx(1.0 - 0.9 * 1.0472, abs=1e-5)


def test_terms_are_per_second(task, data, memory):
    terms = task.terms(data, data, NONE + 0.5, memory)
    assert set(terms) == set(task.weights)
    assert float(terms["action_rate"]) == pytest.approx(0.02 * 3.0)


# -- velocity --------------------------------------------------------------------------------------------------------


def test_tracking_by_hand(task, data, memory):
    """exp(-error^2 / 0.25) of the velocity in the robot's frame."""
    memory = memory.replace(command=jnp.asarray([1.0, 0.0, 0.5]))
    moving = turned(data, 2, np.pi / 2).replace(qvel=data.qvel.at[1].set(0.7).at[0].set(-0.4).at[5].set(0.2))
    assert rate(task, moving, memory, "tracking_linear") == pytest.approx(np.exp(-(0.3**2 + 0.4**2) / 0.25), rel=1e-5)
    assert rate(task, moving, memory, "tracking_yaw") == pytest.approx(np.exp(-(0.3**2) / 0.25), rel=1e-5)
    measured = task.measure(moving, memory)
    assert float(measured["tracking_error"]) == pytest.approx(0.5, abs=1e-6)
    assert float(measured["yaw_error"]) == pytest.approx(0.3, abs=1e-6)
    assert rate(task, data, memory.replace(command=jnp.zeros(3)), "tracking_linear") == 1.0


def test_commands_fill_their_ranges_and_some_say_stand(task, data):
    commands = np.asarray(jax.vmap(task.draw_command)(jax.random.split(jax.random.key(0), 2000)))
    still = ~commands.any(axis=1)
    assert 0.07 < still.mean() < 0.13
    assert (commands.min(axis=0) >= [-1, -0.5, -1]).all() and (commands.max(axis=0) <= [1.5, 0.5, 1]).all()
    assert (np.ptp(commands, axis=0) > [2.4, 0.95, 1.9]).all()


def test_a_command_holds_for_five_seconds(task, data, memory):
    for t, changes in ((1, False), (249, False), (250, True), (251, False), (500, True)):
        new = task.advance(jax.random.key(t), data, data, NONE, memory, jnp.asarray(t))
        assert bool((new.command != memory.command).any()) == changes, t
        memory = new


def test_standing_still_is_a_command_where_it_was_trained():
    """A runner clips to these ranges: "stop" must not become 0.5 m/s."""
    task = registry.make_task("go2_velocity", vx=(0.5, 1.5), yaw_rate=(-1.0, -0.5))
    assert task.commands()["command"] == ([[0.0, 1.5], [-0.5, 0.5], [-1.0, 0.0]], 250)
    never = registry.make_task("go2_velocity", vx=(0.5, 1.5), stand=0.0)
    assert never.commands()["command"][0][0] == [0.5, 1.5]


def test_a_step_is_paid_when_the_foot_comes_down(task, data, memory):
    """0.3 s in the air pay 0.1 (what exceeds 0.2 s) for one control step, and only under a command to move."""
    memory = memory.replace(command=jnp.asarray([1.0, 0, 0]))
    three, four = touching(task, data, *FEET[1:]), touching(task, data, *FEET)
    for _ in range(14):
        assert rate(task, three, memory, "air_time") == 0.0
        memory = task.advance(jax.random.key(0), data, three, NONE, memory, jnp.asarray(1))
    assert float(memory.air[0]) == pytest.approx(0.28) and not memory.air[1:].any()
    assert rate(task, four, memory, "air_time") == pytest.approx(0.1, abs=1e-5)
    assert float(task.terms(data, four, NONE, memory)["air_time"]) == pytest.approx(0.02 * 0.1, abs=1e-6)
    assert rate(task, four, memory.replace(command=jnp.zeros(3)), "air_time") == 0.0
    memory = task.advance(jax.random.key(0), data, four, NONE, memory, jnp.asarray(1))
    assert rate(task, four, memory, "air_time") == 0.0


def test_feet_are_timed_in_the_air_and_down(task, data, memory):
    """FR 3 steps up, 2 down, up again; the others stay down."""
    three, four = touching(task, data, *FEET[1:]), touching(task, data, *FEET)
    for seen in (three, three, three, four, four, three):
        memory = task.advance(jax.random.key(0), data, seen, NONE, memory, jnp.asarray(1))
    np.testing.assert_allclose(memory.air, [0.02, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(memory.down, [0, 0.12, 0.12, 0.12], atol=1e-6)
    np.testing.assert_allclose(memory.last_air, [0.06, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(memory.last_down, [0.04, 0, 0, 0], atol=1e-6)
    memory = memory.replace(command=jnp.asarray([1.0, 0, 0]))
    uneven = np.var([0.06, 0, 0, 0]) + np.var([0.04, 0, 0, 0])
    assert rate(task, four, memory, "stride_variance") == pytest.approx(uneven, rel=1e-4)
    assert (
        rate(task, four, memory.replace(last_air=jnp.full(4, 0.3), last_down=jnp.full(4, 2.0)), "stride_variance") == 0
    )
    assert rate(task, four, memory.replace(command=jnp.zeros(3)), "stride_variance") == 0.0


def test_a_trot_is_two_feet_across_and_the_other_two_up(task, data, memory):
    memory = memory.replace(command=jnp.asarray([1.0, 0, 0]))
    for feet, paid in (
        (("FR_foot", "RL_foot"), 1.0),
        (("FL_foot", "RR_foot"), 1.0),
        (("FR_foot", "RR_foot"), 0.0),
        (("FR_foot", "FL_foot"), 0.0),
        (FEET, 0.0),
        (FEET[1:], 0.0),
        ((), 0.0),
    ):
        assert rate(task, touching(task, data, *feet), memory, "diagonal") == paid, feet
    standing = memory.replace(command=jnp.zeros(3))
    assert rate(task, touching(task, data, "FR_foot", "RL_foot"), standing, "diagonal") == 0.0


def test_effort_and_posture_by_hand(task, data, memory):
    memory = memory.replace(command=jnp.asarray([1.0, 0, 0]))
    moving = data.replace(actuator_force=jnp.full(12, -2.0), qvel=data.qvel.at[6].set(3.0).at[7].set(-1.0))
    assert rate(task, moving, memory, "energy") == pytest.approx(8.0)
    bent = data.replace(qpos=data.qpos.at[7].add(0.3).at[8].add(-0.4))
    assert rate(task, bent, memory, "default_pose") == pytest.approx(0.5, rel=1e-5)
    assert rate(task, bent, memory.replace(command=jnp.zeros(3)), "default_pose") == pytest.approx(2.5, rel=1e-5)


@pytest.mark.parametrize("name", ["go2", "go2_velocity", "g1", "g1_walking", "h1_squatting", "h1_button"])
def test_every_term_can_be_weighted(name):
    env = registry.make(name, "native")
    state = env.reset(jax.random.key(0))
    there = env.task.rates(state.data, state.data, jnp.zeros(env.spec.action_size), state.memory)
    assert set(there) == set(env.task.known_terms())
    assert registry.make_task(name, weights={"action_norm": -0.1}).weights["action_norm"] == -0.1


def test_slipping_costs_only_on_the_ground(task, data, memory):
    moved = data.replace(site_xpos=data.site_xpos.at[task.foot_sites[1], 0].add(0.01))
    assert rate(task, touching(task, moved, "FL_foot"), memory, "slip", before=data) == pytest.approx(0.25, rel=1e-3)
    assert rate(task, touching(task, moved, "FR_foot"), memory, "slip", before=data) == 0.0


@pytest.mark.parametrize(
    ("change", "fallen"),
    [
        (lambda d: d, False),
        (lambda d: turned(d, 0, 0.9), False),
        (lambda d: turned(d, 0, 1.2), True),
        (lambda d: turned(d, 1, np.pi), True),
        (lambda d: d.replace(qpos=d.qpos.at[2].set(0.1)), True),
    ],
)
def test_a_fall_is_a_tilt_or_a_trunk_on_the_ground(task, data, memory, change, fallen):
    assert bool(task.fallen(change(data))) == fallen == bool(task.terminated(change(data), memory))
    stays = registry.make_task("go2")  # discovery goes on
    assert not bool(stays.terminated(change(data), memory))
    assert bool(registry.make_task("go2", terminate=True).terminated(change(data), memory)) == fallen


def test_episodes_start_at_any_heading_in_the_default_pose(task):
    starts = jax.vmap(task.start)(jax.random.split(jax.random.key(0), 50))
    yaw = np.arctan2(*np.asarray(jax.vmap(rotations.heading)(starts.qpos[:, 3:7])).T[::-1])
    assert yaw.min() < -2.5 and yaw.max() > 2.5
    np.testing.assert_allclose(starts.qpos[:, 7:], np.tile([0, 0.9, -1.8], (50, 4)), atol=1e-6)
    plain = registry.make_task("go2")
    noisy = jax.vmap(plain.start)(jax.random.split(jax.random.key(0), 50)).qpos
    np.testing.assert_array_equal(noisy[:, 3:7], np.tile([1, 0, 0, 0], (50, 1)))  # discovery starts along x
    off = np.abs(noisy[:, 7:] - plain.joints)
    assert 0.09 < off.max() <= 0.1 + 1e-6


# -- ground ----------------------------------------------------------------------------------------------------------


def test_rough_ground_is_flat_at_the_start_and_rough_elsewhere():
    task = registry.make_task("go2", ground="rough", roughness=0.08)
    model = task.model
    heights = model.hfield_data.reshape(201, 201) * 0.08
    middle = heights[97:104, 97:104]  # 0.2 m apart: within 0.6 m of the start
    assert np.abs(middle).max() < 1e-9 and 0.06 < heights.max() <= 0.08 and heights[:90].std() > 0.015
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    data.qpos[:3] = 3.0, 2.0, 0.38
    for _ in range(500):
        mujoco.mj_step(model, data)
    assert 0.22 < data.qpos[2] < 0.36 and data.qpos[3] > 0.95
    feet = [data.sensordata[model.sensor(f"touch_{foot}").adr[0]] for foot in FEET]
    assert np.count_nonzero(feet) >= 3


@pytest.mark.parametrize("place", [(20.0, 3.0), (-30.0, 0.0), (21.0, 25.0)])
def test_beyond_rough_ground_the_world_goes_on(place):
    """At 1.5 m/s a Go2 is 30 m away after an episode."""
    task = registry.make_task("go2", ground="rough", roughness=0.08)
    heights = task.model.hfield_data.reshape(201, 201)
    assert not np.concatenate([heights[[0, -1]], heights[:, [0, -1]].T]).any()  # no step up on the way back
    data = mujoco.MjData(task.model)
    mujoco.mj_resetDataKeyframe(task.model, data, 0)
    data.qpos[:3] = *place, 0.38
    for _ in range(500):
        mujoco.mj_step(task.model, data)
    assert 0.2 < data.qpos[2] < 0.3 and data.qpos[3] > 0.95


def test_rough_ground_is_refused_where_contacts_would_differ():
    with pytest.raises(UserError, match="use physics=native or warp") as error:
        registry.make("go2", "mjx", ground="rough")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("go2", {"ground": "hilly"}, "unknown ground 'hilly': there is: flat, rough"),
        ("go2", {"history": 0}, "history must be at least 1"),
        ("go2", {"action_scale": -1.0}, "action_scale"),
        ("go2", {"roughness": float("nan")}, "roughness"),
        ("go2", {"roughness": 0.0, "ground": "rough"}, "rough ground needs a roughness above 0 m"),
        ("go2", {"weights": {"torque": float("inf")}}, "env.weights.torque must be finite, got inf"),
        ("go2_velocity", {"vx": (1.0, -1.0)}, "vx must be low <= high"),
        ("go2_velocity", {"hold": 0}, "hold must be at least 1"),
        ("go2_velocity", {"stand": -0.1}, "stand"),
        ("h1_reaching", {"hold": 0}, "hold must be at least 1"),
        ("h1_walking", {"period": 0.0}, "period must be positive"),
        ("g1_box", {"period": float("nan")}, "period must be positive"),
    ],
)
def test_impossible_options_are_named(name, options, message):
    with pytest.raises(UserError, match=message) as error:
        registry.make_task(name, **options)
    assert "\n" not in str(error.value)


def test_ranges_may_come_as_lists():
    """As they do from the command line."""
    task = registry.make_task("go2_velocity", vx=[0.5, 0.5], stand=0.0)
    assert float(task.draw_command(jax.random.key(0))[0]) == 0.5


def test_an_episode_of_standing_still():
    """Zero actions for a second: nothing falls, nothing but feet touches, the metrics say so."""
    task = registry.make_task("go2_velocity", vx=(0.0, 0.0), vy=(0.0, 0.0), yaw_rate=(0.0, 0.0))
    env = MujocoEnv(task, NativePhysics(task.model, task.fields))

    def run(key):
        return jax.lax.scan(lambda s, _: (env.step(s, NONE),) * 2, env.reset(key), length=50)[1]

    states = jax.jit(run, compiler_options=QUICK)(jax.random.key(0))
    assert not states.terminated.any() and not states.metrics["fallen"].any()
    assert not states.metrics["reward/contacts"].any()
    assert float(states.metrics["tracking_error"][-10:].max()) < 0.1
    assert float(states.reward[-1]) > 0.02 * (1.0 + 1.5 + 0.75 - 1.5)  # the legs give way: 0.3 rad off the default pose
