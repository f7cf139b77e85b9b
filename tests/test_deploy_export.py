"""Export folders: contract, parity with JAX, closed loop, and the runner as the standalone file it is."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from repertoire.deploy import runner
from repertoire.deploy.check import check
from repertoire.deploy.contract import load_contract
from repertoire.deploy.export import export_controller, export_policy, export_skill
from repertoire.deploy.graph import FrozenPolicy, controller_graph, policy_graph, skill_graph
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.registry import make
from repertoire.errors import UserError
from repertoire.high_level.sequence import Choice
from repertoire.skills.skill import Skill, contract

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
HOLD = 5


def arrays(obs: int, extra: int, out: int) -> dict[str, np.ndarray]:
    sizes, made = (obs + extra, 16, out), {}
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        made[f"policy/kernel{i}"] = (RNG.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32)
        made[f"policy/bias{i}"] = (0.1 * RNG.normal(size=b)).astype(np.float32)
    return made | {"obs/mean": np.zeros(obs, np.float32), "obs/var": np.full(obs, 4.0, np.float32)}


def fake_skill(env: MujocoEnv, name: str, kind: str, size: int) -> Skill:
    manifest: dict[str, Any] = {
        "schema": 1, "name": name, "version": 3, "env": env.spec.name, "contract": contract(env.spec), "objective": {},
        "latent": {"kind": kind, "size": size, "hold": 0}, "provenance": {"run": "r1"}, "metrics": {},
        "network": {"hidden": [16], "activation": "tanh"},
    }  # fmt: skip
    return Skill(manifest, arrays(env.spec.obs.size("policy"), size, env.spec.action_size))


@pytest.fixture(scope="module")
def ant() -> MujocoEnv:
    return make("ant", "native")


@pytest.fixture(scope="module")
def goals() -> MujocoEnv:
    return make("ant_multi_goals", "native")


@pytest.fixture(scope="module")
def choice(ant: MujocoEnv, goals: MujocoEnv) -> Choice:
    skills = (fake_skill(ant, "a", "sphere", 2), fake_skill(ant, "b", "one_hot", 3))
    return Choice(skills, goals.spec, per_skill=4)


@pytest.fixture(scope="module")
def picker(goals: MujocoEnv) -> FrozenPolicy:
    return FrozenPolicy.from_arrays(arrays(goals.spec.obs.size("policy"), 0, 7), "swish")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, goals: MujocoEnv, choice: Choice, picker: FrozenPolicy) -> Path:
    out = tmp_path_factory.mktemp("export") / "walker"
    return export_controller(out, goals, picker, choice, HOLD, {"run": "c1", "git": {"commit": "abc"}})


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    read = json.loads((folder / "contract.json").read_text())
    change(read)
    (folder / "contract.json").write_text(json.dumps(read))


def test_the_contract_says_everything(exported: Path) -> None:
    files = {"model.onnx", "contract.json", "model.xml", "model.mjb", "runner.py"}
    assert {p.name for p in exported.iterdir()} >= files
    c = load_contract(exported)
    assert (c["kind"], c["env"], c["root"]) == ("controller", "ant_multi_goals", 2)
    assert c["timing"] == {"control_dt": 0.05, "physics_dt": 0.01, "substeps": 5, "episode_length": 200}
    assert c["joints"][0] == {
        "name": "root", "type": "free", "qpos": [0, 7], "qvel": [0, 6], "default": [0, 0, 0.75, 1, 0, 0, 0],
        "range": None,
    }  # fmt: skip
    assert len(c["joints"]) == 9 and c["joints"][1]["range"] == pytest.approx([-np.pi / 6, np.pi / 6], abs=1e-4)
    assert (c["actuators"][0]["type"], c["actuators"][0]["kp"], c["actuators"][0]["gear"][0]) == ("motor", None, 150.0)
    sources = {t["name"]: t["source"] for t in c["observation"]["terms"]}
    assert sources == {"posture": "qpos[2:15]", "rates": "qvel[0:14]", "goal": "command.goal - qpos[0:2]"}
    assert (c["commands"][0]["range"], c["commands"][0]["hold"]) == ([[-7.5, 7.5]] * 2, 50)
    hierarchy = c["hierarchy"]
    assert (hierarchy["mode"], hierarchy["hold"], hierarchy["macro_dt"], hierarchy["state"]) == ("choice", 5, 0.25, 1)
    assert [(s["name"], s["version"], s["size"]) for s in hierarchy["skills"]] == [("a", "3", 2), ("b", "3", 3)]
    assert [len(o["latent"]) for o in hierarchy["options"]] == [2] * 4 + [3] * 3
    assert (hierarchy["fields"], hierarchy["outputs"]) == ([{"name": "choice", "size": 1, "choices": 7}], ["choice"])
    assert [(s["hold"], s["over"]) for s in hierarchy["skills"]] == [(1, []), (1, [])]
    assert c["provenance"]["git"] == {"commit": "abc"} and c["provenance"]["skills"]["a"] == {"run": "r1"}


def test_parity_and_replay(exported: Path, goals: MujocoEnv, choice: Choice, picker: FrozenPolicy) -> None:
    graph = controller_graph(picker, choice, HOLD)
    figures = check(exported, graph.fn, env=goals, starts=5)
    assert figures == json.loads((exported / "parity.json").read_text()) and figures["passed"]
    assert figures["outputs"]["rows"] == 1000 and figures["outputs"]["recorded_error"] < 1e-5
    assert figures["closed_loop"]["observation_error"] == 0.0
    assert figures["closed_loop"]["qpos_error_5"] < 1e-4
    with pytest.raises(UserError, match="needs 1000 recorded observations, got 3"):
        check(exported, graph.fn, np.zeros((3, 29)))


def test_another_policy_is_found_out(copy: Path, goals: MujocoEnv, choice: Choice, picker: FrozenPolicy) -> None:
    other = FrozenPolicy(picker.kernels, picker.biases, picker.mean + 1e-2, picker.var)
    obs = RNG.normal(size=(1000, 29)).astype(np.float32)
    with pytest.raises(UserError, match=r"does not match the policy: .*decisions differ"):
        check(copy, controller_graph(other, choice, HOLD).fn, obs)
    assert json.loads((copy / "parity.json").read_text())["passed"] is False


def test_skills_and_flat_policies(tmp_path: Path, ant: MujocoEnv) -> None:
    skill = fake_skill(ant, "a", "sphere", 2)
    out = export_skill(tmp_path / "skill", ant, skill)
    check(out, skill_graph(ant.spec, skill).fn, env=ant, starts=5)
    assert load_contract(out)["latent"]["kind"] == "sphere"
    run = runner.Runner(out)
    actions = []
    for z in ([1.0, 0.0], [3.0, 0.0], [0.0, 1.0]):
        run.reset(z=z)
        actions.append(run.act(ant.task.model.qpos0, np.zeros(14)))
    np.testing.assert_allclose(actions[0], actions[1], atol=1e-6)  # projected on the circle
    assert np.abs(actions[0] - actions[2]).max() > 1e-3
    with pytest.raises(runner.ExportError, match="the latent has 2 entries, got 3"):
        run.reset(z=[1, 0, 0])
    policy = FrozenPolicy.from_arrays(arrays(27, 0, 8), "elu")
    out = export_policy(tmp_path / "skill", ant, policy)  # an older export is replaced
    assert load_contract(out)["kind"] == "policy" and [p.name for p in tmp_path.iterdir()] == ["skill"]
    obs = 3 * RNG.normal(size=(1000, 27))
    assert "closed_loop" not in check(out, policy_graph(ant.spec, policy).fn, obs)
    with pytest.raises(runner.ExportError, match="takes no goal"):
        runner.Runner(out).reset(goals=[1, 2])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is no export"):
        export_policy(tmp_path / "notes", ant, policy)


def test_which_task_it_is_is_a_command(tmp_path: Path) -> None:
    """The replay is told the task that each episode drew, and scores it by that task's weights."""
    env = make("point_maze", "native", tasks={"there": {"goal": 1.0}, "away": {"goal": -2.0}}, radius=5.0, hold=True)
    policy = FrozenPolicy.from_arrays(arrays(env.spec.obs.size("policy"), 0, 2), "tanh")
    out, graph = export_policy(tmp_path / "out", env, policy), policy_graph(env.spec, policy)
    (row,) = [c for c in load_contract(out)["commands"] if c["name"] == "task"]
    assert (row["size"], row["unit"], row["range"]) == (2, "one-hot: there, away", None)
    found = check(out, graph.fn, env=env, starts=8, steps=130)["closed_loop"]
    assert found["return"]["jax"] == pytest.approx(found["return"]["export"], abs=1e-3) and found["return"]["jax"] != 0
    assert found["qpos_error_20"] < 1e-4
    loaded = runner.Runner(out)
    loaded.reset(goals=[1.0, 1.0])
    with pytest.raises(runner.ExportError, match="command 'task' is missing"):
        loaded.simulate(1)
    loaded.reset(goals=[1.0, 1.0], commands={"task": [1, 0]})
    assert loaded.simulate(1)["obs"][0, -2:].tolist() == [1, 0]


def test_what_the_runner_cannot_compute_is_a_command(tmp_path: Path) -> None:
    env = make("half_cheetah_hurdle", "native")
    policy = FrozenPolicy.from_arrays(arrays(env.spec.obs.size("policy"), 0, 6), "relu")
    out = export_policy(tmp_path / "hurdle", env, policy)
    terms = {t["name"]: t["source"] for t in load_contract(out)["observation"]["terms"]}
    assert terms["posture"] == "qpos[1:9]" and terms["next_hurdle"] == "command.next_hurdle"
    run = runner.Runner(out)
    with pytest.raises(runner.ExportError, match="command 'next_hurdle' is missing"):
        run.simulate(1)
    near = {"next_hurdle": 1.0, "back_foot": 1.5}
    assert run.simulate(3, commands=lambda t: near)["ctrl"].shape == (3, 6)


BROKEN: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda c: c.pop("timing"), "field contract.timing is missing"),
    (lambda c: c["joints"][2].pop("qvel"), r"field contract.joints\[2\].qvel is missing"),
    (lambda c: c["observation"]["terms"][0].pop("scale"), r"terms\[0\].scale is missing"),
    (lambda c: c["hierarchy"].pop("hold"), "hierarchy.hold is missing"),
    (lambda c: c.update(extra=1), "field contract.extra is unknown"),
    (lambda c: c.update(root="2"), "contract.root must be a int, got '2'"),
    (lambda c: c.update(kind="robot"), "kind 'robot' is none of"),
    (lambda c: c.update(schema=99), "schema 99, this runner reads 2"),
    (lambda c: c["observation"]["terms"][0].update(source="magic"), "cannot read observation 'posture'"),
    (lambda c: c["onnx"].update(sha256="0"), "model.onnx is not the file"),
    (lambda c: c["onnx"].update(file="../exp/model.onnx"), "'../exp/model.onnx' is no file of the export's own folder"),
    (lambda c: c["action"].update(scale=[1.0]), "action.scale has 1 entries, not 8"),
    (lambda c: c["action"].update(clip=[]), "action.clip has 0 entries, not 2"),
    (lambda c: c["observation"]["terms"][0].update(clip=[]), "clip of observation 'posture' has 0 entries, not 2"),
    (lambda c: c["timing"].update(substeps=0), "timing says 0 substeps of 0.01 s in 0.05 s"),
    (lambda c: c["default_pose"].pop(), "default_pose and root do not fit the 15 entries of qpos"),
    (lambda c: c["joints"][0].update(qpos=[0]), "qpos of joint 'root' has 1 entries, not 2"),
    (lambda c: c["actuators"].reverse(), "action.names are not the actuators in their order"),
    (lambda c: c["commands"][0]["range"].pop(), "range of command 'goal' has 1 entries, not 2"),
    (lambda c: c.update(commands=[]), "'command.goal - qpos.0:2.' makes 0"),
    (lambda c: c["hierarchy"].update(state=3), "z of the network has 1 entries, the rest of the contract says 3"),
    (lambda c: c["observation"]["terms"].pop(0), "obs of the network has 29 entries, the rest of the contract says 16"),
    (lambda c: c["observation"]["terms"][0].update(source="qpos[3:99]"), r"reads qpos\[3:99\] of 15 entries"),
    (lambda c: c["observation"]["terms"][0].update(source="gravity(qpos[3:5])"), r"reads qpos\[3:5\] of 15"),
    (lambda c: c["observation"]["terms"][0].update(source="action"), "'posture' has 13 entries, 'action' makes 8"),
    (lambda c: c["observation"]["terms"].reverse(), "was edited after export: export again, or .* --edited"),
    (lambda c: c["actuators"][0].update(kp=1.0), "was edited after export"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_broken_contract_is_an_error(copy: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    edit(copy, change)
    with pytest.raises(UserError, match=message) as e:
        load_contract(copy)
    assert "\n" not in str(e.value)


def test_an_edited_contract_is_taken_at_ones_own_risk(copy: Path) -> None:
    path = copy / "contract.json"
    path.write_text(json.dumps(json.loads(path.read_text())))  # laid out otherwise, and the same
    whole = runner.load_contract(copy)
    edit(copy, lambda c: c["provenance"].update(note="mine"))
    assert runner.load_contract(copy, edited=True)["provenance"]["note"] == "mine"
    done = standalone(copy, ".", "--steps", "1", "--edited")
    assert done.returncode == 0, done.stderr
    edit(copy, lambda c: (c.pop("digest"), c["provenance"].pop("note")))  # an export from before there were digests
    assert runner.load_contract(copy) == whole


def test_changed_and_missing_files_are_errors(copy: Path, tmp_path: Path) -> None:
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes() + b"\0")
    with pytest.raises(runner.ExportError, match=r"model.onnx is not the file"):
        runner.load_contract(copy)
    (copy / "model.onnx").unlink()
    with pytest.raises(runner.ExportError, match=r"model.onnx is missing"):
        runner.load_contract(copy)
    with pytest.raises(runner.ExportError, match=r"is no export"):
        runner.load_contract(tmp_path)


def test_the_controller_decides_every_k_steps(exported: Path) -> None:
    run = runner.Runner(exported)
    run.reset(seed=1)
    out = run.simulate(40)
    z = out["z"][:, 0].reshape(-1, HOLD)
    assert (z == z[:, :1]).all()
    again = runner.Runner(exported)
    again.reset(seed=1)
    np.testing.assert_array_equal(again.simulate(40)["qpos"], out["qpos"])


def test_goals_latency_and_noise(exported: Path) -> None:
    run = runner.Runner(exported)
    run.reset(goals=[[3, 4], [5, 6]])
    scale, first = run.terms[-1]["scale"], run.simulate(60)
    np.testing.assert_allclose(first["obs"][0, -2:], scale * np.array([3, 4]), rtol=1e-6)
    expected = scale * (np.array([5, 6]) - first["qpos"][50, :2])
    np.testing.assert_allclose(first["obs"][50, -2:], expected, atol=1e-5)
    run.reset(goals=[3, 4])
    late = run.simulate(10, disturbance=runner.Disturbance(latency=2))
    assert (late["ctrl"][:2] == 0).all()
    np.testing.assert_allclose(late["ctrl"][2], late["action"][0] * 1.0, atol=1e-6)
    run.reset(goals=[3, 4])
    noisy = run.simulate(1, disturbance=runner.Disturbance(noise=0.1))["obs"][0] - first["obs"][0]
    assert 0.03 < noisy[:-2].std() < 0.3 and (noisy[-2:] == 0).all()
    with pytest.raises(runner.ExportError, match="qpos has 15 entries, those of the contract's joints; got 14"):
        run.act(np.zeros(14), np.zeros(14))
    state, held = run.contract["default_pose"], (run.t, run.z.copy())
    for broken in ({}, {"goal": [np.nan, 0.0]}):
        with pytest.raises(runner.ExportError, match="holds what is no number; nothing was decided"):
            run.act(state if broken else np.full(15, np.nan), np.zeros(14), broken)
    assert run.t == held[0] and (run.z == held[1]).all()
    told = run.observe(state, np.zeros(14), {**run.command(), "goal": [1.0, 1.0]})
    run.reset(commands={"goal": [3, 4]})
    run.act(state, np.zeros(14), {"goal": [1.0, 1.0]})
    np.testing.assert_array_equal(run.obs, told)


@pytest.fixture(scope="module")
def walker() -> MujocoEnv:
    return make("go2_velocity", "native", history=2)


@pytest.fixture(scope="module")
def joystick(tmp_path_factory: pytest.TempPathFactory, walker: MujocoEnv) -> Path:
    frozen = FrozenPolicy.from_arrays(arrays(walker.spec.obs.size("policy"), 0, 12), "swish")
    out = export_policy(tmp_path_factory.mktemp("walker") / "go2", walker, frozen)
    check(out, policy_graph(walker.spec, frozen).fn, env=walker, starts=5)
    return out


def test_a_robot_with_servos_history_and_commands(joystick: Path, walker: MujocoEnv) -> None:
    c, home = load_contract(joystick), [0.0, 0.9, -1.8] * 4
    assert c["default_pose"][7:] == home and c["joints"][3]["default"] == [-1.8]
    terms = {t["name"]: (t["source"], t["history"]) for t in c["observation"]["terms"]}
    assert terms == {
        "gravity": ("gravity(qpos[3:7])", 2), "gyro": ("qvel[3:6]", 2),
        "joint_pos": ("qpos[7:19] - default[7:19]", 2), "joint_vel": ("qvel[6:18]", 2), "last_action": ("action", 2),
        "command": ("command.command", 1),
    }  # fmt: skip
    assert c["commands"] == [
        {
            "name": "command", "size": 3, "unit": "m/s, rad/s", "range": [[-1, 1.5], [-0.5, 0.5], [-1, 1]], "hold": 250,
            "note": "uniform in its range, drawn independently",
        }
    ]  # fmt: skip
    servo = c["actuators"][2]
    assert (servo["name"], servo["joint"], servo["kp"], servo["kd"]) == ("FR_calf", "FR_calf_joint", 40.0, 1.0)
    assert servo["force_range"] == [-45.43, 45.43]
    assert (c["action"]["scale"], c["action"]["offset"]) == (pytest.approx([0.5] * 12), pytest.approx(home))
    figures = json.loads((joystick / "parity.json").read_text())
    assert figures["passed"] and figures["closed_loop"]["observation_error"] < 1e-5


def test_the_runner_remembers_and_takes_commands(joystick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runner.Runner(joystick)
    run.reset(commands={"command": [[1, 0, 0], [0, 0, 1]]})
    out = run.simulate(251)
    np.testing.assert_array_equal(out["obs"][[0, 249, 250], -3:], [[1, 0, 0], [1, 0, 0], [0, 0, 1]])
    gravity = out["obs"][:3, :6].reshape(3, 2, 3)  # oldest first
    np.testing.assert_allclose(gravity[0], [[0, 0, -1]] * 2, atol=1e-6)
    np.testing.assert_array_equal(gravity[1:, 0], gravity[:-1, 1])
    before = out["obs"][1:3, 60:84].reshape(2, 2, 12)[:, 1]
    np.testing.assert_array_equal(before, out["action"][:2])
    run.reset(seed=3)
    drawn = run.command()["command"]
    assert (np.abs(drawn) <= [1.5, 0.5, 1]).all() and drawn.any()
    with pytest.raises(runner.ExportError, match=r"no command 'speed'; it takes command \(3 numbers, m/s, rad/s\)"):
        run.reset(commands={"speed": [1]})
    with pytest.raises(runner.ExportError, match="command 'command' has 3 entries"):
        run.reset(commands={"command": [1]})
    capsys.readouterr()
    run.reset(commands={"command": [[9, 0, -2], [1, 0, 0]]})  # the policy never saw more than its range
    np.testing.assert_array_equal(run.asked["command"], [[1.5, 0, -1], [1, 0, 0]])
    warned = capsys.readouterr().err
    assert warned.startswith("warning: command 'command' is clipped to its range [[-1") and warned.count("\n") == 1
    run.reset(commands={"command": [1.5, 0.5, -1]})
    assert capsys.readouterr().err == ""
    state = run.contract["default_pose"], np.zeros(18)
    for _ in range(3):  # a joystick, at every step
        run.act(*state, {"command": [9, 0, -2]})
        np.testing.assert_array_equal(run.obs[-3:], [1.5, 0, -1])
    assert capsys.readouterr().err.count("clipped to its range") == 1
    with pytest.raises(runner.ExportError, match=r"no command 'speed'; it takes command \(3 numbers, m/s, rad/s\)"):
        run.act(*state, {"speed": [1]})
    with pytest.raises(runner.ExportError, match="'command' has 3 entries, got 1"):
        run.act(*state, {"command": [1]})
    run.commands = {}
    with pytest.raises(runner.ExportError, match=r"takes no command 'speed'; it takes none$"):
        run.reset(commands={"speed": [1]})


def test_controls_stay_in_the_range_that_training_clipped_them_to(joystick: Path, tmp_path: Path) -> None:
    """A robot's driver may follow what MuJoCo's actuators clip: G1's ankle rolls 0.26 rad, an action asks 0.5."""
    folder = Path(shutil.copytree(joystick, tmp_path / "copy"))

    def first() -> np.ndarray:
        run = runner.Runner(folder, edited=True)
        return run.act([*run.contract["default_pose"][:7], *[0.3] * 12], np.ones(18))

    free = first()
    low = float(free[0]) + 0.1
    edit(folder, lambda c: c["actuators"][0].update(ctrl_range=[low, low + 0.1]))
    edit(folder, lambda c: c["actuators"][1].update(ctrl_range=None))
    held = first()
    assert held[0] == np.float32(low)
    np.testing.assert_array_equal(held[1:], free[1:])


def reordered(xml: Path) -> mujoco.MjModel:
    """The ant with legs and actuators in reverse order, and a ball on a joint of its own before it."""
    tree = ET.parse(xml)
    world = tree.getroot().find("worldbody")
    torso = world.find("body")
    legs = torso.findall("body")
    for leg in legs:
        torso.remove(leg)
    torso.extend(reversed(legs))
    ball = ET.fromstring('<body name="ball" pos="50 50 1"><freejoint name="ball"/><geom size="0.1"/></body>')
    world.insert(0, ball)
    actuators = tree.getroot().find("actuator")
    actuators[:] = list(reversed(actuators))
    return mujoco.MjModel.from_xml_string(ET.tostring(tree.getroot(), encoding="unicode"))


def test_names_not_indices(exported: Path, copy: Path) -> None:
    run = runner.Runner(exported)
    model = reordered(exported / "model.xml")
    assert model.joint("hip_1").qposadr[0] != run.contract["joints"][1]["qpos"][0]
    trajectories = []
    for m in (mujoco.MjModel.from_xml_path(str(exported / "model.xml")), model):
        run.reset(goals=[3, 4])
        trajectories.append(run.simulate(8, m))
    np.testing.assert_allclose(trajectories[1]["qpos"], trajectories[0]["qpos"], atol=1e-4)
    np.testing.assert_allclose(trajectories[1]["ctrl"], trajectories[0]["ctrl"], atol=1e-3)
    edit(copy, lambda c: c["model"].update(mujoco="0.0"))  # another MuJoCo than the binary's: the XML serves
    other = runner.Runner(copy, edited=True)
    other.reset(goals=[3, 4])
    np.testing.assert_allclose(other.simulate(8)["qpos"], trajectories[0]["qpos"], atol=1e-9)
    with pytest.raises(runner.ExportError, match="no joint 'root'"):
        run.simulate(1, mujoco.MjModel.from_xml_string("<mujoco><worldbody/></mujoco>"))


def standalone(folder: Path, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """The copied file alone: isolated mode, another working directory."""
    start = f"import runpy, sys; sys.argv = ['runner.py', *{list(arguments)!r}]; "
    code = code or start + "runpy.run_path('runner.py', run_name='__main__'); print(*sys.modules)"
    return subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_the_copied_runner_stands_alone(copy: Path) -> None:
    done = standalone(copy, ".", "--steps", "60", "--latency", "1", "--noise", "0.01", "--goal", "3,4;1,-2")
    assert done.returncode == 0, done.stderr
    said, *_, modules = done.stdout.splitlines()
    assert "controller on ant_multi_goals" in said and "mean |ctrl|" in said
    loaded = {name.split(".")[0] for name in modules.split()}
    assert {"numpy", "onnxruntime", "mujoco"} <= loaded
    assert not loaded & {"repertoire", "jax", "flax", "onnx", "optax", "hydra", "brax", "gymnasium"}


def test_a_robot_needs_no_mujoco(copy: Path) -> None:
    code = (
        "import sys; sys.modules['mujoco'] = None; sys.path.insert(0, '.'); import runner, numpy as np; "
        "r = runner.Runner('.'); r.reset(goals=[3, 4]); print(r.act(np.zeros(15), np.zeros(14)).shape)"
    )
    done = standalone(copy, code=code)
    assert done.stdout == "(8,)\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere is no export"),
        ((".", "--z", "1,0"), "this controller takes no latent"),
        ((".", "--goal", "1,2,3"), "a goal has 2 entries"),
        ((".", "--goal", "here"), "'here' is no list of numbers"),
        ((".", "--command", "1,0,0"), "--command is NAME=NUMBERS, got '1,0,0'; this export takes goal (2 numbers, m)"),
        ((".", "--steps", "0"), "--steps must be at least 1"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(copy: Path, arguments: tuple[str, ...], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "runner.py", *arguments], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
