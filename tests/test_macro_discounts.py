"""Macro steps that the end of an episode cuts short: their discount, from the env to the targets of both learners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from repertoire.algos import replay, rollout, sac
from repertoire.algos.agents import random_act
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.algos.sac import SACConfig
from repertoire.algos.sac_learner import SACLearner
from repertoire.envs.types import Data, EnvSpec, ObsSpec, Slice, State
from repertoire.errors import UserError
from repertoire.experiment import checkpoints
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.options import Option, OptionEnv
from repertoire.high_level.sequence import Choice, Latent

GAMMA, HOLD, WORLDS = 0.9, 5, 2
KEY = jax.random.key(0)


class Steady:
    """A reward of 1 at every control step for ever, of which an episode shows 12."""

    def __init__(self):
        seen = (Slice("nothing", 1),)
        spec = ObsSpec({"policy": seen, "critic": seen, "features": seen})
        self.spec = EnvSpec("steady", spec, 1, ("a",), (-1.0,), (1.0,), 1.0, 1.0, 12)

    def reset(self, key):
        zero, false, clock = jnp.zeros(()), jnp.zeros((), bool), jnp.zeros((), jnp.int32)
        obs = dict.fromkeys(self.spec.obs.groups, jnp.zeros(1))
        return State(Data(zero, jnp.zeros(1), jnp.zeros(1), ()), obs, zero, false, false, {}, (), key, clock)

    def step(self, state, action):
        return state.replace(reward=jnp.ones(()), truncated=state.t + 1 >= 12, t=state.t + 1)

    def reset_where(self, mask, state):
        return jax.tree.map(lambda a, b: jnp.where(mask, a, b), self.reset(state.key), state)


def rolled(env, steps=6):
    """Transitions of random actions, jitted."""

    def run(key):
        carry = rollout.begin(env, None, key, WORLDS)
        return rollout.collect(env, None, random_act(env.spec), carry, key, steps)[1][0]

    return jax.jit(run)(KEY)


@pytest.fixture(scope="module")
def macro(make_skill):
    env = Steady()
    return MacroEnv(env, Latent((make_skill(env.spec),), env.spec), HOLD, GAMMA)


@pytest.fixture(scope="module")
def batch(macro):
    return rolled(macro)


def test_a_rollout_says_what_the_end_cut_off(batch, make_skill):
    np.testing.assert_array_equal(batch.missed, [[0] * WORLDS, [0] * WORLDS, [3] * WORLDS] * 2)
    env = Steady()
    assert rolled(env, 2).missed is None  # flat: nothing to tell
    asked = OptionEnv(env, Option(Choice((make_skill(env.spec),), env.spec, 2), 5, 10), GAMMA)
    np.testing.assert_array_equal(rolled(asked, 4).missed[:, 0], [0, 0, 3, 0])


def test_the_exact_value_is_what_ppo_learns_it_from(macro, batch):
    learner = Learner(macro, PPOConfig(envs=WORLDS, rollout=6, minibatches=1, hidden=(), gamma=GAMMA**HOLD))
    state = jax.eval_shape(learner.init, KEY)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state.replace(key=None, envs=None))
    exact = jax.tree.map(lambda x: jnp.full(x.shape, 1 / (1 - GAMMA) if x.ndim == 1 else 0.0), zeros.params["value"])
    zeros = zeros.replace(params={**zeros.params, "value": exact}, return_scale=jnp.ones(1), reward_scale=jnp.ones(1))
    _, target, (_, scale) = learner._advantages(zeros, batch, batch.task_reward[..., None])
    np.testing.assert_allclose(target * scale, 1 / (1 - GAMMA), rtol=1e-5)


def test_sac_discounts_each_transition_by_its_own(macro, batch, monkeypatch):
    learner = SACLearner(macro, SACConfig(envs=WORLDS, rollout=6, utd=0.5, batch=8, replay=32, min_replay=0, gamma=0.5))
    asked, targets = [], sac.targets

    def spy(params, target, nets, rows, gamma, key):
        asked.append(gamma.shape)
        return targets(params, target, nets, rows, gamma, key)

    monkeypatch.setattr(sac, "targets", spy)
    state = jax.eval_shape(learner.init, KEY)
    jax.eval_shape(learner.update, state, batch)
    assert set(asked) == {(8,)}
    kept = learner.packer.pack(batch)
    np.testing.assert_array_equal(learner.packer.unpack(kept).missed, batch.missed)
    flat = SACLearner(Steady(), SACConfig())
    assert flat._example().missed is None  # nothing more is stored, or checkpointed, of flat runs


def test_a_target_from_the_exact_value_is_the_exact_value():
    value, one, no = jnp.full((1, 1), 10.0), jnp.ones(1), jnp.zeros((), bool)
    short = sac.soft_target(jnp.array([1 + 0.9]), value, one, jnp.zeros(()), no, jnp.asarray(0.9**2))
    np.testing.assert_allclose(short, 10.0, rtol=1e-6)


class Held(struct.PyTreeNode):
    replay: replay.Replay


def test_checkpoints_from_before_it_was_kept_go_on(tmp_path):
    ones = jnp.ones(3)
    row = replay.Row(*[ones] * 5, {}, *[ones] * 3)
    old, new = (Held(replay.init(r, 4)) for r in (row, row.replace(missed=jnp.ones((), jnp.int32))))
    checkpoints.save(tmp_path, 1, jax.tree.map(lambda x: x + 1, old))
    found = checkpoints.restore(tmp_path, 1, new)
    np.testing.assert_array_equal(found.replay.rows.missed, [0] * 4)
    np.testing.assert_array_equal(found.replay.rows.obs, np.ones((4, 3)))
    checkpoints.save(tmp_path, 2, new)
    with pytest.raises(UserError, match=r"has \.replay\.rows\.missed, which this run does not"):
        checkpoints.restore(tmp_path, 2, old)
