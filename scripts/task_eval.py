"""Evaluation and videos of task policies: flat ones and controllers, and the baselines beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos import normalize
from repertoire.algos.types import AnyLearner
from repertoire.errors import UserError
from repertoire.experiment import plots, video
from repertoire.high_level import goals
from repertoire.high_level.macro_env import MacroEnv

#: (key, env state) -> action of the env at hand (macro action for controllers).
Rule = Callable[[Any, Any], Any]


class Episodes(NamedTuple):
    """K episodes at control rate: qpos [K, T, nq], positions [K, T, d] m, reward [K, T], alive [K, T], memory.

    success: [K], whether an episode's last step was one of success; None for tasks without that metric.
    """

    qpos: np.ndarray
    positions: np.ndarray
    reward: np.ndarray
    alive: np.ndarray
    memory: Any
    success: np.ndarray | None = None

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted return of each episode, [K]."""
        return self.reward.sum(1)


def trained(learner: AnyLearner, state: Any) -> Rule:
    """Deterministic policy of a training state (one seed)."""
    nets, stats, params = learner.nets, state.obs_stats["policy"], state.params["policy"]["net"]
    return lambda key, s: nets.head.mode(nets.policy.apply(params, normalize.apply(stats, s.obs["policy"])))


def zero(learner: AnyLearner) -> Rule:
    """The zero agent."""
    spec = learner.env.spec
    return lambda key, s: jnp.zeros((), jnp.int32) if spec.discrete else jnp.zeros(spec.action_size)


def random(learner: AnyLearner) -> Rule:
    """Random skills for a controller, random actions otherwise."""
    if isinstance(learner.env, MacroEnv):
        return goals.random_skills(learner.env)
    size = learner.env.spec.action_size
    return lambda key, s: jax.random.uniform(key, (size,), minval=-1.0, maxval=1.0)


def episodes(env: Any, rule: Rule, key: Any, count: int, steps: int | None = None) -> Episodes:
    """Play `count` episodes of the task to their end, or for `steps` steps of `env`; steps after the end are masked."""

    def step(carry: Any, key: Any) -> Any:
        states, ended = carry
        actions = jax.vmap(rule)(jax.random.split(key, count), states)
        if isinstance(env, MacroEnv):
            stepped, trace = jax.vmap(env.trace)(states, actions)
            row = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), trace)  # [k, K, ...]
            out = (row.qpos, row.features, row.reward, row.alive & ~ended, row.memory)
        else:
            stepped = jax.vmap(env.step)(states, actions)
            one = (stepped.data.qpos, stepped.obs["features"], stepped.reward, ~ended, stepped.memory)
            out = jax.tree.map(lambda x: x[None], one)
        kept = jax.tree.map(lambda a, b: jax.vmap(jnp.where)(ended, a, b), states, stepped)
        return (kept, ended | stepped.terminated | stepped.truncated), out

    @jax.jit
    def run(key: Any) -> Any:
        states = jax.vmap(env.reset)(jax.random.split(key, count))
        keys = jax.random.split(jax.random.fold_in(key, 1), steps or env.spec.episode_length)
        (last, _), out = jax.lax.scan(step, (states, jnp.zeros(count, bool)), keys)
        out = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, *x.shape[2:]), 0, 1), out)
        return *out, last.metrics.get("success")

    qpos, features, reward, alive, memory, success = jax.tree.map(np.asarray, _no_keys(run(key)))
    low = getattr(env, "env", env)
    names = [s.name for s in low.spec.obs.groups["features"]]
    index = low.spec.obs.index("features", ("position",)) if "position" in names else np.zeros(0, int)
    return Episodes(qpos, features[..., index], np.where(alive, reward, 0.0), alive, memory, success)


def _no_keys(tree: Any) -> Any:
    """Typed PRNG keys as plain numbers, so that the tree can become numpy."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)


def summary(found: Episodes) -> dict[str, float]:
    """Return and length of episodes, 95 % normal interval of the mean; reach (m) and success where there are any."""
    returns = found.returns
    half = 1.96 * returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else 0.0
    return {
        "return": float(returns.mean()),
        "return_low": float(returns.mean() - half),
        "return_high": float(returns.mean() + half),
        "length": float(found.alive.sum(1).mean()),
        "episodes": len(returns),
        **({"reach_m": float(reach(found).mean())} if found.positions.shape[-1] else {}),
        **({} if found.success is None else {"success": float(found.success.mean())}),
    }


def reach(found: Episodes) -> np.ndarray:
    """Distance [K] from the position after the first step to the last one before the end, m."""
    last = found.positions[np.arange(len(found.alive)), found.alive.sum(1) - 1]
    return np.linalg.norm(last - found.positions[:, 0], axis=-1)


def baselines(learner: AnyLearner) -> dict[str, Rule]:
    """What a controller is held against: random skills, and the zero-shot goal rule where there is one."""
    rules: dict[str, Rule] = {"random": random(learner)}
    if isinstance(learner.env, MacroEnv):
        with contextlib.suppress(UserError):  # no goal rule for this task or skill set: the table has no such row
            rules["zero_shot"] = goals.zero_shot(learner.env)
    return rules


def task_video(path: Path, env: Any, found: Episodes, note: Callable[[str], None] = print) -> Path | None:
    """Video of the first episode with its goal markers."""
    low = getattr(env, "env", env)
    length = max(int(found.alive[0].sum()), 1)

    def markers(t: int) -> list[Any]:
        memory = jax.tree.map(lambda x: x[0, min(t, length - 1)], found.memory)
        return list(low.task.markers(SimpleNamespace(memory=memory, data=SimpleNamespace(qpos=found.qpos[0, t]))))

    return video.try_video(
        path,
        low.physics.model,
        found.qpos[0, :length],
        low.spec.dt,
        markers=markers,
        note=note,
        max_fps=20,
        **_camera(low.task, found.positions[0, :length], [m for t in range(0, length, 10) for m in markers(t)]),
    )


def _camera(task: Any, positions: np.ndarray, marks: list[Any]) -> dict[str, Any]:
    """The task's own; from above, over everything, where there are goals on the plane to see."""
    if not marks or positions.shape[-1] < 2:
        return {"camera": task.camera}
    goals = np.asarray([m[0][:2] for m in marks])
    seen = np.concatenate([positions[:, :2], goals])
    (x0, y0), (x1, y1) = seen.min(0) - 3.0, seen.max(0) + 3.0
    return {"camera": "overview", "bounds": (x0, y0, x1, y1), "width": 640, "height": 480}


def path_plot(path: Path, found: Episodes, title: str) -> Path | None:
    """x-y paths of episodes, NaN after their end."""
    if found.positions.shape[-1] < 2:
        return None
    xy = np.where(found.alive[..., None], found.positions[..., :2], np.nan)[:12]
    return plots.trajectories(path, xy, title=title)
