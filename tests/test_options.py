"""Options that a controller ends itself: known answers on a point with a skill whose latent is its velocity."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import sac, trainer
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.algos.types import Stats
from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level import goals
from repertoire.high_level import registry as controllers
from repertoire.high_level.blend import Blend
from repertoire.high_level.frozen import freeze
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.options import BEGUN, COST, Option, OptionEnv, TerminationConfig, macro_env
from repertoire.high_level.sequence import Choice, Latent, Parameterized
from repertoire.scripts import task_eval
from repertoire.skills.card import card

KEY = jax.random.key(0)
GAMMA, PRICE, EVERY = 0.9, 0.25, 2
EAST, NORTH, KEEP = 0, 1, 4


@pytest.fixture(scope="module")
def flat():
    return registry.make("point_maze", "native", radius=0.05, hold=True, reset_noise=0.0)


@pytest.fixture(scope="module")
def choice(flat, oracle):
    """East, north, west, south."""
    return Choice((oracle,), flat.spec, per_skill=4)


@pytest.fixture(scope="module")
def env(flat, choice):
    return OptionEnv(flat, Option(choice, EVERY, longest=8), GAMMA, PRICE)


@pytest.fixture(scope="module")
def run(env):
    """(goal, actions [N, T]) -> states [T, N] of N worlds whose goal lies there."""

    @jax.jit
    def roll(goal, actions):
        first = env.reset(KEY)
        memory = first.memory.replace(task=first.memory.task.replace(goal=goal))
        worlds = jax.vmap(lambda _: first.replace(memory=memory))(actions)

        def step(states, row):
            states = jax.vmap(env.step)(states, row)
            return states, states

        return jax.lax.scan(step, worlds, actions.T)[1]

    return lambda goal, actions: roll(jnp.asarray(goal), jnp.asarray(actions, jnp.int32))


def test_to_keep_is_to_hold_on(flat, choice, run):
    held = MacroEnv(flat, choice, 4 * EVERY, GAMMA)
    state = jax.jit(held.reset)(KEY)
    state = state.replace(memory=state.memory.replace(goal=jnp.array([0.8, 0.0])))
    want = jax.jit(held.step)(state, jnp.asarray(EAST))
    got = run([0.8, 0.0], [[EAST, KEEP, KEEP, KEEP]])
    np.testing.assert_allclose(got.data.qpos[-1, 0], want.data.qpos, atol=1e-6)
    total = sum(GAMMA ** (EVERY * i) * float(r) for i, r in enumerate(got.reward[:, 0]))
    assert total == pytest.approx(float(want.reward), rel=1e-5) and total > 0
    assert got.metrics[BEGUN][:, 0].tolist() == [1, 0, 0, 0] and not got.metrics[COST].any()


def test_to_hand_over_each_time_is_a_short_hold(flat, choice, run):
    short, actions = MacroEnv(flat, choice, EVERY, GAMMA), [EAST, NORTH, NORTH, EAST]
    state, step, rewards = jax.jit(short.reset)(KEY), jax.jit(short.step), []
    state = state.replace(memory=state.memory.replace(goal=jnp.array([0.4, 0.4])))
    for action in actions:
        state = step(state, jnp.asarray(action))
        rewards.append(float(state.reward))
    got = run([0.4, 0.4], [actions])
    np.testing.assert_allclose(got.data.qpos[-1, 0], state.data.qpos, atol=1e-6)
    np.testing.assert_allclose(got.reward[:, 0], np.array(rewards) - PRICE * np.array([0, 1, 1, 1]), atol=1e-5)
    np.testing.assert_allclose(got.metrics[COST][:, 0], [0, -PRICE, -PRICE, -PRICE])


def test_nothing_to_keep_means_the_first_option(env, run):
    """At the start, and after the longest time of 8 control steps."""
    got = run([9.0, 9.0], [[KEEP, KEEP, NORTH, KEEP, KEEP, KEEP, KEEP, KEEP]])
    assert got.metrics[BEGUN][:, 0].tolist() == [1, 0, 1, 0, 0, 0, 1, 0]
    way = np.diff(np.asarray(got.data.qpos)[:, 0, :2], axis=0)
    np.testing.assert_allclose(way[1:5], [[0.0, 0.2]] * 4, atol=0.01)
    np.testing.assert_allclose(way[5:], [[0.2, 0.0]] * 2, atol=0.01)
    seen = np.asarray(got.obs["policy"])[:, 0, env.env.spec.obs.size("policy") :]
    np.testing.assert_allclose(seen[2], [0.25, 0, 1, 0, 0])  # held for 2 of 8 steps: north
    assert env.spec.obs.size("policy") == env.env.spec.obs.size("policy") + 5 == got.obs["critic"].shape[-1]
    assert env.spec.discrete == 5 and env.hold == EVERY


def test_a_price_makes_options_longer(run):
    """The goal is two steps east and two north: 1 hand-over is enough, 3 are as good where they cost nothing."""
    plans = np.array(list(itertools.product(range(5), repeat=4)))
    plans = plans[plans[:, 0] != KEEP]
    got = run([0.4, 0.4], plans)
    switches = np.asarray(got.metrics[BEGUN]).sum(0) - 1
    earned = np.asarray(got.reward - got.metrics[COST]).sum(0)
    assert earned.max() == pytest.approx(GAMMA)  # in the last control step alone
    for price, most, least in ((0.0, 3, 1), (0.1, 1, 1), (2.0, 0, 0)):
        found = earned - price * switches
        best = switches[found > found.max() - 1e-5]
        assert (best.max(), best.min()) == (most, least)
    np.testing.assert_allclose(np.asarray(got.reward).sum(0), earned - PRICE * switches, atol=1e-5)


def test_a_new_episode_holds_nothing(env, run):
    states = jax.tree.map(lambda x: x[0], run([9.0, 9.0], [[NORTH], [NORTH]]))
    fresh = jax.jit(jax.vmap(env.reset_where))(jnp.array([True, False]), states)
    assert fresh.memory.command[0].tolist() == [0, EVERY]
    own = env.env.spec.obs.size("policy")
    assert not fresh.obs["policy"][0, own:].any() and fresh.obs["policy"][1, own:].any()
    np.testing.assert_array_equal(fresh.metrics[BEGUN], states.metrics[BEGUN])


def test_random_options_are_drawn_where_nothing_can_be_kept(env, run):
    """To keep nothing is the first option: random skills would be that one nearly half of the time."""
    rule, keys = jax.jit(jax.vmap(goals.random_skills(env))), jax.random.split(KEY, 400)
    fresh = jax.tree.map(lambda x: jnp.stack([x] * 400), jax.jit(env.reset)(KEY))
    held = run([9.0, 9.0], [[NORTH, KEEP, KEEP, KEEP]] * 400)
    longest = jax.tree.map(lambda x: x[-1], held)
    for states in (fresh, longest):
        found = np.bincount(np.asarray(rule(keys, states)), minlength=5) / 400
        np.testing.assert_allclose(found, [0.25] * 4 + [0.0], atol=0.08)
    going_on = np.asarray(rule(keys, jax.tree.map(lambda x: x[0], held)))
    assert (going_on == KEEP).mean() == pytest.approx(1 - EVERY / 8, abs=0.08)


@pytest.mark.parametrize("kind", [lambda s, e: Latent(s[:1], e), Parameterized, Blend])
def test_what_is_not_used_has_no_probability(flat, make_skill, kind):
    """Of every kind with parameters: to keep is one outcome, whatever else the action holds; to begin is not."""
    point = registry.make_spec("point")
    inner = kind((make_skill(point, "a"), make_skill(point, "b", seed=1)), flat.spec)
    option = Option(inner, 5, 25)
    head, n = option.head, option.discrete
    logits, extra = jnp.linspace(-1.0, 1.0, head.outputs), {"log_std": jnp.zeros(head.outputs - n)}
    action = jnp.linspace(-1.0, 1.0, option.size)
    keep, other = (x.at[0].set(n - 1) for x in (action, 2 * action))
    log_p = jax.nn.log_softmax(logits[:n])[-1]
    np.testing.assert_allclose([head.log_prob(a, logits, extra) for a in (keep, other)], log_p, rtol=1e-5)
    begin = action.at[0].set(0)
    assert head.log_prob(begin, logits, extra) != head.log_prob(begin.at[1].add(0.7), logits, extra)
    emitted = begin if inner.discrete else begin[1:]
    jax.tree.map(np.testing.assert_array_equal, option.resolve(begin)[1], inner.resolve(emitted))
    jax.tree.map(np.testing.assert_array_equal, option.resolve(keep)[1], inner.resolve(inner.zero()))
    held = (jnp.asarray(5, jnp.int32), inner.resolve(emitted))
    jax.tree.map(np.testing.assert_array_equal, option.renew(keep, held), held)
    drawn = np.array([int(option.sample(k)[0]) for k in jax.random.split(KEY, 60)])
    assert 0.6 < (drawn == n - 1).mean() < 0.95 and set(drawn) == set(range(n))


@pytest.mark.slow
def test_frozen_it_goes_on_ending_its_options(env):
    """Against the env it was trained in, one control step after the other."""
    learner = Learner(env, PPOConfig(envs=8, rollout=4, minibatches=2, hidden=(8,)))
    params = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(KEY, x.shape), jax.jit(learner.nets.init)(KEY))
    last = params["policy"]["net"]["Dense_1"]
    last["bias"] = last["bias"].at[KEEP].add(2.0)
    size = env.spec.obs.size("policy")
    stats = Stats(jnp.full(size, 0.1), jnp.full(size, 2.0), jnp.ones(()))
    trained = type("State", (), {"params": params, "obs_stats": {"policy": stats}})
    one = freeze("ender", learner, trained, {})
    assert one.composer.describe() == {**env.composer.inner.describe(), "ends": {"every": 2, "longest": 8}}
    assert controllers.make(one.composer.describe(), env.composer.skills, env.env.spec).fields == one.composer.fields
    shown = card({**one.manifest, "version": 1, "digest": one.digest()}, thumbnail=False)
    assert "Controller (choice+keep, held for 2 to 8 steps) over oracle" in shown
    assert (one.hold, [f.name for f in one.fields]) == (EVERY, ["clock", "age", "choice"])
    rule = task_eval.trained(learner, trained)
    found = task_eval.episodes(env, rule, KEY, 1, steps=12)
    flat, index = env.env, env.env.spec.obs.index("policy", one.slices)
    state, memory, ages = jax.jit(flat.reset)(jax.random.split(KEY, 1)[0]), one.start(), []

    @jax.jit
    def step(state, memory):
        action, memory = one.step(state.obs["policy"][index], jnp.zeros(0), memory)
        return flat.step(state, action), memory

    for qpos in found.qpos[0]:
        state, memory = step(state, memory)
        np.testing.assert_allclose(state.data.qpos, qpos, atol=1e-4)
        ages.append(int(memory[1][0]))
    begun = sum(age == 1 for age in ages)
    assert found.sums[BEGUN].tolist() == [begun] and 1 < begun < 12
    assert task_eval.summary(found)["option_steps"] == pytest.approx(24 / begun)


@pytest.mark.slow
def test_it_learns(flat, oracle):
    env = OptionEnv(flat, Option(Latent((oracle,), flat.spec), 2, 8), GAMMA, 0.1)
    compiled = trainer.programs(Learner(env, PPOConfig(envs=8, rollout=4, minibatches=2, hidden=(8,))))
    (event,) = trainer.train(compiled, compiled.init(trainer.seed_keys(0)), 1)
    assert np.isfinite(event.metrics["loss/policy"]).all() and 0 < event.metrics["env/" + BEGUN] < 1


def test_sac_names_controllers_that_it_trains(flat, oracle, choice):
    """Those that choose are refused, whatever their mode: to go on is a choice, too."""
    for refused in (
        choice,
        Option(choice, 2, 8),
        Option(Latent((oracle,), flat.spec), 2, 8),
        Parameterized((oracle,) * 2, flat.spec),
    ):
        with pytest.raises(
            UserError, match=r"algo=ppo.* controller\.mode=latent controller\.termination=fixed.*=blend"
        ):
            sac.actor_critic(refused.spec(), 0, 1, sac.SACConfig())
    for fine in (Latent((oracle,), flat.spec), Blend((oracle,) * 2, flat.spec)):
        sac.actor_critic(fine.spec(), 0, 1, sac.SACConfig())


def test_what_cannot_be_is_refused(flat, choice):
    with pytest.raises(UserError, match="did you mean 'learned'"):
        TerminationConfig("learnt")
    with pytest.raises(UserError, match="switch_cost must be at least 0"):
        TerminationConfig("learned", switch_cost=-1.0)
    with pytest.raises(UserError, match="a multiple of it, got 5 and 8"):
        macro_env(flat, choice, 8, GAMMA, TerminationConfig("learned"))
    assert type(macro_env(flat, choice, 8, GAMMA, TerminationConfig())) is MacroEnv
