"""Several low-rank adapters of one frozen policy, and what each task is made of, trained together.

Polytropon ("Combining Modular Skills in Multitask Learning", Ponti et al. 2022): the policy of task t has the kernels
W + scale sum_i c[t, i] A_i B_i, where the row c[t] is the mean over the adapters that the task has: sigmoids of learned
logits divided by their sum.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from repertoire.algos import networks
from repertoire.algos.adapter import Adapter
from repertoire.algos.types import Array, Metrics, Params
from repertoire.errors import positive

#: Standard deviation of the first logits. With equal rows every B_i would get the sum of the tasks' gradients, of
#: opposite tasks nothing; it is their differences that grow.
SPREAD = 1.0
#: Where the logits are among a learner's parameters.
LOGITS = "['policy']['net']['logits']"


@dataclass(frozen=True, eq=False)
class Inventory(Adapter):
    """Adapters that share a base, a rank and a scale, and the matrix of the shares that tasks have of them.

    What the base reads, the adapters may read, but not the task: it is told by the matrix alone, so that a row of it is
    a policy of that task wherever it goes.

    Attributes:
      count: adapters, n. task: entries of the policy observation that are the task, one-hot, [K]; their normaliser must
        change nothing. matrix_lr: factor on the learning rate for the logits.
    """

    count: int
    task: np.ndarray
    matrix_lr: float

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "adapter", "matrix_lr")

    @property
    def others(self) -> np.ndarray:
        """Entries of the policy observation that are not the task, [P - K]."""
        return np.setdiff1d(np.arange(len(self.mean)), self.task)

    @property
    def alone(self) -> Adapter:
        """What any one of the adapters is by itself: a change of the base, over `others`."""
        ((kernel, bias), *rest), kept = self.layers, self.others
        same = {f.name: getattr(self, f.name) for f in dataclasses.fields(Adapter)}
        cut = {name: same[name][kept] for name in ("mean", "var", "known")}
        return Adapter(**{**same, **cut, "layers": ((kernel[kept], bias), *rest)})

    def rows(self, net: Params) -> Array:
        """The matrix [K, n] of a policy's parameters."""
        there = jax.nn.sigmoid(net["logits"])
        return there / there.sum(-1, keepdims=True)

    def one(self, net: Params, index: int) -> Params:
        """Parameters of adapter number `index`, as those of `alone`'s network."""
        return jax.tree.map(lambda x: x[index], net["adapters"])

    def network(self) -> networks.Network:
        """The policy: normalised observation [..., P] -> [..., A], before `squash`.

        Each A_i [in, r] is a draw of its own, as equal ones would stay equal; B_i [r, out] begins at zero, and so the
        policy at the base.
        """
        alone, task, others = self.alone, self.task, self.others
        single, activation = alone.network(), networks.ACTIVATIONS[self.activation]

        def init(key: Array) -> Params:
            first, key = jax.random.split(key)
            made = jax.vmap(single.init)(jax.random.split(key, self.count))
            return {"adapters": made, "logits": SPREAD * jax.random.normal(first, (len(task), self.count))}

        def apply(net: Params, obs: Array) -> Array:
            share, x = obs[..., task] @ self.rows(net), obs[..., others]
            for i, (kernel, bias) in enumerate(alone.layers):
                x, own = activation(x) if i else x, net["adapters"][f"Dense_{i}"]
                inner = share[..., None] * jnp.einsum("...i,nir->...nr", x, own["a"])
                x = x @ kernel + bias + self.scale * jnp.einsum("...nr,nro->...o", inner, own["b"])
            return x

        return networks.Network(init, apply, _no_layers)

    def optimizer(self, plain: optax.GradientTransformation) -> optax.GradientTransformation:
        """`plain` with `matrix_lr` times its steps for the logits."""

        def matrix(params: Params) -> Params:
            return jax.tree_util.tree_map_with_path(lambda path, _: jax.tree_util.keystr(path) == LOGITS, params)

        return optax.chain(plain, optax.masked(optax.scale(self.matrix_lr), matrix))

    def figures(self, params: Params) -> Metrics:
        """Entropy of the rows, nats, mean over tasks: whether they are undecided."""
        rows = self.rows(params["policy"]["net"])
        return {"policy/share_entropy": -(rows * jnp.log(jnp.maximum(rows, 1e-12))).sum(-1).mean()}


def _no_layers(net: Params) -> networks.Layers:
    raise TypeError("the layers of an inventory depend on the task: take those of one of its adapters")
