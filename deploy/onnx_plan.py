"""Planners in learned dynamics, in ONNX: the search unrolled, its candidates side by side.

Tensors are [B, M, N, ...] for M members of the ensemble and N candidates; a sequence has H steps of D entries.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from repertoire.deploy.graph import FrozenPolicy
from repertoire.deploy.onnx_graph import Writer, activate, normalised, project, read
from repertoire.high_level.dynamics import ACTIVATION
from repertoire.high_level.plan import Imagined, Planner
from repertoire.high_level.search import WORST, SearchConfig
from repertoire.skills.latent import Prior


class Place(NamedTuple):
    """Where imagination begins: features [B, M, N, F] of the state, and the goal [B, 1, 1, 2] in the world."""

    features: str
    goal: str


class Net(NamedTuple):
    """Tensors of the ensemble, so that steps share them: (kernel [M, in, out], bias [M, 1, out]) of each layer."""

    layers: tuple[tuple[str, str], ...]


def planner(write: Writer, rule: Planner, prior: Prior, policy: int, plan: str) -> tuple[str, str]:
    """`Planner.step`: the first vector [B, D] of the best sequence, and what the next search begins from [B, H D].

    Args:
      prior: what dynamics see of a search vector is its projection. policy: entries of `obs` before the features.
      plan: what this search begins from [B, H D].
    """
    assert isinstance(rule.model, Imagined)
    config, (steps, size), model = rule.config, rule.shape, rule.model
    drawn, place = _coloured(write, config, steps, size), _place(write, model, config.candidates, policy)
    net = Net(tuple((write.constant(k), write.constant(np.asarray(b)[:, None])) for k, b in model.dynamics.layers))
    mean, std, firsts, costs = write.reshape(plan, -1, 1, steps, size), write.constant(config.std), [], []
    for i in range(config.iterations):
        noise = write.node("Gather", drawn, write.constant(i, np.int64), axis=1)
        tried = write.node("Add", mean, write.node("Mul", std, noise))  # [B, N, H, D]
        costs.append(_costs(write, model, net, place, prior, tried, config))
        firsts.append(write.node("Gather", tried, write.constant(0, np.int64), axis=2))
        flat, weights = write.reshape(tried, -1, config.candidates, steps * size), _weights(write, config, costs[-1])
        centre = write.node("MatMul", weights, flat)  # [B, 1, H D]
        mean = write.reshape(centre, -1, 1, steps, size)
        if config.method == "cem":
            off = write.node("Sub", flat, centre)
            spread = write.node("Sqrt", write.node("MatMul", weights, write.node("Mul", off, off)))
            std = write.reshape(write.node("Max", spread, write.constant(config.floor)), -1, 1, steps, size)
    best = write.node("ArgMin", write.node("Concat", *costs, axis=1), axis=1, keepdims=1)
    first = write.node("GatherND", write.node("Concat", *firsts, axis=1), best, batch_dims=1)
    return first, _rest(write, write.reshape(mean, -1, steps * size), steps, size)


def _coloured(write: Writer, config: SearchConfig, steps: int, size: int) -> str:
    """[B, I, N, H, D] of `noise`: an autoregressive process along H; none for the first candidate, the mean itself."""
    c, step = config.correlation, np.arange(steps)
    gap = np.maximum(step[:, None] - step, 0)
    colour = np.tril(c**gap) * np.where(step == 0, 1.0, (1 - c**2) ** 0.5)
    white = write.reshape("noise", -1, config.iterations, config.candidates, steps, size)
    some = (np.arange(config.candidates) > 0)[:, None, None]
    return write.node("Mul", write.node("MatMul", write.constant(colour), white), write.constant(some))


def _place(write: Writer, model: Imagined, candidates: int, policy: int) -> Place:
    features = write.columns("obs", policy + np.arange(model.dynamics.seen.size))
    goal = write.node("Add", write.columns(features, model.position), read(write, model.goal, "obs"))
    copies = write.constant([1, model.dynamics.members, candidates, 1], np.int64)
    start = write.node("Tile", write.reshape(features, -1, 1, 1, model.dynamics.seen.size), copies)
    return Place(start, write.reshape(goal, -1, 1, 1, len(model.position)))


def _costs(
    write: Writer, model: Imagined, net: Net, place: Place, prior: Prior, tried: str, config: SearchConfig
) -> str:
    """Costs [B, N] of candidates [B, N, H, D]; `WORST` where they are not finite."""
    features, away = place.features, []
    copies = write.constant([1, model.dynamics.members, 1, 1], np.int64)
    for h in range(config.horizon):
        vector = write.reshape(write.node("Gather", tried, write.constant(h, np.int64), axis=2), -1, prior.size)
        latent = write.reshape(project(write, prior, vector), -1, 1, config.candidates, prior.size)
        features = _advance(write, model, net, features, write.node("Tile", latent, copies))
        position = write.node("Gather", features, write.constant(model.position, np.int64), axis=3)
        away.append(write.node("ReduceL2", write.node("Sub", position, place.goal), axes=[3], keepdims=0))
    end = write.node("Mul", away[-1], write.constant(model.cost.end))
    along = write.node("Mul", write.node("Sum", *away), write.constant(model.cost.along / config.horizon))
    cost = write.node("ReduceMean", write.node("Add", end, along), axes=[1], keepdims=0)
    broken = write.node("Or", write.node("IsNaN", cost), write.node("IsInf", cost))
    return write.select(broken, write.constant(WORST), cost)


def _advance(write: Writer, model: Imagined, net: Net, features: str, latent: str) -> str:
    """`Dynamics.advance`: features [B, M, N, F] after a macro step under latents [B, M, N, D]."""
    dynamics = model.dynamics
    inputs = write.node("Concat", features, latent, axis=3)
    x = normalised(write, inputs, np.asarray(dynamics.inputs.mean), np.asarray(dynamics.inputs.var), FrozenPolicy.clip)
    seen = np.concatenate([np.asarray(dynamics.seen), np.ones(dynamics.inputs.mean.size - dynamics.seen.size)])
    x = x if seen.all() else write.node("Mul", x, write.constant(seen))
    for i, (kernel, bias) in enumerate(net.layers):
        x = write.node("Add", write.node("MatMul", x, kernel), bias)
        x = activate(write, ACTIVATION, x) if i < len(net.layers) - 1 else x
    change = write.node("Mul", x, write.constant(np.sqrt(np.asarray(dynamics.change.var))))
    return write.node("Add", write.node("Add", features, write.constant(dynamics.change.mean)), change)


def _weights(write: Writer, config: SearchConfig, costs: str) -> str:
    """`search.WEIGHTS`: weights [B, 1, N] of candidates by their costs [B, N]."""
    middle = write.constant([1], np.int64)
    if config.method == "mppi":
        soft = write.node("Softmax", write.node("Div", costs, write.constant(-config.temperature)), axis=1)
        return write.node("Unsqueeze", soft, middle)
    elites = write.node("Unsqueeze", write.least(costs, config.elites), write.constant([2], np.int64))
    chosen = write.node("Equal", elites, write.constant(np.arange(config.candidates)[None, None], np.int64))
    count = write.node("ReduceSum", write.cast(chosen, "FLOAT"), middle, keepdims=1)
    return write.node("Mul", count, write.constant(1 / config.elites))


def _rest(write: Writer, mean: str, steps: int, size: int) -> str:
    """The mean [B, H D] without its first step, zeros at the end."""
    none = write.node("Mul", write.columns(mean, np.arange(size)), write.constant(0))
    return write.node("Concat", write.columns(mean, np.arange(size, steps * size)), none, axis=1) if steps > 1 else none
