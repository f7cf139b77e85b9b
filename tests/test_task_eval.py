"""What an evaluation of a task says of its episodes, by hand numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from repertoire.envs import registry
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.sequence import SequenceConfig, sequence
from repertoire.scripts import task_eval


def episodes(final, sums=None):
    reward, alive = np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[True, True], [True, False]])
    none = np.zeros((2, 2, 0))
    return task_eval.Episodes(np.zeros((2, 2, 1)), none, reward, alive, None, none, final, sums or {})


def test_returns_lengths_and_success():
    found = task_eval.summary(episodes({"success": np.array([1.0, 0.0])}))
    assert (found["return"], found["length"], found["episodes"], found["success"]) == (3.0, 1.5, 2, 0.5)
    assert found["return_low"] == found["return_high"] == pytest.approx(3.0)


def test_the_mean_of_seeds_is_of_those_that_have_a_figure():
    """Few episodes of several tasks may be about some of them alone."""
    rows = [{"return": 1.0, "return_a": 1.0}, {"return": 4.0, "return_a": 2.0, "return_b": 6.0}]
    assert task_eval.mean(rows) == {"return": 2.5, "return_a": 1.5, "return_b": 6.0}
    found = task_eval.table(None, "trained", rows, {}, None, 2)
    assert found == {"rules": {"trained": task_eval.mean(rows)}, "seeds": rows, "return": 2.5}


def test_the_interval_of_several_seeds_is_over_seeds_too():
    """Two seeds that are sure of 0 and of 10 leave the mean at 5 with a standard error of 5, not of nothing."""
    rows = [{"return": r, "return_low": r - 1.0, "return_high": r + 1.0} for r in (0.0, 10.0)]
    found = task_eval.table(None, "trained", rows, {}, None, 2)["rules"]["trained"]
    half = (1 + (1.96 * 5) ** 2) ** 0.5
    assert (found["return_low"], found["return_high"]) == pytest.approx((5 - half, 5 + half))
    alone = task_eval.table(None, "trained", rows[:1], {}, None, 2)["rules"]["trained"]
    assert alone == rows[0]


def test_figures_are_means_over_steps_and_energy_the_product_of_two():
    sums = {"torque": np.array([30.0, 15.0]), "joint_speed": np.array([6.0, 3.0]), "steps": np.array([2.0, 1.0])}
    summary = task_eval.summary(episodes({"goal_error": np.array([0.1, 0.3])}, sums))
    assert summary["goal_error"] == pytest.approx(0.2) and summary["mean_torque"] == 15.0
    assert summary["energy"] == 45.0 and "mean_tilt" not in summary and "mean_steps" not in summary
    assert "energy" not in task_eval.summary(episodes({}))


def test_figures_follow_the_steps_of_each_episode(monkeypatch):
    """The point reports its distance from the origin, so its positions say what mean and end must be."""
    env = registry.make("point", "native")
    found = task_eval.episodes(env, lambda key, state: jnp.array([1.0, 0.5]), jax.random.key(0), 3, steps=6)
    distance = np.linalg.norm(found.positions, axis=-1)
    np.testing.assert_allclose(found.sums["distance"], distance.sum(1), rtol=1e-5, atol=1e-6)
    assert task_eval.summary(found)["mean_distance"] == pytest.approx(distance.mean(), rel=1e-5)
    monkeypatch.setattr(task_eval, "AT_END", ("distance",))
    found = task_eval.episodes(env, lambda key, state: jnp.array([1.0, 0.5]), jax.random.key(0), 3, steps=7)
    assert task_eval.summary(found)["terminated"] == 0.0
    np.testing.assert_allclose(found.final["distance"], np.linalg.norm(found.positions, axis=-1)[:, -1], rtol=1e-5)


def test_figures_of_a_controller_count_control_steps(oracle):
    """Not decisions: the same mean as the low-level positions have."""
    env = registry.make("point_maze", "native", episode_length=20)
    macro = MacroEnv(env, sequence((oracle,), env.spec, SequenceConfig("latent")), hold=3)  # 7 decisions, the last of 2
    found = task_eval.episodes(macro, lambda key, state: jnp.array([1.0, 0.0]), jax.random.key(0), 2)
    assert found.alive.sum(1).tolist() == [20, 20] and found.sums["steps"].tolist() == [20, 20]
    distance = np.where(found.alive, np.linalg.norm(found.positions, axis=-1), 0.0)
    np.testing.assert_allclose(found.sums["distance"], distance.sum(1), rtol=1e-5)
    assert task_eval.summary(found)["mean_distance"] == pytest.approx(distance.sum() / 40, rel=1e-5)


def test_tasks_without_success_report_none():
    assert "success" not in task_eval.summary(episodes({}))


def test_a_rule_draws_nothing_that_a_world_draws():
    """Keys of worlds, and of what each makes of its own, are none of the rule's."""
    starts, steps, begin = task_eval._keys(jax.random.key(0), 8, 6)
    deep = jax.vmap(lambda k: jax.random.split(k, 8))
    worlds = [starts, deep(starts), jax.vmap(deep)(deep(starts))]
    rules = [steps, deep(steps), begin, deep(begin)]
    found = [np.concatenate([jax.random.key_data(k).reshape(-1, 2) for k in of]) for of in (worlds, rules)]
    both = np.concatenate([np.unique(x, axis=0) for x in found])
    assert len(np.unique(both, axis=0)) == len(both)
    fewer = task_eval._keys(jax.random.key(0), 3, 6)[0]
    np.testing.assert_array_equal(jax.random.key_data(fewer), jax.random.key_data(starts)[:3])


def test_rules_that_differ_in_numbers_alone_compile_once():
    env, traced = registry.make("point"), []

    def act(wanted, key, state):
        traced.append(1)
        return wanted

    right, left = (
        task_eval.episodes(env, Partial(act, jnp.array([x, 0.0])), jax.random.key(0), 2, steps=5) for x in (1.0, -1.0)
    )
    assert len(traced) == 1
    assert task_eval.reach(right) == pytest.approx(task_eval.reach(left), rel=0.2)
    assert (right.positions[:, -1, 0] > left.positions[:, -1, 0]).all()
