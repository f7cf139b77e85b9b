"""Way points: the shortest way between walls, by hand, and a point that is led along it or shown it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.envs.lattice import Lattice, ways
from repertoire.errors import UserError
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.route import RouteConfig, router
from repertoire.high_level.sequence import SequenceConfig, sequence
from repertoire.scripts import task_eval

#: 3 x 3 cells of 1 m, x first; a wall in (1, 0) and (1, 1) leaves a gap at the top.
FREE = np.array([[1, 1, 1], [0, 0, 1], [1, 1, 1]], bool)


@pytest.fixture
def cells():
    return Lattice(np.array([-1.0, -1.0]), 1.0, np.pad(FREE, 1))


def test_way_points_go_around_a_wall(cells):
    left, points = ways(cells, np.array([2.0, 0.0]), ahead=1.2)
    at = {(x, y): points[cells.index(np.array([x, y]))] for x, y in np.argwhere(FREE)}
    np.testing.assert_allclose(at[0, 0], [1, 2])  # one step up is 1 m, the next, across the corner, goes beyond 1.2
    np.testing.assert_allclose(at[1, 2], [2, 1])  # 1.41 m across the corner
    np.testing.assert_allclose(at[2, 1], [2, 0])  # the goal itself, never beyond
    np.testing.assert_allclose(at[2, 0], [2, 0])
    np.testing.assert_allclose(points[cells.index(np.array([1.0, 0.0]))], at[0, 0])  # who is in a wall, from beside it
    for (x, y), metres in {
        (2, 0): 0,
        (2, 1): 1,
        (1, 2): 1 + 2**0.5,
        (0, 1): 1 + 2 * 2**0.5,
        (1, 0): 2 + 2 * 2**0.5,
    }.items():
        assert left[cells.index(np.array([x, y]))] == pytest.approx(metres)


def test_a_point_is_led_around_the_wall_of_a_maze(oracle):
    env = registry.make("point_maze", "native")
    macro = MacroEnv(env, sequence((oracle,), env.spec, SequenceConfig("latent")), hold=3)
    ahead = router(macro, RouteConfig()).ahead  # the oracle's latent is a velocity, its encoder is not trained

    def straight(key, state):
        way = ahead(state)
        return way / jnp.linalg.norm(way)

    found = task_eval.episodes(macro, straight, jax.random.key(0), 3)
    np.testing.assert_array_equal(found.returns, 1.0)
    ground = registry.make("point", "native")
    with pytest.raises(UserError, match="no `goal` slice"):
        router(MacroEnv(ground, sequence((oracle,), ground.spec, SequenceConfig("latent")), hold=3), RouteConfig())


def test_a_goal_behind_walls_is_refused(cells):
    closed = Lattice(cells.low, cells.cell, cells.free & (np.indices(cells.free.shape)[0] != 2))
    with pytest.raises(UserError, match="no way leads to the goal"):
        ways(closed, np.array([2.0, 0.0]), ahead=1.0)


def test_a_guided_task_shows_the_way():
    """The U's corridors are straight: a metre there is a metre of the way; at the end the way point is the goal."""
    task = registry.make_task("ant_maze", guide=1.0)
    goal = jnp.asarray(task.goals()[0])
    way, left = (jax.vmap(lambda xy, f=f: f(xy, goal)) for f in (task.ways.way, task.ways.distance))
    np.testing.assert_allclose(goal, [0.0, -8.0])
    np.testing.assert_allclose(left(jnp.array([[0.0, -8.0], [0.7, -8.0], [4.0, -8.0]])), [0.0, 0.7, 4.0], atol=1e-4)
    along = left(jnp.stack([jnp.linspace(0.0, 5.0, 11), jnp.zeros(11)], -1))
    np.testing.assert_allclose(jnp.diff(along), -0.5, atol=1e-3)
    ahead = way(jnp.array([[1.0, 0.0], [4.0, -8.0], [0.5, -7.8]]))
    np.testing.assert_allclose(jnp.linalg.norm(ahead[:2], axis=-1), 1.0, atol=0.15)  # cells of 0.2 m
    assert ahead[0, 0] > 0.5 and ahead[1, 0] < -0.5  # out of the upper corridor, back through the lower
    np.testing.assert_allclose(ahead[2], [-0.5, -0.2], atol=1e-5)


def test_progress_adds_up_to_the_way_that_was_made():
    env = registry.make("point_maze", "native", guide=1.0, weights={"goal": 1.0, "progress": 0.5})
    step, state = jax.jit(env.step), env.reset(jax.random.key(0))
    first, total = env.task.ways.distance(state.data.qpos[:2], state.memory.goal), 0.0
    assert [s.name for s in env.spec.obs.groups["policy"]][-1] == "way"
    for _ in range(8):
        before = state
        state = step(state, jnp.array([1.0, 0.0]))
        total += float(state.reward)
        shown = env.task.ways.way(before.data.qpos[:2], before.memory.goal)
        np.testing.assert_allclose(before.obs["policy"][-2:], shown, rtol=1e-5)
    made = float(first - env.task.ways.distance(state.data.qpos[:2], state.memory.goal))
    assert made > 0.3
    assert total == pytest.approx(0.5 * made, rel=1e-4)


@pytest.mark.parametrize(
    ("env", "options", "says"),
    [
        ("point_maze", {"guide": -1.0}, r"env\.guide must be at least 0, got -1\.0"),
        ("go2_velocity", {"vx": (1.0, -1.0)}, r"env\.vx must be low <= high"),
        ("panda_cube", {"vary_mass": 1.0}, r"env\.vary_mass must be at least 0 and below 1"),
    ],
)
def test_a_range_names_the_setting(env, options, says):
    with pytest.raises(UserError, match=says):
        registry.make_task(env, **options)


def test_progress_needs_a_guide():
    with pytest.raises(UserError, match=r"set env\.guide"):
        registry.make_task("ant_maze", weights={"progress": 1.0})


@pytest.mark.parametrize("bad", [{"margin": 0.5}, {"margin": -0.1}, {"cell": 0.0}, {"ahead": -1.0}])
def test_impossible_settings_say_so(bad):
    with pytest.raises(UserError, match=r"controller\.route\."):
        RouteConfig(**bad)
