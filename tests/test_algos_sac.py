"""SAC: the tanh Gaussian, targets by hand, and known optima of a one-step world."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.algos import normalize, sac, trainer
from repertoire.algos.distributions import LOG_STD_MIN, TanhGaussian
from repertoire.algos.sac import SACConfig
from repertoire.algos.sac_learner import SACLearner
from repertoire.algos.signals import TaskChannel
from repertoire.envs.types import EnvSpec, ObsSpec, Slice, State
from repertoire.errors import UserError

# -- the head --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.5), (2.0, -3.0)])
def test_the_density_of_actions_integrates_to_one(mean, log_std):
    head, raw = TanhGaussian(1), np.linspace(-12, 12, 200_001)
    density = np.exp(head.log_prob(jnp.asarray(raw, jnp.float32)[:, None], jnp.array([mean, log_std])))
    action = np.tanh(raw)
    steps = np.diff(action)
    assert np.sum(0.5 * (density[1:] + density[:-1]) * steps) == pytest.approx(1.0, abs=2e-3)


def test_samples_have_the_density_that_comes_with_them():
    head, logits = TanhGaussian(2), jnp.array([0.3, -0.4, -0.5, -1.0])
    keys = jax.random.split(jax.random.key(0), 20_000)
    action, log_prob = jax.vmap(head.sample, (0, None))(keys, logits)
    np.testing.assert_allclose(head.log_prob(jnp.arctanh(action), logits), log_prob, atol=2e-3)
    # the mean of 1 / density over samples is the area of the square that they fill
    assert float(jnp.exp(-log_prob).mean()) == pytest.approx(4.0, rel=0.2)
    np.testing.assert_allclose(head.mode(logits), np.tanh([0.3, -0.4]), rtol=1e-6)


def test_saturated_actions_keep_finite_densities():
    head = TanhGaussian(1)
    raw = jnp.array([[-40.0], [40.0]])  # tanh is exactly -1 and 1 in float32
    log_prob = head.log_prob(raw, jnp.array([40.0, 0.0]))
    assert np.isfinite(log_prob).all()
    np.testing.assert_allclose(log_prob[1], -0.5 * np.log(2 * np.pi) - 2 * (np.log(2) - 40), rtol=1e-6)
    assert float(head.std(jnp.array([0.0, -99.0]))[0]) == pytest.approx(np.exp(LOG_STD_MIN))


# -- targets ---------------------------------------------------------------------------------------------------------


def test_one_channel_is_sac():
    q = jnp.array([[3.0], [2.0]])
    got = sac.soft_target(jnp.array([1.0]), q, jnp.array([1.0]), jnp.array(0.4), jnp.array(False), 0.9)
    np.testing.assert_allclose(got, [1 + 0.9 * (2.0 + 0.4)], rtol=1e-6)
    end = sac.soft_target(jnp.array([1.0]), q, jnp.array([1.0]), jnp.array(0.4), jnp.array(True), 0.9)
    np.testing.assert_allclose(end, [1.0])


def test_two_channels_by_hand():
    q, w = jnp.array([[1.0, 5.0], [2.0, 4.0]]), jnp.array([2.0, 1.0])  # weighted: 7 and 8; the first is the pessimist
    got = sac.soft_target(jnp.array([0.1, 0.2]), q, w, jnp.array(0.5), jnp.array(False), 0.5)
    np.testing.assert_allclose(got, [0.1 + 0.5 * (1 + 0.5 * 2 / 5), 0.2 + 0.5 * (5 + 0.5 * 1 / 5)], rtol=1e-6)


def test_a_negative_weight_is_pessimistic_too():
    q = jnp.array([[1.0], [2.0]])
    np.testing.assert_array_equal(sac.pessimistic(q, jnp.array([-1.0])), [2.0])


vectors = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(np.float32)


@settings(deadline=None, max_examples=50)
@given(vectors, vectors, vectors, vectors.filter(lambda w: np.square(w).sum() > 0.1), st.floats(-2, 2))
def test_the_weighted_channels_are_sac_on_the_weighted_reward(reward, q1, q2, weight, entropy):
    got = sac.soft_target(reward, jnp.stack([q1, q2]), weight, jnp.float32(entropy), jnp.array(False), 0.9)
    want = reward @ weight + 0.9 * (min(q1 @ weight, q2 @ weight) + entropy)
    np.testing.assert_allclose(float(got @ weight), want, rtol=1e-3, atol=1e-3)


def test_temperature_goes_against_the_entropy_gap():
    grad = jax.grad(sac.temperature_loss)
    assert grad(0.0, jnp.array(-3.0), -1.0) < 0 < grad(0.0, jnp.array(2.0), -1.0)  # descent raises alpha in the first


@pytest.mark.parametrize(
    "bad",
    [
        {"utd": 1e-6},
        {"replay": 100},
        {"min_replay": 2_000_000},
        {"tau": 0.0},
        {"batch": 0},
        {"alpha": 0.0},
        {"lr_q": -1},
    ],
)
def test_impossible_settings_say_so(bad):
    with pytest.raises(UserError, match="algo"):
        SACConfig(**bad)


def test_gradient_steps_follow_the_ratio():
    assert SACConfig().gradient_steps == 50  # METRA's epoch
    assert SACConfig(envs=64, rollout=25).gradient_steps == 50


# -- a world of one step ---------------------------------------------------------------------------------------------


class Bandit:
    """One action, then the end. Reward terms -(a - 0.5)^2 and -(a + 0.5)^2.

    Where `endless`, the reward is 1, and half the episodes (observation 1, not 0) end by truncation: the MDP goes on.
    """

    def __init__(self, endless=False):
        seen = (Slice("kind", 1),)
        spec = ObsSpec({"policy": seen, "critic": seen, "features": seen})
        self.spec = EnvSpec("bandit", spec, 1, ("a",), (-1.0,), (1.0,), 1.0, 1.0, 1)
        self.endless = endless

    def reset(self, key):
        key, kind_key = jax.random.split(key)
        kind = jax.random.bernoulli(kind_key).astype(jnp.float32) * self.endless
        zero, false = jnp.zeros(()), jnp.zeros((), bool)
        obs = dict.fromkeys(self.spec.obs.groups, kind[None])
        metrics = {"reward/up": zero, "reward/down": zero}
        return State(None, obs, zero, false, false, metrics, (), key, jnp.zeros((), jnp.int32))

    def step(self, state, action):
        up, down = -jnp.square(action[0] - 0.5), -jnp.square(action[0] + 0.5)
        goes_on = state.obs["policy"][0] > 0.5
        return state.replace(
            reward=jnp.ones(()) if self.endless else up,
            terminated=~goes_on,
            truncated=goes_on,
            metrics={"reward/up": up, "reward/down": down},
            t=state.t + 1,
        )

    def reset_where(self, mask, state):
        return jax.tree.map(lambda a, b: jnp.where(mask, a, b), self.reset(state.key), state)


FAST = SACConfig(
    envs=16, rollout=4, utd=1.0, batch=64, replay=4096, min_replay=256, lr_policy=3e-3, lr_q=3e-3, lr_alpha=3e-2,
    alpha=0.3, tau=0.05, hidden=(32,), gamma=0.5,
)  # fmt: skip
STILL = dataclasses.replace(FAST, alpha=1e-3, alpha_auto=False)


def trained(env, config=FAST, updates=60, tasks=()):
    """(learner, programs, metrics of every update, final state)."""
    learner = SACLearner(env, config, tasks=tasks, total_updates=updates)
    compiled = trainer.programs(learner)
    history, state = [], compiled.init(trainer.seed_keys(0))
    for event in trainer.train(compiled, state, updates):
        state = event.state
        history.append({**event.metrics, "weights": float(state.params["q"]["Dense_0"]["kernel"].sum())})
    return learner, compiled, history, state


def mode(learner, state):
    return float(learner.nets.head.mode(learner.nets.policy.apply(state.params["policy"]["net"], jnp.zeros(1)))[0])


def values(learner, state, kinds, actions):
    """Q [E, B, C] at observations and actions [B]."""
    obs = normalize.apply(state.obs_stats["critic"], jnp.array(kinds)[:, None])
    return np.asarray(learner.nets.q.apply(state.params["q"], jnp.concatenate([obs, jnp.array(actions)[:, None]], -1)))


@pytest.fixture(scope="module")
def solved():
    return trained(Bandit())


def test_periods_count_on_from_update_to_update():
    config = dataclasses.replace(FAST, utd=1 / 32, target_every=4, objective_every=3, min_replay=0)  # 2 steps an update
    assert config.gradient_steps == 2
    learner = SACLearner(Bandit(), config, total_updates=4)
    compiled = trainer.programs(learner)
    targets = []
    for event in trainer.train(compiled, compiled.init(trainer.seed_keys(0)), 4):
        targets.append(float(event.state.target["Dense_0"]["kernel"].sum()))
    assert targets[0] != targets[1] == targets[2] != targets[3]  # after gradient steps 4 and 8


def test_the_best_action_is_found(solved):
    learner, _, _, state = solved
    assert mode(learner, state) == pytest.approx(0.5, abs=0.07)
    q = values(learner, state, [0.0, 0.0], [0.5, -0.25])
    assert q.shape == (2, 2, 1)  # critics, samples, channels
    np.testing.assert_allclose(q[:, :, 0], [[0.0, -0.5625]] * 2, atol=0.15)  # nothing follows: Q is the reward


def test_alpha_holds_the_entropy(solved):
    _, _, history, _ = solved
    assert history[-1]["policy/entropy"] == pytest.approx(-0.5, abs=0.15)
    assert 0 < history[-1]["policy/alpha"] < 0.3


def test_nothing_is_compiled_twice(solved):
    _, compiled, _, _ = solved
    assert compiled.update._cache_size() == compiled.collect._cache_size() == 1


def test_nothing_is_learnt_from_too_few_transitions(solved):
    _, _, history, _ = solved
    assert [m["replay/size"] for m in history[:4]] == [64, 128, 192, 256]
    weights = [m["weights"] for m in history]
    assert weights[0] == weights[1] == weights[2] != weights[3]
    assert [m["loss/value"] > 0 for m in history[:5]] == [False, False, False, True, True]
    assert history[-1]["replay/size"] == 60 * 64


def test_channels_are_weighed_and_have_a_critic_each():
    tasks = [TaskChannel("up", 3.0, ("up",)), TaskChannel("down", 1.0, ("down",))]
    learner, _, _, state = trained(Bandit(), STILL, tasks=tasks)
    # argmax of -3 (a - 0.5)^2 - (a + 0.5)^2
    assert mode(learner, state) == pytest.approx(0.25, abs=0.07)
    q = values(learner, state, [0.0], [0.25])
    assert q.shape == (2, 1, 2)
    np.testing.assert_allclose(q[:, 0], [[-0.0625, -0.5625]] * 2, atol=0.15)


def test_a_truncation_bootstraps_and_a_termination_does_not():
    """Reward 1 and then nothing is worth 1; reward 1 for ever at gamma 0.5 is worth 2."""
    learner, _, _, state = trained(Bandit(endless=True), STILL)
    np.testing.assert_allclose(values(learner, state, [0.0, 1.0], [0.0, 0.0])[..., 0], [[1.0, 2.0]] * 2, atol=0.1)


def test_seeds_in_one_program_have_a_replay_each():
    learner = SACLearner(Bandit(), FAST)
    compiled = trainer.programs(learner, 2)
    *_, event = trainer.train(compiled, compiled.init(trainer.seed_keys(0, 2)), 6)
    assert np.shape(event.metrics["loss/value"]) == (2,) and np.isfinite(event.metrics["loss/value"]).all()
    actions = np.asarray(event.state.replay.rows.action)
    assert actions.shape[:2] == (2, 4096) and not np.array_equal(actions[0], actions[1])


def test_an_unknown_reward_term_is_answered():
    learner = SACLearner(Bandit(), FAST, tasks=[TaskChannel("up", 1.0, ("upp",))])
    with pytest.raises(UserError, match="did you mean 'up'"):
        _ = learner.replay_bytes


def test_choices_need_another_learner():
    env = Bandit()
    env.spec = dataclasses.replace(env.spec, discrete=3)
    with pytest.raises(UserError, match="algo=ppo"):
        SACLearner(env, FAST)
