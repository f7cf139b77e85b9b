"""Hand numbers for advantages, the multi-critic rule and PPO's surrogate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import advantages, ppo
from repertoire.envs import registry

NO = jnp.zeros(3, bool)


def gae(r, v, nv, terminated=NO, cut=NO, gamma=0.5, lam=0.5):
    return advantages.gae(jnp.array(r), jnp.array(v), jnp.array(nv), terminated, cut, gamma, lam)


def test_gae_by_hand():
    # deltas: 1 + .5*2 - 1 = 1, 1 + .5*4 - 2 = 1, 1 + .5*8 - 4 = 1; traces .25
    got = gae([1.0, 1.0, 1.0], [1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    np.testing.assert_allclose(got, [1 + 0.25 * 1.25, 1.25, 1.0])


def test_termination_bootstraps_nothing_and_stops_the_trace():
    got = gae([1.0, 1.0, 1.0], [1.0, 2.0, 4.0], [2.0, 4.0, 8.0], terminated=jnp.array([False, True, False]))
    # delta_1 = 1 - 2 = -1, and the trace does not cross it
    np.testing.assert_allclose(got, [1 + 0.25 * -1, -1.0, 1.0])


def test_cut_bootstraps_with_the_true_next_value_and_stops_the_trace():
    # at the cut V(next_obs) = 100 belongs to the old episode; obs_{t+1} (V = 4) is another episode
    got = gae([1.0, 1.0, 1.0], [1.0, 2.0, 4.0], [2.0, 100.0, 8.0], cut=jnp.array([False, True, False]))
    np.testing.assert_allclose(got, [1 + 0.25 * 49, 49.0, 1.0])


def test_channels_do_not_mix():
    key = jax.random.key(0)
    r, v, nv = (jax.random.normal(k, (5, 4, 2)) for k in jax.random.split(key, 3))
    flags = jnp.zeros((5, 4), bool)
    both = advantages.channel_gae(r, v, nv, flags, flags, 0.9, 0.8)
    for c in range(2):
        one = advantages.channel_gae(*(x[..., c : c + 1] for x in (r, v, nv)), flags, flags, 0.9, 0.8)
        np.testing.assert_allclose(both[..., c : c + 1], one, rtol=1e-5)


@pytest.mark.parametrize(("normalize", "same"), [(True, True), (False, False)])
def test_scaling_one_channel_changes_nothing_only_when_normalised(normalize, same):
    a = jax.random.normal(jax.random.key(1), (64, 2))
    weights = jnp.array([0.7, 0.3])
    before = advantages.combine(a, weights, a, normalize)
    loud = a * jnp.array([1000.0, 1.0])
    after = advantages.combine(loud, weights, loud, normalize)
    assert np.allclose(before, after, atol=1e-4) == same


def test_a_channel_without_reward_adds_no_noise():
    a = jax.random.normal(jax.random.key(1), (64, 2))
    silent = a * jnp.array([1.0, 1e-5])  # the second critic's errors
    rewards = a * jnp.array([1.0, 0.0])
    got = advantages.combine(silent, jnp.ones(2), rewards)
    np.testing.assert_allclose(got, advantages.standardize(a[:, :1])[:, 0], rtol=1e-6)
    rare = rewards.at[0, 1].set(1e-3)  # a single reward is heard again
    assert not np.allclose(advantages.combine(silent, jnp.ones(2), rare), got)


def test_surrogate_by_hand():
    old = jnp.log(0.5)
    s, kl, clipped = ppo.clipped_surrogate(jnp.log(0.75), old, jnp.array(2.0), 0.2)  # ratio 1.5, bounded at 1.2
    np.testing.assert_allclose([s, clipped], [2.4, 1.0], rtol=1e-6)
    np.testing.assert_allclose(kl, 0.5 - np.log(1.5), rtol=1e-6)
    s, _, _ = ppo.clipped_surrogate(jnp.log(0.75), old, jnp.array(-2.0), 0.2)  # pessimistic side is not clipped
    np.testing.assert_allclose(s, -3.0, rtol=1e-6)


@pytest.mark.parametrize("length", [20, 21, 23])
def test_the_exact_value_has_no_advantage_where_time_runs_out_within_a_macro_step(length):
    """A reward of 1 per control step for ever, watched for `length` of them, 5 to a macro step."""
    gamma, hold, count = 0.9, 5, -(-length // 5)
    done = np.minimum(hold, length - hold * np.arange(count))
    rewards = np.array([sum(gamma**i for i in range(j)) for j in done], np.float32)
    values, no = np.full(count, 1 / (1 - gamma), np.float32), jnp.zeros(count, bool)
    discount = advantages.discounts(jnp.asarray(hold - done), gamma**hold, hold)
    np.testing.assert_allclose(discount, gamma**done, rtol=1e-5)
    cut = no.at[-1].set(True)
    got = advantages.gae(rewards, values, values, no, cut, gamma**hold, 0.95, discount)
    np.testing.assert_allclose(got, 0.0, atol=1e-5)


def test_whole_steps_are_discounted_as_ever_to_the_last_bit():
    key = jax.random.key(3)
    r, v, nv = (jax.random.normal(k, (8, 4, 2)) for k in jax.random.split(key, 3))
    terminated, cut = jnp.zeros((8, 4), bool).at[3, 1].set(True), jnp.zeros((8, 4), bool).at[5].set(True)
    assert advantages.discounts(None, 0.97, 1) == 0.97  # the flat env: the program of before
    whole = advantages.discounts(jnp.zeros((8, 4), jnp.int32), 0.97**5, 5)
    with jax.disable_jit():  # op by op, so that nothing but the arithmetic itself is compared
        before = advantages.channel_gae(r, v, nv, terminated, cut, 0.97**5, 0.95)
        after = advantages.channel_gae(r, v, nv, terminated, cut, 0.97**5, 0.95, whole)
    np.testing.assert_array_equal(before, after)


def test_a_mirror_image_far_in_the_tail_cannot_blow_the_loss_up():
    """Its ratio is infinite in float32 and its advantage negative: charged three times, with a finite gradient."""
    spec = registry.make_spec("point")
    config = ppo.PPOConfig(hidden=(4,), symmetry=True)
    nets = ppo.actor_critic(spec, 0, 1, config)
    params = nets.init(jax.random.key(0))
    size = spec.obs.size("policy")
    inputs, advantage = jnp.ones((4, size)), jnp.array([1.0, -1, -2, -1])
    batch = ppo.Batch(inputs, inputs, jnp.zeros((4, 2)), jnp.zeros(4), advantage, jnp.zeros((4, 1)))
    logits = nets.policy.apply(params["policy"]["net"], batch.policy_in)
    now = nets.head.log_prob(batch.action, logits, params["policy"]["head"])
    batch = batch._replace(log_prob=now + jnp.array([0.0, 0, -200, 0]))
    grads, metrics = jax.grad(ppo.loss, has_aux=True)(params, nets, batch, config)
    assert float(metrics["loss/policy"]) == pytest.approx(-(1 - 1 - 3 * 2 - 1) / 4, rel=1e-5)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


@pytest.mark.parametrize(("normalize", "same"), [(True, True), (False, False)])
def test_a_channel_a_thousand_times_as_loud_leaves_the_policy_gradient(normalize, same):
    spec, config = registry.make_spec("point"), ppo.PPOConfig(hidden=(4,))
    nets = ppo.actor_critic(spec, 0, 2, config)
    params, size = nets.init(jax.random.key(0)), spec.obs.size("policy")
    a, inputs = jax.random.normal(jax.random.key(1), (64, 2)), jax.random.normal(jax.random.key(2), (64, size))

    def gradient(scale):
        loud = a * jnp.array([scale, 1.0])
        advantage = advantages.combine(loud, jnp.array([0.7, 0.3]), loud, normalize)
        batch = ppo.Batch(inputs, inputs, jnp.zeros((64, 2)), jnp.zeros(64), advantage, jnp.zeros((64, 2)))
        return jax.grad(ppo.loss, has_aux=True)(params, nets, batch, config)[0]["policy"]

    before, after = (jax.tree.leaves(gradient(scale)) for scale in (1.0, 1000.0))
    assert any(np.abs(x).max() > 1e-4 for x in before)
    assert all(np.allclose(x, y, rtol=1e-3, atol=1e-5) for x, y in zip(before, after, strict=True)) == same
