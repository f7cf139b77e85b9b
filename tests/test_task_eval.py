"""What an evaluation of a task says of its episodes, by hand numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from repertoire.envs import registry
from repertoire.scripts import task_eval


def episodes(success):
    reward, alive = np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([[True, True], [True, False]])
    none = np.zeros((2, 2, 0))
    return task_eval.Episodes(np.zeros((2, 2, 1)), none, reward, alive, None, none, success)


def test_returns_lengths_and_success():
    found = task_eval.summary(episodes(np.array([1.0, 0.0])))
    assert (found["return"], found["length"], found["episodes"], found["success"]) == (3.0, 1.5, 2, 0.5)
    assert found["return_low"] == found["return_high"] == pytest.approx(3.0)


def test_tasks_without_success_report_none():
    assert "success" not in task_eval.summary(episodes(None))


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
