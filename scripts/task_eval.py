"""Evaluation and videos of task policies: flat ones and controllers, and the baselines beside them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from repertoire.algos import normalize
from repertoire.algos.imitation import Imitator
from repertoire.algos.types import AnyLearner
from repertoire.envs.task import TASK
from repertoire.errors import UserError
from repertoire.high_level import goals, options
from repertoire.high_level.macro_env import OWN, MacroEnv
from repertoire.high_level.rules import Decider, Rule, StatefulRule, as_partial, stateful
from repertoire.scripts import stage_eval
from repertoire.skills import statistics

#: Metrics that tell of an episode by their value at its end, where a task has them.
AT_END = ("success", "goal_error")


class Episodes(NamedTuple):
    """K episodes at control rate: qpos [K, T, nq], positions [K, T, d] m, reward [K, T], alive [K, T], memory.

    `acting` [K, T, n] is what a controller's composer says of who acts; n is 0 for flat policies.
    final: metric of `AT_END` that the task has, and `terminated` -> [K], its value at the last step of an episode.
    sums: metric of the env -> [K], its sum over the steps of an episode; `steps`: how many those are.
    tasks: name of each task of an env of several -> [K], whether an episode was about it.
    """

    qpos: np.ndarray
    positions: np.ndarray
    reward: np.ndarray
    alive: np.ndarray
    memory: Any
    acting: np.ndarray
    final: Mapping[str, np.ndarray] = MappingProxyType({})
    sums: Mapping[str, np.ndarray] = MappingProxyType({})
    tasks: Mapping[str, np.ndarray] = MappingProxyType({})

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted return of each episode, [K]."""
        return self.reward.sum(1)


def trained(learner: AnyLearner, state: Any) -> Rule | StatefulRule:
    """Deterministic policy of a training state (one seed)."""
    if isinstance(learner, Imitator):
        return stage_eval.trained(learner, state)
    return Partial(_acting(learner), state.obs_stats["policy"], state.params["policy"]["net"])


@functools.lru_cache(maxsize=2)
def _acting(learner: AnyLearner) -> Callable[..., Any]:
    """One function for all states of a learner, so that `episodes` compiles once for all of them."""
    nets = learner.nets

    def act(stats: Any, params: Any, key: Any, s: Any) -> Any:
        return nets.head.mode(nets.policy.apply(params, normalize.apply(stats, s.obs["policy"])))

    return act


def per_task(row: Mapping[str, Any]) -> list[str]:
    """Names of the figures of a `summary` that are returns of single tasks."""
    return [k for k in row if k.startswith("return_") and k not in ("return_low", "return_high")]


def parts(learner: AnyLearner, state: Any, key: Any, count: int) -> dict[str, float]:
    """Figures of the single stages where a learner imitates some (one seed, `count` worlds)."""
    return stage_eval.figures(learner, state, key, count) if isinstance(learner, Imitator) else {}


def zero(learner: AnyLearner) -> Rule:
    """The zero agent."""
    env = learner.env
    action = env.composer.zero() if isinstance(env, MacroEnv) else jnp.zeros(env.spec.action_size)
    return lambda key, s: action


def random(learner: AnyLearner) -> Rule:
    """Random skills for a controller, random actions otherwise."""
    if isinstance(learner.env, MacroEnv):
        return goals.random_skills(learner.env)
    size = learner.env.spec.action_size
    return lambda key, s: jax.random.uniform(key, (size,), minval=-1.0, maxval=1.0)


def episodes(env: Any, rule: Decider, key: Any, count: int, steps: int | None = None) -> Episodes:
    """Play `count` episodes of the task to their end, or for `steps` steps of `env`; steps after the end are masked.

    Compiled once for rules that are the same `jax.tree_util.Partial` but for their arrays.
    """
    play = _player(env, count, steps or env.spec.episode_length)
    played = play(stateful(rule), key)
    qpos, features, reward, alive, memory, acting, final, sums, drawn = jax.tree.map(np.asarray, played)
    low = getattr(env, "env", env)
    names = [s.name for s in low.spec.obs.groups["features"]]
    index = low.spec.obs.index("features", ("position",)) if "position" in names else np.zeros(0, int)
    positions, earned = features[..., index], np.where(alive, reward, 0.0)
    tasks = dict(zip(low.task.tasks, drawn[TASK].T > 0.5, strict=True)) if TASK in drawn else {}
    return Episodes(qpos, positions, earned, alive, memory, acting, final, sums, tasks)


@functools.lru_cache(maxsize=4)
def _player(env: Any, count: int, steps: int) -> Callable[[StatefulRule, Any], Any]:
    """(rule, key) -> the fields of `Episodes`, jitted; parts of the rule that are no `Partial` are compiled in."""

    @jax.jit
    def run(rule: StatefulRule, key: Any) -> Any:
        def step(carry: Any, key: Any) -> Any:
            states, ended, memory = carry
            actions, memory = jax.vmap(rule.step)(jax.random.split(key, count), states, memory)
            stepped, row, measured = _stepped(env, states, actions, ended)
            kept = jax.tree.map(lambda a, b: jax.vmap(jnp.where)(ended, a, b), states, stepped)
            counted = {k: jnp.where(ended, 0.0, v) for k, v in measured.items()}  # after the end it may be anything
            return (kept, ended | stepped.terminated | stepped.truncated, memory), (row, counted)

        starts, keys, begin = _keys(key, count, steps)
        states = jax.vmap(env.reset)(starts)
        memory = jax.vmap(rule.start)(begin, states)
        (last, *_), (out, counted) = jax.lax.scan(step, (states, jnp.zeros(count, bool), memory), keys)
        out = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), 0, 1), out)
        final = {name: last.metrics[name] for name in AT_END if name in last.metrics} | {"terminated": last.terminated}
        return _no_keys((*out, final, {k: v.sum(0) for k, v in counted.items()}, last.drawn))

    return lambda rule, key: run(jax.tree.map(as_partial, rule, is_leaf=callable), key)


def _keys(key: Any, count: int, steps: int) -> tuple[Any, Any, Any]:
    """Keys of the starts [K], of the steps [T], of the rule's memory [K].

    `split` gives what `fold_in` gives for 0 .. K - 1, and a rule of one of those keys would draw what its world drew.
    """
    steps_key, begin_key = (jax.random.fold_in(key, count + i) for i in range(2))
    return jax.random.split(key, count), jax.random.split(steps_key, steps), jax.random.split(begin_key, count)


def _stepped(env: Any, states: Any, actions: Any, ended: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Next states, what `Episodes` keeps of each control step on the way there [k, K, ...], and sums of metrics [K].

    A controller's own metrics count for each control step that a decision holds; options begin once.
    """
    if isinstance(env, MacroEnv):
        stepped, trace = jax.vmap(env.trace)(states, actions)
        alive, whole = trace.alive, trace.alive.sum(1)
        sums = {k: jnp.where(alive, v, 0.0).sum(1) for k, v in trace.measured.items()}
        sums |= {k: v if k == options.BEGUN else v * whole for k, v in stepped.metrics.items() if k.startswith(OWN)}
        row = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), trace)
        kept = (row.qpos, row.features, row.reward, row.alive & ~ended, row.memory, row.acting)
        return stepped, kept, {**sums, "steps": whole.astype(jnp.float32)}
    s = jax.vmap(env.step)(states, actions)
    nobody = jnp.zeros((len(ended), 0))
    row = (s.data.qpos, s.obs["features"], s.reward, ~ended, s.memory, nobody)
    measured = {k: v for k, v in s.metrics.items() if not k.startswith("reward/")}
    return s, jax.tree.map(lambda x: x[None], row), {**measured, "steps": jnp.ones(len(ended))}


def _no_keys(tree: Any) -> Any:
    """Typed PRNG keys as plain numbers, so that the tree can become numpy."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)


def summary(found: Episodes) -> dict[str, float]:
    """Return and length of episodes, 95 % normal interval of the mean; reach (m) and `AT_END` where there are any.

    `terminated` is the share of episodes that the task ended (a fall, a goal), `mean_<metric>` the mean of a metric of
    the env over steps, `energy` SkillBench's product of mean torque and mean joint speed (N m rad/s), `option_steps`
    the mean length of options where a controller ends them itself, control steps, `return_<task>` the mean return of
    the episodes about a task of an env of several.
    """
    returns = found.returns
    half = 1.96 * returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else 0.0
    return {
        "return": float(returns.mean()),
        "return_low": float(returns.mean() - half),
        "return_high": float(returns.mean() + half),
        "length": float(found.alive.sum(1).mean()),
        "episodes": len(returns),
        **{f"return_{task}": float(returns[its].mean()) for task, its in found.tasks.items() if its.any()},
        **({"reach_m": float(reach(found).mean())} if found.positions.shape[-1] else {}),
        **{name: float(values.mean()) for name, values in found.final.items()},
        **_means(found),
    }


def _means(found: Episodes) -> dict[str, float]:
    total = {k: float(v.sum()) for k, v in found.sums.items()}
    steps, begun = total.pop("steps", 0.0), total.pop(options.BEGUN, 0.0)
    means = {f"mean_{k}": v / steps for k, v in total.items() if k not in (*AT_END, "diverged")}
    if {"mean_torque", "mean_joint_speed"} <= set(means):
        means["energy"] = means["mean_torque"] * means["mean_joint_speed"]
    return means | ({"option_steps": float(found.alive.sum()) / begun} if begun else {})


def reach(found: Episodes) -> np.ndarray:
    """Distance [K] from the position after the first step to the last one before the end, m."""
    last = found.positions[np.arange(len(found.alive)), found.alive.sum(1) - 1]
    return np.linalg.norm(last - found.positions[:, 0], axis=-1)


def table(
    env: Any,
    name: str,
    rows: list[dict[str, float]],
    others: Mapping[str, Rule | StatefulRule],
    key: Any,
    count: int,
    steps: int | None = None,
) -> dict[str, Any]:
    """What evaluation.json holds: `rows` of `name`, one per seed, their mean, other rules on the starts of `key`.

    The interval of the mean of several seeds is over seeds and episodes (`statistics.normal`).
    """
    rules = {name: mean(rows)}
    if len(rows) > 1 and "return_low" in rows[0]:
        ends = statistics.normal(*zip(*((r["return"], r["return_high"] - r["return"]) for r in rows), strict=True))
        rules[name] |= dict(zip(("return_low", "return_high"), ends, strict=True))
    for other, rule in others.items():
        if other != name:
            rules[other] = summary(episodes(env, rule, key, count, steps))
    return {"rules": rules, "seeds": rows, "return": rules[name]["return"]}


def mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every figure over the `rows` (of seeds) that have it: a few episodes may hold none of some task."""
    names = dict.fromkeys(k for row in rows for k in row)
    return {k: float(np.mean([row[k] for row in rows if k in row])) for k in names}


def told(found: Mapping[str, Any]) -> str:
    """One line of `table`."""
    return "evaluated: " + ", ".join(f"{rule} {row['return']:.4g}" for rule, row in found["rules"].items())


def baselines(learner: AnyLearner) -> dict[str, Any]:
    """What a policy is held against: random actions, and its expert; a controller against rules over its skills."""
    if isinstance(learner.env, MacroEnv):
        return controller_baselines(learner.env)
    expert = {"expert": stage_eval.expert(learner)} if isinstance(learner, Imitator) else {}
    return {**expert, "random": random(learner)}


def controller_baselines(env: MacroEnv) -> dict[str, Rule]:
    """Rules over the same skills that cost nothing."""
    rules: dict[str, Rule] = {"random": goals.random_skills(env)}
    with contextlib.suppress(UserError):  # no goal rule for this task or skill set: the table has no such row
        rules["zero_shot"] = goals.zero_shot(env)
    return rules
