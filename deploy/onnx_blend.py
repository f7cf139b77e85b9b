"""Blends in ONNX: sub-goals and their bounds, weights over the skills, the combined action."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repertoire.deploy.onnx_graph import Writer, cut, projected, rows
from repertoire.high_level.blend import Blend, BlendConfig
from repertoire.high_level.compose import LEAST, SHARE, TINY, ComposeConfig


def resolve(write: Writer, blend: Blend, logits: str) -> list[str]:
    """What `Blend.resolve` gives of `logits` [B, W], flat: sub-goals, weights, residual."""
    skills, groups, config = len(blend.skills), len(blend.groups), blend.config
    *raw, weights, residual = cut(write, logits, np.diff([0, *blend.ends, blend.size]).tolist())
    latents = projected(write, blend.skills, raw, lambda z: bounded(write, config, z))
    if not weights:
        normal = rows(write, np.ones(groups), logits)
    else:
        cube = write.node("Reshape", weights, write.constant([-1, skills, groups], np.int64))
        if config.combine == "switch":
            best = write.node("ArgMax", cube, axis=1, keepdims=1)
            normal = write.cast(
                write.node("Equal", write.constant(np.arange(skills)[:, None], np.int64), best), "FLOAT"
            )
        else:
            normal = _softmax(write, blend, write.node("Mul", cube, write.constant(config.sharpness)))
        normal = write.node("Reshape", normal, write.constant([-1, skills * groups], np.int64))
    if residual:
        clipped = write.node("Clip", residual, write.constant(-1), write.constant(1))
        residual = write.node("Mul", clipped, write.constant(config.residual))
    return [*latents, normal, residual]


def _softmax(write: Writer, blend: Blend, cube: str) -> str:
    """Weights [B, n, G] of sharpened logits: of all skills, or of the `top` of the largest mean over the actuators."""
    weights = write.node("Softmax", cube, axis=1)
    if blend.config.top is None:
        return weights
    joints = write.node("Gather", weights, write.constant(blend.joint_group, np.int64), axis=2)
    last = write.constant([2], np.int64)
    best = write.least(write.node("Neg", write.node("ReduceMean", joints, axes=[2], keepdims=0)), blend.config.top)
    places = write.constant(np.arange(len(blend.skills))[:, None], np.int64)
    same = write.node("Equal", places, write.node("Unsqueeze", best, write.constant([1], np.int64)))
    kept = write.node("ReduceSum", write.cast(same, "FLOAT"), last, keepdims=1)
    masked = write.select(write.node("Greater", kept, write.constant(0.5)), cube, write.constant(-np.inf))
    return write.node("Softmax", masked, axis=1)


def combined(write: Writer, blend: Blend, actions: Sequence[str], weights: str, residual: str) -> str:
    """What `Blend.act` makes of the actions [B, A] of the skills."""
    middle = write.constant([1], np.int64)
    shape = write.constant([-1, len(blend.skills), len(blend.groups)], np.int64)
    w = write.node("Reshape", weights, shape)
    w = write.node("Gather", w, write.constant(blend.joint_group, np.int64), axis=2)
    if blend.config.combine == "multiply":
        w = write.node("Div", w, write.constant(np.square(blend.std)))
        w = write.node("Div", w, write.node("ReduceSum", w, middle, keepdims=1))
    cube = write.node("Concat", *(write.node("Unsqueeze", a, middle) for a in actions), axis=1)
    cube = write.node("Clip", cube, write.constant(-1), write.constant(1))
    action = write.node("ReduceSum", write.node("Mul", w, cube), middle, keepdims=0)
    return write.node("Add", action, residual) if residual else action


def bounded(write: Writer, config: BlendConfig | ComposeConfig, x: str) -> str:
    """`config.squash`: to +-`config.limit`, or to shares."""
    if config.bounded:
        x = write.node("Clip", x, write.constant(-1), write.constant(1))
    if config.squash == SHARE:
        half, middle = write.constant(0.5), write.constant((1 + LEAST) / 2)
        own = write.node("Add", write.node("Mul", x, half), middle) if config.bounded else write.node("Sigmoid", x)
        total = write.node("ReduceSum", own, write.constant([1], np.int64), keepdims=1)
        return write.node("Div", own, write.node("Max", total, write.constant(TINY)))
    limit = write.constant(config.limit)
    if config.bounded:
        return write.node("Mul", x, limit)
    if config.squash == "clamp":
        return write.node("Clip", x, write.constant(-config.limit), limit)
    return write.node("Mul", write.node("Tanh", write.node("Div", x, limit)), limit)
