"""Which skills a task is made of: a task x skill allocation matrix over an inventory of low-rank skills.

After Polytropon ("Combining Modular Skills in Multitask Learning", Ponti et al. 2022): a task's weights are those of
the base and the mean of its skills. Here the matrix is a controller that reads nothing but the task (`Compose`).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array
from repertoire.envs.task import TASK
from repertoire.high_level.compose import Compose
from repertoire.high_level.macro_env import MacroEnv

#: Task -> skill -> coefficient.
Allocation = dict[str, dict[str, float]]


def learned(env: Any, rule: Any) -> Allocation:
    """The coefficients that a controller's deterministic policy, a `Rule`, gives each task; {} where it reads more."""
    if not isinstance(env, MacroEnv) or not isinstance(env.composer, Compose) or env.spec.reads != (TASK,):
        return {}
    low: Any = env.env
    composer, spec, tasks = env.composer, low.spec, tuple(low.task.tasks)
    size = spec.obs.size("policy")
    asked = jnp.zeros((len(tasks), size)).at[:, spec.obs.index("policy", (TASK,))].set(jnp.eye(len(tasks)))

    def row(obs: Array) -> Array:
        return jnp.asarray(composer.resolve(rule(jax.random.key(0), SimpleNamespace(obs={"policy": obs}))))

    rows = np.asarray(jax.vmap(row)(asked)).tolist()
    return {task: dict(zip(composer.labels, row, strict=True)) for task, row in zip(tasks, rows, strict=True)}
