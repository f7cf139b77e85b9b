"""Nodes of ONNX graphs: networks, priors, frozen skills. `onnx_control` composes them, `onnx_model` makes the file.

Not by jax2onnx: 0.17.1 with JAX 0.10.2 turns flat policies into correct graphs, but not controllers. Its batching rule
for `jnp.argmax` with an axis gives the wrong shape, it cannot trace random numbers under `vmap`, and given a jaxpr it
writes a reshape to a fixed batch that fails when it runs; its first conversion takes 10-20 s. These networks need a
dozen operators, all in opset 17, which every onnxruntime since 1.12 runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from repertoire.deploy.graph import FrozenPolicy
from repertoire.errors import UserError
from repertoire.high_level.compose import Compose
from repertoire.high_level.rules import Reader
from repertoire.skills.latent import Ball, CommandPrior, Gaussian, OneHot, Prior, Product, Sphere
from repertoire.skills.skill import Skill


class Writer:
    """Collects nodes and constants; every method returns the name of its output tensor."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._count = 0

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """A node of operator `kind`."""
        return self._add(kind, inputs, [output or self._name(kind)], **attributes)[0]

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind.lower()}{self._count}"

    def _add(self, kind: str, inputs: Sequence[str], names: list[str], **attributes: Any) -> list[str]:
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, names, name=f"n_{names[-1]}", **attributes))
        return names

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant of any shape."""
        name = f"c{len(self.constants)}"
        self.constants.append(self._onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def select(self, condition: str, yes: str, no: str) -> str:
        """`yes` where the condition holds, else `no`."""
        return self.node("Where", condition, yes, no)

    def reshape(self, x: str, *shape: int) -> str:
        """`x` in another shape; -1 for the batch."""
        return self.node("Reshape", x, self.constant(shape, np.int64))

    def least(self, x: str, count: int) -> str:
        """Where in each row of `x` [B, n] the `count` least entries are, [B, count]; of equal ones the first."""
        names = [self._name("least"), self._name("places")]
        return self._add("TopK", [x, self.constant([count], np.int64)], names, axis=1, largest=0)[1]

    def when(self, condition: str, yes: Callable[[], Sequence[str]], no: Callable[[], Sequence[str]]) -> list[str]:
        """The float tensors that `yes` makes where the condition [] holds, else those of `no`; the others rest."""
        made = {f"{name}_branch": self._branch(name, make) for name, make in (("then", yes), ("else", no))}
        names = [self._name("if") for _ in made["then_branch"].output]
        return self._add("If", [condition], names, **made)

    def _branch(self, name: str, make: Callable[[], Sequence[str]]) -> Any:
        """Graph of its own of the nodes that `make` adds; constants stay outside, for all to share."""
        outer, self.nodes = self.nodes, []
        found = [self.node("Identity", x) for x in make()]
        inner, self.nodes = self.nodes, outer
        helper, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        outputs = [helper.make_tensor_value_info(x, kind, None) for x in found]
        return helper.make_graph(inner, self._name(name), [], outputs)

    def columns(self, x: str, index: np.ndarray) -> str:
        """Columns [B, n] of `x` [B, ...] at `index` [n]."""
        return self.node("Gather", x, self.constant(index, np.int64), axis=1)

    def cast(self, x: str, dtype: str) -> str:
        """`x` in another type, `FLOAT` or `INT64`."""
        return self.node("Cast", x, to=getattr(self._onnx.TensorProto, dtype))


def read(write: Writer, reader: Reader, obs: str) -> str:
    """`Reader`: a policy slice [B, n] in its own unit."""
    return write.node("Div", write.columns(obs, reader.index), write.constant(reader.scale))


def largest(write: Writer, x: str) -> str:
    """Where in each row of `x` [B, n] the greatest entry is, as a float [B, 1]; of equal ones the first."""
    return write.cast(write.node("ArgMax", x, axis=1, keepdims=1), "FLOAT")


def rows(write: Writer, row: np.ndarray, like: str) -> str:
    """`row` [k] for every row of `like`: [B, k]; "" where k is 0."""
    if not len(row):
        return ""
    zero = write.constant([0], np.int64)
    batch = write.node("Gather", write.node("Shape", like), zero, axis=0)
    shape = write.node("Concat", batch, write.constant([len(row)], np.int64), axis=0)
    return write.node("Expand", write.constant(row[None]), shape)


def cut(write: Writer, x: str, sizes: Sequence[int]) -> list[str]:
    """Consecutive columns of `x`; "" for none."""
    ends = np.cumsum(sizes)
    return [write.columns(x, np.arange(end - n, end)) if n else "" for n, end in zip(sizes, ends, strict=True)]


def network(write: Writer, policy: FrozenPolicy, obs: str, z: str = "") -> str:
    """Normaliser and dense layers; `z` follows the normalised observation."""
    x = normalised(write, obs, policy.mean, policy.var, policy.clip)
    x = write.node("Concat", x, z, axis=1) if z else x
    last = len(policy.kernels) - 1
    for i, (kernel, bias) in enumerate(zip(policy.kernels, policy.biases, strict=True)):
        x = write.node("Gemm", x, write.constant(kernel), write.constant(bias))
        x = x if i == last else activate(write, policy.activation, x)
    return write.node("Tanh", x) if policy.output == "tanh" else x


def normalised(write: Writer, x: str, mean: np.ndarray, var: np.ndarray, clip: float) -> str:
    """`normalize.apply`."""
    std = np.sqrt(np.maximum(var.astype(np.float32), np.float32(1e-8)))
    x = write.node("Div", write.node("Sub", x, write.constant(mean)), write.constant(std))
    return write.node("Clip", x, write.constant(-clip), write.constant(clip))


def activate(write: Writer, activation: str, x: str) -> str:
    """One of `networks.ACTIVATIONS`."""
    if activation == "swish":
        return write.node("Mul", x, write.node("Sigmoid", x))
    return write.node({"relu": "Relu", "elu": "Elu", "tanh": "Tanh"}[activation], x)


def skill_action(write: Writer, skill: Skill, obs: str, z: str) -> str:
    """Action of a skill set for its own observation slices."""
    told = skill.manifest["network"]
    policy = FrozenPolicy.from_arrays(skill.arrays, told["activation"], told.get("output", "none"))
    if "command/scale" in skill.arrays:  # `Skill.told`
        scale, mean, var = (skill.arrays[f"command/{name}"] for name in ("scale", "mean", "var"))
        z = normalised(write, write.node("Mul", z, write.constant(scale)), mean, var, policy.clip)
    return network(write, policy, obs, z)


def composed(write: Writer, composer: Compose, obs: str, coefficients: str) -> str:
    """`Compose.act`: every layer is x W + b + (c * (x A)) B."""
    entries, mean, var = composer.inputs
    x = normalised(write, write.columns(obs, entries), mean, var, composer.clip)
    for i, (layer, owner) in enumerate(zip(composer.layers, composer.owner, strict=True)):
        x = x if i == 0 else activate(write, composer.activation, x)
        change = write.node("MatMul", x, write.constant(layer.a))
        change = write.node("Mul", change, write.columns(coefficients, owner))
        change = write.node("MatMul", change, write.constant(layer.b))
        x = write.node("Add", write.node("Gemm", x, write.constant(layer.kernel), write.constant(layer.bias)), change)
    return write.node("Tanh", x) if composer.squash == "tanh" else x


def project(write: Writer, prior: Prior, z: str) -> str:
    """`Prior.project`."""
    if isinstance(prior, Sphere):
        return _unit(write, z, np.eye(1, prior.size))
    if isinstance(prior, Ball):
        return write.node("Div", z, write.node("Max", _norm(write, z), write.constant(1.0)))
    if isinstance(prior, OneHot):
        best = write.node("ArgMax", z, axis=1, keepdims=0)
        return write.node("Gather", write.constant(np.eye(prior.size)), best, axis=0)
    if isinstance(prior, CommandPrior):
        return write.node("Clip", z, write.constant(-1), write.constant(1))
    if isinstance(prior, Gaussian):
        return z
    if isinstance(prior, Product):
        return _project_parts(write, prior, z)
    raise UserError(f"a latent prior {prior.kind!r} cannot be exported yet")


def along(write: Writer, prior: Prior, way: str) -> str:
    """`Prior.along`."""
    if not isinstance(prior, Gaussian):
        return project(write, prior, way)
    norm = write.node("Max", _norm(write, way), write.constant(1e-6))
    return write.node("Mul", way, write.node("Div", write.constant(prior.mean_norm), norm))


def projected(
    write: Writer, skills: Sequence[Skill], raw: Sequence[str], before: Callable[[str], str] = lambda z: z
) -> list[str]:
    """Latents [B, D_i] that the priors of `skills` make of `raw` after `before`; "" of a skill without."""
    return [project(write, s.prior, before(z)) if z else "" for s, z in zip(skills, raw, strict=True)]


def _project_parts(write: Writer, prior: Product, z: str) -> str:
    """Each part of a product by itself; its weights are made positive and of unit length together."""
    ends = np.cumsum([p.size for p in prior.parts])
    places = np.split(np.arange(prior.size), ends)
    parts = [project(write, p, write.columns(z, place)) for p, place in zip(prior.parts, places[: len(prior.parts)])]
    if prior.weighted:
        positive = write.node("Relu", write.columns(z, places[-1]))
        parts.append(_unit(write, positive, np.full((1, len(parts)), len(parts) ** -0.5)))
    return write.node("Concat", *parts, axis=1)


def _unit(write: Writer, z: str, otherwise: np.ndarray) -> str:
    """z / |z|, or `otherwise` [1, D] where z vanishes."""
    norm, tiny = _norm(write, z), write.constant(1e-6)
    unit = write.node("Div", z, write.node("Max", norm, tiny))
    return write.select(write.node("Greater", norm, tiny), unit, write.constant(otherwise))


def _norm(write: Writer, z: str) -> str:
    return write.node("ReduceL2", z, axes=[1], keepdims=1)
