"""Exports of controllers that train no policy, and of options that end themselves: the same check as all others."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.deploy import runner
from repertoire.deploy.check import check
from repertoire.deploy.contract import load_contract
from repertoire.deploy.export import write
from repertoire.deploy.graph import FrozenPolicy, controller_graph
from repertoire.deploy.onnx_model import to_onnx
from repertoire.deploy.rule_graph import rule_graph
from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level import goals, script
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.options import Option
from repertoire.high_level.sequence import Choice, Latent
from repertoire.skills.skill import Skill

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

KEY = jax.random.key(0)
STAGES = [
    {"choice": 2, "until": {"slice": "goal", "below": 10.0}},  # holds already: passed over
    {"choice": 0, "until": {"slice": "goal", "above": 5.5}},
    {"choice": 6, "steps": 99, "until": {"slice": "position", "above": 5.4}},
    {"choice": 4, "steps": 2},
    {"choice": 4},
]


@pytest.fixture(scope="module")
def flat():
    return registry.make("point_maze", "native")


@pytest.fixture(scope="module")
def maze(flat, oracle):
    """Eight directions, each held for 10 steps."""
    return MacroEnv(flat, Choice((oracle,), flat.spec, per_skill=8), 10)


def test_a_script_exports_whole(maze, tmp_path):
    stages = script.machine(script.stages_of(maze, STAGES))
    graph = rule_graph(maze.composer, stages, maze.hold)
    folder = write(tmp_path / "script", maze.env, graph)
    figures = check(folder, graph.fn, env=maze.env, starts=5)
    assert figures["passed"] and figures["closed_loop"]["return"]["export"] == 1.0  # around the wall
    hierarchy = load_contract(folder)["hierarchy"]
    assert (hierarchy["mode"], hierarchy["hold"], hierarchy["outputs"]) == ("script, choice", 10, [])
    assert hierarchy["rule"]["kind"] == "script" and "begins with the stage" in hierarchy["rule"]["note"]
    assert [(f["name"], f["choices"]) for f in hierarchy["fields"]] == [("stage", 5), ("count", 101), ("choice", 8)]


def test_stages_of_latents_export(flat, oracle):
    """On any state, stage and count, in batches: what the machine does."""
    env = MacroEnv(flat, Latent((oracle,), flat.spec), 10)
    rows = [{"latent": [0.0, 1.0], "steps": 3}, {"latent": [1.0, 0.0], "steps": 20}, {"latent": [3.0, 4.0]}]
    graph = rule_graph(env.composer, script.machine(script.stages_of(env, rows)), 10)
    session = onnxruntime.InferenceSession(to_onnx(graph), providers=["CPUExecutionProvider"])
    z = np.array([[0, 0, 0, 0], [0, 3, 0, 1], [1, 9, 1, 0], [2, 5, 0, 1], [0, 3, 0, 1]], np.float32)
    inputs = (np.ones((5, graph.inputs["obs"]), np.float32), z, np.array([[1], [1], [1], [1], [0]], np.float32))
    got = session.run(["z_next"], dict(zip(graph.inputs, inputs, strict=True)))[0]
    want = [[0, 1, 0, 1], [1, 1, 1, 0], [1, 10, 1, 0], [2, 6, 0.6, 0.8], [0, 3, 0, 1]]
    np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_allclose(graph.fn(*map(jnp.asarray, inputs))["z_next"], want, atol=1e-6)


@pytest.fixture(scope="module", params=["dual", "spectral"])
def discovered(request, oracle):
    """Skills of `point` whose features have statistics of their own, as METRA and as LSD have them."""
    described = oracle.manifest["objective"]
    objective = {**described, "options": {**described["options"], "constraint": request.param}}
    own = {"features/mean": np.array([0.3, -0.2, 0.1, 0.0]), "features/var": np.array([4.0, 2.0, 0.5, 0.5])}
    arrays = {**oracle.arrays, **{k: v.astype(np.float32) for k, v in own.items()}}
    latent = {**oracle.manifest["latent"], "kind": "sphere" if request.param == "dual" else "gaussian"}
    return Skill({**oracle.manifest, "objective": objective, "latent": latent}, arrays)


def test_the_goal_rule_exports_whole(flat, discovered, tmp_path):
    env = MacroEnv(flat, Latent((discovered,), flat.spec), 5)
    graph = rule_graph(env.composer, goals.zero_shot(env), 5)
    folder = write(tmp_path / "zero_shot", flat, graph)
    contract = load_contract(folder)
    terms = {t["name"]: (t["source"], t["scale"]) for t in contract["observation"]["terms"]}
    assert terms["position"] == ("qpos[0:2]", 0.1) and terms["features.position"] == ("qpos[0:2]", 1.0)
    assert terms["features.velocity"][0] == "qvel[0:2]" and contract["hierarchy"]["mode"] == "zero_shot, latent"
    if discovered.objective().constraint == "dual":  # the replay compiles the env: once is enough
        figures = check(folder, graph.fn, env=flat, starts=5, steps=200)
        assert figures["passed"] and figures["closed_loop"]["observation_error"] == 0.0
    else:
        assert check(folder, graph.fn, np.random.default_rng(0).normal(size=(1000, graph.inputs["obs"])))["passed"]
    obs = jax.random.normal(KEY, (graph.inputs["obs"],))
    own = flat.spec.obs.size("policy")
    state = types.SimpleNamespace(obs={"policy": obs[:own], "features": obs[own:]})
    decided = graph.row(obs, jnp.zeros(2), jnp.ones(1))["z_next"]
    np.testing.assert_allclose(decided, goals.zero_shot(env)(KEY, state), atol=1e-6)


def test_options_that_end_themselves_export_whole(maze, tmp_path):
    option = Option(maze.composer, every=5, longest=20)
    size, rng = option.spec().obs.size("policy"), np.random.default_rng(0)
    arrays = {"policy/kernel0": rng.normal(size=(size, 9)).astype(np.float32), "policy/bias0": np.zeros(9, np.float32)}
    arrays |= {"obs/mean": np.zeros(size, np.float32), "obs/var": np.ones(size, np.float32)}
    graph = controller_graph(FrozenPolicy.from_arrays(arrays, "swish"), option, option.every)
    folder = write(tmp_path / "options", maze.env, graph)
    assert check(folder, graph.fn, rng.normal(size=(1000, graph.inputs["obs"])))["passed"]
    hierarchy = json.loads((folder / "contract.json").read_text())["hierarchy"]
    assert [f["name"] for f in hierarchy["fields"]] == ["age", "choice"] and len(hierarchy["options"]) == 8
    assert not runner.Runner(folder).z.any()  # nothing is held yet


def test_rules_that_cannot_be_exported_say_so(flat, discovered):
    manifest = {**discovered.manifest, "objective": {"name": "diayn", "options": {}}}
    with pytest.raises(UserError, match="that of diayn is no difference of encodings"):
        skill = Skill(manifest, discovered.arrays)
        rule_graph(Latent((skill,), flat.spec), goals.ZeroShot(skill, None, None), 5)
    with pytest.raises(UserError, match="hold must be at least 1"):
        rule_graph(Latent((discovered,), flat.spec), script.machine([script.Stage(np.zeros(2))]), 0)
