"""A frozen policy of which a learner trains low-rank changes alone (LoRA; as skills: PSEC, ICLR 2025)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
import optax

from repertoire.algos import networks
from repertoire.algos.types import Array, Metrics, Params, Stats
from repertoire.errors import at_least_one, positive

Config = TypeVar("Config", bound=Any)


@dataclass(frozen=True, eq=False)
class Adapter:
    """What stays as it is, and the size of the change.

    Attributes:
      layers: (kernel [in, out], bias [out]) of the frozen policy over all P policy observations of the env; kernel rows
        of entries that it never read are zero. activation, squash: between layers, and of the mean action.
      mean, var: its normaliser [P]. known: which entries it holds for, [P]; the others take what a random rollout
        measures, and keep that.
      rank: of the changes. scale: factor on them (PSEC: rank 8, scale 16).
      origin: JSON-able: what the frozen policy is.
    """

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    activation: str
    squash: str
    mean: np.ndarray
    var: np.ndarray
    known: np.ndarray
    origin: Mapping[str, Any]
    rank: int
    scale: float

    def __post_init__(self) -> None:
        at_least_one(self, "adapter", "rank")
        positive(self, "adapter", "scale")

    def shape(self, config: Config) -> Config:
        """A learner's settings with the frozen policy's layer sizes and activation, for the critic too."""
        hidden = tuple(len(bias) for _, bias in self.layers[:-1])
        return dataclasses.replace(config, hidden=hidden, activation=self.activation)

    def network(self) -> networks.Network:
        """The policy: normalised observation [..., P] -> [..., A], before `squash`."""
        frozen = [(jnp.asarray(kernel), jnp.asarray(bias)) for kernel, bias in self.layers]
        return networks.low_rank(frozen, self.rank, self.scale, self.activation)

    def statistics(self, measured: Stats) -> Stats:
        """The normaliser: its own where it is known, else as `measured`."""

        def known(own: np.ndarray, other: Array) -> Array:
            return jnp.where(self.known, own, other)

        return measured.replace(mean=known(self.mean, measured.mean), var=known(self.var, measured.var))

    def optimizer(self, plain: optax.GradientTransformation) -> optax.GradientTransformation:
        """What turns gradients of all parameters into steps, of what a learner takes without an adapter."""
        return plain

    def figures(self, params: Params) -> Metrics:
        """Metrics [] of a learner's parameters."""
        return {}
