"""Networks as (init, apply) pairs of pure functions; the only file that knows flax.linen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from repertoire.algos.types import Array, Params
from repertoire.errors import unknown

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "swish": nn.swish,
    "relu": nn.relu,
    "elu": nn.elu,
    "tanh": jnp.tanh,
}


#: What may follow the last layer.
SQUASHES: dict[str, Callable[[Array], Array]] = {"none": lambda x: x, "tanh": jnp.tanh}


class Network(NamedTuple):
    """A pure network: `init(key) -> params`, `apply(params, x [..., in]) -> [..., out]`."""

    init: Callable[[Array], Params]
    apply: Callable[[Params, Array], Array]


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


def dense_layers(params: Params) -> list[tuple[Array, Array]]:
    """(kernel [in, out], bias [out]) of each layer of an `mlp`, first to last."""
    names = sorted(params, key=lambda n: int(n.rsplit("_", 1)[1]))
    return [(params[n]["kernel"], params[n]["bias"]) for n in names]


def first_outputs(layers: list[tuple[Array, Array]], count: int) -> list[tuple[Array, Array]]:
    """`layers` with the last cut to its first `count` outputs: what the mode of an action distribution reads."""
    kernel, bias = layers[-1]
    return [*layers[:-1], (kernel[:, :count], bias[:count])]


def apply_layers(layers: list[tuple[Array, Array]], x: Array, activation: str, squash: str = "none") -> Array:
    """What `mlp(...).apply` computes, from `dense_layers`, and `squash` of it: [..., in] -> [..., out]."""
    for kernel, bias in layers[:-1]:
        x = ACTIVATIONS[activation](x @ kernel + bias)
    kernel, bias = layers[-1]
    return SQUASHES[squash](x @ kernel + bias)


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
