"""Fetch and Franka Kitchen of gymnasium-robotics: as the originals step, see and reward them."""

from __future__ import annotations

import importlib.util
import types

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from repertoire.envs import registry, rotations
from repertoire.envs.physics.mjx import MjxPhysics
from repertoire.envs.physics.native import NativePhysics
from repertoire.envs.tasks.fetch_model import IDS
from repertoire.envs.tasks.kitchen import ELEMENTS, Kitchen
from repertoire.errors import UserError

INSTALLED = importlib.util.find_spec("gymnasium_robotics") is not None
needs_package = pytest.mark.skipif(not INSTALLED, reason="needs gymnasium-robotics: pip install -e '.[robotics]'")
#: Compile fast, run slowly.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def quick(function):
    return jax.jit(function, compiler_options=QUICK)


def follow(env, actions, key=0):
    """State at the start and after each of `actions` [T, A]."""

    def step(state, action):
        state = env.step(state, action)
        return state, state

    def run(key, actions):
        start = env.reset(key)
        return start, jax.lax.scan(step, start, actions)[1]

    return quick(run)(jax.random.key(key), jnp.asarray(actions, jnp.float32))


def original(name, monkeypatch, **options):
    """The package's own env. Its `joint_type in (enum, ...)` is false for numpy integers in MuJoCo 3.17."""
    import gymnasium
    import gymnasium_robotics
    from gymnasium_robotics.utils import mujoco_utils

    gymnasium.register_envs(gymnasium_robotics)
    kinds = types.SimpleNamespace(**{k: int(v) for k, v in mujoco.mjtJoint.__members__.items()})
    monkeypatch.setattr(mujoco_utils, "mujoco", types.SimpleNamespace(**{**vars(mujoco), "mjtJoint": kinds}))
    env = gymnasium.make(name, **options).unwrapped
    env.reset(seed=0)
    return env


def drawn(size, steps=8, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, size)).astype(np.float32)


# -- mocap bodies and held joints, on both backends -----------------------------------------------------------------

TETHER = """
<mujoco><option timestep="0.005"/><default><geom contype="0" conaffinity="0"/></default><worldbody>
  <body name="hand" mocap="true"/>
  <body name="ball"><freejoint/><geom size="0.1" mass="1"/></body>
  <body name="slider"><joint name="slide" type="slide" axis="0 0 1"/><geom size="0.1" mass="1"/></body>
</worldbody><equality><connect body1="hand" body2="ball" anchor="0 0 0"/></equality></mujoco>
"""
MODEL = mujoco.MjModel.from_xml_string(TETHER)


POSE = jnp.asarray([[0.1, 0, 0, 1, 0, 0, 0]])


def pulled(engine):
    """Data after a step in which the mocap body jumps 10 cm along x and the slider is held."""
    step = quick(lambda d, p: engine.step(d, jnp.zeros(0), 20, mocap=p, held=((7, 0.25),)))
    return step(quick(engine.init)(jnp.asarray(MODEL.qpos0), jnp.zeros(MODEL.nv)), POSE)


@pytest.fixture(scope="module")
def native():
    return pulled(NativePhysics(MODEL, ("xpos",)))


def test_a_mocap_body_pulls_what_is_tied_to_it_and_stays_where_it_was_put(native):
    engine = NativePhysics(MODEL)
    last = jax.jit(lambda d: engine.step(d, jnp.zeros(0), 60))(native)
    np.testing.assert_allclose(last.qpos[:3], [0.1, 0, 0], atol=2e-3)  # gravity stretches the tie a little


def test_a_held_joint_is_put_back_and_seen_there_without_a_lag(native):
    assert float(native.qpos[7]) == 0.25 and float(native.qvel[6]) == pytest.approx(-9.81 * 0.1, rel=1e-3)
    np.testing.assert_allclose(native.xpos[3], [0, 0, 0.25], atol=1e-6)
    np.testing.assert_allclose(native.xpos[2], native.qpos[:3], atol=1e-6)


@pytest.mark.slow
def test_mjx_agrees_on_mocap_bodies_and_held_joints(native):
    theirs = pulled(MjxPhysics(MODEL, ("xpos",)))
    np.testing.assert_allclose(native.qpos, theirs.qpos, atol=1e-4)
    np.testing.assert_allclose(native.qvel, theirs.qvel, atol=2e-3)
    np.testing.assert_allclose(native.xpos, theirs.xpos, atol=1e-4)
    np.testing.assert_array_equal(theirs.backend["mocap_pos"], POSE[:, :3])  # so it stays in later steps


def test_euler_angles_of_known_turns():
    """Intrinsic x-y-z: the product of the three turns in this order."""
    angles = np.array([0.3, -0.7, 1.2])
    quat = jnp.asarray([1.0, 0, 0, 0])
    for axis, angle in zip(np.eye(3), angles):
        quat = rotations.product(quat, jnp.asarray([np.cos(angle / 2), *(np.sin(angle / 2) * axis)]))
    np.testing.assert_allclose(rotations.euler(quat), angles, atol=1e-6)


# -- beside the originals -------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_package
@pytest.mark.parametrize("name", [i for i in IDS if "Dense" not in i])
def test_fetch_steps_and_sees_as_the_original_does(name, monkeypatch):
    """The same C code on the same model: only controls, poses and what is read back are rounded to float32.

    With moving fingers the original multiplies a Jacobian that lags by a substep with velocities that do not; our
    velocities lag as a whole, which is some mm per control step.
    """
    theirs = original(name, monkeypatch)
    env = registry.make("fetch", "native", id=name, goal=True)
    actions = drawn(4)
    start, states = follow(env, actions)
    np.testing.assert_allclose(theirs.initial_gripper_xpos, env.task._settled.hand, atol=1e-9)
    mujoco.mj_resetData(theirs.model, theirs.data)
    theirs.data.qpos[:], theirs.data.qvel[:] = start.data.qpos, start.data.qvel
    mujoco.mj_forward(theirs.model, theirs.data)
    theirs.goal = np.asarray(start.memory.goal, float)
    slices = [s.name for s in env.spec.obs.groups["policy"] if s.name != "goal"]
    lagging = [s for s in slices if s in ("object_velocity", "grip_velocity") and env.task.scene.grips]
    exact = env.spec.obs.index("policy", tuple(s for s in slices if s not in lagging))
    for i, action in enumerate(actions):
        seen, reward, *_, info = theirs.step(action)
        np.testing.assert_allclose(states.data.qpos[i], theirs.data.qpos, atol=1e-5)
        np.testing.assert_allclose(states.data.qvel[i], theirs.data.qvel, atol=1e-4)
        np.testing.assert_allclose(states.obs["policy"][i, exact], seen["observation"][exact], atol=1e-5)
        np.testing.assert_allclose(states.obs["policy"][i, :-3], seen["observation"], atol=4e-3)
        assert float(states.reward[i]) == reward and float(states.metrics["success"][i]) == info["is_success"]


@pytest.mark.slow
@needs_package
def test_the_kitchen_steps_and_sees_as_the_original_does(monkeypatch):
    """As above, without the original's noise, which there reaches the controls as well."""
    theirs = original("FrankaKitchen-v1", monkeypatch, robot_noise_ratio=0.0, object_noise_ratio=0.0)
    env = registry.make("kitchen", "native", noise=0.0)
    np.testing.assert_allclose(env.task.default_pose(), theirs.robot_env.init_qpos, atol=7e-3)  # theirs has noise
    actions = drawn(9)
    start, states = follow(env, actions)
    theirs.robot_env.init_qpos, theirs.robot_env.init_qvel = np.asarray(start.data.qpos, float), np.zeros(29)
    theirs.reset(seed=0)
    for i, action in enumerate(actions):
        seen, reward, *_ = theirs.step(action)
        np.testing.assert_allclose(states.data.qpos[i], theirs.data.qpos, atol=1e-5)
        np.testing.assert_allclose(states.data.qvel[i], theirs.data.qvel, atol=1e-3)
        np.testing.assert_allclose(states.obs["policy"][i], seen["observation"], atol=1e-3)
        assert float(states.reward[i]) == reward


@needs_package
@pytest.mark.parametrize("name", ["FetchPush-v4", "FetchPushDense-v4"])
def test_fetch_pays_by_the_way_that_is_missing(name):
    env = registry.make("fetch", "native", id=name, goal=True)
    state = quick(env.reset)(jax.random.key(0))
    place = state.memory.goal - env.task.missing(state.data, state.memory)
    for way, misses in ((0.0, 0), (0.04, 0), (0.06, 1)):
        memory = state.memory.replace(goal=place + jnp.array([way, 0.0, 0.0]))
        terms = env.task.terms(state.data, state.data, jnp.zeros(4), memory)
        reward = sum(weight * float(terms[term]) for term, weight in env.task.weights.items())
        assert reward == pytest.approx(-way if "Dense" in name else -misses, abs=1e-6)
        assert float(env.task.measure(state.data, memory)["success"]) == 1 - misses


@needs_package
def test_a_weight_of_fetch_replaces_that_one_alone():
    task = registry.make_task("fetch", id="FetchPush-v4", goal=True, weights={"distance": -0.1})
    assert dict(task.weights) == {"miss": -1.0, "distance": -0.1}


@needs_package
def test_elements_belong_where_the_original_says():
    from gymnasium_robotics.envs.franka_kitchen import kitchen_env

    for name, (first, goal) in ELEMENTS.items():
        theirs = name.replace("_", " ")
        np.testing.assert_array_equal(goal, kitchen_env.OBS_ELEMENT_GOALS[theirs])
        assert list(kitchen_env.OBS_ELEMENT_INDICES[theirs]) == list(range(first, first + len(goal)))
    assert len(kitchen_env.OBS_ELEMENT_GOALS) == len(ELEMENTS)


# -- tasks ----------------------------------------------------------------------------------------------------------


@needs_package
def test_objects_start_and_goals_lie_where_they_should():
    hand_z = {}
    for name, near in (("FetchPush-v4", 0.15), ("FetchSlide-v4", 0.1), ("FetchPickAndPlace-v4", 0.15)):
        task = registry.make_task("fetch", id=name, goal=True)
        keys = jax.random.split(jax.random.key(0), 200)
        first, hand = int(task.model.joint("object0:joint").qposadr[0]), task._settled.hand
        offset = np.asarray(quick(jax.vmap(task.start))(keys).qpos[:, first : first + 2]) - hand[:2]
        assert (np.linalg.norm(offset, axis=1) >= 0.1 - 1e-6).all() and (np.abs(offset) <= near + 1e-6).all()
        goals = np.asarray(quick(jax.vmap(lambda k, t=task: t.remember(k, None)))(keys).goal)
        assert (np.abs(goals[:, 0] - hand[0] - task.scene.ahead) <= task.scene.goals + 1e-6).all()
        hand_z[name] = (goals[:, 2] > task._settled.height + 1e-6).mean()
    assert hand_z["FetchPush-v4"] == hand_z["FetchSlide-v4"] == 0 and 0.4 < hand_z["FetchPickAndPlace-v4"] < 0.6


@needs_package
def test_what_coverage_counts_is_the_object():
    cells = {i: registry.make_task("fetch", id=i).coverage_cells for i in IDS if "Dense" not in i}
    assert cells == {
        "FetchReach-v4": {"grip_position": 0.1},
        "FetchPush-v4": {"object_xy": 0.1},
        "FetchSlide-v4": {"object_xy": 0.1},
        "FetchPickAndPlace-v4": {"object_position": 0.1},
    }
    for name in cells:
        spec = registry.make_spec("fetch", id=name)
        assert set(cells[name]) <= {s.name for s in spec.obs.groups["features"]}
        assert spec.action_names == ("x", "y", "z", "gripper") and spec.dt == pytest.approx(0.04)


def at(**elements):
    """A stand-in for `Data` of a kitchen whose elements are where they are said to be, else at the start."""
    qpos = np.zeros(30, np.float32)
    qpos[23:] = (-0.2694, 0.3504, 1.6194, 1, 0, 0, 0)
    for name, value in elements.items():
        first = ELEMENTS[name][0]
        qpos[first : first + len(value)] = value
    return types.SimpleNamespace(qpos=jnp.asarray(qpos))


def test_elements_count_once_in_any_order():
    task = Kitchen(elements=("microwave", "kettle"))
    memory = task.remember(jax.random.key(0), None)
    rewards, counts = [], []
    shut, opened, both = at(), at(microwave=(-0.5,)), at(kettle=ELEMENTS["kettle"][1])
    for data in (shut, opened, shut, both, opened):
        rewards.append(float(task.terms(data, data, None, memory)["done"]))
        memory = task.advance(None, data, data, None, memory, None)
        counts.append(float(task.measure(data, memory)["elements"]))
    assert rewards == [0, 1, 0, 1, 0] and counts == [0, 1, 1, 2, 2]
    assert bool(task.terminated(shut, memory)) and float(task.measure(shut, memory)["success"]) == 1
    assert not Kitchen(elements=("microwave",), terminate=False).terminated(shut, memory)
    nearly = at(microwave=(-0.45,), slide_cabinet=(0.071,))
    assert list(Kitchen(elements=("microwave", "slide_cabinet")).reached(nearly)) == [False, True]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fetch", {}, "needs the name of one of its envs: id=FetchPush-v4"),
        ("fetch", {"id": "FetchPush-v3"}, "did you mean 'FetchPush-v4'"),
        ("fetch", {"id": "FetchPush-v4", "weights": {"miss": -1.0}}, "env.goal=true only"),
        ("fetch", {"id": "FetchPush-v4", "goal": True, "weights": {"mis": -1.0}}, "did you mean 'miss'"),
        ("kitchen", {"elements": ["kettel"]}, "did you mean 'kettle'"),
        ("kitchen", {"elements": []}, "one or more of"),
        ("kitchen", {"elements": ["kettle", "kettle"]}, "each once"),
        ("kitchen", {"noise": -1.0}, "noise must be at least 0"),
    ],
)
def test_impossible_options_are_named(name, options, message):
    if "goal" in options and not INSTALLED:
        pytest.skip("needs gymnasium-robotics")
    with pytest.raises(UserError, match=message) as error:
        registry.make_task(name, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "options"), [("fetch", {"id": "FetchPush-v4"}), ("kitchen", {})])
def test_without_the_package_one_line_says_what_to_install(name, options, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'repertoire-rl\[robotics\]'"):
        registry.make(name, "native", **options)
