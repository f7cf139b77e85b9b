"""Rules in ONNX: scripts, and goal rules. What they decide is what `deploy.rule_graph` decides in JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from repertoire.deploy.graph import FrozenPolicy, pack
from repertoire.deploy.onnx_graph import Writer, along, network, read
from repertoire.deploy.onnx_maps import way_point
from repertoire.high_level.composer import Composer
from repertoire.high_level.goals import ZeroShot
from repertoire.high_level.route import WayPoint
from repertoire.high_level.rules import Reader
from repertoire.high_level.script import Condition, Stage


def script(
    write: Writer, composer: Composer, stages: Sequence[Stage], obs: str, held: list[str]
) -> tuple[str, str, str]:
    """(stage, macro steps in it, command [B, W]) after a decision; `held` begins with the first two."""
    stage, count = held[:2]
    for i, one in enumerate(stages[:-1]):
        over = _over(write, one, obs, count)
        if not over:
            continue  # it goes on for good
        here = write.node("And", _below(write, stage, i + 0.5), _above(write, stage, i - 0.5))
        leave = write.node("And", here, over)
        stage = write.select(leave, write.constant([[i + 1]]), stage)
        count = write.select(leave, write.constant([[0]]), count)
    like = jnp.zeros((), jnp.float32)
    table = np.stack([np.asarray(pack(composer.resolve(jnp.asarray(s.action)), like)) for s in stages])
    index = write.cast(write.node("Squeeze", stage, write.constant([1], np.int64)), "INT64")
    command = write.node("Gather", write.constant(table), index, axis=0)
    return stage, write.node("Add", count, write.constant(1)), command


def _over(write: Writer, stage: Stage, obs: str, count: str) -> str:
    """`Stage.done` [B, 1]; "" for a stage without an end."""
    over = _above(write, count, stage.steps - 0.5) if stage.steps else ""
    if stage.until is None:
        return over
    met = _met(write, stage.until, obs)
    return write.node("Or", over, met) if over else met


def _met(write: Writer, condition: Condition, obs: str) -> str:
    length = write.node("ReduceL2", read(write, condition.read, obs), axes=[1], keepdims=1)
    return (_below if condition.below else _above)(write, length, condition.value)


def _below(write: Writer, x: str, value: float) -> str:
    return write.node("Less", x, write.constant(value))


def _above(write: Writer, x: str, value: float) -> str:
    return write.node("Greater", x, write.constant(value))


def zero_shot(write: Writer, rule: ZeroShot, obs: str, policy: int) -> str:
    """Latent [B, D] along phi(goal) - phi(s); the skill's features stand in `obs` after `policy` entries."""
    skill, objective = rule.skill, rule.skill.objective()
    layers = objective.layers(skill.objective_params())
    kernels, biases = (tuple(np.asarray(x) for x in part) for part in zip(*layers, strict=True))
    mean, var = np.asarray(skill.arrays["features/mean"]), np.asarray(skill.arrays["features/var"])
    phi = FrozenPolicy(kernels, biases, mean, var, objective.activation, clip=np.inf)
    here = write.columns(obs, policy + np.arange(mean.size))
    ahead = _ahead(write, rule.ahead, obs, write.columns(here, skill.position))
    place = np.zeros((len(skill.position), mean.size))
    place[np.arange(len(skill.position)), skill.position] = 1.0
    there = write.node("Add", here, write.node("MatMul", ahead, write.constant(place)))
    way = write.node("Sub", network(write, phi, there), network(write, phi, here))
    return along(write, skill.prior, way)


def _ahead(write: Writer, ahead: Callable[..., object], obs: str, position: str) -> str:
    """`ZeroShot.ahead` [B, 2]: the goal, or the next way point."""
    if isinstance(ahead, WayPoint):
        return way_point(write, ahead, position, _ahead(write, ahead.goal, obs, position))
    assert isinstance(ahead, Reader)
    return read(write, ahead, obs)
