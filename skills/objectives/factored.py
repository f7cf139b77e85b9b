"""Factored skills, after D3 (arXiv 2508.19953) and DUSDi (arXiv 2410.11251)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from repertoire.algos.types import Array, FeatureBatch, Metrics, Params
from repertoire.errors import UserError
from repertoire.skills.latent import product_of
from repertoire.skills.objectives.base import Base, each, refuse
from repertoire.skills.objectives.diayn import Diayn
from repertoire.skills.objectives.factor import Factor


class Share(NamedTuple):
    """One factor's share of parameters and batch."""

    name: str
    objective: Any
    probe: Diayn | None
    params: Params
    own: FeatureBatch  # its features and its latent
    rest: FeatureBatch  # the other factors' features under its latent


@dataclass(frozen=True)
class Factored(Base):
    """D3 (arXiv 2508.19953), DUSDi (arXiv 2410.11251): a latent, an objective and a critic per factor of the state.

    Channels are the factors. With `weighted` the policy also observes a weight per factor, redrawn with the latent,
    that weighs the channel's advantage (D3). With `anti` a factor pays for what the other factors' features tell of its
    latent, measured by a DIAYN discriminator (DUSDi).

    Attributes:
      prior: follows from the factors. lr: passed on unless a factor's `options` has its own.
      factors: settings of a `Factor` each. layout: (slice, size) of the features in order; filled in from the env.
      weighted: draw factor weights. anti: weight of the anti-term (DUSDi: 0.1).
    """

    prior: Any = None
    factors: tuple[Mapping[str, Any], ...] = ({"name": "all", "objective": "metra"},)
    layout: tuple[Any, ...] = ()
    weighted: bool = False
    anti: float = 0.0

    name: ClassVar[str] = "factored"

    def __post_init__(self) -> None:
        super().__post_init__()
        for factor in self.parts:
            refuse(factor.options, f"objective.factors: options of {factor.name}", "mask", "standardise", "hold")
        if not self.parts or len({f.name for f in self.parts}) < len(self.parts):
            raise UserError("objective.factors must list at least one factor, each of another name")
        if self.anti < 0 or (self.anti and len(self.parts) < 2):
            raise UserError("objective.anti must be at least 0, and needs two factors")
        own = product_of([o.prior for o in self.objectives], self.weighted, self.prior.hold if self.prior else 0)
        if self.prior not in (None, own):
            raise UserError("the latent of a factored objective follows from its factors: leave prior and skills away")
        object.__setattr__(self, "prior", own)
        if self.layout:
            self._indices(sum(size for _, size in self.layout))

    @functools.cached_property
    def parts(self) -> tuple[Factor, ...]:
        """The factors."""
        return tuple(Factor.of(row) for row in self.factors)

    @functools.cached_property
    def objectives(self) -> tuple[Any, ...]:
        """The objective of each factor."""
        from repertoire.skills.objectives.registry import make  # it imports this module

        options = [{"lr": self.lr, **f.options} for f in self.parts]
        return tuple(
            make(f.objective, prior=f.prior, skills=f.skills, **o) for f, o in zip(self.parts, options, strict=True)
        )

    @functools.cached_property
    def probes(self) -> tuple[Diayn | None, ...]:
        """What looks for each factor's latent in the other factors' features."""
        return tuple(Diayn(prior=o.prior, lr=self.lr) if self.anti else None for o in self.objectives)

    @property
    def channels(self) -> tuple[str, ...]:
        """The factors' names, with the inner channel's where a factor has several."""
        inner = [(f.name, o.channels) for f, o in zip(self.parts, self.objectives, strict=True)]
        return tuple(name if len(names) == 1 else f"{name}_{c}" for name, names in inner for c in names)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Each objective's and each probe's own."""
        rows = zip(self.parts, self.objectives, self.probes, strict=True)
        return each({f.name: each({"own": o.optimizer} | ({"probe": p.optimizer} if p else {})) for f, o, p in rows})

    def init(self, key: Array, features: int) -> Params:
        """{factor: {own: parameters of its objective, probe: of its discriminator}}."""
        params, keys = {}, jax.random.split(key, 2 * len(self.parts)).reshape(-1, 2)
        rows = zip(self.parts, self.objectives, self.probes, self._indices(features), keys, strict=True)
        for factor, objective, probe, (own, rest), (own_key, probe_key) in rows:
            more = {"probe": probe.init(probe_key, len(rest))} if probe else {}
            params[factor.name] = {"own": objective.init(own_key, len(own))} | more
        return params

    def rewards(self, params: Params, batch: FeatureBatch, key: Array) -> Array:
        """The factors' rewards side by side, less the anti-terms, [B, C]."""
        columns = []
        for f, k in zip(self._shares(params, batch), jax.random.split(key, len(self.parts)), strict=True):
            leak = self.anti * f.probe.rewards(f.params["probe"], f.rest, k) if f.probe else 0.0
            columns.append(f.objective.rewards(f.params["own"], f.own, k) - leak)
        return jnp.concatenate(columns, axis=-1)

    def weigh(self, z: Array) -> Array:
        """The factor's weight on the weights of its channels, [C]."""
        latents, weights = self.prior.split(z)
        inner = [o.weigh(x) for o, x in zip(self.objectives, latents, strict=True)]
        return jnp.concatenate([weights[i] * w for i, w in enumerate(inner)])

    def loss(self, params: Params, batch: FeatureBatch, key: Array) -> tuple[Array, Metrics]:
        """Sum of the losses of all objectives and probes."""
        total, metrics = jnp.zeros(()), dict[str, Array]()
        for f, k in zip(self._shares(params, batch), jax.random.split(key, len(self.parts)), strict=True):
            loss, found = f.objective.loss(f.params["own"], f.own, k)
            total, metrics = total + loss, metrics | {f"{f.name}/{name}": v for name, v in found.items()}
            if f.probe:
                loss, found = f.probe.loss(f.params["probe"], f.rest, k)
                total, metrics = total + loss, metrics | {f"{f.name}/leak": found["mi_bound"]}
        return total, metrics

    @property
    def goal_latent(self) -> Callable[[Params, Array, Array], Array]:
        """Goal rule of the factors that have one, which get all the weight; no such attribute where none has."""
        if not any(self._aims):
            raise AttributeError("no factor has a goal rule")
        return self._goal_latent

    @property
    def _aims(self) -> list[bool]:
        return [hasattr(o, "goal_latent") for o in self.objectives]

    def _goal_latent(self, params: Params, features: Array, goal_features: Array) -> Array:
        latents = []
        rows = zip(self.parts, self.objectives, self._indices(features.shape[-1]), self._aims, strict=True)
        for factor, objective, (own, _), aims in rows:
            mine, ends = params[factor.name]["own"], (features[own], goal_features[own])
            latents.append(objective.goal_latent(mine, *ends) if aims else jnp.zeros(objective.prior.size))
        weights = [jnp.asarray(self._aims, jnp.float32)] if self.weighted else []
        return self.prior.project(jnp.concatenate([*latents, *weights]))

    @property
    def spans(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Factor -> (indices of its features in what the objective sees, of its part in the latent)."""
        ends = np.cumsum([o.prior.size for o in self.objectives])
        latent = np.split(np.arange(ends[-1]), ends[:-1])
        own = [index for index, _ in self._indices(sum(size for _, size in self.layout))]
        return {f.name: pair for f, pair in zip(self.parts, zip(own, latent, strict=True), strict=True)}

    def _indices(self, features: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Indices of each factor's own features and of the other factors'."""
        own = [f.index(self.layout, features) for f in self.parts]
        rest = [np.setdiff1d(np.concatenate(own), index) for index in own]
        if self.anti and not all(map(len, rest)):
            raise UserError("objective.anti needs factors that see different features")
        return list(zip(own, rest, strict=True))

    def _shares(self, params: Params, batch: FeatureBatch) -> list[Share]:
        """What each factor gets."""
        latents, _ = self.prior.split(batch.z)

        def view(index: np.ndarray, z: Array) -> FeatureBatch:
            return batch.replace(features=batch.features[:, index], next_features=batch.next_features[:, index], z=z)

        indices = self._indices(batch.features.shape[-1])
        return [
            Share(f.name, objective, probe, params[f.name], view(own, z), view(rest, z))
            for f, objective, probe, (own, rest), z in zip(
                self.parts, self.objectives, self.probes, indices, latents, strict=True
            )
        ]
