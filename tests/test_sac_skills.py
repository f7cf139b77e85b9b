"""SAC under a skill-discovery objective: rewards at sample time, resume, freezing, the command line, export."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.algos import normalize, replay, sac, trainer
from repertoire.algos.sac_learner import Learned, SACLearner
from repertoire.envs import registry
from repertoire.experiment import checkpoints
from repertoire.experiment.files import read_json
from repertoire.scripts import build, cli, config
from repertoire.skills.freezing import freeze
from repertoire.skills.library import Library
from repertoire.skills.objectives import registry as objectives

TINY = ["env=point", "algo=sac", "algo.envs=8", "algo.rollout=8", "algo.utd=0.0625", "algo.batch=16",
        "algo.hidden=[16]", "algo.replay=256", "algo.min_replay=64", "objective.hidden=[16]", "eval_every=0",
        "video=false", "logging.quiet=true"]  # fmt: skip


@pytest.fixture(scope="module")
def learner():
    return build.learner_of("train-skills", config.compose("train_skills", TINY))


@pytest.fixture(scope="module")
def compiled(learner):
    return trainer.programs(learner)


def run(compiled, state, updates):
    for event in trainer.train(compiled, state, updates):
        state = event.state
    return state


def leaves(state):
    keys = jax.tree.map(lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key), state)
    plain = jax.tree.map(lambda x, key: np.asarray(jax.random.key_data(x) if key else x), state, keys)
    return jax.tree.leaves(plain)


def test_rewards_are_those_of_the_objective_that_has_just_learnt(learner, compiled, monkeypatch):
    state = run(compiled, compiled.init(trainer.seed_keys(0)), 2)
    seen, draw, targets = {}, replay.sample, sac.targets

    def rewards(objective, rows):
        transitions = learner.packer.unpack(rows)
        features = learner.signals.feature_batch(state.feature_stats, transitions)
        return learner.signals.rewards(objective, features, transitions, jax.random.key(0))

    def sample(*args):
        seen["rows"] = draw(*args)
        return seen["rows"]

    def spied(params, target, nets, batch, *rest):
        seen["rewards"] = batch.rewards
        return targets(params, target, nets, batch, *rest)

    monkeypatch.setattr(replay, "sample", sample)
    monkeypatch.setattr(sac, "targets", spied)

    @jax.jit
    def one_step(state):
        had = Learned(state.params, state.target, state.opt_state, state.objective, state.objective_opt)
        new, _ = learner._gradient_step(had, state, jax.random.key(0), jnp.zeros((), int))
        return seen["rewards"], rewards(new.objective, seen["rows"]), rewards(state.objective, seen["rows"])

    used, new, stale = one_step(state)
    np.testing.assert_allclose(used, new, rtol=1e-4, atol=1e-6)
    assert np.abs(used - stale).max() > 1e-3  # the same stored transitions under the encoder of before


@pytest.mark.parametrize("name", ["aps", "cic", "factored", "smerl"])  # channels, batch rewards, weights, a gate
def test_other_objectives_fit_and_no_update_changes_the_types_of_the_state(name):
    cfg = sac.SACConfig(envs=4, rollout=4, utd=0.25, batch=8, replay=64, min_replay=16, hidden=(8,))
    programs = trainer.programs(SACLearner(registry.make("point"), cfg, objectives.make(name)))
    state, batch, _ = jax.eval_shape(programs.collect, jax.eval_shape(programs.init, trainer.seed_keys(0)))
    after, _ = jax.eval_shape(programs.update, state, batch)
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)


def test_resumed_equals_never_stopped(learner, compiled, tmp_path):
    whole = run(compiled, compiled.init(trainer.seed_keys(1)), 6)
    half = run(compiled, compiled.init(trainer.seed_keys(1)), 3)
    checkpoints.save(tmp_path, 3, half)
    _, restored = checkpoints.restore_latest(tmp_path, jax.eval_shape(compiled.init, trainer.seed_keys(1)))
    assert int(restored.replay.size) == 192
    for a, b in zip(leaves(whole), leaves(run(compiled, restored, 6)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert compiled.update._cache_size() == 1


def test_feature_statistics_are_fixed_and_the_ring_wraps(compiled):
    state = compiled.init(trainer.seed_keys(2))
    before = np.asarray(state.obs_stats["policy"].count), np.asarray(state.feature_stats.mean)
    state = run(compiled, state, 5)
    for group in ("policy", "critic"):
        assert float(state.obs_stats[group].count) == pytest.approx(float(before[0]) + 5 * 64)
    np.testing.assert_array_equal(state.feature_stats.mean, before[1])
    assert int(state.replay.size) == 256 and int(state.replay.place) == 64  # 5 rollouts of 64 into 256


def test_a_frozen_skill_acts_as_the_policy_does(learner, compiled):
    state = compiled.init(trainer.seed_keys(0))
    skill = freeze("p", learner, state, {})
    assert skill.manifest["network"] == {"hidden": [16], "activation": "relu", "output": "tanh"}
    assert skill.arrays["policy/kernel1"].shape == (16, 2)  # the mean; no standard deviations
    obs, z = jax.random.normal(jax.random.key(1), (2,)), jnp.array([0.6, 0.8])
    x = jnp.concatenate([normalize.apply(state.obs_stats["policy"], obs), z])
    want = learner.nets.head.mode(learner.nets.policy.apply(state.params["policy"]["net"], x))
    np.testing.assert_allclose(skill.act(obs, z), want, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_rest_of_the_road(tmp_path, monkeypatch, capsys):
    """Skills, a controller over them by SAC, both exported and checked against onnxruntime and C MuJoCo."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    cli.main(["train-skills", *TINY, "total_steps=256", "run_dir=skills"])
    (skill,) = Library("library")
    assert skill["network"]["output"] == "tanh"
    cli.main(["export", "run=skills", "--check"])
    small = ["controller.hold=5", "algo.envs=8", "algo.rollout=4", "algo.batch=16", "algo.hidden=[16]",
             "algo.replay=256", "algo.min_replay=32", "total_steps=640", *TINY[-3:]]  # fmt: skip
    cli.main(["train-controller", "task=point_maze", "skills=[point-metra]", "algo=sac", *small, "run_dir=maze"])
    assert np.isfinite(read_json(tmp_path / "maze" / "evaluation.json")["return"])
    cli.main(["export", "run=maze", "--check"])
    assert capsys.readouterr().out.count("check passed") == 2
    with pytest.raises(SystemExit):
        cli.main(["train-controller", "task=point_maze", "skills=[point-metra]", "algo=sac", "controller.mode=choice"])
    assert "use algo=ppo" in capsys.readouterr().err


@pytest.mark.slow
def test_metra_by_sac_runs_straight_on_the_point(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["train-skills", "env=point", "algo=sac", "total_steps=48000", "run_dir=run", "eval_every=0",
              "video=false", "logging.quiet=true"])  # fmt: skip
    assert read_json(tmp_path / "run" / "evaluation.json")["reach_m"] > 0.8 * 50 * 0.1
