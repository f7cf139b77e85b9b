"""The ONNX graph of a `Graph`, node by node.

Not by jax2onnx: 0.17.1 with JAX 0.10.2 turns flat policies into correct graphs, but not controllers. Its batching rule
for `jnp.argmax` with an axis gives the wrong shape, it cannot trace random numbers under `vmap`, and given a jaxpr it
writes a reshape to a fixed batch that fails when it runs; its first conversion takes 10-20 s. These networks need a
dozen operators, all in opset 17, which every onnxruntime since 1.12 runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from repertoire.deploy.graph import FrozenPolicy, Graph
from repertoire.errors import UserError
from repertoire.skills.latent import Ball, Gaussian, OneHot, Prior, Product, Sphere
from repertoire.skills.skill import Skill

OPSET, IR_VERSION = 17, 8


def to_onnx(graph: Graph) -> bytes:
    """The serialised model; inputs and outputs float32 [batch, width]. Raises `UserError` without the package onnx."""
    try:
        import onnx
    except ImportError as e:
        raise UserError("exporting needs onnx and onnxruntime: pip install 'repertoire-rl[export]'") from e
    write = _Writer(onnx)
    named = _outputs(write, graph)
    for name in graph.outputs:
        write.node("Identity", named[name], output=name)
    inputs, outputs = (
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", width]) for n, width in side.items()]
        for side in (graph.inputs, graph.outputs)
    )
    body = onnx.helper.make_graph(write.nodes, f"repertoire_{graph.kind}", inputs, outputs, write.constants)
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(body, opset_imports=opset, ir_version=IR_VERSION, producer_name="repertoire")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


class _Writer:
    """Collects nodes and constants; every method returns the name of its output tensor."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], name=f"n_{name}", **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(self._onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def select(self, condition: str, yes: str, no: str) -> str:
        return self.node("Where", condition, yes, no)

    def columns(self, x: str, index: np.ndarray) -> str:
        return self.node("Gather", x, self.constant(index, np.int64), axis=1)

    def cast(self, x: str, dtype: str) -> str:
        return self.node("Cast", x, to=getattr(self._onnx.TensorProto, dtype))


def _outputs(write: _Writer, graph: Graph) -> dict[str, str]:
    """Tensor of each output."""
    named = {}
    if graph.kind == "policy":
        assert graph.policy is not None
        action = _network(write, graph.policy, "obs")
    elif graph.kind == "skill":
        action = _skill(write, graph.skills[0], "obs", _project(write, graph.skills[0].prior, "z"))
    else:
        action, named["z_next"] = _controller(write, graph)
    clipped = write.node("Clip", action, write.constant(-1), write.constant(1))
    low, high = (np.asarray(x, np.float32) for x in (graph.spec.action_low, graph.spec.action_high))
    shifted = write.node("Add", clipped, write.constant(1))
    scaled = write.node("Mul", shifted, write.constant(0.5 * (high - low)))
    return {"action": clipped, "ctrl": write.node("Add", scaled, write.constant(low)), **named}


def _network(write: _Writer, policy: FrozenPolicy, obs: str, z: str = "") -> str:
    """Normaliser and dense layers; `z` follows the normalised observation."""
    std = np.sqrt(np.maximum(policy.var.astype(np.float32), np.float32(1e-8)))
    x = write.node("Div", write.node("Sub", obs, write.constant(policy.mean)), write.constant(std))
    x = write.node("Clip", x, write.constant(-policy.clip), write.constant(policy.clip))
    x = write.node("Concat", x, z, axis=1) if z else x
    last = len(policy.kernels) - 1
    for i, (kernel, bias) in enumerate(zip(policy.kernels, policy.biases, strict=True)):
        x = write.node("Gemm", x, write.constant(kernel), write.constant(bias))
        x = x if i == last else _activate(write, policy.activation, x)
    return write.node("Tanh", x) if policy.output == "tanh" else x


def _activate(write: _Writer, activation: str, x: str) -> str:
    if activation == "swish":
        return write.node("Mul", x, write.node("Sigmoid", x))
    return write.node({"relu": "Relu", "elu": "Elu", "tanh": "Tanh"}[activation], x)


def _skill(write: _Writer, skill: Skill, obs: str, z: str) -> str:
    """Action of a skill set for its own observation slices."""
    network = skill.manifest["network"]
    policy = FrozenPolicy.from_arrays(skill.arrays, network["activation"], network.get("output", "none"))
    return _network(write, policy, obs, z)


def _project(write: _Writer, prior: Prior, z: str) -> str:
    """`Prior.project`."""
    if isinstance(prior, Sphere):
        return _unit(write, z, np.eye(1, prior.size))
    if isinstance(prior, Ball):
        return write.node("Div", z, write.node("Max", _norm(write, z), write.constant(1.0)))
    if isinstance(prior, OneHot):
        best = write.node("ArgMax", z, axis=1, keepdims=0)
        return write.node("Gather", write.constant(np.eye(prior.size)), best, axis=0)
    if isinstance(prior, Gaussian):
        return z
    if isinstance(prior, Product):
        return _project_parts(write, prior, z)
    raise UserError(f"a latent prior {prior.kind!r} cannot be exported yet")


def _project_parts(write: _Writer, prior: Product, z: str) -> str:
    """Each part of a product by itself; its weights are made positive and of unit length together."""
    ends = np.cumsum([p.size for p in prior.parts])
    places = np.split(np.arange(prior.size), ends)
    parts = [_project(write, p, write.columns(z, place)) for p, place in zip(prior.parts, places[: len(prior.parts)])]
    if prior.weighted:
        positive = write.node("Relu", write.columns(z, places[-1]))
        parts.append(_unit(write, positive, np.full((1, len(parts)), len(parts) ** -0.5)))
    return write.node("Concat", *parts, axis=1)


def _unit(write: _Writer, z: str, otherwise: np.ndarray) -> str:
    """z / |z|, or `otherwise` [1, D] where z vanishes."""
    norm, tiny = _norm(write, z), write.constant(1e-6)
    unit = write.node("Div", z, write.node("Max", norm, tiny))
    return write.select(write.node("Greater", norm, tiny), unit, write.constant(otherwise))


def _norm(write: _Writer, z: str) -> str:
    return write.node("ReduceL2", z, axes=[1], keepdims=1)


def _controller(write: _Writer, graph: Graph) -> tuple[str, str]:
    """(action before clipping, z_next)."""
    assert graph.policy is not None
    logits = _network(write, graph.policy, "obs")
    decide = write.node("Greater", "decide", write.constant(0.5))
    observations = [write.columns("obs", graph.spec.obs.index("policy", s.slices)) for s in graph.skills]
    if graph.mode == "latent":
        z = write.select(decide, _project(write, graph.skills[0].prior, logits), "z")
        return _skill(write, graph.skills[0], observations[0], z), z
    best = write.cast(write.node("ArgMax", logits, axis=1, keepdims=1), "FLOAT")
    z = write.select(decide, best, "z")
    index = write.cast(write.node("Squeeze", z, write.constant([1], np.int64)), "INT64")
    owners = np.array([owner for owner, _ in graph.table])
    owner = write.node("Gather", write.constant(owners[:, None], np.int64), index, axis=0)
    action = ""
    for i, (skill, obs) in enumerate(zip(graph.skills, observations, strict=True)):
        latents = np.zeros((len(owners), skill.prior.size))
        latents[owners == i] = [latent for o, latent in graph.table if o == i]
        mine = _skill(write, skill, obs, write.node("Gather", write.constant(latents), index, axis=0))
        acting = write.node("Equal", owner, write.constant([[i]], np.int64))
        action = write.select(acting, mine, action) if action else mine
    return action, z
