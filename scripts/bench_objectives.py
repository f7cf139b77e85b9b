"""What each objective adds to an update of the learner, beside the physics of the same rollout.

Counted are its rewards and its own gradient steps on all minibatches of all epochs, as `Learner.update` makes them, at
the default settings. The rollout is of random actions, drawn once; latents come from each objective's own prior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from repertoire.algos import normalize, rollout
from repertoire.algos.agents import random_act
from repertoire.algos.learner import Learner
from repertoire.algos.types import Array, Transition
from repertoire.errors import UserError
from repertoire.scripts import bench_ours, bench_physics, build, config, machine
from repertoire.scripts.bench_ours import Contestant
from repertoire.skills.objectives import registry as objectives


def measure(
    env_name: str = "ant", rounds: int = 3, quick: bool = False, names: Sequence[str] = tuple(objectives.OBJECTIVES)
) -> dict[str, Any]:
    """Overhead of objectives: {"env", "machine", "rows"}, ready for JSON.

    Args:
      env_name: registry name. rounds, quick: see `bench_physics`. names: objectives, with the default config of each.

    A row is {name, worlds, steps, objective_ms, physics_ms, ratio_to_physics, compile_s, note}: milliseconds per update
    of worlds x steps env steps, the ratio being the median of those within a round. An objective that fails has None
    for figures and the reason in `note`. Raises `UserError` for bad input.
    """
    if rounds < 1:
        raise UserError(f"rounds must be at least 1, got {rounds}")
    learners = {name: learner_of(env_name, name) for name in names}
    cfg = next(iter(learners.values())).config
    physics = bench_ours.ours(env_name, cfg.envs)[0]
    batches: dict[str, Transition] = {}
    contestants = [
        Contestant(n, x.config.envs, x.config.rollout, partial(_build, x, batches)) for n, x in learners.items()
    ]
    bare, *rows = bench_physics.side_by_side([physics, *contestants], rounds, quick)
    shown = [_row(r, c, bare) for r, c in zip(rows, contestants, strict=True)]
    return {"env": env_name, "machine": machine.describe(), "rows": shown}


def learner_of(env_name: str, objective: str) -> Learner:
    """The learner of `train-skills env=... objective=...`, all else at its default."""
    cfg = config.compose("train_skills", [f"env={env_name}", f"objective={objective}"])
    learner = build.learner_of("train-skills", cfg)
    assert isinstance(learner, Learner)  # the default algo
    return learner


def _build(learner: Learner, batches: dict[str, Transition]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """`call`: the objective's share of one update; `batches` keeps the rollout of each env."""
    signals, cfg, key = learner.signals, learner.config, jax.random.key(0)
    name = repr((learner.env.task, cfg.envs, cfg.rollout))
    if name not in batches:
        batches[name] = _random_batch(learner)
    batch = batches[name]
    batch = batch.replace(z=rollout.draw(learner.prior, key, batch.age.size).reshape(*batch.age.shape, -1))
    raw = batch.obs["features"][..., learner.feature_index]
    stats = normalize.update(normalize.init(raw.shape[-1]), raw)

    @jax.jit
    def share(params: Any, opt_state: Any, batch: Transition, key: Array) -> Any:
        features = signals.feature_batch(stats, batch)
        rewards = signals.rewards(params, features, batch, key)
        flat = jax.tree.map(lambda x: x.reshape(learner.steps_per_update, *x.shape[2:]), features)

        def step(carry: Any, indices_key: tuple[Array, Array]) -> tuple[Any, None]:
            indices, step_key = indices_key
            params, opt_state = carry
            return signals.learn(params, opt_state, jax.tree.map(lambda x: x[indices], flat), step_key)[:2], None

        keys = jax.random.split(key, cfg.epochs)
        order = jax.vmap(lambda k: jax.random.permutation(k, learner.steps_per_update))(keys)
        order = order.reshape(cfg.epochs * cfg.minibatches, -1)
        carry, _ = jax.lax.scan(step, (params, opt_state), (order, jax.random.split(key, len(order))))
        return carry, rewards

    held = [jax.jit(signals.init)(key)]

    def call() -> None:
        held[0], rewards = share(*held[0], batch, key)
        jax.block_until_ready((held[0], rewards))

    return call, held.clear


def _random_batch(learner: Learner) -> Transition:
    """A rollout [T, N, ...] of random actions, as long and wide as the learner's."""
    env, cfg = learner.env, learner.config

    @jax.jit
    def run(key: Array) -> Transition:
        begin_key, roll_key = jax.random.split(key)
        carry = rollout.begin(env, None, begin_key, cfg.envs)
        return rollout.collect(env, None, random_act(env.spec), carry, roll_key, cfg.rollout)[1][0]

    return jax.tree.map(jnp.asarray, run(jax.random.key(1)))


def _row(row: dict[str, Any], contestant: Contestant, bare: dict[str, Any]) -> dict[str, Any]:
    """Rates of env steps as milliseconds per update."""
    steps = contestant.worlds * contestant.steps

    def ms(rate: float | None) -> float | None:
        return None if rate is None else 1e3 * steps / rate

    ratio = row["ratio_to_bare"]
    return {
        "name": row["name"],
        "worlds": contestant.worlds,
        "steps": contestant.steps,
        "objective_ms": ms(row["steps_per_s"]),
        "physics_ms": ms(bare["steps_per_s"]),
        "ratio_to_physics": None if ratio is None else 1 / ratio,
        "compile_s": row["compile_s"],
        "note": row["note"],
    }
