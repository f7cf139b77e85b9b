"""The learner on a tiny world: true next observations, cuts, channels, divergence, learning."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import rollout, signals, trainer, visited
from repertoire.algos.agents import random_act
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.algos.signals import TaskChannel
from repertoire.algos.types import Stats
from repertoire.envs import registry
from repertoire.skills.latent import Sphere
from repertoire.skills.objectives import registry as objectives

TINY = {"envs": 8, "rollout": 8, "minibatches": 2, "hidden": (16,)}


@pytest.fixture(scope="module")
def env():
    return registry.make("point", episode_length=3)


def collected(env, prior, steps=8, worlds=4):
    def run(key):
        begin, roll = jax.random.split(key)
        carry = rollout.begin(env, prior, begin, worlds)
        return rollout.collect(env, prior, random_act(env.spec), carry, roll, steps)

    return jax.jit(run)(jax.random.key(0))


def test_next_observations_are_true_across_resets(env):
    _, (batch, _) = collected(env, Sphere(2))
    assert batch.cut.tolist() == [[t % 3 == 2] * 4 for t in range(8)]
    assert not batch.terminated.any()
    for t in range(7):
        same = np.allclose(batch.next_obs["features"][t], batch.obs["features"][t + 1])
        assert same == (t % 3 != 2)  # inside an episode obs_{t+1} is next_obs_t; across a reset it is not
    position = env.spec.obs.index("features", ("position",))
    step = np.linalg.norm((batch.next_obs["features"] - batch.obs["features"])[..., position], axis=-1)
    assert step.max() < 0.2  # no teleport: 0.1 m per axis and step at the most


def test_episodes_after_a_reset_start_differently():
    _, (batch, _) = collected(registry.make("half_cheetah", episode_length=3), None)
    starts = np.asarray(batch.obs["policy"])[[0, 3, 6]].reshape(12, -1)
    assert len(np.unique(starts, axis=0)) == 12


@pytest.mark.parametrize("seeds", [1, 3])
def test_callbacks_that_may_run_at_once_do_not_lock_each_other_out(seeds):
    """Two loops over host callbacks in one program: under XLA's concurrency-optimized scheduler this hung for good."""
    ant = registry.make("ant")

    def two(key):
        keys = jax.random.split(key)
        carries = [rollout.begin(ant, None, k, 256) for k in keys]
        act = random_act(ant.spec)
        return [rollout.collect(ant, None, act, c, k, 20)[0].envs.t for c, k in zip(carries, keys, strict=True)]

    lift = jax.vmap if seeds > 1 else (lambda f: f)
    jax.block_until_ready(jax.jit(lift(two))(trainer.seed_keys(0, seeds)))


def test_latents_change_at_the_clock_and_cut_the_return(env):
    longer = registry.make("point", episode_length=100)
    _, (batch, _) = collected(longer, Sphere(2, hold=2))
    z = np.asarray(batch.z)
    for t in range(7):
        changed = not np.array_equal(z[t], z[t + 1])
        assert changed == (t % 2 == 1)
        assert bool(batch.cut[t].all()) == (t % 2 == 1)


def test_a_diverged_world_reaches_no_loss(env):
    learner = Learner(env, PPOConfig(**TINY), objectives.make("metra", hidden=(8,)), tasks=[TaskChannel()])
    compiled = trainer.programs(learner)
    state = compiled.init(trainer.seed_keys(0))
    bad = state.envs.data.backend.at[2].set(jnp.uint32(0x7FF80000))  # NaN in every float64 of one world
    state = state.replace(envs=state.envs.replace(data=state.envs.data.replace(backend=bad)))
    (event,) = trainer.train(compiled, state, 1)
    assert event.metrics["env/diverged"] >= 1
    assert all(np.isfinite(v).all() for v in event.metrics.values())
    leaves = jax.tree.leaves((event.state.params, event.state.obs_stats, event.state.objective))
    assert all(np.isfinite(np.asarray(x)).all() for x in leaves)
    (event,) = trainer.train(compiled, event.state.replace(update=jnp.zeros((), jnp.int32)), 1)
    assert event.metrics["env/diverged"] == 0  # restarted


def test_parameters_that_are_no_numbers_stop_a_run_before_they_are_kept(env):
    learner = Learner(env, PPOConfig(**TINY), objectives.make("metra", hidden=(8,)))
    compiled = trainer.programs(learner)
    state = compiled.init(trainer.seed_keys(0))
    (event,) = trainer.train(compiled, state, 1)
    assert "finite" not in event.metrics
    poisoned = event.state.replace(objective={**event.state.objective, "log_dual": jnp.float32(jnp.nan)})
    with pytest.raises(FloatingPointError, match="parameter is no longer finite at update 2"):
        next(trainer.train(compiled, poisoned, 2))


def test_channels_follow_objective_and_task():
    env = registry.make("point")
    metra = objectives.make("metra", hidden=(8,))
    assert Learner(env, PPOConfig(**TINY), metra).channels == ("metra",)
    assert Learner(env, PPOConfig(**TINY)).channels == ("task",)
    both = Learner(env, PPOConfig(**TINY), metra, tasks=[TaskChannel(weight=0.5)])
    assert both.channels == ("metra", "task")
    (event,) = trainer.train(c := trainer.programs(both), c.init(trainer.seed_keys(0)), 1)
    assert {"reward/metra", "reward/task"} <= set(event.metrics)
    assert event.state.return_scale.shape == (2,)


def test_rewards_come_from_the_objective_before_it_learns():
    env = registry.make("point")
    learner = Learner(env, PPOConfig(**TINY), objectives.make("metra", hidden=(8,)))
    state = jax.jit(learner.init)(jax.random.key(0))
    state, batch, _ = jax.jit(learner.collect)(state)
    data = learner.signals.feature_batch(state.feature_stats, batch)
    f, g = data.features, data.next_features
    pairs = [(t, n) for t in range(8) for n in range(8)]
    one = learner.objective.reward
    want = np.mean([one(state.objective, f[p], batch.z[p], g[p])[0] for p in pairs])
    _, metrics = jax.jit(learner.update)(state, batch)
    np.testing.assert_allclose(metrics["reward/metra"], want, rtol=1e-3, atol=1e-6)


def test_feature_statistics_never_move(env):
    learner = Learner(env, PPOConfig(**TINY), objectives.make("metra", hidden=(8,)))
    compiled = trainer.programs(learner)
    state = compiled.init(trainer.seed_keys(0))
    before = np.asarray(state.feature_stats.mean), np.asarray(state.obs_stats["policy"].mean)
    *_, event = trainer.train(compiled, state, 2)
    np.testing.assert_array_equal(event.state.feature_stats.mean, before[0])
    assert not np.array_equal(event.state.obs_stats["policy"].mean, before[1])


def test_features_can_keep_their_own_units(env):
    learner = Learner(env, PPOConfig(**TINY), objectives.make("lsd", standardise=False), total_updates=1)
    warm = jax.jit(learner.signals.warm_up)(jax.random.key(0))
    np.testing.assert_array_equal(warm.features.mean, 0.0)
    np.testing.assert_array_equal(warm.features.var, 1.0)
    assert (warm.policy.var != 1.0).all()


def test_features_that_stand_still_keep_their_own_units():
    """The disc moves only where someone pushes it: a first centimetre must not count a hundred standard deviations."""
    env = registry.make("point_disc")
    learner = Learner(env, PPOConfig(**TINY), objectives.make("lsd"), features=("disc", "velocity"))
    warm = jax.jit(learner.signals.warm_up)(jax.random.key(0))
    drawn = env.reset(jax.random.key(1)).obs["features"][learner.feature_index]
    std = np.sqrt(np.asarray(warm.features.var))
    assert drawn.shape == std.shape and (std >= 1e-3).all()
    still = signals._scales(Stats(jnp.zeros(3), jnp.array([0.0, 0.9e-6, 1.1e-6]), jnp.ones(())))
    np.testing.assert_allclose(still.var, [1, 1, 1.1e-6], rtol=1e-6)


def test_rewards_of_differences_telescope_over_real_episodes(env):
    """Episodes of 3 steps: with the first observation after a reset for the next one, these sums would be others."""
    _, (batch, _) = collected(env, Sphere(2), steps=6)
    start, end = (jnp.tanh(3 * x["features"][..., :2]) for x in (batch.obs, batch.next_obs))
    rewards = ((end - start) * batch.z).sum(-1)
    for t in (0, 3):
        whole = ((end[t + 2] - start[t]) * batch.z[t]).sum(-1)
        np.testing.assert_allclose(rewards[t : t + 3].sum(0), whole, atol=1e-6)
    assert not np.allclose(batch.z[0], batch.z[3])  # drawn anew in the same program


def test_staggered_starts_spread_over_the_episode():
    env = registry.make("point", episode_length=50)
    staggered = jax.jit(Learner(env, PPOConfig(**TINY)).init)(jax.random.key(0)).envs.t
    together = jax.jit(Learner(env, PPOConfig(**TINY, stagger=False)).init)(jax.random.key(0)).envs.t
    assert len(np.unique(staggered)) > 4 and staggered.max() < 50
    assert (np.asarray(together) == 0).all()


def test_a_first_episode_that_lacks_its_beginning_has_no_return():
    env = registry.make("point_disc", episode_length=10)
    learner = Learner(env, PPOConfig(**{**TINY, "rollout": 20}))
    begun = jax.jit(learner.init)(jax.random.key(0))
    _, batch, _ = jax.jit(learner.collect)(begun)
    late = np.asarray(begun.envs.t)
    assert len(np.unique(late)) > 3
    for world, t in enumerate(late):
        first = 10 - t if t else 0  # step at which a whole episode begins
        found, reward = batch.projected[:, world], batch.task_reward[first : first + 10, world]
        np.testing.assert_array_equal(found[:first], -np.inf)
        np.testing.assert_allclose(found[first : first + 10], reward.sum(), rtol=1e-5, atol=1e-5)
        rest = batch.task_reward[first + 10 :, world]  # of an episode that goes on: its rate so far
        np.testing.assert_allclose(found[first + 10 :], rest.mean() * 10 if len(rest) else [], rtol=1e-5, atol=1e-5)


def test_a_fall_ends_what_an_episode_earns():
    """Alive for 1 per step: the return of those that fall is their length, of the others what their rate promises."""
    env = registry.make("hopper_forward", weights={"alive": 1.0, "forward": 0.0, "ctrl": 0.0})
    carry = rollout.begin(env, None, jax.random.key(0), 8)
    rolled = jax.jit(lambda c: rollout.collect(env, None, random_act(env.spec), c, jax.random.key(1), 60))(carry)
    batch = jax.tree.map(np.asarray, rolled[1][0])
    falls = np.argwhere(batch.terminated[:, 0])[:, 0]
    assert len(falls) > 0
    np.testing.assert_allclose(batch.projected[: falls[0] + 1, 0], batch.task_reward[: falls[0] + 1, 0].sum())
    promised = env.spec.episode_length * batch.task_reward[0, 0]
    np.testing.assert_allclose(batch.projected[falls[-1] + 1 :, 0], promised, rtol=1e-4)


def test_map_of_visited_cells():
    spec = registry.make_spec("point")
    size = spec.obs.size("features")
    features = np.zeros((3, size), np.float32)
    features[:, spec.obs.index("features", ("position",))] = [[0.2, 0.7], [0.9, 0.1], [-3.5, 1e9]]
    cells = np.argwhere(np.asarray(visited.mark(visited.init(), spec, jnp.asarray(features))))
    h = visited.HALF
    assert cells.tolist() == [[h - 4, 2 * h - 1], [h, h]]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_several_seeds_start_without_waiting_for_each_other(seeds):
    """Random rollouts, fresh episodes and initialisers of one program, run at the same time, hung for good."""
    code = (
        "import jax\n"
        "from repertoire.algos import trainer\n"
        "from repertoire.algos.learner import Learner\n"
        "from repertoire.algos.ppo import PPOConfig\n"
        "from repertoire.envs import registry\n"
        "from repertoire.skills.objectives import registry as objectives\n"
        "learner = Learner(registry.make('point'), PPOConfig(envs=128, rollout=16), objectives.make('metra'))\n"
        f"state = trainer.programs(learner, {seeds}).init(trainer.seed_keys(0, {seeds}))\n"
        "jax.block_until_ready(state)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
