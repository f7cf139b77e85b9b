"""Exports of what looks up its way in a map or searches learned dynamics: the same check as all others."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos.types import Stats
from repertoire.deploy import runner
from repertoire.deploy.check import check
from repertoire.deploy.contract import load_contract
from repertoire.deploy.export import write
from repertoire.deploy.onnx_model import to_onnx
from repertoire.deploy.replay import CLOSE
from repertoire.deploy.rule_graph import rule_graph
from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level import goals, navigate, plan, search
from repertoire.high_level.dynamics import Dynamics
from repertoire.high_level.graph import SkillGraph
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.route import RouteConfig, router
from repertoire.high_level.sequence import Choice, Latent
from repertoire.skills.skill import Skill

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

KEY, RNG = jax.random.key(0), np.random.default_rng(0)
OPTIONS = 8
HERE = np.array([3.9, -0.1], np.float32)


@pytest.fixture(scope="module")
def maze():
    return registry.make("point_maze", "native", goal="random")


@pytest.fixture(scope="module")
def field(point_goals):
    return point_goals()


@pytest.fixture(scope="module")
def straight(oracle):
    """The oracle with an encoder that gives the position, so that its goal rule goes straight to where it is sent."""
    first = np.zeros((4, 8), np.float32)
    first[:2, :4] = np.concatenate([np.eye(2), -np.eye(2)], axis=1)
    own = {"objective/encoder/Dense_0/kernel": first, "objective/encoder/Dense_1/kernel": first[:2].T}
    own |= {"objective/encoder/Dense_0/bias": np.zeros(8), "objective/encoder/Dense_1/bias": np.zeros(2)}
    own |= {"features/mean": np.zeros(4), "features/var": np.ones(4)}
    assert own.keys() <= oracle.arrays.keys()
    return Skill(oracle.manifest, {**oracle.arrays, **{k: v.astype(np.float32) for k, v in own.items()}})


def session_of(graph):
    return onnxruntime.InferenceSession(to_onnx(graph), providers=["CPUExecutionProvider"])


def both(graph, rows, decide=1.0):
    """(ONNX, JAX, inputs) of drawn observations and memories."""
    scales = {"obs": 2.0, "z": 0.5}
    inputs = {n: (scales.get(n, 1) * RNG.normal(size=(rows, w))).astype(np.float32) for n, w in graph.inputs.items()}
    inputs["decide"] = np.full((rows, 1), decide, np.float32)
    ends = np.cumsum([f.size for f in graph.fields])
    for end, drawn in zip(ends, graph.fields, strict=True):
        if drawn.choices:
            inputs["z"][:, end - 1] = RNG.integers(0, drawn.choices, rows)
    out = dict(zip(graph.outputs, session_of(graph).run(list(graph.outputs), inputs), strict=True))
    return out, jax.tree.map(np.asarray, jax.jit(graph.fn)(*map(jnp.asarray, inputs.values()))), inputs


# -- way points -----------------------------------------------------------------------------------------------------


def test_a_route_exports_whole(maze, straight, tmp_path):
    env = MacroEnv(maze, Latent((straight,), maze.spec), 3)
    rule = router(env, RouteConfig())
    graph = rule_graph(env.composer, rule, env.hold)
    folder = write(tmp_path / "route", maze, graph)
    figures = check(folder, graph.fn, env=maze, starts=6)
    assert figures["passed"] and figures["closed_loop"]["return"]["export"] == 1.0  # around the wall, to every goal
    told = load_contract(folder)["hierarchy"]
    assert told["mode"] == "route, latent" and [f["name"] for f in told["fields"]] == ["latent"]
    assert told["rule"]["map"] == list(maze.task.rows) and told["rule"]["settings"]["margin"] == 0.475
    assert told["rule"]["cells"] == [81, 81] and len(told["rule"]["goals"]) == 6
    assert (folder / "model.onnx").stat().st_size < 6 * 81 * 81 * 3  # two bytes for a cell and goal, and the points
    own, guide = maze.spec.obs.size("policy"), rule.ahead.guide
    count = len(guide.goals)
    obs = np.zeros((count, graph.inputs["obs"]), np.float32)
    obs[:, own : own + 2] = HERE
    obs[:, maze.spec.obs.index("policy", ("goal",))] = 0.1 * (guide.goals - HERE)
    feed = {"obs": obs, "z": np.zeros((count, 2), np.float32), "decide": np.ones((count, 1), np.float32)}
    way = guide.ahead[:, *guide.cells.index(HERE)] - HERE
    found = session_of(graph).run(["z_next"], feed)[0]
    np.testing.assert_allclose(found, way / np.linalg.norm(way, axis=1, keepdims=True), atol=1e-5)


# -- skill graphs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compass():
    """Eight directions of one metre. Drawn costs: no two ways are equally long, and one hand-off is none."""
    angle = 2 * np.pi * np.arange(OPTIONS) / OPTIONS
    moves = np.tile(np.stack([np.cos(angle), np.sin(angle)], -1), (OPTIONS + 1, 1, 1))
    cost = 1 + np.random.default_rng(0).uniform(0, 0.5, (OPTIONS + 1, OPTIONS))
    cost[2, 3] = np.inf
    return SkillGraph(moves, cost, "point")


def navigating(env, oracle, graph, **settings):
    macro = MacroEnv(env, Choice((oracle,), env.spec, per_skill=OPTIONS), 10)
    found = navigate.field_of(macro, graph, navigate.NavigateConfig(margin=0.3, **settings))
    return rule_graph(macro.composer, navigate.navigator(macro, graph, found), 10)


def assert_agreeing(graph):
    """Option and memory of drawn rows are the same, but where near a border between cells rounding decides."""
    out, expected, _ = both(graph, 500)
    np.testing.assert_array_equal(out["z_next"][:, 0], out["z_next"][:, 1] + 1)
    assert len(np.unique(out["z_next"][:, 1])) > OPTIONS // 2
    clear = expected["margin"][:, 0] >= CLOSE
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(out["z_next"][clear], expected["z_next"][clear])


def test_a_skill_graph_exports_whole(maze, oracle, compass, tmp_path):
    graph = navigating(maze, oracle, compass)
    folder = write(tmp_path / "graph", maze, graph)
    figures = check(folder, graph.fn, env=maze, starts=6)
    assert figures["passed"] and figures["closed_loop"]["return"]["export"] == 1.0
    told = load_contract(folder)["hierarchy"]
    assert [(f["name"], f["choices"]) for f in told["fields"]] == [("last", OPTIONS + 1), ("choice", OPTIONS)]
    assert told["mode"] == "graph, choice" and told["rule"]["measured_on"] == "point"
    assert told["rule"]["origin"] == "world" and not runner.Runner(folder).z.any()
    assert_agreeing(graph)


def test_of_equally_short_ways_both_take_the_first(maze, oracle, compass):
    even = SkillGraph(compass.moves, np.ones_like(compass.cost), "point")  # most decisions are ties
    assert_agreeing(navigating(maze, oracle, even))


def test_on_open_ground_a_skill_graph_needs_no_position(field, oracle, compass):
    graph = navigating(field, oracle, compass, reach=6.0)
    assert graph.inputs["obs"] == field.spec.obs.size("policy") and graph.features == ()
    assert_agreeing(graph)


def test_a_skill_graph_is_a_close_call_where_the_option_changes(field, oracle, compass):
    """Cells of 0.25 m from -6 m on: borders at odd multiples of 0.125 m, and not all of them matter."""
    graph, goal = navigating(field, oracle, compass, reach=6.0), field.spec.obs.index("policy", ("goal",))
    rule, fn = graph.rule, jax.jit(graph.fn)

    def at(x):
        """(options, margins) of robots at [B, 2] m, the goal being the origin."""
        obs = np.zeros((len(x), graph.inputs["obs"]), np.float32)
        obs[:, goal] = -0.1 * x
        out = fn(jnp.asarray(obs), jnp.zeros((len(x), 2)), jnp.ones((len(x), 1)))
        return np.asarray(out["z_next"][:, 1]), np.asarray(out["margin"][:, 0])

    border = np.stack([0.125 + 0.25 * np.arange(-20, 20), np.full(40, 0.03)], -1)
    assert (rule.field.cells.cell, *rule.field.cells.low) == (0.25, -6.0, -6.0)
    left, right = (at(border + np.array([off, 0.0]))[0] for off in (-1e-3, 1e-3))
    margins, clear = at(border)[1], at(border + np.array([0.06, 0.0]))[1]
    assert 0 < (left != right).sum() < 40
    np.testing.assert_array_equal(margins, np.where(left != right, 0.0, np.inf))
    assert np.isinf(clear).all()


@pytest.mark.parametrize("kind", ["route", "graph"])
def test_half_way_between_two_goals_a_decision_is_a_close_call(maze, oracle, straight, compass, kind):
    """The table of either goal may be read there; 2 cm off it is not."""
    env = MacroEnv(maze, Latent((straight,), maze.spec), 3)
    routed = kind == "route"
    graph = rule_graph(env.composer, router(env, RouteConfig()), 3) if routed else navigating(maze, oracle, compass)
    goals, own = maze.task.goals(), maze.spec.obs.size("policy")
    first, second = min(itertools.combinations(goals, 2), key=lambda pair: np.linalg.norm(pair[0] - pair[1]))
    here = np.random.default_rng(1).uniform(-1, 5, (50, 2))

    def margins(off):
        aim = (first + second) / 2 + off * (second - first) / np.linalg.norm(second - first)
        obs = np.zeros((len(here), graph.inputs["obs"]), np.float32)
        obs[:, own : own + 2] = here
        obs[:, maze.spec.obs.index("policy", ("goal",))] = 0.1 * (aim - here)
        z = np.zeros((len(here), graph.inputs["z"]), np.float32)
        return np.asarray(jax.jit(graph.fn)(obs, z, np.ones((len(here), 1), np.float32))["margin"][:, 0])

    assert (margins(0.0) < CLOSE).all()
    assert (margins(0.02) >= CLOSE).mean() > 0.9 and (margins(-0.02) >= CLOSE).mean() > 0.9


# -- plans ----------------------------------------------------------------------------------------------------------


def dynamics_of(size, hidden, drawn):
    """Two members for the point: its true dynamics over ten steps, or layers with drawn weights."""
    seen, pairs = np.array([0.0, 0.0, 1.0, 1.0]), list(itertools.pairwise((4 + size, *hidden, 4)))
    true = np.zeros((6, 4))
    true[2:4, 2:] = -np.eye(2)  # the velocity becomes the latent
    true[4:] = np.concatenate([np.eye(2), np.eye(2)], axis=1)
    layers = [(np.stack([RNG.normal(size=p) if drawn else true] * 2), np.zeros((2, p[1]))) for p in pairs]
    as_stats = [Stats(jnp.zeros(n), jnp.full(n, v), jnp.ones(())) for n, v in ((4 + size, 1.0 + drawn), (4, 1.0))]
    as_arrays = tuple((jnp.asarray(k, jnp.float32), jnp.asarray(b, jnp.float32)) for k, b in layers)
    return Dynamics(layers=as_arrays, inputs=as_stats[0], change=as_stats[1], seen=jnp.asarray(seen, jnp.float32))


def planning(env, oracle, mode, hidden=(), drawn=False, **settings):
    composer = Choice((oracle,), env.spec, per_skill=OPTIONS) if mode == "choice" else Latent((oracle,), env.spec)
    macro, config = MacroEnv(env, composer, 10), search.SearchConfig(**{"horizon": 3, "candidates": 32, **settings})
    model = plan.imagined(macro, dynamics_of(OPTIONS if mode == "choice" else 2, hidden, drawn), plan.Cost(along=1.0))
    return macro, plan.planner(macro, model, config)


def test_a_plan_exports_whole(field, oracle, tmp_path):
    env, rule = planning(field, oracle, "latent")
    graph = rule_graph(env.composer, rule, 10)
    folder = write(tmp_path / "plan", field, graph)
    figures = check(folder, graph.fn, env=field, starts=6, steps=170)
    assert figures["passed"] and figures["closed_loop"]["return"]["export"] > 10  # it gets there and stays
    contract = load_contract(folder)
    told, names = contract["hierarchy"], [t["name"] for t in contract["observation"]["terms"]]
    assert contract["onnx"]["inputs"]["noise"] == 3 * 32 * 3 * 2 and names[-2:] == [
        "features.position",
        "features.velocity",
    ]
    assert told["mode"] == "plan, latent" and [f["name"] for f in told["fields"]] == ["plan", "latent"]
    assert told["rule"]["members"] == 2 and "standard normal" in told["rule"]["note"]
    run, ways = runner.Runner(folder), []
    for seed in (0, 0, 1):
        run.reset(goals=[2.0, 1.0], seed=seed)
        ways.append(run.simulate(25)["qpos"])
    np.testing.assert_array_equal(ways[0], ways[1])
    assert np.abs(ways[0] - ways[2]).max() > 1e-3  # other draws


@pytest.mark.parametrize(
    ("method", "mode", "settings"),
    [("cem", "latent", {}), ("mppi", "latent", {"temperature": 5.0}), ("cem", "choice", {"horizon": 1})],
)
def test_plans_agree_with_jax(field, oracle, method, mode, settings):
    env, rule = planning(field, oracle, mode, hidden=(8,), drawn=True, method=method, **settings)
    graph = rule_graph(env.composer, rule, 10)
    out, expected, inputs = both(graph, 300)
    clear = expected["margin"][:, 0] >= CLOSE
    assert clear.mean() > 0.8
    np.testing.assert_allclose(out["z_next"][clear], expected["z_next"][clear], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(out["z_next"][:, graph.memory[0].size - rule.space.size : graph.memory[0].size], 0.0)
    held = both(graph, 5, decide=0.0)
    np.testing.assert_array_equal(held[0]["z_next"], held[2]["z"])
    if mode == "latent":  # what evaluation does
        own, size = jax.random.split(KEY)[1], field.spec.obs.size("policy")
        row, mean = {k: jnp.asarray(v[0]) for k, v in inputs.items()}, inputs["z"][0, : np.prod(rule.shape)]
        state = SimpleNamespace(obs={"policy": row["obs"][:size], "features": row["obs"][size:]})
        action, rest = rule.step(KEY, state, jnp.asarray(mean).reshape(rule.shape))
        noise = search.draw(own, rule.shape, rule.config).ravel()
        found = graph.row(row["obs"], row["z"], jnp.ones(1), noise)["z_next"]
        latent = env.composer.resolve(action)[0]
        np.testing.assert_allclose(found, np.concatenate([np.ravel(rest), latent]), atol=1e-4)


def test_what_cannot_be_exported_says_why(field, oracle):
    env, rule = planning(field, oracle, "latent")
    simulated = plan.planner(env, plan.simulated(env, plan.Cost()), rule.config)
    with pytest.raises(UserError, match=r"needs the simulator on the robot, .*model=learned exports"):
        rule_graph(env.composer, simulated, 10)
    with pytest.raises(UserError, match="draws its skills at random, which is nothing to deploy"):
        rule_graph(env.composer, goals.random_skills(env), 10)
