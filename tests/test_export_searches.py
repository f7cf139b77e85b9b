"""Exports of what looks up its way in a map or searches learned dynamics: the same check as all others."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.deploy import runner
from repertoire.deploy.check import check
from repertoire.deploy.contract import load_contract
from repertoire.deploy.export import write
from repertoire.deploy.onnx_model import to_onnx
from repertoire.deploy.rule_graph import rule_graph
from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level import goals, navigate, plan
from repertoire.high_level.dynamics import Dynamics
from repertoire.high_level.graph import SkillGraph
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.plan import Cost
from repertoire.high_level.route import RouteConfig, router
from repertoire.high_level.search import SearchConfig
from repertoire.high_level.sequence import Choice, Latent
from repertoire.algos import normalize
from repertoire.skills.skill import Skill

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

KEY = jax.random.key(0)
OPTIONS = 8


@pytest.fixture(scope="module")
def maze():
    return registry.make("point_maze", "native", goal="random")


@pytest.fixture(scope="module")
def linear(oracle):
    """The oracle, whose encoder is the position: the goal rule goes straight, or to the next way point."""
    described = oracle.manifest["objective"]
    objective = {**described, "options": {**described["options"], "hidden": [4], "activation": "relu"}}
    kernel = np.zeros((4, 4), np.float32)
    kernel[:2] = np.concatenate([np.eye(2), -np.eye(2)], axis=1)
    own = {"objective/encoder/Dense_0/kernel": kernel, "objective/encoder/Dense_0/bias": np.zeros(4)}
    own |= {"objective/encoder/Dense_1/kernel": np.concatenate([np.eye(2), -np.eye(2)]),
            "objective/encoder/Dense_1/bias": np.zeros(2), "features/mean": np.zeros(4), "features/var": np.ones(4)}  # fmt: skip
    kept = {k: v for k, v in oracle.arrays.items() if not k.startswith(("objective/", "features/"))}
    return Skill({**oracle.manifest, "objective": objective}, {**kept, **{k: v.astype(np.float32) for k, v in own.items()}})


def both(graph, rows, seed=0):
    """(ONNX, JAX) outputs on drawn observations in the maze, deciding."""
    rng = np.random.default_rng(seed)
    scales = {"obs": 4.0, "z": 0.5, "noise": 1.0}
    inputs = {n: (scales.get(n, 1) * rng.normal(size=(rows, w))).astype(np.float32) for n, w in graph.inputs.items()}
    inputs["decide"] = np.ones((rows, 1), np.float32)
    for i, field in enumerate(graph.memory):
        if field.choices:
            inputs["z"][:, i] = rng.integers(0, field.choices, rows)
    session = onnxruntime.InferenceSession(to_onnx(graph), providers=["CPUExecutionProvider"])
    out = dict(zip(graph.outputs, session.run(list(graph.outputs), inputs), strict=True))
    return out, jax.jit(graph.fn)(*(jnp.asarray(inputs[n]) for n in graph.inputs)), inputs


# -- way points -----------------------------------------------------------------------------------------------------


def test_a_route_exports_whole(maze, linear, tmp_path):
    env = MacroEnv(maze, Latent((linear,), maze.spec), 3)
    rule = router(env, RouteConfig())
    graph = rule_graph(env.composer, rule, env.hold)
    folder = write(tmp_path / "route", maze, graph)
    figures = check(folder, graph.fn, env=maze, starts=5)
    assert figures["passed"] and figures["closed_loop"]["return"]["export"] == 1.0  # around the wall, to any goal
    told = load_contract(folder)["hierarchy"]
    assert told["mode"] == "route, latent" and [f["name"] for f in told["fields"]] == ["latent"]
    assert told["rule"]["map"] == list(maze.task.rows) and told["rule"]["settings"]["margin"] == 0.475
    assert told["rule"]["cells"] == [81, 81] and len(told["rule"]["goals"]) == 6
    assert (folder / "model.onnx").stat().st_size < 6 * 81 * 81 * 3  # two bytes a cell and goal, and the points


def test_a_way_point_is_the_one_of_the_cell(maze, linear):
    env = MacroEnv(maze, Latent((linear,), maze.spec), 3)
    rule = router(env, RouteConfig())
    graph = rule_graph(env.composer, rule, env.hold)
    obs = np.zeros((len(rule.ahead.goals), graph.inputs["obs"]), np.float32)
    own = maze.spec.obs.size("policy")
    obs[:, own:own + 2] = here = np.array([3.9, -0.1], np.float32)  # fmt: skip
    obs[:, maze.spec.obs.index("policy", ("goal",))] = 0.1 * (rule.ahead.goals - here)
    session = onnxruntime.InferenceSession(to_onnx(graph), providers=["CPUExecutionProvider"])
    feed = {"obs": obs, "z": np.zeros((len(obs), 2), np.float32), "decide": np.ones((len(obs), 1), np.float32)}
    way = rule.ahead.points[:, *rule.ahead.cells.index(here)] - here
    got = session.run(["z_next"], feed)[0]
    np.testing.assert_allclose(got, way / np.linalg.norm(way, axis=1, keepdims=True), atol=1e-5)


# -- skill graphs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compass():
    """Eight directions of one metre; hand-offs cost what no sum of others is, so no two ways are equally long."""
    angle = 2 * np.pi * np.arange(OPTIONS) / OPTIONS
    moves = np.tile(np.stack([np.cos(angle), np.sin(angle)], -1), (OPTIONS + 1, 1, 1))
    cost = 1 + np.random.default_rng(0).uniform(0, 0.5, (OPTIONS + 1, OPTIONS))
    cost[2, 3] = np.inf
    return SkillGraph(moves, cost, "point")


def navigating(env, oracle, compass, **settings):
    macro = MacroEnv(env, Choice((oracle,), env.spec, per_skill=OPTIONS), 10)
    field = navigate.field_of(macro, compass, navigate.NavigateConfig(margin=0.3, **settings))
    return macro, navigate.navigator(macro, compass, field)


def test_a_skill_graph_exports_whole(maze, oracle, compass, tmp_path):
    env, rule = navigating(maze, oracle, compass)
    graph = rule_graph(env.composer, rule, env.hold)
    folder = write(tmp_path / "graph", maze, graph)
    figures = check(folder, graph.fn, env=maze, starts=5)
    assert figures["passed"] and figures["closed_loop"]["return"]["export"] == 1.0
    told = load_contract(folder)["hierarchy"]
    assert [(f["name"], f["choices"]) for f in told["fields"]] == [("last", OPTIONS + 1), ("choice", OPTIONS)]
    assert told["mode"] == "graph, choice" and told["rule"]["measured_on"] == "point"
    out, expected, inputs = both(graph, 500)
    same = (out["z_next"] == np.asarray(expected["z_next"])).all(1)
    assert same.mean() > 0.99  # the others are within rounding of a border between cells
    np.testing.assert_array_equal(out["z_next"][:, 0], out["z_next"][:, 1] + 1)
    assert len(np.unique(out["z_next"][:, 1])) == OPTIONS
    others = both(graph, 500, seed=1)[2]["z"]
    assert (inputs["z"][:, 0] == 0).any() and not np.array_equal(inputs["z"], others)


def test_equally_short_ways_are_the_first_in_both(maze, oracle, compass):
    """All hand-offs cost 1: most decisions are ties."""
    even = SkillGraph(compass.moves, np.ones_like(compass.cost), "point")
    env, rule = navigating(maze, oracle, even)
    out, expected, _ = both(rule_graph(env.composer, rule, 10), 500)
    assert (out["z_next"] == np.asarray(expected["z_next"])).all(1).mean() > 0.99


def test_on_open_ground_the_graph_needs_no_position(oracle, compass):
    ant = registry.make("ant_multi_goals", "native")
    assert rule_graph  # the point has no goals on open ground; the table is that of any robot
    env = types.SimpleNamespace(env=ant)
    field = navigate.field_of(env, compass, navigate.NavigateConfig(reach=40.0))
    rule = navigate.navigator(env, compass, field)
    assert rule.position.size == 2 and not field.absolute
