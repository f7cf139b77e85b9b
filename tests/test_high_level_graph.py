"""Skill graphs and scripts: known answers on hand-made graphs and on a point with an oracle velocity skill."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.envs.lattice import lattice
from repertoire.errors import UserError
from repertoire.high_level import handoff, navigate, script
from repertoire.high_level.graph import SkillGraph, check_path, cost_to_go, graph_of, parts
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.sequence import Choice, Latent
from repertoire.scripts import task_eval

KEY = jax.random.key(0)
EAST, NORTH, WEST, SOUTH = range(4)
COMPASS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


def compass(**changed):
    """A graph of four options of one metre; `changed`: "ab" -> cost of b after a."""
    cost = np.ones((5, 4))
    for edge, value in changed.items():
        a, b = ("enws".index(c) for c in edge)
        cost[a, b] = value
    return SkillGraph(np.tile(COMPASS, (5, 1, 1)), cost)


def options_of(graph, goal, clear=lambda xy: np.ones(xy.shape[:-1], bool), radius=0.3):
    cells = lattice(np.array([-6.0, -6.0]), np.array([6.0, 6.0]), 0.25, clear)
    return followed(graph, cells, cost_to_go(graph, cells, np.asarray(goal), radius))


def followed(graph, cells, value):
    """The options on the least costly way from the origin, if all goes as it was measured."""
    check_path(value, cells, np.zeros(2))
    last, at, found = graph.start, np.zeros(2), []
    while value[(last, *cells.index(at))] > 0:
        ends = at + graph.moves[last]
        clear = [all(cells.free[cells.index(at + p * (end - at))] for p in parts(graph, cells)) for end in ends]
        ahead = [graph.cost[last, b] + value[(b, *cells.index(end))] for b, end in enumerate(ends)]
        last = int(np.argmin(np.where(clear, ahead, np.inf)))
        at = ends[last]
        found.append(last)
    return found


# -- search ---------------------------------------------------------------------------------------------------------


def test_the_obvious_path():
    assert options_of(compass(), [3.0, 0.0]) == [EAST] * 3
    assert sorted(options_of(compass(), [-1.0, 2.0])) == [NORTH, NORTH, WEST]
    assert options_of(compass(), [0.1, 0.1]) == []  # there already


def test_a_hand_off_that_fails_is_gone_around():
    around = options_of(compass(ee=np.inf), [3.0, 0.0])
    assert len(around) == 5 and around.count(EAST) == 3
    assert (EAST, EAST) not in set(itertools.pairwise(around))
    assert len(options_of(compass(ee=1.4), [3.0, 0.0])) == 3  # 1.8 for the two hand-offs is less than a detour
    assert len(options_of(compass(ee=2.5), [3.0, 0.0])) == 5


def test_walls_are_gone_around():
    def clear(xy):  # a wall at x = 1.5 with its only gap above y = 2.4
        return (np.abs(xy[..., 0] - 1.5) > 0.3) | (xy[..., 1] > 2.4)

    found = options_of(compass(), [3.0, 0.0], clear)
    assert len(found) == 3 + 2 * 3 and found.count(NORTH) == found.count(SOUTH) == 3


def test_a_long_step_does_not_jump_a_wall():
    graph = SkillGraph(np.tile(3 * COMPASS, (5, 1, 1)), np.ones((5, 4)))
    with pytest.raises(UserError, match="no path"):
        options_of(graph, [3.0, 0.0], lambda xy: np.abs(xy[..., 0] - 1.5) > 0.3)


def test_no_path_is_one_line():
    only_east = SkillGraph(np.tile(COMPASS[:1], (2, 1, 1)), np.ones((2, 1)))
    with pytest.raises(UserError, match=r"no path from \(0, 0\)") as error:
        options_of(only_east, [-2.0, 0.0])
    assert "\n" not in str(error.value)


# -- hand-offs ------------------------------------------------------------------------------------------------------


def test_progress_and_success_by_hand():
    fresh = np.array([[[2.0, 0.0]] * 2, [[0.0, 1.0]] * 2])  # option 0 goes 2 m east, option 1 goes 1 m north
    after = np.zeros((2, 2, 2, 2))
    after[0, 0], after[1, 1] = [2.2, 0.0], [0.3, 1.0]
    after[0, 1] = [[0.0, 0.6], [0.0, 0.2]]  # north after east: well once of twice
    after[1, 0] = [2.0, 0.0]
    whole = np.ones((2, 2, 2), bool)
    whole[1, 0, 0] = False  # east after north: the robot fell once
    found = handoff.HandOffs(fresh, after, whole)
    np.testing.assert_allclose(found.progress[0], [[1.1, 1.1], [0.6, 0.2]])
    np.testing.assert_allclose(found.success, [[1.0, 0.5], [0.5, 1.0]])
    assert found.figures()["handoff_failures"] == 0.5 and found.figures()["handoff_failures_same"] == 0.0
    graph = graph_of(found, least=0.4)
    np.testing.assert_allclose(graph.cost, [[1, 2], [2, 1], [1, 1]])
    np.testing.assert_allclose(graph.moves[0, 1], [0.0, 0.6])  # what failed counts in the cost alone
    assert np.isinf(graph_of(found, least=0.6).cost[0, 1])


def test_an_option_that_falls_is_no_first_step():
    """However far it goes."""
    fresh, whole = np.array([[[5.0, 0.0]] * 2, [[1.0, 0.0]] * 2]), np.ones((2, 2, 2), bool)
    whole[0] = False  # option 0 falls before anything can follow it
    found = handoff.HandOffs(fresh, np.tile(fresh, (2, 1, 1, 1)), whole)
    np.testing.assert_allclose(graph_of(found).cost, [[np.inf, np.inf], [1, 1], [np.inf, 1]])


def test_an_option_that_stays_succeeds_by_staying():
    fresh, after = np.zeros((1, 2, 2)), np.array([[[[0.0, 0.004], [0.3, 0.0]]]])
    found = handoff.HandOffs(fresh + 0.003, after, np.ones((1, 1, 2), bool))
    np.testing.assert_array_equal(found.progress, [[[1.0, 0.0]]])


@pytest.fixture(scope="module")
def maze(oracle):
    env = registry.make("point_maze", "native")
    return MacroEnv(env, Choice((oracle,), env.spec, per_skill=8), 10)


@pytest.fixture(scope="module")
def measured(oracle):
    env = registry.make("point", "native")
    return handoff.measure(MacroEnv(env, Choice((oracle,), env.spec, per_skill=8), 10), KEY, 2, run_up=5)


def test_the_point_hands_over_perfectly(measured):
    angle = 2 * np.pi * np.arange(8) / 8
    way = np.stack([np.cos(angle), np.sin(angle)], -1)
    np.testing.assert_allclose(measured.fresh, np.tile(way[:, None], (1, 2, 1)), atol=1e-3)
    np.testing.assert_allclose(measured.after, np.tile(way[None, :, None], (8, 1, 2, 1)), atol=1e-3)
    assert (measured.success == 1).all()  # though 60 steps are more than an episode of 50
    assert measured.figures()["handoff_progress"] == pytest.approx(1, abs=1e-3)


def test_a_graph_leads_through_a_maze(maze, measured):
    graph = graph_of(measured)
    field = navigate.field_of(maze, graph, navigate.NavigateConfig(margin=0.3))
    found = task_eval.episodes(maze, navigate.navigator(maze, graph, field), KEY, 3)
    assert found.returns.tolist() == [1.0] * 3
    assert found.alive.sum(1).max() <= 130  # 114 steps along the walls


def test_a_graph_without_a_way_says_so(maze, measured):
    graph = graph_of(measured)
    with pytest.raises(UserError, match="no path"):
        navigate.field_of(maze, graph, navigate.NavigateConfig(margin=1.0))  # the corridor is no wider
    with pytest.raises(UserError, match="has no goal in the plane"):
        env = registry.make("point", "native")
        navigate.field_of(MacroEnv(env, maze.composer, 10), graph, navigate.NavigateConfig())
    with pytest.raises(UserError, match=r"navigate\.least"):
        navigate.NavigateConfig(least=0.0)
    with pytest.raises(UserError, match=r"controller\.mode=choice"):
        handoff.measure(MacroEnv(maze.env, Latent(maze.composer.skills, maze.env.spec), 10), KEY, 1)


def test_walls_are_no_ground_to_measure_on(maze):
    """A skill that stops at a wall would seem to be one that does not move."""
    with pytest.raises(UserError, match=r"env point_maze has walls: .* controller\.measured_on="):
        handoff.measure(maze, KEY, 1)


# -- scripts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stages",
    [
        [{"choice": 0, "steps": 4}, {"choice": 6, "steps": 4}, {"choice": 4}],
        [
            {"choice": 2, "until": {"slice": "goal", "below": 10.0}},  # holds already: passed over
            {"choice": 0, "until": {"slice": "goal", "above": 5.5}},
            {"choice": 6, "steps": 99, "until": {"slice": "position", "above": 5.4}},
            {"choice": 4},
        ],
    ],
)
def test_a_script_walks_the_maze(maze, stages):
    """East, south, west around the wall."""
    found = task_eval.episodes(maze, script.machine(script.stages_of(maze, stages)), KEY, 2)
    assert found.returns.tolist() == [1.0, 1.0]
    assert found.alive.sum(1).min() >= 110 and found.alive.sum(1).max() <= 130


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "at least one stage"),
        ([{"choices": 1}], "did you mean 'choice'"),
        ([{"choice": 8}], r"stage 0 of the script needs choice: 0 \.\. 7"),
        ([{"latent": [1, 0]}], "needs choice"),
        ([{"choice": 0, "until": {"slice": "goals", "below": 1}}, {"choice": 1}], "did you mean 'goal'"),
        ([{"choice": 0, "until": {"slice": "goal"}}, {"choice": 1}], "a condition is"),
        ([{"choice": 0}, {"choice": 4, "steps": 2}, {"choice": 5}], "stage 0 of the script would never end"),
        ([{"choice": 0, "steps": -3}, {"choice": 1}], "stage 0 of the script: steps must be .* at least 1, got -3"),
        ([{"choice": 0, "steps": 0}, {"choice": 1}], "got 0"),
        ([{"choice": 0, "steps": 2.9}, {"choice": 1}], r"got 2\.9"),
        ([{"choice": 0, "steps": True}, {"choice": 1}], "got True"),
        ([{"choice": 0, "steps": 2}, {"choice": 1, "steps": 2}], "stage 1 of the script is the last, which goes on"),
        ([{"choice": 0, "until": {"slice": "goal", "below": 1}}], "stage 0 of the script is the last"),
    ],
)
def test_impossible_scripts_are_named(maze, stages, message):
    with pytest.raises(UserError, match=message):
        script.machine(script.stages_of(maze, stages))


def test_a_finished_script_is_read_as_it_ran():
    first, on, end = {"choice": 0, "steps": 2}, {"choice": 6}, {"choice": 4, "steps": 3, "until": {"slice": "goal"}}
    assert script.as_run([first, end]) == [first, {"choice": 4}]
    assert script.as_run([first, on, end]) == [first, on]
    assert script.as_run([first, on]) == [first, on] and script.as_run([]) == []


def test_scripts_of_latents(maze):
    env = MacroEnv(maze.env, Latent(maze.composer.skills, maze.env.spec), 10)
    stage, last = script.stages_of(env, [{"latent": [0.0, 1.0], "steps": 3}, {"latent": [1.0, 0.0]}])
    assert last.steps == 0 and last.until is None
    assert stage.action.tolist() == [0.0, 1.0] and not bool(stage.done(None, jnp.asarray(2)))
    with pytest.raises(UserError, match="a list of 2 numbers"):
        script.stages_of(env, [{"choice": 1}])
