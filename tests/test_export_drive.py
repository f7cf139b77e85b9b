"""Exports for the Panda: the drive that the runner executes, what observations are made of, and the check's replay."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from repertoire.deploy import contract_terms, replay, runner
from repertoire.deploy.check import check
from repertoire.deploy.contract import load_contract
from repertoire.deploy.export import export_controller, export_policy
from repertoire.deploy.graph import FrozenPolicy, controller_graph, policy_graph
from repertoire.deploy.witness import Witness, varied
from repertoire.envs import registry
from repertoire.envs.tasks.panda import control, furniture, kinematics
from repertoire.errors import UserError
from repertoire.high_level.sequence import Choice

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

#: Compile fast, run slowly.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
ARM = control.MODES["joint"].names[:-1]


def policy_of(obs, out, seed=0):
    """Random weights that move the arm about."""
    rng, sizes, arrays = np.random.default_rng(seed), (obs, 16, out), {}
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        arrays[f"policy/kernel{i}"] = (rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32)
        arrays[f"policy/bias{i}"] = (0.1 * rng.normal(size=b)).astype(np.float32)
    arrays |= {"obs/mean": np.zeros(obs, np.float32), "obs/var": np.ones(obs, np.float32)}
    return FrozenPolicy.from_arrays(arrays, "tanh")


def drive_of(mode, opening=control.OPEN):
    joints = [{"name": name, "qpos": [i, 1]} for i, name in enumerate((*ARM, *control.FINGERS))]
    return runner.Drive({"drive": json.loads(json.dumps(control.describe(mode, opening))), "joints": joints})


# -- the drive ------------------------------------------------------------------------------------------------------


def drawn_states(count, size):
    """Arms, and targets around them, some beyond the leashes, the workspace and the limits."""
    rng = np.random.default_rng(1)
    q = control.HOME + rng.uniform(-0.4, 0.4, (count, 7))
    chain = jax.vmap(kinematics.forward)(jnp.asarray(q, jnp.float32))
    vectors = jnp.asarray(rng.uniform(-0.3, 0.3, (count, 3)), jnp.float32)
    targets = control.Targets(
        joints=jnp.asarray(q + rng.uniform(-0.2, 0.2, q.shape), jnp.float32),
        position=jnp.asarray(chain.position + rng.uniform(-0.12, 0.12, (count, 3)), jnp.float32),
        rotation=jax.vmap(kinematics.turned)(chain.rotation, vectors),
        opening=jnp.asarray(rng.uniform(0, control.OPEN, count), jnp.float32),
    )
    fingers = np.repeat(rng.uniform(0, control.OPEN, (count, 1)), 2, axis=1)
    return np.concatenate([q, fingers], 1).astype(np.float32), targets, rng.uniform(-1, 1, (count, size))


@pytest.mark.parametrize("mode", control.MODES)
def test_the_drive_is_the_control_that_training_had(mode):
    steps, count = np.array(control.MODES[mode].steps, np.float32), 200
    qpos, targets, actions = drawn_states(count, steps.size)
    actions = actions.astype(np.float32)

    @functools.partial(jax.jit, compiler_options=QUICK)
    @jax.vmap
    def training(targets, action, q, opening):
        after = control.follow(mode, targets, action, q)
        return control.lag(mode, targets, q, opening), after

    lag, after = jax.tree.map(np.asarray, training(targets, actions, qpos[:, :7], qpos[:, 7:].mean(1)))
    drive, before, seen, ctrl, hands = drive_of(mode), jax.tree.map(np.asarray, targets), [], [], []
    for i in range(count):
        drive.start(qpos[i])
        drive.joints, drive.position = before.joints[i], before.position[i]
        drive.rotation, drive.opening = before.rotation[i], before.opening[i]
        seen.append(drive.lag(qpos[i]))
        ctrl.append(drive.follow(actions[i] * steps, qpos[i]))
        hands.append(drive.position)
    np.testing.assert_allclose(seen, lag, atol=2e-6)
    np.testing.assert_allclose(ctrl, np.concatenate([after.joints, after.opening[:, None]], 1), atol=1e-5)
    if mode != "joint":
        np.testing.assert_allclose(hands, after.position, atol=1e-6)
        assert (np.abs(after.position - (before.position + (actions * steps)[:, :3])) > 1e-3).any()  # leashes pull


def test_the_hand_is_where_the_model_has_it():
    model = registry.make_task("panda_reach").model
    data, drive, rng = mujoco.MjData(model), drive_of("ee_pose"), np.random.default_rng(0)
    for q in rng.uniform(kinematics.JOINT_LOW, kinematics.JOINT_HIGH, (20, 7)):
        data.qpos[:7] = q.astype(np.float32)
        mujoco.mj_kinematics(model, data)
        points, axes, position, rotation = drive.forward(drive.angles(data.qpos))
        np.testing.assert_allclose(position, data.site("tcp").xpos, atol=1e-6)
        np.testing.assert_allclose(rotation, data.body("hand").xmat.reshape(3, 3), atol=1e-6)
        np.testing.assert_allclose(points, [data.joint(name).xanchor for name in ARM], atol=1e-6)
        np.testing.assert_allclose(axes, [data.joint(name).xaxis for name in ARM], atol=1e-6)


def test_it_starts_where_the_arm_is():
    drive, qpos = drive_of("ee_delta", opening=0.01), np.append(control.HOME + 0.1, [0.02, 0.03])
    np.testing.assert_allclose(drive.start(qpos), [*control.HOME + 0.1, 0.01], atol=1e-6)
    np.testing.assert_allclose(drive.lag(qpos), [0, 0, 0, 0.01 - 0.025], atol=1e-6)
    home = np.append(control.HOME, [0.04, 0.04])
    drive.start(home)
    np.testing.assert_allclose(drive.follow(np.zeros(4), home), [*control.HOME, 0.01], atol=1e-4)


# -- what observations are made of ----------------------------------------------------------------------------------


def test_sources_are_one_atom_or_a_difference():
    assert runner.parse("axes(qpos[12:16])") == [("of", ("axes", "qpos", "12", "16"))]
    assert runner.parse("command.goal - hand") == [("command", ("goal",)), ("drive", ("hand",))]
    assert [kind for kind, _ in runner.parse("qpos[7:9] - default[7:9]")] == ["part", "part"]
    for text in ("", "hand - ", "magic", "hand-lag", "qpos[0:2] - hand - lag", "mean(hand)", "qpos[a:b]", "command."):
        assert runner.parse(text) == [], text


WHAT = {
    "panda_reach": ["goal"],
    "panda_push": ["goal"],
    "panda_pick_place": ["goal"],
    "panda_stack": ["goal"],
    "panda_rearrange": ["goal", "other_goal"],
    "panda_cube": [],
    "panda_drawer": ["handle", "goal"],
    "panda_scene": ["handle", "button", "unlocked", "stage"],
}


@pytest.mark.parametrize("name", WHAT)
def test_what_must_be_told(name):
    task = registry.make_task(name)
    slices = tuple(s.name for s in task.obs_spec().groups["policy"])
    spec = SimpleNamespace(obs=task.obs_spec())
    terms = contract_terms.terms(task, spec, SimpleNamespace(slices=slices, features=()))
    assert all(runner.parse(term["source"]) for term in terms)
    rows = contract_terms.commands(task, terms)
    assert sorted(row["name"] for row in rows) == sorted(WHAT[name])
    for row in rows:
        assert row["range"] is None or len(row["range"]) == row["size"]
        assert (row["range"] is None) == (name in ("panda_stack", "panda_scene") or row["name"] == "handle")


# -- exports --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def push():
    return registry.make("panda_push", "native")


@pytest.fixture(scope="module")
def policy(push):
    return policy_of(push.spec.obs.size("policy"), push.spec.action_size)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, push, policy):
    return export_policy(tmp_path_factory.mktemp("export") / "push", push, policy)


def test_the_contract_holds_the_drive(exported, push):
    read = load_contract(exported)
    assert [a["name"] for a in read["actuators"]] == [*ARM, "gripper"]
    assert [a["kp"] for a in read["actuators"]] == [2000.0] * 4 + [400.0] * 3 + [2000.0]
    assert read["action"]["names"] == ["x", "y", "z", "gripper"]
    assert read["action"]["scale"] == pytest.approx([0.05, 0.05, 0.05, 0.01])
    assert read["drive"]["mode"] == "ee_delta" and read["drive"]["gripper"]["start"] == 0.0
    terms = {t["name"]: t["source"] for t in read["observation"]["terms"]}
    assert terms == {
        "joints": "qpos[0:7]", "joint_rates": "qvel[0:7]", "ee_position": "hand", "opening": "mean(qpos[7:9])",
        "lag": "lag", "cube_position": "qpos[9:12]", "cube_axes": "axes(qpos[12:16])",
        "cube_offset": "qpos[9:12] - hand", "goal": "command.goal - qpos[9:12]",
    }  # fmt: skip
    np.testing.assert_allclose(read["default_pose"][:9], [*control.HOME, 0, 0])


@pytest.mark.slow
def test_a_policy_passes_the_check_on_cubes_that_differ(exported, push, policy, monkeypatch):
    graph = policy_graph(push.spec, policy)
    found = check(exported, graph.fn, env=push, starts=5)["closed_loop"]
    assert found["observation_error"] < 1e-5 and found["qpos_error_5"] < 1e-4
    assert found["return"]["jax"] == pytest.approx(found["return"]["export"], abs=0.1)
    monkeypatch.setattr(replay, "varied", lambda model, overrides: model)  # all cubes alike
    obs = np.random.default_rng(0).normal(size=(1000, graph.inputs["obs"]))
    with pytest.raises(UserError, match=r"replay is off by|is off by .* within"):
        check(exported, graph.fn, obs, env=push, starts=3, steps=20)


def test_a_world_gets_the_model_it_was_drawn(push):
    start = push.task.start(jax.random.key(0))
    cube, other = push.task.model.body("cube").id, varied(push.task.model, start.overrides)
    assert other.body_mass[cube] == start.overrides["body_mass"][cube] != push.task.model.body_mass[cube]
    assert other.body_subtreemass[cube] == other.body_mass[cube]
    turned = varied(push.task.model, {"opt.gravity": np.array([0, 0, -1.0]), "opt.timestep": np.float32(0.5)})
    assert turned.opt.gravity.tolist() == [0, 0, -1] and turned.opt.timestep == 0.5
    assert push.task.model.opt.timestep == 0.002


def test_alone_it_moves_the_arm_and_says_how_far_the_goal_is(exported, push):
    run = runner.Runner(exported)
    run.reset(goals=[0.5, 0.1, 0.02])
    out = run.simulate(40, disturbance=runner.Disturbance(latency=2))
    assert out["ctrl"].shape == (40, 8) and out["action"].shape == (40, 4)
    np.testing.assert_allclose(out["ctrl"][:2], [[*control.HOME, 0.0]] * 2, atol=1e-6)  # it stays where it is
    assert np.ptp(out["qpos"][:, :7], axis=0).max() > 0.1
    done = subprocess.run(
        [sys.executable, "-I", "runner.py", ".", "--steps", "40", "--latency", "2", "--goal", "0.5,0.1,0.02"],
        cwd=exported, capture_output=True, text=True, check=True,
    )  # fmt: skip
    left = np.linalg.norm(out["qpos"][-1, 9:12] - [0.5, 0.1, 0.02])
    assert done.stdout.splitlines()[-1] == f"distance to the last goal: {left:.3f} m"
    assert done.stdout.startswith("policy on panda_push: 2.00 s, mean |ctrl|")
    drawn = [run.command()["goal"] for seed in range(20) if run.reset(seed=seed) is None]
    assert (np.min(drawn, 0) > [0.37, -0.19, 0.017]).all() and (np.max(drawn, 0) < [0.59, 0.19, 0.023]).all()
    run.reset()
    again = run.act(out["qpos"][-1], np.zeros(15))  # targets start where the arm is now
    assert np.abs(again[:7] - out["qpos"][-1, :7]).max() < 0.2


BROKEN = [
    (lambda c: c.update(schema=1), "schema 1, this runner reads 2; export again"),
    (lambda c: c.pop("drive"), "field contract.drive is missing"),
    (lambda c: c["drive"]["solver"].pop("damping"), "drive.solver.damping is missing"),
    (lambda c: c["drive"].update(mode="ee"), "drive mode 'ee' is none of ee_delta, ee_pose, joint"),
    (lambda c: c["drive"]["gripper"].update(joints=["thumb"]), "the drive's joint 'thumb' is none of the contract's"),
    (lambda c: c["drive"]["actuators"].pop(), "the drive's actuators are not the contract's"),
    (lambda c: c.update(drive=None), "cannot read observation 'ee_position'"),
    (lambda c: c["observation"]["terms"][0].update(source="hand - hand - lag"), "cannot read observation 'joints'"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_broken_contract_is_an_error(exported, tmp_path, change, message):
    copy = shutil.copytree(exported, tmp_path / "copy")
    read = json.loads((copy / "contract.json").read_text())
    change(read)
    (copy / "contract.json").write_text(json.dumps(read))
    with pytest.raises(UserError, match=message) as e:
        load_contract(copy)
    assert "\n" not in str(e.value)


def test_without_a_drive_there_is_no_export(push, policy, tmp_path, monkeypatch):
    monkeypatch.setattr(type(push.task), "drive", lambda self: None)
    with pytest.raises(UserError, match=r"env panda_push computes its controls .* declares no drive"):
        export_policy(tmp_path / "out", push, policy)


# -- a scene with a lock --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene():
    return registry.make("panda_scene", "native")


@pytest.mark.slow
def test_a_controller_on_the_scene_passes_the_check(scene, make_skill, tmp_path):
    """All that only perception knows comes from the task's memory, and the lock is the replay's."""
    skills = tuple(make_skill(scene.spec, name, "one_hot", 2, seed) for seed, name in enumerate("ab"))
    choice = Choice(skills, scene.spec, per_skill=2)
    picker = policy_of(scene.spec.obs.size("policy"), 4)
    out = export_controller(tmp_path / "scene", scene, picker, choice, 5)
    found = check(out, controller_graph(picker, choice, 5).fn, env=scene, starts=5)["closed_loop"]
    assert "skipped" not in found and found["observation_error"] < 1e-5 and found["clear_starts"] == 5
    run = runner.Runner(out)
    with pytest.raises(runner.ExportError, match="command 'handle' is missing"):
        run.act(run.contract["default_pose"], np.zeros(17))


def test_a_press_on_the_button_opens_the_lock_of_the_replay(scene):
    names = [s.name for s in scene.spec.obs.groups["policy"]]
    terms = contract_terms.terms(scene.task, scene.spec, SimpleNamespace(slices=names, features=()))
    begin, model = scene.reset(jax.random.key(0)), varied(scene.task.model, {})
    watch = Witness(scene, {"observation": {"terms": terms}}).watch(begin, SimpleNamespace(action=np.zeros(4)))
    data = mujoco.MjData(model)
    data.qpos[:] = begin.data.qpos
    mujoco.mj_forward(model, data)
    watch(data)
    assert data.ctrl[-1] == 1 and not data.ctrl[:-1].any() and watch.told["unlocked"] == 0
    np.testing.assert_array_equal(watch.told["stage"], [1, 0, 0, 0, 0])
    np.testing.assert_allclose(watch.told["button"], furniture.BUTTON, atol=1e-6)
    data.joint("button").qpos = -1.5 * furniture.PRESSED
    mujoco.mj_forward(model, data)
    watch(data)
    assert data.ctrl[-1] == 0 and watch.told["unlocked"] == 1
    np.testing.assert_array_equal(watch.told["stage"], [0, 1, 0, 0, 0])
    log = watch.log()
    assert log["expected"].shape == (1, scene.spec.obs.size("policy")) and log["reward"].shape == (1,)


def test_two_commands_of_one_range_are_drawn_apart():
    rows = {name: {"size": 3, "range": [[0.0, 1.0]] * 3} for name in ("goal", "other", "third")}
    goal = runner.Runner._goals(SimpleNamespace(commands=rows), None, 0)
    asked = runner.Runner._asked(SimpleNamespace(commands=rows, goals=goal), {}, 0)
    assert sorted(asked) == sorted(rows) and len({tuple(values[0]) for values in asked.values()}) == 3


def test_a_drawer_that_is_to_be_shut_stands_open():
    poses = [registry.make_task("panda_drawer", move=move).default_pose()[9] for move in ("open", "close", "either")]
    assert poses == pytest.approx([0.0, furniture.TRAVEL, 0.0])
    assert registry.make_task("panda_drawer", move="either").commands() == {}
