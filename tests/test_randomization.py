"""Domain randomisation, pushes, noise, latency and history: each term changes what it says, and only that."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.deploy import replay
from repertoire.envs import registry
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.physics.mjx import MjxPhysics
from repertoire.envs.physics.native import NativePhysics
from repertoire.envs.randomization import MODEL_TERMS, PRESETS, Randomization, draw_overrides
from repertoire.envs.types import ObsSpec, Slice
from repertoire.errors import UserError

NOISY = {"noise": 1.0}
#: Compile fast, run slowly.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.fixture(scope="module")
def task():
    return registry.make_task("go2_velocity")


@pytest.fixture(scope="module")
def model(task):
    return task.model


@pytest.fixture(scope="module")
def trunk(model):
    return model.body("base").id


@pytest.fixture(scope="module")
def physics(task):
    return NativePhysics(task.model, task.fields)


def at(value, index, new):
    """A copy of the array `value` with `new` at `index`."""
    value = np.array(value, float)
    value[index] = new
    return value


# -- the model -------------------------------------------------------------------------------------------------------


def expected(model, trunk, term):
    """Fields that `term` must give for the range (2, 2), by hand."""
    m, i = model.body_mass, model.body_inertia
    gain, bias = model.actuator_gainprm, model.actuator_biasprm
    heavier = (m[trunk] + 2) / m[trunk]
    return {
        "friction": {"geom_friction": at(model.geom_friction, np.s_[:, 0], 2.0)},
        "link_mass": {"body_mass": 2 * m, "body_inertia": 2 * i},
        "base_mass": {"body_mass": at(m, trunk, m[trunk] + 2), "body_inertia": at(i, trunk, heavier * i[trunk])},
        "com": {"body_ipos": at(model.body_ipos, trunk, model.body_ipos[trunk] + 2)},
        "kp": {
            "actuator_gainprm": at(gain, np.s_[:, 0], 80.0),
            "actuator_biasprm": at(bias, np.s_[:, 1], -80.0),
        },
        "kd": {"actuator_biasprm": at(bias, np.s_[:, 2], -2.0)},
        "strength": {
            "actuator_gainprm": 2 * gain,
            "actuator_biasprm": 2 * bias,
            "actuator_forcerange": 2 * model.actuator_forcerange,
        },
        "armature": {"dof_armature": 2 * model.dof_armature},
        "frictionloss": {"dof_frictionloss": 2 * model.dof_frictionloss},
        "joint_zero": {"qpos0": at(model.qpos0, np.s_[7:], 2.0)},
        "damping": {"dof_damping": 2 * model.dof_damping},
    }[term]


@pytest.mark.parametrize("term", MODEL_TERMS)
def test_a_term_changes_its_fields_and_no_other(model, trunk, term):
    found = draw_overrides(model, Randomization(**{term: (2.0, 2.0)}), trunk, jax.random.key(0))
    wanted = expected(model, trunk, term)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)


def test_nothing_is_drawn_without_terms(model, trunk):
    assert draw_overrides(model, Randomization(), trunk, jax.random.key(0)) == {}


def test_terms_on_the_same_field_multiply(model, trunk):
    ranges = Randomization(kp=(2.0, 2.0), strength=(3.0, 3.0), link_mass=(0.5, 0.5), base_mass=(1.0, 1.0))
    found = draw_overrides(model, ranges, trunk, jax.random.key(0))
    np.testing.assert_allclose(found["actuator_gainprm"][:, 0], 6 * 40.0)
    np.testing.assert_allclose(found["actuator_biasprm"][:, 1:3], np.tile([-6 * 40.0, -3 * 1.0], (12, 1)))
    assert float(found["body_mass"][trunk]) == pytest.approx(0.5 * 6.923 + 1.0)


def test_draws_fill_their_range_and_do_not_depend_on_other_terms(model, trunk):
    keys = jax.random.split(jax.random.key(0), 100)
    alone = jax.vmap(lambda k: draw_overrides(model, Randomization(kp=(0.8, 1.2)), trunk, k))(keys)
    both = jax.vmap(lambda k: draw_overrides(model, Randomization(kp=(0.8, 1.2), friction=(0.3, 1.0)), trunk, k))(keys)
    np.testing.assert_array_equal(alone["actuator_gainprm"], both["actuator_gainprm"])
    factor, friction = alone["actuator_gainprm"][..., 0] / 40.0, both["geom_friction"][..., 0]
    assert 0.8 <= factor.min() < 0.81 and 1.19 < factor.max() <= 1.2  # one draw for each of 1200 motors
    assert 0.3 <= friction.min() < 0.35 and 0.95 < friction.max() <= 1.0
    assert (friction == friction[:, :1]).all()  # one draw per world


def settled(physics, overrides, steps=150, speed=0.0):
    """Data after `steps` control steps of the default pose, in one world per row of `overrides`."""
    model = physics.model
    n = len(next(iter(overrides.values())))
    qpos = jnp.tile(jnp.asarray(model.key_qpos[0], jnp.float32), (n, 1))
    ctrl = jnp.tile(jnp.asarray(model.key_ctrl[0], jnp.float32), (n, 1))
    data = jax.vmap(physics.init)(qpos, jnp.zeros((n, model.nv)).at[:, 0].set(speed), overrides)
    return jax.jit(jax.vmap(lambda d, u: physics.step(d, u, 5 * steps)))(data, ctrl)


def fixed(model, trunk, term, *values):
    """Overrides of one world per value of `term`."""
    ranges = [Randomization(**{term: (v, v)}) for v in values]
    drawn = [draw_overrides(model, r, trunk, jax.random.key(0)) for r in ranges]
    return jax.tree.map(lambda *x: jnp.stack(x), *drawn)


@pytest.mark.parametrize(
    ("term", "values", "effect"),
    [
        ("kp", (1.0, 3.0), lambda a, b: b.qpos[2] > a.qpos[2] + 0.02),  # sags less
        ("strength", (1.0, 0.4), lambda a, b: b.qpos[2] < a.qpos[2] - 0.05),  # gives way
        ("base_mass", (0.0, 10.0), lambda a, b: b.qpos[2] < a.qpos[2] - 0.02),
        ("com", (0.0, 0.05), lambda a, b: b.qpos[0] > a.qpos[0] + 0.005),  # leans forward
        ("joint_zero", (0.0, 0.05), lambda a, b: abs(b.qpos[2] - a.qpos[2]) > 1e-3),
    ],
)
def test_a_term_has_its_effect(model, physics, trunk, term, values, effect):
    data = settled(physics, fixed(model, trunk, term, *values))
    a, b = (jax.tree.map(lambda x, i=i: np.asarray(x[i]), data) for i in (0, 1))
    assert effect(a, b)


def test_a_robot_slides_further_on_less_friction(model, physics, trunk):
    x = settled(physics, fixed(model, trunk, "friction", 0.8, 0.1), steps=25, speed=1.0).qpos[:, 0]
    assert x[1] > x[0] + 0.1


# -- pushes ----------------------------------------------------------------------------------------------------------


def test_a_kick_adds_to_the_velocity(physics, task):
    start = task.start(jax.random.key(0))
    kick = jnp.arange(18.0) / 100
    plain = physics.init(start.qpos, start.qvel + kick)
    kicked = physics.init(start.qpos, start.qvel)
    ctrl = jnp.asarray(task.joints)
    a, b = physics.step(plain, ctrl, 1), physics.step(kicked, ctrl, 1, kick)
    np.testing.assert_allclose(a.qpos, b.qpos, atol=1e-6)
    np.testing.assert_allclose(a.qvel, b.qvel, atol=1e-4)
    still = physics.step(kicked, ctrl, 1, jnp.zeros(18))
    np.testing.assert_array_equal(still.backend, physics.step(kicked, ctrl, 1).backend)


def test_pushes_come_on_time_and_with_their_speed():
    task = registry.make_task("go2", randomize={"push": (1.0, 1.0), "push_interval": (0.1, 0.1)})
    memory, kicks = task.remember(jax.random.key(0), None), []
    for i in range(30):
        kicks.append(np.asarray(task.kick(None, memory)))
        memory = task.advance(jax.random.key(i), None, None, jnp.zeros(12), memory, None)
    speeds = np.linalg.norm(kicks, axis=1)
    assert np.flatnonzero(speeds).tolist() == [5, 10, 15, 20, 25]  # every 0.1 s
    np.testing.assert_allclose(speeds[speeds > 0], 1.0, rtol=1e-5)
    assert not np.asarray(kicks)[:, 2:].any() and np.unique(np.asarray(kicks)[:, 0]).size == 6


def test_a_push_moves_the_robot():
    task = registry.make_task("go2", randomize={"push": (2.0, 2.0)}, reset_noise=0.0)
    env = MujocoEnv(task, NativePhysics(task.model, task.fields))
    state, step = env.reset(jax.random.key(0)), jax.jit(env.step)
    push = jnp.asarray([0.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    due, later = (state.replace(memory=state.memory.replace(push=push, push_in=jnp.int32(n))) for n in (0, 100))
    pushed, left = step(due, jnp.zeros(12)), step(later, jnp.zeros(12))
    assert float(pushed.data.qpos[1]) == pytest.approx(2.0 * 0.02, rel=0.3) and abs(float(left.data.qpos[1])) < 1e-3
    assert not state.data.overrides


# -- latency ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("latency", "expected"), [(0.0, 3.0), (0.25, 2.75), (1.0, 2.0), (1.5, 1.5), (2.0, 1.0)])
def test_latency_applies_an_earlier_action(latency, expected):
    task = registry.make_task("go2", randomize={"latency": (latency, latency)})
    memory = task.remember(jax.random.key(0), None)
    for a in (1.0, 2.0):
        memory = task.advance(jax.random.key(1), None, None, jnp.full(12, a), memory, None)
    ctrl = task.control(jnp.full(12, 3.0), None, memory)
    np.testing.assert_allclose((ctrl - task.joints) / task.action_scale, expected, rtol=1e-5)
    assert float(memory.actions[0, 0]) == 2.0  # what the policy is told of is what it asked for


# -- noise and history -----------------------------------------------------------------------------------------------


def test_noise_is_declared_and_only_the_policy_suffers_it(physics):
    quiet, noisy = (registry.make_task("go2_velocity", randomize=r) for r in (False, NOISY))
    slices = {s.name: s.noise for s in noisy.obs_spec().groups["policy"]}
    declared = {"gravity": 0.05, "gyro": 0.2, "joint_pos": 0.03, "joint_vel": 1.5}
    assert slices == declared | {"last_action": 0.0, "command": 0.0}
    assert not any(s.noise for s in quiet.obs_spec().groups["policy"])
    a, b = (MujocoEnv(t, physics).reset(jax.random.key(0)).obs for t in (quiet, noisy))
    np.testing.assert_array_equal(a["critic"], b["critic"])
    np.testing.assert_array_equal(a["features"], b["features"])
    error = np.abs(a["policy"] - b["policy"])
    spec = quiet.obs_spec()
    for s in spec.groups["policy"]:
        worst = error[spec.index("policy", (s.name,))].max()
        assert worst <= slices[s.name] * s.scale + 1e-6 and (worst > 0) == (slices[s.name] > 0), s.name
    half = registry.make_task("go2", randomize={"noise": 0.5}).obs_spec().groups["policy"]
    assert {s.name: s.noise for s in half}["gyro"] == pytest.approx(0.1)


def test_histories_slide():
    spec = ObsSpec({"policy": (Slice("a", 2, history=3), Slice("b", 1)), "critic": (Slice("b", 1),)})
    assert spec.size("policy") == 7 and spec.index("policy", ("b",)).tolist() == [6]
    values = [{"a": jnp.asarray([i, 10.0 * i]), "b": jnp.asarray([-float(i)])} for i in range(4)]
    obs = spec.build(values[1])
    np.testing.assert_array_equal(obs["policy"], [1, 10, 1, 10, 1, 10, -1])
    for i in (2, 3):
        obs = spec.slide(obs, spec.build(values[i]))
    np.testing.assert_array_equal(obs["policy"], [1, 10, 2, 20, 3, 30, -3])
    np.testing.assert_array_equal(obs["critic"], [-3])


def test_the_policy_remembers_what_it_saw(physics):
    """Oldest first, noise and all; an episode starts with copies."""
    task = registry.make_task("go2_velocity", randomize=NOISY, history=3)
    env = MujocoEnv(task, physics)
    index = env.spec.obs.index("policy", ("joint_vel",)).reshape(3, 12)
    state, step, seen = env.reset(jax.random.key(0)), jax.jit(env.step), []
    for i in range(4):
        frames = np.asarray(state.obs["policy"])[index]
        seen.append(frames[-1])
        np.testing.assert_array_equal(frames, [seen[max(i - k, 0)] for k in (2, 1, 0)])
        state = step(state, jax.random.uniform(jax.random.key(i), (12,)))
    assert np.unique(seen, axis=0).shape == (4, 12)
    assert env.spec.obs.index("policy", ("command",)).size == 3  # commands have no history


# -- the option ------------------------------------------------------------------------------------------------------


def test_off_means_off(task):
    assert task.ranges == Randomization() and task.kick(None, task.remember(jax.random.key(0), None)) is None
    assert task.start(jax.random.key(0)).overrides == {}
    playing = registry.make_task("go2_velocity", randomize=True, play=True)
    assert playing.ranges == Randomization() and playing.start(jax.random.key(0)).overrides == {}


def test_the_option_takes_a_preset_or_terms():
    assert registry.make_task("go2", randomize=True).ranges == PRESETS["go2"]
    assert registry.make_task("go2", randomize="asap_g1").ranges == PRESETS["asap_g1"]
    some = registry.make_task("go2", randomize={"kp": [0.5, 2], "noise": 0.3}).ranges
    assert some == Randomization(kp=(0.5, 2.0), noise=0.3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("go3", "did you mean 'go2'"),
        ({"kpp": (1, 2)}, "did you mean 'kp'"),
        ({"kp": (2, 1)}, "randomize.kp must have 0 <= low <= high"),
        ({"kp": (-1, 1)}, "randomize.kp"),
        ({"kp": 1.0}, r"range \[low, high\]"),
        ({"com": (0.1, float("nan"))}, "randomize.com"),
        ({"noise": -1.0}, "randomize.noise"),
        ({"noise": None}, "randomize.noise must be a number"),
        ({"kp": ["a", 1.0]}, "randomize.kp.0. must be a number"),
        ({"push": [0.0, 1.0], "push_interval": None}, "randomize.push_interval is a range"),  # else: in every step
        ({"base_mass": [-8.0, 0.0]}, r"leave -1.08 kg of the trunk's 6.92 kg"),
        ({"base_mass": [-5.0, 0.0], "link_mass": [0.7, 1.0]}, "randomize.base_mass and link_mass may leave -0.154 kg"),
    ],
)
def test_impossible_randomisation_is_named(value, message):
    with pytest.raises(UserError, match=message) as error:
        registry.make_task("go2", randomize=value)
    assert "\n" not in str(error.value)


def test_presets_of_the_robots_randomise_all_that_sim_to_real_needs():
    always = ("friction", "base_mass", "kp", "kd", "strength", "armature", "push", "latency")
    for name in ("go2", "g1", "h1"):
        assert all(getattr(PRESETS[name], term) for term in always) and PRESETS[name].noise == 1.0
    lab = PRESETS["unitree_rl_lab"]  # the research notes' table, one row in full
    assert lab == Randomization(
        friction=(0.3, 1.0), base_mass=(-1.0, 3.0), push=(0.0, 0.5), push_interval=(5.0, 5.0), noise=1.0
    )


# -- backends --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_randomised_worlds_are_the_same_on_native_and_mjx(task):
    """All terms at once, 0.1 s, float64: to 1e-5 of qpos (m, rad), as the unrandomised models are held to."""
    model, trunk = task.model, task.model.body("base").id
    ranges = dataclasses.replace(PRESETS["go2"], push=None)
    over = jax.vmap(lambda k: draw_overrides(model, ranges, trunk, k))(jax.random.split(jax.random.key(0), 2))
    qpos = jnp.tile(jnp.asarray(model.key_qpos[0], jnp.float32), (2, 1))
    kick = jnp.zeros((2, model.nv)).at[:, 0].set(0.5)
    ctrl = jnp.tile(jnp.asarray(model.key_ctrl[0] + 0.1, jnp.float32), (2, 1))
    ends = []
    with jax.enable_x64(True):
        for engine in (NativePhysics(model, task.fields), MjxPhysics(model, task.fields)):
            data = jax.jit(jax.vmap(engine.init), compiler_options=QUICK)(qpos, jnp.zeros((2, model.nv)), over)
            step = jax.jit(jax.vmap(lambda d, u, k, e=engine: e.step(d, u, 25, k)), compiler_options=QUICK)
            ends.append(step(data, ctrl, kick))
    a, b = ends
    np.testing.assert_allclose(a.qpos, b.qpos, atol=1e-5)
    np.testing.assert_allclose(a.actuator_force, b.actuator_force, rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(a.sensordata > 0, b.sensordata > 0)
    assert np.abs(a.qpos[0] - a.qpos[1]).max() > 1e-3


def test_a_replay_is_of_the_robot_as_it_is():
    """What was trained under randomisation, latency, pushes and noise is checked without them."""
    env = registry.make("go2_velocity", "native", randomize=True, vx=(0.2, 0.3))
    quiet = replay.on_native(env)
    state = jax.jit(quiet.reset)(jax.random.key(0))
    assert env.task.ranges.latency and not state.data.overrides and not quiet._noise.any()
    assert quiet.task.play and quiet.task.vx == (0.2, 0.3) and quiet.task.ranges.latency is None
    assert quiet.task.kick(state.data, state.memory) is None
