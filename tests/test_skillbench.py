"""SkillBench's tasks: starts, goals, terms, success and accuracy by hand numbers; scenes that hold and give way."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from repertoire.envs import registry, rotations
from repertoire.envs.physics.mjx import MjxPhysics
from repertoire.envs.tasks import skillbench
from repertoire.envs.tasks.skillbench_scenes import DOORS
from repertoire.errors import UserError

NAMES = [task.name for task in skillbench.TASKS]
H1 = [name for name in NAMES if name.startswith("h1")]
WORLDS, STEPS = 32, 60
#: Compile fast, run slowly.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

#: Task -> published starts of the object's centre, and goals: lowest and highest of each coordinate, m. H1.
STARTS = {
    "ball": ([0.5, -0.3, 0.1], [1.0, 0.3, 0.1]),
    **dict.fromkeys(("box", "transfer"), ([0.55, -0.3, 1.05], [0.65, 0.3, 1.05])),
    **dict.fromkeys(("lift", "carry"), ([0.5, -0.05, 0.5], [0.7, 0.05, 0.5])),
}
GOALS = {
    "button": ([1.5, -0.5, 0.5], [1.5, 0.5, 1.5]),
    "ball": ([5.0, -2.0, 0.0], [5.0, 2.0, 0.5]),
    "transfer": ([-0.65, -0.3, 1.05], [-0.55, 0.3, 1.05]),
}
#: Likewise, from where the object starts.
MOVES = {
    "box": ([0.0, -0.5, 0.0], [0.1, 0.5, 0.0]),
    "lift": ([0.0, 0.0, 0.3], [0.0, 0.0, 0.6]),
    "carry": ([0.3, -0.3, 0.3], [1.0, 0.3, 0.6]),
}
MASSES = {"ball": (0.3, 0.5), "lift": (0.1, 2.0), "carry": (0.1, 2.0)}


@functools.cache
def rolled(name):
    """(env, first state, diverged [T, N], largest |qvel|) of random actions in `WORLDS` worlds."""
    env = registry.make(name, "native")

    def run(keys):
        def step(state, key):
            action = jax.random.uniform(key, (WORLDS, env.spec.action_size), minval=-1, maxval=1)
            state = jax.vmap(env.step)(state, action)
            return state, (state.metrics["diverged"], jnp.abs(state.data.qvel).max())

        first = jax.vmap(env.reset)(keys)
        return first, jax.lax.scan(step, first, jax.random.split(keys[0], STEPS))[1]

    keys = jax.random.split(jax.random.key(0), WORLDS)
    first, (diverged, speed) = jax.jit(run, compiler_options=QUICK)(keys)
    return env, first, np.asarray(diverged), float(speed.max())


def check_rollout(name):
    env, first, diverged, speed = rolled(name)
    assert diverged.sum() == 0 and speed < 100.0
    assert all(np.isfinite(x).all() for x in first.obs.values())
    model, qpos = env.task.model, np.asarray(first.data.qpos)
    joints = qpos[:, 7 : 7 + model.nu] - env.task.joints
    assert 0.0 < np.abs(joints).max() <= env.task.reset_noise + 1e-6
    solved = jax.vmap(env.task.solved)(first.data, first.memory)
    assert not solved.any() or name.endswith("_box")  # its published ranges of cube and goal overlap


@pytest.mark.parametrize("name", H1)
def test_random_actions_never_diverge(name):
    check_rollout(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(H1)))
def test_random_actions_never_diverge_on_g1(name):
    check_rollout(name)


def within(values, bounds, spread=0.8):
    """`values` [N, d] lie within `bounds` and fill most of them."""
    low, high = np.asarray(bounds)
    assert (values >= low - 1e-5).all() and (values <= high + 1e-5).all()
    assert (np.ptp(values, axis=0) >= spread * (high - low) - 1e-5).all()


@pytest.mark.parametrize("name", STARTS)
def test_objects_start_where_published(name):
    env, first, *_ = rolled(f"h1_{name}")
    qpos = np.asarray(first.data.qpos)[:, 7 + env.task.model.nu :]
    within(qpos[:, :3], STARTS[name])
    np.testing.assert_allclose(qpos[:, 3:], np.tile([1.0, 0, 0, 0], (WORLDS, 1)))
    assert not np.asarray(first.data.qvel).any()
    body = env.task.model.body("object").id
    if name in MASSES:
        mass = np.asarray(first.data.overrides["body_mass"])
        within(mass[:, body : body + 1], np.asarray(MASSES[name])[:, None])
        ratio = np.asarray(first.data.overrides["body_inertia"])[:, body] / mass[:, body : body + 1]
        np.testing.assert_allclose(ratio, np.tile(ratio[:1], (WORLDS, 1)), rtol=1e-5)
    else:
        assert not first.data.overrides


def test_goals_are_drawn_where_published():
    for name, bounds in GOALS.items():
        within(np.asarray(rolled(f"h1_{name}")[1].memory.goal)[:, 0], bounds)
    for name, bounds in MOVES.items():
        memory = rolled(f"h1_{name}")[1].memory
        within(np.asarray(memory.goal[:, 0] - memory.origin), bounds, spread=0.7)
    on_table = np.abs(rolled("h1_box")[1].memory.goal[:, 0, 1])
    assert on_table.max() <= 0.7 + 1e-6  # the whole cube


def test_hands_are_sent_far_and_doors_start_ajar():
    env, first, *_ = rolled("h1_far_reach")
    away = np.asarray(first.memory.goal) - env.task.home.site_xpos[env.task.hand_sites]
    assert away.shape == (WORLDS, 2, 3)
    within(away.mean(1), ([-2.25, -2.25, -0.75], [2.25, 2.25, 0.75]), spread=0.5)
    assert np.linalg.norm(away[:, 0] - away[:, 1], axis=1).max() <= 0.5 + 1e-5  # two balls of 0.25 m around one centre
    env, first, *_ = rolled("h1_cabinet")
    np.testing.assert_array_equal(np.asarray(first.data.qpos)[:, 26:], np.ones((WORLDS, 2)))


def test_weights_are_the_published_ones():
    weights = {name: registry.make_task(name).weights for name in NAMES}
    assert weights["h1_button"] == {"goal": 5.0, "right_arm": 0.5} and weights["h1_far_reach"] == {"goal": 5.0}
    assert weights["h1_ball"] == weights["g1_ball"] == {"goal": 5.0, "torso": 1.0}
    hands = {"cabinet": (5, 5), "box": (5, 5), "transfer": (1, 5), "lift": (5, 10), "carry": (5, 10)}
    for name, (h1, g1) in hands.items():
        assert weights[f"h1_{name}"] == {"goal": 5.0, "hands": h1} and weights[f"g1_{name}"] == {
            "goal": 5.0,
            "hands": g1,
        }


def test_what_policies_are_told_has_the_published_size():
    """Far reach: 6 of 14, without the turns of the hands. The clock of walking skills comes on top."""
    sizes = {"button": 3, "cabinet": 8, "ball": 6, "box": 9, "lift": 9, "transfer": 9, "carry": 9, "far_reach": 6}
    bare = registry.make_spec("h1").obs.size("policy")
    for name, size in sizes.items():
        assert registry.make_spec(f"h1_{name}").obs.size("policy") == bare + size + 2


# -- hand-placed states ----------------------------------------------------------------------------------------------


@functools.cache
def begun(name):
    """(task, data, memory) of one start."""
    env, first, *_ = rolled(name)
    one = jax.tree.map(lambda x: x[0], first)
    return env.task, one.data, one.memory


def moved(task, data, offset):
    """`data` with what is to be moved `offset` beside where it is: a loose object, hands, or doors by their angles."""
    first = 7 + task.model.nu
    if task.row.moved == "doors":
        return data.replace(qpos=data.qpos.at[first:].add(offset[:, 0]))
    if task.row.moved == "object":
        return data.replace(qpos=data.qpos.at[first : first + 3].add(offset[0]))
    hands = task.hand_sites[: len(offset)]
    return data.replace(site_xpos=data.site_xpos.at[hands].add(offset))


def touching(task, data, touch):
    place = int(task.model.sensor("touch_left_hand").adr[0])
    return data.replace(sensordata=data.sensordata.at[place].set(float(touch)))


def rate(task, data, memory, name):
    return float(task.rates(data, data, jnp.zeros(task.model.nu), memory)[name]())


@pytest.mark.parametrize("name", H1)
def test_at_the_goal_it_is_solved_without_error(name):
    """And a known way beside it, the error is the mean along the axes that count and the term its exponential."""
    task, data, memory = begun(name)
    there = touching(task, moved(task, data, task.missing(data, memory)), True)
    found = {k: float(v) for k, v in task.measure(there, memory).items()}
    assert found["success"] == 1.0 and found["goal_error"] == pytest.approx(0.0, abs=1e-5)
    assert rate(task, there, memory, "goal") == pytest.approx(1.0, abs=1e-4)
    assert bool(task.terminated(there, memory)) == (name == "h1_ball")
    row, off = task.row, jnp.zeros_like(memory.goal).at[:, task.row.counted[-1]].set(1.5 * task.tolerance)
    beside = moved(task, there, off)
    found = {k: float(v) for k, v in task.measure(beside, memory).items()}
    assert found["success"] == 0.0
    assert found["goal_error"] == pytest.approx(1.5 * task.tolerance / len(row.counted), abs=1e-5)
    error = 1.5 * task.tolerance / len(row.rewarded)
    assert rate(task, beside, memory, "goal") == pytest.approx(np.exp(-row.sharpness * error), abs=1e-4)


def test_a_button_must_be_touched():
    task, data, memory = begun("h1_button")
    there = moved(task, data, task.missing(data, memory))
    assert [bool(task.solved(touching(task, there, touch), memory)) for touch in (False, True)] == [False, True]
    deep = moved(task, touching(task, there, True), jnp.asarray([[-0.065, 0.0, 0.0]]))  # the wall's face is in the way
    assert bool(task.solved(deep, memory)) and float(task.measure(deep, memory)["goal_error"]) < 1e-5


def test_every_door_and_every_hand_counts():
    for name in ("h1_cabinet", "h1_far_reach"):
        task, data, memory = begun(name)
        one = task.missing(data, memory).at[1].set(0.0)
        assert not bool(task.solved(moved(task, data, one), memory))


def test_only_height_counts_for_the_lift():
    task, data, memory = begun("h1_lift")
    up = task.missing(data, memory).at[0, :2].set(0.4)
    aside = moved(task, data, up)
    assert bool(task.solved(aside, memory)) and rate(task, aside, memory, "goal") == pytest.approx(1.0, abs=1e-4)


def test_the_second_term_has_its_own_distance():
    task, data, memory = begun("h1_box")
    cube = task.object(data)
    held = data.replace(
        site_xpos=data.site_xpos.at[task.hand_sites].set(cube + jnp.asarray([[0.0, 0.1, 0], [0, -0.2, 0]]))
    )
    assert rate(task, held, memory, "hands") == pytest.approx(np.exp(-4 * 0.3 / 6), abs=1e-4)
    task, data, memory = begun("h1_ball")
    trunk = task.model.body("torso_link").id
    there = data.replace(xpos=data.xpos.at[trunk, :2].set(memory.origin[:2] + jnp.asarray([0.1, 0.0])))
    assert rate(task, there, memory, "torso") == pytest.approx(np.exp(-4 * 0.1 / 2), abs=1e-4)
    shot = moved(task, there, jnp.asarray([[3.0, 0.0, 0.0]]))  # the ball goes, its start stays
    assert rate(task, shot, memory, "torso") == pytest.approx(np.exp(-4 * 0.1 / 2), abs=1e-4)
    task, data, memory = begun("h1_button")
    arm = 7 + np.asarray(
        [i for i, n in enumerate(task.joint_names) if n.startswith("right_") and n[6:9] in ("sho", "elb")]
    )
    assert len(arm) == 4
    rest = data.replace(qpos=data.qpos.at[7 : 7 + 19].set(task.joints))
    assert rate(task, rest, memory, "right_arm") == pytest.approx(1.0, abs=1e-5)
    bent = rest.replace(qpos=rest.qpos.at[arm[0]].add(0.4))
    assert rate(task, bent, memory, "right_arm") == pytest.approx(np.exp(-0.4), abs=1e-4)


def test_offsets_are_seen_along_the_heading():
    """Who looks along +y sees what lies at +y ahead, and what lies at +x to the right."""
    task, data, memory = begun("h1_box")
    turned = data.replace(qpos=data.qpos.at[3:7].set(rotations.yaw(jnp.asarray(np.pi / 2))))
    ahead = memory.replace(goal=task.object(data)[None] + jnp.asarray([[0.3, 0.2, 0.1]]))
    np.testing.assert_allclose(task.observe(data, ahead)["goal_offset"], [0.3, 0.2, 0.1], atol=1e-4)
    np.testing.assert_allclose(task.observe(turned, ahead)["goal_offset"], [0.2, -0.3, 0.1], atol=1e-4)
    assert float(task.measure(turned, ahead)["goal_error"]) == pytest.approx(0.2, abs=1e-5)


def test_feasibility_by_hand_numbers():
    task, data, memory = begun("h1_box")
    roll, pitch = 0.2, -0.1
    x, y = (jnp.asarray([np.cos(a / 2), *(np.sin(a / 2) * np.eye(3)[i])]) for i, a in enumerate((roll, pitch)))
    tipped = data.replace(
        qpos=data.qpos.at[3:7].set(rotations.product(rotations.yaw(jnp.asarray(0.7)), rotations.product(y, x))),
        qvel=jnp.zeros(31).at[6:25].set(jnp.asarray([-0.5, 1.5] * 9 + [1.0])).at[25:].set(9.0),
        actuator_force=jnp.asarray([-10.0, 30.0] * 9 + [20.0]),
    )
    found = task.measure(tipped, memory)
    assert float(found["tilt"]) == pytest.approx(0.15, abs=1e-5)
    assert float(found["torque"]) == pytest.approx(20.0) and float(found["joint_speed"]) == pytest.approx(1.0)


# -- scenes, by C MuJoCo ---------------------------------------------------------------------------------------------


def settled(name, seconds=1.0, act=lambda data: None):
    """(model, qpos of the objects before and after) with the robot held in place by a weld to its start."""
    task = registry.make_task(name, reset_noise=0.0)
    model, data = task.model, mujoco.MjData(task.model)
    data.qpos[:] = task.start(jax.random.key(1)).qpos
    data.ctrl[:] = task.joints
    before, robot = data.qpos.copy(), 7 + model.nu
    while data.time < seconds:
        data.qpos[:robot], data.qvel[: robot - 1] = before[:robot], 0.0
        act(data)
        mujoco.mj_step(model, data)
    return model, before[robot:], data.qpos[robot:]


@pytest.mark.parametrize("name", [f"{robot}_{name}" for robot in ("h1", "g1") for name in (*STARTS, "cabinet")])
def test_objects_stay_where_they_are_put(name):
    _, before, after = settled(name)
    np.testing.assert_allclose(after, before, atol=5e-3)


@pytest.mark.parametrize("robot", ["h1", "g1"])
def test_doors_shut_under_a_light_push_and_a_ball_rolls_into_the_goal(robot):
    def push(data):
        for name in DOORS:
            data.joint(name).qfrc_applied[:] = -3.0  # N m: 7.5 N at the handles

    _, _, after = settled(f"{robot}_cabinet", 6.0, push)
    assert np.abs(after).max() < 0.02

    way = []

    def kick(data):
        if data.time == 0.0:
            data.joint("object").qvel[0] = 4.0
        way.append(data.joint("object").qpos[:3].copy())

    settled(f"{robot}_ball", 3.0, kick)
    way = np.asarray(way)
    assert way[:, 0].max() == pytest.approx(4.875, abs=0.03)  # it touches the back of the goal, and rebounds
    assert np.ptp(way[:, 1]) < 0.1 and np.abs(way[:, 2] - 0.1).max() < 0.05  # it hops a little


def test_two_hands_can_lift_the_package():
    """Spheres that press it from both sides and rise take it along: its friction is enough."""
    task = registry.make_task("h1_lift")
    spec = task.spec_mjcf()
    for side in (1, -1):
        body = spec.worldbody.add_body(name=f"hand{side}", pos=[0.6, side * 0.2, 0.8])
        body.add_joint(name=f"y{side}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, -side, 0])
        body.add_joint(name=f"z{side}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, 1])
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.04, 0, 0], mass=0.5, contype=0, conaffinity=1)
    model = spec.compile()
    data = mujoco.MjData(model)
    data.joint("object").qpos[:3] = [0.6, 0.0, 0.5]
    while data.time < 2.0:
        data.qpos[:7], data.qvel[:6] = [-3, 0, 1.027, 1, 0, 0, 0], 0.0  # the robot is not in this
        for side in (1, -1):
            data.joint(f"y{side}").qfrc_applied[:] = 30.0
            rise = 0.5 * max(data.time - 0.5, 0.0)
            z, v = float(data.joint(f"z{side}").qpos[0]), float(data.joint(f"z{side}").qvel[0])
            data.joint(f"z{side}").qfrc_applied[:] = 5.0 + 2000 * (rise - z) - 50 * v
        mujoco.mj_step(model, data)
    assert float(data.joint("object").qpos[2]) > 0.5 + 0.6


@pytest.mark.parametrize("name", NAMES)
def test_mjx_holds_the_models(name):
    task = registry.make_task(name)
    assert MjxPhysics(task.model, task.fields).model.nq == task.model.nq


# -- options ---------------------------------------------------------------------------------------------------------


def test_randomisation_leaves_the_published_mass_and_the_doors_alone():
    told = {"link_mass": [0.5, 0.5], "joint_zero": [0.1, 0.1], "friction": [0.3, 0.3]}
    task = registry.make_task("h1_lift", randomize=told)
    start = task.start(jax.random.key(0))
    body = task.model.body("object").id
    assert 0.1 <= float(start.overrides["body_mass"][body]) <= 2.0
    np.testing.assert_allclose(start.overrides["body_mass"][1], 0.5 * task.model.body_mass[1], rtol=1e-5)
    friction = np.asarray(start.overrides["geom_friction"])
    package, floor = task.model.body("object").geomadr[0], task.model.geom("floor").id
    assert friction[package, 0] == task.model.geom_friction[package, 0] and friction[floor, 0] == np.float32(0.3)
    cube = registry.make_task("g1_box", randomize={"link_mass": [0.5, 0.5]})
    body = cube.model.body("object").id
    assert cube.start(jax.random.key(0)).overrides["body_mass"][body] == np.float32(cube.model.body_mass[body])
    doors = registry.make_task("h1_cabinet", randomize={"joint_zero": [0.1, 0.1]}).start(jax.random.key(0))
    np.testing.assert_allclose(doors.overrides["qpos0"][7:], [*[0.1] * 19, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("h1_buton", {}, "did you mean 'h1_button'"),
        ("g1_far_rech", {}, "did you mean 'g1_far_reach'"),
        ("h1_box", {"weights": {"hand": 1.0}}, "did you mean 'hands'"),
        ("h1_lift", {"ground": "rough"}, "ground must be flat"),
        ("h1_box", {"tolerance": -1.0}, "tolerance must be at least 0"),
        ("h1_box", {"tolerence": 1.0}, "did you mean 'tolerance'"),
    ],
)
def test_impossible_options_are_named(name, options, message):
    with pytest.raises(UserError, match=message) as error:
        registry.make_task(name, **options)
    assert "\n" not in str(error.value)
