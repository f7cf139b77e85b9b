"""Way points: the shortest way between walls, by hand, and a point that is led along it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level.graph import Lattice
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.route import RouteConfig, router, way_points
from repertoire.high_level.sequence import SequenceConfig, sequence
from repertoire.scripts import task_eval

#: 3 x 3 cells of 1 m, x first; a wall in (1, 0) and (1, 1) leaves a gap at the top.
FREE = np.array([[1, 1, 1], [0, 0, 1], [1, 1, 1]], bool)


@pytest.fixture
def cells():
    return Lattice(np.array([-1.0, -1.0]), 1.0, np.pad(FREE, 1))


def test_way_points_go_around_a_wall(cells):
    points = way_points(cells, np.array([2.0, 0.0]), ahead=1.2)
    at = {(x, y): points[cells.index(np.array([x, y]))] for x, y in np.argwhere(FREE)}
    np.testing.assert_allclose(at[0, 0], [1, 2])  # one step up is 1 m, the next, across the corner, goes beyond 1.2
    np.testing.assert_allclose(at[1, 2], [2, 1])  # 1.41 m across the corner
    np.testing.assert_allclose(at[2, 1], [2, 0])  # the goal itself, never beyond
    np.testing.assert_allclose(at[2, 0], [2, 0])
    np.testing.assert_allclose(points[cells.index(np.array([1.0, 0.0]))], at[0, 0])  # who is in a wall, from beside it


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
        way_points(closed, np.array([2.0, 0.0]), ahead=1.0)


@pytest.mark.parametrize("bad", [{"margin": 0.5}, {"margin": -0.1}, {"cell": 0.0}, {"ahead": -1.0}])
def test_impossible_settings_say_so(bad):
    with pytest.raises(UserError, match=r"controller\.route\."):
        RouteConfig(**bad)
