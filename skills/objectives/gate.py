"""SMERL (arXiv 2010.14484): diversity only where the task is done nearly as well as it can be."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax.numpy as jnp
import optax

from repertoire.algos.types import Array, FeatureBatch, Metrics, Params
from repertoire.errors import UserError
from repertoire.skills.objectives.base import Base, refuse


@dataclass(frozen=True)
class Smerl(Base):
    """SMERL (arXiv 2010.14484), a gate over any objective: rewarded where the episode earns nearly the best return.

    The task's own reward is a channel beside it (`channels.task`). Ours: a rollout does not hold whole episodes, so of
    an episode that goes on after it, the gate looks at the return that it would end with at its present rate; it is
    closed in first episodes that lack their beginning (`algo.stagger`); `scale` weighs the channel's advantage, since a
    factor on the reward would be lost in its normalisation.

    Attributes:
      prior: latent prior; the inner objective's own by default. lr: passed on unless `inner_options` has its own.
      inner: name of the objective behind the gate. inner_options: its settings.
      target: best return known, of one episode. tolerance: share of it that may be missing. scale: weight alpha.
      layout: passed on to an inner objective that needs it.
    """

    prior: Any = None
    inner: str = "diayn"
    inner_options: Mapping[str, Any] = field(default_factory=dict)
    target: float = 0.0
    tolerance: float = 0.1
    scale: float = 1.0
    layout: tuple[Any, ...] = ()

    name: ClassVar[str] = "smerl"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse(self.inner_options, "objective.inner_options", "mask", "standardise")
        if self.tolerance < 0 or self.scale <= 0:
            raise UserError("objective.tolerance must be at least 0 and scale positive")
        object.__setattr__(self, "prior", self.behind.prior)

    @functools.cached_property
    def behind(self) -> Any:
        """The objective behind the gate."""
        from repertoire.skills.objectives import registry  # it imports this module

        options: dict[str, Any] = {"lr": self.lr, **self.inner_options}
        if self.prior:
            options |= {"prior": self.prior.kind, "skills": self.prior.size, "hold": self.prior.hold}
        if "layout" in registry.fields(self.inner):
            options["layout"] = self.layout
        return registry.make(self.inner, **options)

    @property
    def channels(self) -> tuple[str, ...]:
        """The inner objective's, renamed."""
        return tuple(f"{self.name}_{c}" for c in self.behind.channels)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The inner objective's."""
        return self.behind.optimizer

    def init(self, key: Array, features: int) -> Params:
        """Parameters of the inner objective."""
        return self.behind.init(key, features)

    def open(self, projected: Array) -> Array:
        """Whether returns [...] are near enough to the target."""
        return projected >= self.target - self.tolerance * abs(self.target)

    def rewards(self, params: Params, batch: FeatureBatch, key: Array) -> Array:
        """The inner objective's [B, C] where the gate is open, 0 elsewhere."""
        inner = self.behind.rewards(params, batch, key)
        return jnp.where(self.open(batch.projected)[:, None], inner, 0.0)

    def weigh(self, z: Array) -> Array:
        """Scaled weights of the inner objective, [C]."""
        return self.scale * self.behind.weigh(z)

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """The inner objective's: it learns on both sides of the gate."""
        loss, metrics = self.behind.loss(params, batch, key)
        return loss, metrics | {"open": self.open(batch.projected).mean()}

    @property
    def goal_latent(self) -> Callable[[Params, Array, Array], Array]:
        """The inner objective's goal rule; no such attribute where it has none."""
        rule: Callable[[Params, Array, Array], Array] = self.behind.goal_latent
        return rule
