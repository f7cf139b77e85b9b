"""Planning: known answers of the search, of learned dynamics and of a point with an oracle velocity skill."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level import dynamics, dynamics_fit, plan
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.rules import position_index
from repertoire.high_level.search import SearchConfig, search
from repertoire.high_level.sequence import SequenceConfig, sequence
from repertoire.scripts import task_eval

KEY = jax.random.key(0)


def macro(skill, env, hold=10, mode="latent"):
    return MacroEnv(env, sequence((skill,), env.spec, SequenceConfig(mode, per_skill=8)), hold)


@pytest.fixture(scope="module")
def field(oracle, point_goals):
    return macro(oracle, point_goals())


@pytest.fixture(scope="module")
def maze(oracle):
    return macro(oracle, registry.make("point_maze", "native"))


# -- search ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cem", "mppi"])
def test_the_search_finds_the_bottom_of_a_bowl(method):
    bottom = jnp.array([[0.5, -1.0], [2.0, 0.0], [-1.0, 1.5]])
    std = {"cem": 1.5, "mppi": 0.7}[method]  # that of mppi stays, so it is also the size of the last steps
    config = SearchConfig(method=method, horizon=3, candidates=512, iterations=12, elites=64, std=std, floor=0.01)
    found = jax.jit(lambda k: search(lambda x: jnp.square(x - bottom).sum(), jnp.zeros((3, 2)), k, config))(KEY)
    np.testing.assert_allclose(found.mean, bottom, atol=0.1 if method == "cem" else 0.3)
    assert float(found.cost) == pytest.approx(float(jnp.square(found.best - bottom).sum()), rel=1e-4)
    assert float(found.cost) < (0.05 if method == "cem" else 0.5)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_candidate_without_a_finite_cost_is_never_chosen(bad):
    def cost(x):
        return jnp.where(x[0, 0] > 0, bad, jnp.square(x + 1).sum())

    config = SearchConfig(horizon=1, candidates=64, iterations=4)
    found = search(cost, jnp.zeros((1, 1)), KEY, config)
    assert np.isfinite(found.cost) and float(found.best[0, 0]) == pytest.approx(-1, abs=0.1)


def test_the_best_is_the_best_of_all_iterations():
    config = SearchConfig(horizon=1, candidates=2, iterations=3, elites=1)
    found = search(lambda x: jnp.abs(x).sum(), jnp.full((1, 1), 1e-3), KEY, config)
    assert float(found.cost) <= 1.001e-3  # the start itself is tried


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "cme"}, "did you mean 'cem'"),
        ({"horizon": 0}, r"controller\.search\.horizon must be at least 1"),
        ({"elites": 100}, "must be at most candidates=64"),
        ({"temperature": 0.0}, r"search\.temperature must be positive"),
    ],
)
def test_impossible_searches_are_named(options, message):
    with pytest.raises(UserError, match=message):
        SearchConfig(**options)


@pytest.mark.parametrize(("worlds", "share", "rows"), [(2, 0.2, 5), (2, 0.9, 5), (10, 0.2, 10)])
def test_some_worlds_are_held_out_however_few_there_are(worlds, share, rows):
    here, moved = jax.random.normal(KEY, (2, worlds, 5, 2))
    data = dynamics_fit.Transitions(here, moved, here + moved, jnp.ones((worlds, 5), bool))
    config = dynamics_fit.DynamicsConfig(members=1, hidden=(4,), updates=1, held_out=share)
    assert dynamics_fit.fit(data, config, np.arange(2), KEY)[1]["transitions"] == rows


# -- planning in the simulator --------------------------------------------------------------------------------------


def test_the_models_agree_with_the_env(field):
    """The cost of a sequence is that of really doing it."""
    state, sequence = jax.jit(field.reset)(KEY), jnp.array([[1.0, 0.0], [0.0, 1.0]])
    cost = plan.Cost(reward=0.0, along=0.5, end=2.0)
    got = jax.jit(lambda s: plan.simulated(field, cost)(KEY, s)(sequence))(state)
    goal, here = state.memory.goal, state.data.qpos
    d = [float(jnp.linalg.norm(here + jnp.array(v) - goal)) for v in ((1.0, 0.0), (1.0, 1.0))]  # 10 steps at 1 m/s
    assert float(got) == pytest.approx(2 * d[1] + 0.5 * np.mean(d), abs=1e-3)


def test_nothing_counts_after_the_end(maze):
    state = jax.jit(maze.reset)(KEY)
    near = state.replace(memory=state.memory.replace(goal=state.data.qpos + jnp.array([1.0, 0.0])))
    cost = plan.Cost(reward=1.0, along=0.0, end=0.0)
    got = jax.jit(lambda s: plan.simulated(maze, cost)(KEY, s)(jnp.tile(jnp.array([1.0, 0.0]), (3, 1))))(near)
    assert float(got) == -1.0  # arrives once, though it stays within reach for longer


def test_a_plan_sees_no_goal_that_is_yet_to_be_drawn(oracle, point_goals):
    env = macro(oracle, point_goals(hold=10))
    state, sequence = jax.jit(env.reset)(KEY), jnp.tile(jnp.array([1.0, 0.0]), (3, 1))
    cost = plan.Cost(reward=1.0, along=0.0, end=1.0)
    costs = [float(jax.jit(plan.simulated(env, cost)(jax.random.key(i), state))(sequence)) for i in range(3)]
    d = float(jnp.linalg.norm(state.data.qpos + jnp.array([3.0, 0.0]) - state.memory.goal))
    assert all(c <= d + 1e-3 for c in costs)  # the distance is to the goal that is there


def test_where_the_goal_is_not_the_roots_the_reward_alone_counts(make_skill):
    """A cube's goal on a table: an arm has no position."""
    env = registry.make("panda_push", "native")
    arm = macro(make_skill(env.spec), env, hold=5)
    assert callable(plan.simulated(arm, plan.Cost()))
    away = plan._distance(env.spec)(None)
    assert float(away(jnp.ones(env.spec.obs.size("features")))) == 0.0
    assert plan.notes(arm, SearchConfig()) == (
        "env panda_push has no `goal` for its `position`: its reward alone counts in a plan",
    )


def test_plans_that_look_past_the_goal_are_noted(oracle, point_goals):
    """They are paid for being near when it is gone, so they put off going there."""
    env = point_goals(hold=50)
    (note,) = plan.notes(macro(oracle, env, hold=25), SearchConfig(horizon=4))
    assert "look 100 control steps ahead and a goal lasts 50" in note
    assert "; try controller.search.horizon=2 controller.cost.along=1 controller.cost.end=0" in note
    assert plan.notes(macro(oracle, env, hold=25), SearchConfig(horizon=2)) == ()
    (note,) = plan.notes(macro(oracle, env, hold=60), SearchConfig(horizon=1))
    assert "; try controller.hold=50 controller.search.horizon=1 controller.cost" in note
    assert plan.notes(macro(oracle, registry.make("point_maze", "native")), SearchConfig(horizon=50)) == ()


def test_it_reaches_goals_on_open_ground(field):
    config = SearchConfig(horizon=4, candidates=64, iterations=3)
    rule = plan.planner(field, plan.simulated(field, plan.Cost(along=1.0)), config)
    found = task_eval.episodes(field, rule, KEY, 4)
    assert (found.reward.max(1) > 0).all()


@pytest.mark.slow
def test_it_finds_the_way_around_a_wall(oracle):
    """The goal lies 4 m away behind a wall: whoever goes straight stays there."""
    maze = macro(oracle, registry.make("point_maze", "native"), hold=20)
    config = SearchConfig(horizon=8, candidates=64, iterations=3)
    found = task_eval.episodes(maze, plan.planner(maze, plan.simulated(maze, plan.Cost()), config), KEY, 2)
    assert found.returns.tolist() == [1.0, 1.0]
    assert found.alive.sum(1).max() < 150  # about 90 around the inner corners


# -- learned dynamics -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(field):
    data = dynamics_fit.collect(field, KEY, 64, 30)
    config = dynamics_fit.DynamicsConfig(hidden=(64, 64), members=2, updates=2000, position=False)
    return data, *dynamics_fit.fit(data, config, position_index(field.env.spec), KEY)


def test_steps_that_an_end_cut_short_are_left_out(field, learned):
    data, _, figures = learned
    assert data.features.shape == (64, 30, 4) and data.latents.shape == (64, 30, 2)
    assert np.asarray(data.valid)[:, :6].tolist() == [[True] * 5 + [False]] * 64  # episodes of 60 steps
    np.testing.assert_allclose(np.linalg.norm(data.latents, axis=-1), 1, rtol=1e-5)
    assert figures["transitions"] == 13 * 25


def test_the_dynamics_of_the_point_are_learned(field, learned):
    """They are linear: a macro step adds 10 times 0.1 m of the latent, and the velocity becomes the latent."""
    _, model, figures = learned
    assert figures["error"] < 0.01 and figures["position_error"] < 0.01, figures
    z, here = jnp.array([0.6, -0.8]), jnp.array([50.0, -20.0, 0.0, 1.0])  # far from all that was seen
    np.testing.assert_allclose(model.predict(here, z), [50.6, -20.8, 0.6, -0.8], atol=0.05)


def test_dynamics_survive_the_disk(learned):
    _, model, _ = learned
    again = dynamics.from_arrays(model.arrays())
    here, z = jnp.array([1.0, 2.0, 0.5, 0.5]), jnp.array([1.0, 0.0])
    np.testing.assert_array_equal(again.predict(here, z), model.predict(here, z))
    assert again.members == 2


def test_it_reaches_goals_by_learned_dynamics(field, learned):
    model = plan.imagined(field, learned[1], plan.Cost(along=1.0))
    rule = plan.planner(field, model, SearchConfig(horizon=4, candidates=256, iterations=4, elites=16))
    found = task_eval.episodes(field, rule, KEY, 4)
    assert (found.reward.max(1) > 0).all()


def test_what_cannot_be_learned_says_so(oracle):
    env = macro(oracle, registry.make("point"), hold=60)  # episodes of 50 steps hold no whole macro step
    with pytest.raises(UserError, match="no whole macro step"):
        dynamics_fit.fit(dynamics_fit.collect(env, KEY, 4, 2), dynamics_fit.DynamicsConfig(), np.arange(2), KEY)
    with pytest.raises(UserError, match=r"controller\.model=simulator"):
        plan.imagined(env, None, plan.Cost())
    with pytest.raises(UserError, match=r"dynamics\.held_out"):
        dynamics_fit.DynamicsConfig(held_out=1.0)
