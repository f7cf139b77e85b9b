"""Networks as (init, apply) pairs of pure functions; the only file that knows flax.linen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from repertoire.algos.types import Array, Params
from repertoire.errors import unknown

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "swish": nn.swish,
    "relu": nn.relu,
    "elu": nn.elu,
    "tanh": jnp.tanh,
}


#: (kernel [in, out], bias [out]) of dense layers, first to last.
Layers = Sequence[tuple[Array, Array]]
#: What may follow the last layer.
SQUASHES: dict[str, Callable[[Array], Array]] = {"none": lambda x: x, "tanh": jnp.tanh}


def dense_layers(params: Params) -> Layers:
    """(kernel [in, out], bias [out]) of each layer of an `mlp`, first to last."""
    names = sorted(params, key=lambda n: int(n.rsplit("_", 1)[1]))
    return [(params[n]["kernel"], params[n]["bias"]) for n in names]


class Network(NamedTuple):
    """A pure network: `init(key) -> params`, `apply(params, x [..., in]) -> [..., out]`.

    `layers(params)` are its dense layers, (kernel [in, out], bias [out]) each, as they act.
    """

    init: Callable[[Array], Params]
    apply: Callable[[Params, Array], Array]
    layers: Callable[[Params], Layers] = dense_layers


def orthogonal(scale: float) -> Callable[..., Array]:
    """Orthogonal initialiser that a `vmap` over seeds or ensemble members runs one after another.

    jaxlib's batched QR waits on its thread pool for tasks of that pool, so two of them at once never end on two cores.
    """
    initialise = nn.initializers.orthogonal(scale)

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jnp.asarray(jax.custom_batching.sequential_vmap(lambda k: initialise(k, shape, dtype))(key))

    return init


class MLP(nn.Module):
    """Dense layers with an activation between; orthogonal initialisation, `out_scale` on the last."""

    hidden: tuple[int, ...]
    out: int
    activation: str
    out_scale: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., in] -> [..., out]."""
        for size in self.hidden:
            x = nn.Dense(size, kernel_init=orthogonal(2.0**0.5))(x)
            x = ACTIVATIONS[self.activation](x)
        return nn.Dense(self.out, kernel_init=orthogonal(self.out_scale))(x)


def mlp(inputs: int, hidden: tuple[int, ...], out: int, activation: str = "swish", out_scale: float = 1.0) -> Network:
    """Multi-layer perceptron [..., inputs] -> [..., out]. Raises `UserError` for an unknown activation."""
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    module = MLP(tuple(hidden), out, activation, out_scale)

    def init(key: Array) -> Any:
        return module.init(key, jnp.zeros((1, inputs)))["params"]

    def apply(params: Params, x: Array) -> Array:
        return jnp.asarray(module.apply({"params": params}, x))

    return Network(init, apply)


def reader(spec: Any, latent: int, hidden: tuple[int, ...], out: int, activation: str) -> Network:
    """Policy network of an `EnvSpec`, [policy observation, latent] -> [out], that reads the slices `spec.reads` alone.

    Its `layers` are those of a network of all inputs, with kernel rows of zeros where it does not look.
    """
    size = spec.obs.size("policy")
    index = np.concatenate([spec.obs.index("policy", spec.reads or None), np.arange(size, size + latent)])
    inner = mlp(len(index), hidden, out, activation, out_scale=0.01)
    if not spec.reads:
        return inner

    def layers(params: Params) -> Layers:
        (kernel, bias), *rest = inner.layers(params)
        return [(jnp.zeros((size + latent, len(bias))).at[index].set(kernel), bias), *rest]

    return Network(inner.init, lambda params, x: inner.apply(params, x[..., index]), layers)


def first_outputs(layers: Layers, count: int) -> Layers:
    """`layers` with the last cut to its first `count` outputs: what the mode of an action distribution reads."""
    kernel, bias = layers[-1]
    return [*layers[:-1], (kernel[:, :count], bias[:count])]


def apply_layers(layers: Layers, x: Array, activation: str, squash: str = "none") -> Array:
    """What `mlp(...).apply` computes, from `dense_layers`, and `squash` of it: [..., in] -> [..., out]."""
    for kernel, bias in layers[:-1]:
        x = ACTIVATIONS[activation](x @ kernel + bias)
    kernel, bias = layers[-1]
    return SQUASHES[squash](x @ kernel + bias)


def low_rank(base: Layers, rank: int, scale: float, activation: str) -> Network:
    """`base` with low-rank changes as its only parameters: kernels W + scale A B, biases as they are.

    A [in, r] is drawn (LeCun normal), B [r, out] begins at zero, so that an untrained one is `base` exactly (Hu et al.
    2021, LoRA); r is `rank`, or a side of the kernel where that is less.
    """
    names = [f"Dense_{i}" for i in range(len(base))]

    def init(key: Array) -> Params:
        draw, made = nn.initializers.lecun_normal(), {}
        for name, (kernel, _), own in zip(names, base, jax.random.split(key, len(base)), strict=True):
            r = min(rank, *kernel.shape)
            made[name] = {"a": draw(own, (kernel.shape[0], r)), "b": jnp.zeros((r, kernel.shape[1]))}
        return made

    def layers(params: Params) -> Layers:
        changes = [scale * params[n]["a"] @ params[n]["b"] for n in names]
        return [(kernel + change, bias) for (kernel, bias), change in zip(base, changes, strict=True)]

    return Network(init, lambda params, x: apply_layers(layers(params), x, activation), layers)


def ensemble(member: Network, size: int) -> Network:
    """`size` members of one shape as one network: [..., in] -> [size, ..., out], one batched product per layer."""

    def init(key: Array) -> Params:
        return jax.vmap(member.init)(jax.random.split(key, size))

    return Network(init, jax.vmap(member.apply, in_axes=(0, None)))


def spectral_normalize(params: Params, iterations: int = 10) -> Params:
    """`mlp` parameters with every kernel divided by its largest singular value (power iteration from a fixed start).

    With 1-Lipschitz activations the network is then 1-Lipschitz up to the iteration's error (Miyato et al. 2018).
    """

    def normalized(layer: dict[str, Array]) -> dict[str, Array]:
        kernel = layer["kernel"]
        v = jnp.ones(kernel.shape[1]) / kernel.shape[1] ** 0.5
        for _ in range(iterations):
            u = kernel @ v
            u = u / (jnp.linalg.norm(u) + 1e-12)
            v = kernel.T @ u
            v = v / (jnp.linalg.norm(v) + 1e-12)
        u, v = jax.lax.stop_gradient((u, v))
        return {**layer, "kernel": kernel / (u @ kernel @ v + 1e-12)}

    return {name: normalized(layer) for name, layer in params.items()}


def count(params: Params) -> int:
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(params))
