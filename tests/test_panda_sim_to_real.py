"""The Panda under domain randomisation: each term changes what it says, and nothing does by default."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.deploy import contract_terms, replay
from repertoire.envs import registry
from repertoire.envs.physics.native import NativePhysics
from repertoire.envs.randomization import MODEL_TERMS, PRESETS, Randomization
from repertoire.envs.tasks.panda import control, sensing
from repertoire.envs.tasks.panda.cubes import VARIED
from repertoire.errors import UserError

KEY = jax.random.key(4)
TASKS = [name for name in registry.TASKS if name.startswith("panda_")]
FIELDS = {
    "friction": {"geom_friction"},
    "link_mass": {"body_mass", "body_inertia", "body_gravcomp"},
    "base_mass": {"body_mass", "body_inertia", "body_gravcomp"},
    "com": {"body_ipos"},
    "kp": {"actuator_gainprm", "actuator_biasprm"},
    "kd": {"actuator_biasprm"},
    "strength": {"actuator_gainprm", "actuator_biasprm", "actuator_forcerange"},
    "armature": {"dof_armature"},
    "damping": {"dof_damping"},
}


@pytest.fixture(scope="module")
def push():
    return registry.make_task("panda_push")


@pytest.fixture(scope="module")
def everything():
    """All at once: the preset, and a history."""
    return registry.make("panda_push", "native", randomize=True, history=3)


@pytest.fixture(scope="module")
def begun(everything):
    return jax.jit(everything.reset)(KEY)


def randomized(name="panda_reach", **terms):
    return registry.make_task(name, randomize=terms)


# -- off -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_nothing_is_randomised_by_default(name):
    task = registry.make_task(name)
    assert task.ranges == Randomization() and task.overrides(KEY) == {} and task.first_sent(KEY) is None
    assert all((s.noise, s.history) == (0.0, 1) for group in task.obs_spec().groups.values() for s in group)
    shown = registry.make_task(name, randomize=True, play=True)
    assert shown.ranges == Randomization() and shown.obs_spec() == task.obs_spec()


def test_places_goals_and_cubes_do_not_depend_on_the_option(push, begun):
    start = push.start(KEY)
    drawn = registry.make_task("panda_push", randomize=True).start(KEY)
    assert set(start.overrides) == set(VARIED)
    np.testing.assert_array_equal(drawn.qpos, start.qpos)
    cube, geom = push.model.body("cube").id, push.model.geom("cube").id
    for name in VARIED:
        i = cube if name.startswith("body") else geom
        np.testing.assert_array_equal(drawn.overrides[name][i], start.overrides[name][i])
    arm = push.model.body("link4").id
    assert float(drawn.overrides["body_mass"][arm]) != float(start.overrides["body_mass"][arm])


# -- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", FIELDS)
def test_a_term_changes_its_fields_and_no_other(push, term):
    found = randomized("panda_push", **{term: (1.5, 1.5)}).overrides(KEY)
    assert set(found) == FIELDS[term]
    for name, value in found.items():
        assert not np.allclose(value, getattr(push.model, name), rtol=1e-6), name


def test_every_term_is_either_for_the_arm_or_refused():
    assert set(FIELDS) | set(sensing.NO_TERMS) == set(MODEL_TERMS) | {"push", "push_spin"}
    assert all(getattr(PRESETS["panda"], t) is None for t in sensing.NO_TERMS) and PRESETS["panda"].noise == 1.0
    assert all(getattr(PRESETS["panda"], t) for t in {*FIELDS, "latency"} - {"friction"})  # cubes have theirs


def test_the_controller_bears_the_weight_that_it_knows(push):
    model, found = push.model, randomized("panda_push", link_mass=(0.5, 2.0)).overrides(KEY)
    borne = np.asarray(found["body_mass"] * found["body_gravcomp"])
    np.testing.assert_allclose(borne, model.body_mass * model.body_gravcomp, rtol=1e-6)
    assert not found["body_gravcomp"][model.body("cube").id]


@pytest.mark.parametrize(("term", "values"), [("base_mass", (0.0, 1.0)), ("kp", (1.0, 0.3))])
def test_a_load_and_soft_servos_let_the_hand_sag(term, values):
    """Under 1 kg in the hand, as the weights of arm and hand are compensated."""
    extra = {"base_mass": (1.0, 1.0)} if term == "kp" else {}
    tasks = [randomized(**{**extra, term: (v, v)}) for v in values]
    physics = NativePhysics(tasks[0].model, tasks[0].fields)
    heights = []
    for task in tasks:
        over = task.overrides(KEY)
        data = physics.init(jnp.asarray(task.default_pose(), jnp.float32), jnp.zeros(task.model.nv), over)
        ctrl = jnp.asarray([*control.HOME, control.OPEN], jnp.float32)
        heights.append(float(task.hand(physics.step(data, ctrl, 500))[2]))
    assert heights[1] < heights[0] - 0.002 and heights[0] > 0.2


# -- latency ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("latency", "expected"), [(0.0, 0.3), (0.25, 0.275), (1.0, 0.2), (1.5, 0.15), (2.0, 0.1)])
def test_latency_applies_an_earlier_action(begun, latency, expected):
    """Actions 0.1, 0.2, 0.3, each from the same targets: those that come are what a prompt arm would be asked for."""
    late = registry.make_task("panda_push", randomize={"latency": (latency, latency)}, control_mode="joint")
    memory = begun.memory.replace(sent=late.first_sent(KEY))
    for a in (0.1, 0.2):
        moved = late.advance(KEY, begun.data, begun.data, jnp.full(8, a), memory, jnp.int32(0))
        memory = moved.replace(targets=memory.targets)
    found = late.follow(jnp.full(8, 0.3), begun.data, memory)
    wanted = control.follow("joint", memory.targets, jnp.full(8, expected), begun.data.qpos[:7])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert float(memory.sent.actions[0, 0]) == pytest.approx(0.2)


# -- noise and history -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_what_is_measured_has_noise_and_all_but_goals_a_history(name):
    spec = registry.make_task(name, randomize={"noise": 0.5}, history=2).obs_spec()
    exact = {"unlocked", "stage"}  # of what was done, which no sensor measures
    for s in spec.groups["policy"]:
        assert s.noise == 0.5 * sensing.NOISE.get(s.name, 0.0) and (s.noise > 0) == (s.name not in exact), s.name
        assert s.history == (1 if s.name in sensing.TOLD else 2), s.name
    assert not any(s.noise or s.history > 1 for g in ("critic", "features") for s in spec.groups[g])


def test_only_the_policy_suffers_noise(everything, begun):
    task = everything.task
    exact, spec = everything.spec.obs.build(task.observe(begun.data, begun.memory)), everything.spec.obs
    for group in ("critic", "features"):
        np.testing.assert_allclose(begun.obs[group], exact[group], atol=1e-5)
    error = np.abs(begun.obs["policy"] - exact["policy"])
    for s in spec.groups["policy"]:
        worst = error[spec.index("policy", (s.name,))].max()
        assert 0.0 < worst <= s.noise * s.scale + 1e-5, s.name


def test_a_rollout_with_everything_on_stays_finite_and_remembers(everything, begun):
    step, state, index = jax.jit(everything.step), begun, everything.spec.obs.index("policy", ("joints",))
    assert set(state.data.overrides) >= set.union(*(FIELDS[t] for t in FIELDS)) and 0 <= state.memory.sent.latency <= 1
    seen = [np.asarray(state.obs["policy"])[index][-7:]]
    for i in range(20):
        state = step(state, jax.random.uniform(jax.random.key(i), (4,), minval=-1.0, maxval=1.0))
        seen.append(np.asarray(state.obs["policy"])[index][-7:])
        assert all(bool(jnp.isfinite(x).all()) for x in (*state.obs.values(), state.reward, state.data.qpos))
    np.testing.assert_array_equal(np.asarray(state.obs["policy"])[index].reshape(3, 7), seen[-3:])
    assert not state.metrics["diverged"]


# -- the option ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"randomize": "go2"}, "randomize.push is not for the arm, which is bolted down"),
        ({"randomize": {"joint_zero": (-0.1, 0.1)}}, "randomize.joint_zero is not for the arm"),
        ({"randomize": {"frictionloss": (0.5, 1.0)}}, "randomize.frictionloss is not for the arm"),
        ({"randomize": {"damp": (0.5, 1.0)}}, "did you mean 'damping'"),
        ({"randomize": {"damping": (-0.5, 1.0)}}, "randomize.damping must have 0 <= low <= high"),
        ({"randomize": {"base_mass": (-1.0, 0.0)}}, r"leave -0.27 kg of the trunk's 0.73 kg"),
        ({"randomize": "pand"}, "did you mean 'panda'"),
        ({"history": 0}, "history"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(UserError, match=message) as error:
        registry.make_task("panda_push", **options)
    assert "\n" not in str(error.value)


def test_exports_carry_noise_and_history_and_are_checked_without(everything):
    quiet = replay.on_native(everything)
    assert quiet.task.play and quiet.task.ranges == Randomization() and not quiet._noise.any()
    graph = SimpleNamespace(slices=("joints", "cube_axes", "goal"), features=())
    rows = contract_terms.terms(everything.task, everything.spec, graph)
    assert [(r["noise"], r["history"]) for r in rows] == [(0.002, 3), (0.03, 3), (0.005, 1)]
    assert [s.history for s in quiet.spec.obs.groups["policy"]] == [
        s.history for s in everything.spec.obs.groups["policy"]
    ]
