"""Tasks: what they observe, reward and end on, by hand numbers; and what every env of the registry promises."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.envs.physics.native import NativePhysics
from repertoire.envs.tasks import skillbench
from repertoire.envs.tasks.hurdle import BEYOND, HURDLES
from repertoire.envs.tasks.robot import Robot
from repertoire.envs.tasks.velocity import Velocity
from repertoire.errors import UserError

ROBOTS = ("ant", "half_cheetah", "hopper", "walker2d", "humanoid", "point", "go2", "g1", "h1")
#: Tasks on the arm -> the env whose skills they can use.
ARM = {
    **{f"panda_{task}": "panda_cube" for task in ("push", "pick_place", "stack", "rearrange", "scene", "cube")},
    **{name: name for name in ("panda_reach", "panda_drawer")},
}
#: Compile fast, run slowly: these programs run for a moment.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
#: Robots whose discovery variant has terms of style.
STYLED = ("go2", "g1", "h1")


def robot_of(name):
    return ARM.get(name) or next(r for r in sorted(ROBOTS, key=len, reverse=True) if name.startswith(r))


def follow(env, actions, seed=0):
    """State after each of `actions` [T, nu], from one start."""

    def step(s, a):
        s = env.step(s, a)
        return s, s

    def run(key, actions):
        return jax.lax.scan(step, env.reset(key), actions)[1]

    return jax.jit(run, compiler_options=QUICK)(jax.random.key(seed), jnp.asarray(actions, jnp.float32))


# -- every env ------------------------------------------------------------------------------------------------------


def _later(name):
    """Most rows of SkillBench are one program with other numbers: they step in its own tests, and here when slow."""
    row = name in {task.name for task in skillbench.TASKS} - {"h1_box", "h1_cabinet"}
    return pytest.param(name, marks=pytest.mark.slow if row else ())


@pytest.mark.parametrize("name", [_later(name) for name in registry.TASKS])
def test_every_env_steps_natively_as_declared(name):
    env = registry.make(name, "native", episode_length=3)
    actions = jax.random.uniform(jax.random.key(1), (3, env.spec.action_size), minval=-1, maxval=1)
    states = follow(env, actions)
    for group in ("policy", "critic", "features"):
        assert states.obs[group].shape == (3, env.spec.obs.size(group))
        assert np.isfinite(states.obs[group]).all()
    np.testing.assert_array_equal(states.truncated, [False, False, True])
    total = sum(v for k, v in states.metrics.items() if k.startswith("reward/"))
    np.testing.assert_allclose(states.reward, total, rtol=1e-5, atol=1e-6)
    assert set(env.task.weights) == {k[7:] for k in states.metrics if k.startswith("reward/")}
    if isinstance(env.task, Robot):
        root = states.data.qpos[:, : env.task.root]
        np.testing.assert_array_equal(states.obs["features"][:, env.spec.obs.index("features", ("position",))], root)
    assert isinstance(env.task.markers(jax.tree.map(lambda x: x[-1], states)), list)


@pytest.mark.parametrize("name", registry.TASKS)
def test_a_task_keeps_the_slices_of_its_robot(name):
    """A frozen skill finds its inputs by name in every task of its robot; under a joystick there is no heading."""
    options = {"disc": True} if name == "point_disc" else {}
    robot, task = registry.make_task(robot_of(name), **options).obs_spec(), registry.make_task(name).obs_spec()
    blind = ("heading",) if issubclass(registry.TASKS[name], Velocity) else ()
    kept = tuple(s for s in robot.groups["policy"] if s.name not in blind)
    assert task.groups["policy"][: len(kept)] == kept and not {s.name for s in task.groups["policy"]} & set(blind)
    assert task.groups["features"] == robot.groups["features"]


@pytest.mark.parametrize("name", ROBOTS)
def test_discovery_sees_the_position_only_in_features(name):
    env = registry.make(name, "native")
    state = env.reset(jax.random.key(0))
    moved = state.replace(data=env.physics.init(state.data.qpos.at[: env.task.root].add(7.0), state.data.qvel))
    before, after = (env.spec.obs.build(env.task.observe(s.data, s.memory)) for s in (state, moved))
    np.testing.assert_array_equal(before["policy"], after["policy"])
    assert not np.array_equal(before["features"], after["features"])
    assert not env.task.weights or name in STYLED


@pytest.mark.parametrize("name", [*ROBOTS, "panda_cube"])
def test_random_actions_never_diverge(name):
    env = registry.make(name, "native")
    keys = jax.random.split(jax.random.key(0), 16)

    def run(keys):
        def step(state, key):
            action = jax.random.uniform(key, (16, env.spec.action_size), minval=-1, maxval=1)
            state = jax.vmap(env.step)(state, action)
            return state, (state.metrics["diverged"], jnp.abs(state.data.qvel).max())

        return jax.lax.scan(step, jax.vmap(env.reset)(keys), jax.random.split(keys[0], 200))[1]

    diverged, speed = jax.jit(run)(keys)
    assert float(diverged.sum()) == 0.0
    assert float(speed.max()) < 100.0  # m/s, rad/s


def test_describe_is_plain_data_for_every_env():
    described = json.loads(json.dumps(registry.describe()))
    assert [d["name"] for d in described] == registry.names()
    ant = registry.describe("ant_forward")[0]
    assert ant["rewards"] == {"forward": 1.0, "alive": 1.0, "ctrl": -0.5, "contact": -5e-4}
    assert ant["options"]["dynamics"] == "fast" and ant["episode_length"] == 1000
    assert ant["dt"] == pytest.approx(0.05) and len(ant["actions"]) == 8
    assert [s["name"] for s in ant["obs"]["policy"]] == ["posture", "rates"]
    assert all(d["doc"] and s["unit"] for d in described for g in d["obs"].values() for s in g)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("anr", {}, "did you mean 'ant'"),
        ("ant", {"dynamic": "fast"}, "did you mean 'dynamics'"),
        ("ant", {"dynamics": "slow"}, "dynamics"),
        ("ant", {"episode_length": 0}, "episode_length must be at least 1"),
        ("ant", {"reset_noise": -0.1}, "reset_noise"),
        ("ant", {"weights": {"forward": 1.0}}, "no reward terms"),
        ("ant_forward", {"weights": {"forwards": 1.0}}, "did you mean 'forward'"),
        ("ant_multi_goals", {"radius": -1.0}, "radius must be at least 0"),
        ("ant_multi_goals", {"radius": float("nan")}, "radius"),
        ("ant_multi_goals", {"hold": 0}, "hold must be at least 1"),
        ("half_cheetah_goal", {"goal_range": -5.0}, "goal_range"),
        ("point", {"reset_noise": -1.0}, "reset_noise"),
        ("point_maze", {"maze": "v"}, "maze"),
        ("point_maze", {"goal": "randon"}, "did you mean 'random'"),
        ("point_maze", {"cell": 0.1}, "cell must be at least 1"),
        ("ant_maze", {"maze": "bigg"}, "did you mean 'big'"),
        ("ant_push", {"maze": "u"}, "unknown option of env ant_push"),
    ],
)
def test_impossible_options_are_named(name, options, message):
    with pytest.raises(UserError, match=message) as error:
        registry.make_task(name, **options)
    assert "\n" not in str(error.value)


def test_a_weight_changes_the_reward_and_nothing_else():
    actions = np.full((4, 6), 0.5)
    plain = follow(registry.make("half_cheetah_forward", "native"), actions)
    free = follow(registry.make("half_cheetah_forward", "native", weights={"ctrl": 0.0}), actions)
    np.testing.assert_array_equal(plain.data.qpos, free.data.qpos)
    np.testing.assert_allclose(free.reward - plain.reward, 0.1 * 6 * 0.25, rtol=1e-4)


# -- goals ----------------------------------------------------------------------------------------------------------


def test_ant_gets_four_goals_around_each_other():
    env = registry.make("ant_multi_goals", "native")
    states = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 4))
    first = states.memory.goal
    assert np.abs(first).max() <= 7.5 and np.unique(first, axis=0).shape == first.shape
    run = follow(env, np.zeros((200, 8)))
    goals = np.asarray(run.memory.goal)  # [i] holds after step i + 1
    changes = 1 + np.flatnonzero(np.any(goals[1:] != goals[:-1], axis=1)) + 1
    np.testing.assert_array_equal(changes, [50, 100, 150, 200])
    assert np.abs(np.diff(goals, axis=0)).max() <= 7.5
    offset = run.obs["policy"][:, env.spec.obs.index("policy", ("goal",))]
    np.testing.assert_allclose(offset, 0.1 * (goals - run.data.qpos[:, :2]), rtol=1e-5, atol=1e-6)


def at_goal(env, t, offset):
    """A state `t` steps into the episode whose goal lies `offset` m from the robot."""
    state = env.reset(jax.random.key(0))
    goal = state.data.qpos[: env.task.root].at[0].add(offset)
    return state.replace(t=jnp.int32(t), memory=state.memory.replace(goal=goal))


@pytest.mark.parametrize(("offset", "reward"), [(0.0, 1.0), (2.5, 1.0), (3.5, 0.0)])
def test_a_goal_pays_within_three_metres(offset, reward):
    env = registry.make("ant_multi_goals", "native")
    after = env.step(at_goal(env, 10, offset), jnp.zeros(8))
    assert float(after.reward) == reward == float(after.metrics["goals_reached"])
    again = env.step(after, jnp.zeros(8))
    assert float(again.metrics["goals_reached"]) == reward  # counted once


def test_the_goal_the_action_was_chosen_for_pays():
    env = registry.make("ant_multi_goals", "native", goal_range=100.0)
    before = at_goal(env, 49, 0.0)
    after = env.step(before, jnp.zeros(8))
    assert float(after.reward) == 1.0
    assert not np.array_equal(after.memory.goal, before.memory.goal) and not bool(after.memory.touched)


def test_half_cheetah_keeps_one_goal():
    env = registry.make("half_cheetah_goal", "native")
    run = follow(env, np.zeros((199, 6)))
    assert np.unique(run.memory.goal).size == 1
    goals = [float(env.task.draw(jax.random.key(i), jnp.zeros(1))[0]) for i in range(50)]
    assert 50 < np.max(goals) <= 100 and -100 <= np.min(goals) < -50
    (position, radius, _), *_ = env.task.markers(jax.tree.map(lambda x: x[-1], run))
    assert position == (pytest.approx(float(run.memory.goal[0, 0])), 0.0, 0.0) and radius == 3.0


# -- hurdles --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hurdle():
    return registry.make("half_cheetah_hurdle", "native")


def with_foot(state, task, x):
    return state.data.replace(xpos=state.data.xpos.at[task.model.body("bfoot").id, 0].set(x))


def test_hurdles_stand_where_they_should(hurdle):
    model = hurdle.task.model
    bars = [i for i in range(model.ngeom) if model.geom(i).name.startswith("hurdle")]
    assert [float(model.geom_pos[i, 0]) for i in bars] == list(HURDLES) and len(bars) == 12
    assert {tuple(model.geom_pos[i, 1:]) for i in bars} == {(0.0, 0.2)}
    assert {tuple(model.geom_size[i, [0, 2]]) for i in bars} == {(0.05, 0.03)}


def test_a_hurdle_pays_once(hurdle):
    task, state = hurdle.task, hurdle.reset(jax.random.key(0))
    memory, paid = state.memory, []
    for x in (2.9, 3.1, 2.0, 3.1, 7.1, 12.0, 40.0):
        data = with_foot(state, task, x)
        paid.append(float(task.terms(state.data, data, None, memory)["hurdle"]))
        memory = task.advance(None, state.data, data, None, memory, None)
    assert paid == [0, 1, 0, 0, 1, 1, 4]  # 7 of the 12 stand at x >= 0


@pytest.mark.parametrize(("x", "ahead"), [(-20, -15), (-1.5, -1), (0.0, 3), (3.1, 7), (30, BEYOND)])
def test_the_next_hurdle_is_ahead_of_the_back_foot(hurdle, x, ahead):
    state = hurdle.reset(jax.random.key(0))
    values = hurdle.task.observe(with_foot(state, hurdle.task, x), state.memory)
    assert float(values["back_foot"]) == pytest.approx(ahead - x, abs=1e-5)
    assert float(values["next_hurdle"]) == pytest.approx(ahead - float(state.data.qpos[0]), abs=1e-5)


def test_a_bar_is_solid(hurdle):
    """A cheetah thrown at the first bar does not fly through it."""
    qvel = jnp.zeros(9).at[0].set(6.0)
    flat = registry.make("half_cheetah", "native")
    ends = []
    for env in (hurdle, flat):
        data = env.physics.init(jnp.zeros(9).at[0].set(1.5).at[1].set(-0.2), qvel)
        ends.append(float(env.physics.step(data, jnp.zeros(6), 100).qpos[0]))
    assert ends[0] < ends[1] - 0.1


# -- point ----------------------------------------------------------------------------------------------------------


def test_the_point_moves_a_tenth_of_a_metre_per_step():
    env = registry.make("point", "native", reset_noise=0.0)
    run = follow(env, [[1, 0], [1, 1], [-1, 0.5]])
    np.testing.assert_allclose(run.data.qpos, [[0.1, 0], [0.2, 0.1], [0.1, 0.15]], atol=1e-6)
    assert env.spec.dt == pytest.approx(0.1) and env.spec.episode_length == 50


def test_the_nuisance_is_ten_times_faster_and_alone():
    env = registry.make("point", "native", nuisance=True, reset_noise=0.0)
    run = follow(env, [[0, 0, 1], [0, 0, -1], [0, 0, -1]])
    nuisance = run.obs["features"][:, env.spec.obs.index("features", ("nuisance",))]
    np.testing.assert_allclose(nuisance[:, 0], [1, 0, -1], atol=1e-5)
    np.testing.assert_allclose(run.data.qpos[:, :2], 0, atol=1e-6)


def test_the_disc_moves_when_pushed_and_rests_otherwise():
    env = registry.make("point", "native", disc=True, reset_noise=0.0)
    disc = env.spec.obs.index("features", ("disc",))
    pushed = follow(env, [[1, 0]] * 20).obs["features"][:, disc]
    missed = follow(env, [[-1, 0]] * 20).obs["features"][:, disc]
    np.testing.assert_allclose(missed, [[1, 0]] * 20, atol=1e-6)
    np.testing.assert_allclose(pushed[:4], [[1, 0]] * 4, atol=1e-6)
    assert pushed[-1, 0] > 1.8 and abs(pushed[-1, 1]) < 1e-5
    rest = follow(env, [[1, 0]] * 10 + [[-1, 0]] * 20).obs["features"][:, disc]
    np.testing.assert_allclose(rest[-1], rest[-10], atol=1e-3)


AROUND = [[1, 0]] * 40 + [[0, -1]] * 40 + [[-1, 0]] * 45


@pytest.mark.parametrize("hold", [False, True])
def test_the_maze_pays_at_its_far_end(hold):
    env = registry.make("point_maze", "native", reset_noise=0.0, hold=hold)
    run = follow(env, AROUND)
    arrival = int(np.argmax(run.reward > 0))
    assert arrival == 80 + 34  # 4 m to the left, less the radius of 0.5 m, in steps of 0.1 m
    assert not bool(run.terminated[arrival - 1]) and bool(run.terminated[arrival]) != hold
    assert (run.reward[arrival:] == 1).all()
    goal = run.obs["policy"][:, env.spec.obs.index("policy", ("goal",))]
    np.testing.assert_allclose(goal[-1], [0.05, 0.0], atol=0.01)


def test_maze_walls_hold():
    env = registry.make("point_maze", "native", reset_noise=0.0)
    run = follow(env, [[-1, -1]] * 40)
    np.testing.assert_allclose(run.data.qpos[-1], [-0.8, -0.8], atol=0.01)


def test_random_maze_goals_cover_the_free_cells():
    task = registry.make_task("point_maze", goal="random")
    drawn = jax.vmap(lambda k: task.draw(k, jnp.zeros(2)))(jax.random.split(jax.random.key(0), 200))
    free = {(2, 0), (4, 0), (4, -2), (4, -4), (2, -4), (0, -4)}
    assert {tuple(map(int, xy)) for xy in np.asarray(drawn)} == free


def moves_to(task, chars):
    """Moves from the start to every cell that can be reached over cells of `chars`."""
    free, d = {tuple(xy) for xy in task.centres(chars)}, task.cell
    found, queue = {(0.0, 0.0): 0}, [(0.0, 0.0)]
    while queue:
        x, y = queue.pop(0)
        steps = {(x + d, y), (x - d, y), (x, y + d), (x, y - d)} & free - set(found)
        found |= dict.fromkeys(steps, found[x, y] + 1)
        queue += steps
    return found


@pytest.mark.parametrize(
    ("maze", "cells", "moves"), [("u", 7, 6), ("medium", 26, 15), ("big", 26, 10), ("hardest", 46, 14)]
)
def test_every_cell_of_a_maze_can_be_reached(maze, cells, moves):
    task = registry.make_task("point_maze", maze=maze)
    found = moves_to(task, " SG")
    assert set(found) == {tuple(xy) for xy in task.centres(" SG")}
    assert len(found) == cells and found[task.centres("G")[0]] == moves


# -- ant behind walls -----------------------------------------------------------------------------------------------


def thrown(task, steps, qvel, qpos=()):
    """Data after `steps` physics steps, nothing driven; `qvel`, `qpos`: (index, value) where not the default."""
    physics = NativePhysics(task.model, task.fields)
    place, speed = jnp.asarray(task.model.qpos0, jnp.float32), jnp.zeros(task.model.nv)
    for i, value in qpos:
        place = place.at[i].set(value)
    for i, value in qvel:
        speed = speed.at[i].set(value)
    return physics.step(physics.init(place, speed), jnp.zeros(task.model.nu), steps)


def test_the_ant_does_not_pass_a_wall():
    inside, outside = (thrown(registry.make_task(n), 100, [(0, -8.0)]) for n in ("ant_maze", "ant"))
    assert float(outside.qpos[0]) < -2.5 < -2.0 + 0.2 < float(inside.qpos[0]) + 0.01


def test_walls_are_where_the_map_has_them():
    task = registry.make_task("ant_maze")
    points = np.array([[0.0, 0.0], [8.0, -4.0], [1.5, 0.0], [0.0, -4.0], [3.0, -3.0]])
    np.testing.assert_allclose(task.clearance(points), [2.0, 2.0, 2.0, 0.0, 0.0])
    np.testing.assert_allclose(task.clearance(np.array([[6.5, -2.5]])), [0.5])
    boxes = [task.model.geom(i).name for i in range(task.model.ngeom)]
    assert sum(name.startswith("wall") for name in boxes) == 8 == len(task.walls())  # 18 cells in 8 runs


@pytest.mark.parametrize(("name", "offset", "done"), [("ant_maze", 0.4, 1), ("ant_maze", 0.8, 0), ("ant_push", 4.0, 1)])
def test_arriving_ends_the_episode(name, offset, done):
    env = registry.make(name, "native")
    after = env.step(at_goal(env, 10, offset), jnp.zeros(8))
    assert float(after.reward) == done == int(after.terminated)


@pytest.fixture(scope="module")
def push():
    return registry.make_task("ant_push")


def test_the_block_bars_the_published_way(push):
    np.testing.assert_array_equal(push.goals(), [[0, 19]])
    goal = push.centres("G")[0]
    assert goal == (0.0, 16.0) and push.centres("B") == [(0.0, 8.0)]
    assert goal not in moves_to(push, " SG") and moves_to(push, " SGB")[goal] == 2
    assert (-8.0, 8.0) in moves_to(push, " S")  # from where it can be pushed to the right, into a free cell
    assert (8.0, 8.0) in {tuple(xy) for xy in push.centres(" ")}


@pytest.mark.parametrize("axis", [0, 1])
def test_the_block_slides_until_a_wall_and_cuts_no_corner(push, axis):
    x, y = -2 + axis, -1 - axis
    assert 7.5 < float(thrown(push, 400, [(x, 100.0)]).qpos[x]) < 8.3  # the next cell, and its fit
    halfway = thrown(push, 400, [(x, 100.0)], qpos=[(y, 4.0)])
    assert abs(float(halfway.qpos[x])) < 0.3


def test_a_push_moves_the_block_and_it_stops(push):
    hit = thrown(push, 400, [(1, 12.0)])
    assert 1.0 < float(hit.qpos[-1]) < 7.0 and abs(float(hit.qvel[-1])) < 0.01
    values = push.observe(hit, push.remember(jax.random.key(0), hit))
    np.testing.assert_allclose(values["block"], np.array([0.0, 8.0]) + hit.qpos[-2:] - hit.qpos[:2], rtol=1e-6)
    assert values["posture"].shape == (13,) and values["rates"].shape == (14,)


def test_low_passed_features_follow_their_time_constant():
    env = registry.make("point", "native", smooth={"velocity": 0.5})
    assert [s.name for s in env.spec.obs.groups["features"]][-1] == "smooth_velocity"
    assert [s.name for s in env.spec.obs.groups["critic"]][-1] == "smooth_velocity"
    assert "smooth_velocity" not in {s.name for s in env.spec.obs.groups["policy"]}
    states = follow(env, jnp.tile(jnp.array([1.0, -0.5]), (20, 1)))
    got = states.obs["features"][:, env.spec.obs.index("features", ("smooth_velocity",))]
    rise = 1 - np.exp(-np.arange(1, 21) * env.spec.dt / 0.5)  # a step of the input at rest
    np.testing.assert_allclose(got, rise[:, None] * np.array([1.0, -0.5]), atol=1e-5)


def test_smoothing_what_is_not_there():
    with pytest.raises(UserError, match="did you mean 'velocity'"):
        registry.make("point", "native", smooth={"velocty": 0.5})
    with pytest.raises(UserError, match=r"smooth\.velocity must be at least 0"):
        registry.make("point", "native", smooth={"velocity": -1.0})


@pytest.mark.parametrize(
    ("name", "entry", "standing", "lying"),
    [
        ("ant", slice(3, 7), (np.cos(0.7), np.sin(0.7), 0, 0), (np.cos(0.9), 0, np.sin(0.9), 0)),  # 80 and 103 degrees
        ("ant_maze", slice(3, 7), (1, 0, 0, 0), (0, 1, 0, 0)),
        ("half_cheetah", 2, 1.5, 1.6),
        ("walker2d", 1, 0.81, 0.79),
        ("humanoid", 2, 1.01, 0.99),
    ],
)
def test_a_fall_ends_the_episode_only_where_asked(name, entry, standing, lying):
    for terminate in (False, True):
        task = registry.make_task(name, terminate=terminate)
        physics = NativePhysics(task.model, task.fields)
        for value, fallen in ((standing, False), (lying, True)):
            qpos = jnp.asarray(task.model.qpos0, jnp.float32).at[entry].set(jnp.asarray(value, jnp.float32))
            data = physics.init(qpos, jnp.zeros(task.model.nv))
            memory = task.remember(jax.random.key(0), data)
            assert bool(task.fallen(data)) == fallen
            assert bool(task.terminated(data, memory)) == (fallen and terminate)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("go2_velocity", {"vx": 3}, r"env\.vx must be a list, got 3"),
        ("go2_velocity", {"vx": ["a", "b"]}, r"env\.vx\[0\] must be a number, got 'a'"),
        ("go2_velocity", {"vx": [0.0]}, r"env\.vx must be a list of 2, got 1"),
        ("go2_velocity", {"stand": "abc"}, r"env\.stand must be a number"),
        ("go2_velocity", {"stand": 1.5}, "stand is a fraction"),
        ("go2_velocity", {"play": "no"}, r"env\.play must be true or false, got 'no'"),
        ("go2_velocity", {"hold": 2.5}, r"env\.hold must be a whole number"),
        ("go2_velocity", {"weights": {"slip": "x"}}, r"env\.weights\.slip must be a number"),
        ("go2_velocity", {"weights": 3}, r"env\.weights must be settings by name"),
        ("go2", {"randomize": 3}, r"env\.randomize must be true or false or a word or settings by name, got 3"),
        ("go2", {"terminate": 1}, r"env\.terminate must be true or false"),
        ("ant_maze", {"maze": ["u"]}, r"env\.maze must be a word"),
        ("panda_push", {"vary_size": True}, r"env\.vary_size must be a number"),
    ],
)
def test_options_of_another_type_say_so(name, options, message):
    with pytest.raises(UserError, match=message):
        registry.make_task(name, **options)
