"""Controllers that let all skills act at once: a sub-goal for every skill and, joint by joint, weights over the skills.

After SkillBlender (arXiv 2506.09366), with what it was compared with as settings of the same class: switching,
multiplicative composition of Gaussians (MCP, arXiv 1905.09808), an additive residual.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array, Metrics
from repertoire.envs.types import EnvSpec
from repertoire.errors import UserError, at_least_one, positive, typed, unknown, words
from repertoire.high_level.composer import SQUASH, Composer, bounded, unbounded
from repertoire.high_level.types import Command, Field
from repertoire.skills.latent import CommandPrior
from repertoire.skills.skill import Skill

COMBINE = ("blend", "switch", "multiply")
ALL = "all"  # of `BlendConfig.groups`


@dataclass(frozen=True)
class BlendConfig:
    """How skills are combined.

    Attributes:
      combine: `blend`, the convex sum of the skills' actions; `switch`, the action of the skill of the largest weight;
        `multiply`, the mean of the product of the skills' Gaussians, each raised to its weight.
      squash: how raw sub-goals are bounded by +-`limit` before they are projected on the skill's prior: `tanh`, whose
        gradient never quite vanishes, or `clamp` (SkillBlender), without any outside. limit: see `squash`.
      bounded: what is emitted lies in [-1, 1] already, as SAC's actions do: sub-goals are scaled to +-`limit`
        instead of squashed.
      sharpness: factor on the raw weights before the softmax: actions in [-1, 1] then reach weights near 0 and 1.
      groups: name -> actuator names or patterns, or one alone, that share their weights; `all`: all do; None: each has
        its own.
      residual: bound on what the controller adds to the combined action itself; 0 for nothing.
      std: for `multiply`, the standard deviation of a skill that stores none.
      top: how many skills act, those of the largest mean weight over the actuators; their weights are normalised anew
        within every group. None: all. Of a `switch` there is nothing to cut.
    """

    combine: str = "blend"
    squash: str = "tanh"
    limit: float = 1.0
    sharpness: float = 3.0
    groups: Mapping[str, Sequence[str]] | str | None = None
    residual: float = 0.0
    std: float = 0.37
    bounded: bool = False
    top: int | None = None

    def __post_init__(self) -> None:
        if self.combine not in COMBINE:
            raise unknown("controller.combine", self.combine, COMBINE)
        if self.squash not in SQUASH:
            raise unknown("controller.squash", self.squash, SQUASH)
        if isinstance(self.groups, str) and self.groups != ALL:
            raise unknown("controller.groups", self.groups, (ALL,))
        if isinstance(self.groups, Mapping):
            told = {name: words(f"controller.groups.{name}", rows) for name, rows in self.groups.items()}
            object.__setattr__(self, "groups", told)
        positive(self, "controller", "limit", "sharpness", "std")
        if not 0 <= self.residual <= 1:
            raise UserError(f"controller.residual must lie in [0, 1], got {self.residual}")
        if typed("controller.top", self.top, int | None) is not None:
            at_least_one(self, "controller", "top")
            if self.combine == "switch":
                raise UserError("controller.top is for combine=blend and multiply: a switch lets one skill act anyway")


class Blended(NamedTuple):
    """Command of a blend: sub-goals [D_i] of the skills, weights [n, G] of the groups, residual [A] ([0] without)."""

    latents: tuple[Array, ...]
    weights: Array
    residual: Array
    memory: Command


class Blend(Composer):
    """Emits [sub-goal of skill 0, of skill 1, ...; weights of skill 0, of skill 1, ...; residual].

    One skill needs no weights and emits none. Each skill's action is clipped to [-1, 1], as the env would clip it,
    before it is combined. Exploration noise is in the sub-goals and weights; SkillBlender's is on the blended action.

    Attributes:
      groups: names of the groups, in order. joint_group: group of each actuator [A]. std: of each skill, [n, A].
    """

    def __init__(self, skills: Sequence[Skill], env: EnvSpec, config: BlendConfig | None = None) -> None:
        super().__init__(skills, env)
        self.config = config or BlendConfig()
        self.mode = self.config.combine + ("+residual" if self.config.residual else "")
        if (self.config.top or 0) > len(skills):
            raise UserError(
                f"controller.top must be at most {len(skills)}, the number of skills, got {self.config.top}"
            )
        self.groups, self.joint_group = _groups(self.config.groups, env.action_names)
        self.sizes = tuple(s.prior.size for s in skills)
        self.std = np.stack([_std(s, env.action_size, self.config.std) for s in skills])
        self.names = (*self._goal_names(), *self._weight_names(), *self._residual_names())
        if not self.names:
            raise UserError(f"skill {skills[0].name} has no latent: give more skills, or a controller.residual")
        self.notes = tuple(_notes(self.skills, self.config))

    @property
    def fields(self) -> tuple[Field, ...]:
        """Sub-goals, weights, residual."""
        goals = (Field(f"{label}/z", size) for label, size in zip(self.bank.labels, self.sizes, strict=True))
        weights = Field("weights", len(self.skills) * len(self.groups))
        return (*goals, weights, Field("residual", len(self._residual_names())), *self.bank.fields)

    def resolve(self, action: Array) -> Command:
        """Squash and project the sub-goals, normalise the weights over the skills, bound the residual."""
        *raw, logits, residual = jnp.split(action, self.ends)
        latents = tuple(s.prior.project(bounded(z, *self._squash)) for s, z in zip(self.skills, raw, strict=True))
        return Blended(latents, self._normalised(logits), self._bounded(residual), self.bank.start())

    def act(self, obs: Array, command: Blended) -> tuple[Array, Command]:
        """The combined action. Only skills that have weight are computed, where their number is known."""
        if self.config.combine == "switch":
            best = jnp.argmax(command.weights, axis=0)
            actions, memory = self.bank.act_chosen(obs, command.latents, best, command.memory)
            action = jnp.clip(actions, -1.0, 1.0)[self.joint_group, np.arange(len(self.joint_group))]
        elif self.config.top:
            best = self._heaviest(command.weights, self.config.top)
            actions, memory = self.bank.act_chosen(obs, command.latents, best, command.memory)
            weights = command.weights[best][:, self.joint_group]
            action = self._combined(actions, weights, jnp.asarray(self.std)[best])
        else:
            actions, memory = self.bank.act(obs, command.latents, command.memory)
            action = self._combined(actions, self.weights(command), jnp.asarray(self.std))
        if self.config.residual:
            action = action + command.residual
        return action, command._replace(memory=memory)

    def weights(self, command: Blended) -> Array:
        """Weights [n, A] of the skills on every actuator; they sum to 1 over the skills."""
        return command.weights[:, self.joint_group]

    @property
    def actors(self) -> tuple[str, ...]:
        """Skills."""
        return self.bank.labels

    def acting(self, command: Blended) -> Array:
        """Weight of each skill, mean over actuators."""
        return self.weights(command).mean(1)

    def metrics(self, command: Blended) -> Metrics:
        """Mean entropy of the weights, nats; of one skill and of switches there is none."""
        if len(self.skills) == 1 or self.config.combine == "switch":
            return {}
        w = command.weights
        entropy = -jnp.sum(w * jnp.log(jnp.maximum(w, 1e-12)), axis=0)
        return {"weight_entropy": entropy.mean()}

    def sample(self, key: Array) -> Array:
        """What resolves to latents of the priors, as far as the limit lets them; the rest from the unit cube."""
        *keys, rest_key = jax.random.split(key, 1 + len(self.skills))
        goals = [unbounded(s.prior.sample(k), *self._squash) for s, k in zip(self.skills, keys, strict=True)]
        rest = jax.random.uniform(rest_key, (self.size - sum(self.sizes),), minval=-1.0, maxval=1.0)
        return jnp.concatenate([*goals, rest])

    def describe(self) -> dict[str, Any]:
        """All settings; named groups as a list of (name, patterns), as their order is the layout of the weights."""
        told = self.config.groups
        listed = [[name, list(rows)] for name, rows in told.items()] if isinstance(told, Mapping) else told
        return {"kind": "blend", **dataclasses.asdict(self.config), "groups": listed}

    @property
    def ends(self) -> list[int]:
        """Where each sub-goal and the weights end in the action."""
        ends = itertools.accumulate([*self.sizes, len(self._weight_names())])
        return list(ends)

    @property
    def _squash(self) -> tuple[str, float, bool]:
        return self.config.squash, self.config.limit, self.config.bounded

    def _normalised(self, logits: Array) -> Array:
        if len(self.skills) == 1:
            return jnp.ones((1, len(self.groups)))
        rows = logits.reshape(len(self.skills), len(self.groups))
        if self.config.combine == "switch":
            return jax.nn.one_hot(jnp.argmax(rows, axis=0), len(self.skills), axis=0)
        weights = jax.nn.softmax(self.config.sharpness * rows, axis=0)
        if self.config.top is None:
            return weights
        best = self._heaviest(weights, self.config.top)
        # not a quotient of weights: where all that are kept of a group have underflown, it would be 0 / 0
        kept = jax.nn.softmax(self.config.sharpness * rows[best], axis=0)
        return jnp.zeros_like(weights).at[best].set(kept)

    def _heaviest(self, weights: Array, top: int) -> Array:
        """The `top` skills, indices, of the largest mean weight over the actuators, of weights [n, G]."""
        share = np.bincount(self.joint_group, minlength=len(self.groups)) / len(self.joint_group)
        return jnp.asarray(jax.lax.top_k(weights @ share.astype(np.float32), top)[1])

    def _bounded(self, residual: Array) -> Array:
        return self.config.residual * jnp.clip(residual, -1.0, 1.0)

    def _combined(self, actions: Array, weights: Array, std: Array) -> Array:
        """Action [A] of those of skills [k, A] by weights [k, A]."""
        if self.config.combine == "multiply":
            weights = weights / jnp.square(std)
            weights = weights / weights.sum(0)
        return (weights * jnp.clip(actions, -1.0, 1.0)).sum(0)

    def _goal_names(self) -> list[str]:
        pairs = zip(self.bank.labels, self.sizes, strict=True)
        return [f"{label}/z{i}" for label, size in pairs for i in range(size)]

    def _weight_names(self) -> list[str]:
        labels = self.bank.labels if len(self.skills) > 1 else ()
        return [f"{label}/weight/{group}" for label in labels for group in self.groups]

    def _residual_names(self) -> list[str]:
        return [f"residual/{name}" for name in self.env.action_names] if self.config.residual else []


def _groups(
    told: Mapping[str, Sequence[str]] | str | None, actuators: Sequence[str]
) -> tuple[tuple[str, ...], np.ndarray]:
    """(names, group of each actuator). Raises `UserError` unless every actuator is in exactly one group."""
    if told is None:
        return tuple(actuators), np.arange(len(actuators), dtype=np.int32)
    wanted = {told: ["*"]} if isinstance(told, str) else told
    owners = []
    for actuator in actuators:
        mine = [g for g, patterns in wanted.items() if any(fnmatch.fnmatchcase(actuator, p) for p in patterns)]
        if len(mine) != 1:
            found = f"is in {' and '.join(mine)}" if mine else "is in none"
            raise UserError(f"controller.groups must hold every actuator once: {actuator} {found}")
        owners.append(mine[0])
    for group in wanted:
        if group not in owners:
            raise UserError(f"controller.groups.{group} matches none of the actuators {', '.join(actuators)}")
    names = tuple(wanted)
    return names, np.asarray([names.index(o) for o in owners], np.int32)


def _notes(skills: Sequence[Skill], config: BlendConfig) -> Iterator[str]:
    """What a user should know of these skills under this config."""
    without = [s.name for s in skills if s.std is None]
    if config.combine == "multiply" and without:
        yield f"no action std is stored with {', '.join(without)}: taking {config.std} for all joints"
    told = [s.name for s in skills if isinstance(s.prior, CommandPrior) and s.prior.size]
    if config.limit > 1 and told:
        yield (
            f"controller.limit={config.limit:g} takes commands of {', '.join(told)} no further: they end at +-1, times "
            "the command_range that they were frozen with"
        )


def _std(skill: Skill, size: int, default: float) -> np.ndarray:
    return np.full(size, default, np.float32) if skill.std is None else np.asarray(skill.std, np.float32)
