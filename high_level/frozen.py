"""A controller is a skill: frozen into the library with the skills it uses, and opened again as one.

The entry is self-contained. It holds the controller's network, how it composes, and every skill beneath it - manifest,
arrays and content hash - so that a skill that leaves the library, or changes, cannot change it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array
from repertoire.envs.types import EnvSpec, ObsSpec, Slice
from repertoire.errors import UserError
from repertoire.high_level import registry
from repertoire.high_level.composer import Composer
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.types import Command, Field, StatefulSkill
from repertoire.skills.commands import command_slices
from repertoire.skills.freezing import network, policy_arrays
from repertoire.skills.latent import CommandPrior
from repertoire.skills.library import Library
from repertoire.skills.skill import SCHEMA, Skill, contract


class FrozenController(StatefulSkill):
    """A controller and its skills as one skill. Memory: (steps since its last decision [], command).

    Its latent is the task's command, in units of the range given when it was frozen, or has size 0. It decides when it
    is called upon and every `hold` steps from then on.

    Raises `UserError` when a skill within is not the one whose hash was recorded.
    """

    def __init__(self, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__(manifest, arrays)
        self.composer  # noqa: B018  # now, so that what is wrong shows before anything is compiled

    @functools.cached_property
    def composer(self) -> Composer:
        """How it drives the skills within."""
        return registry.make(self._described["composer"], self._skills(), _spec(self.manifest))

    @property
    def std(self) -> None:
        """None: what it explored with was noise on its commands, not on actions."""
        return None

    @property
    def hold(self) -> int:
        """Control steps between its decisions."""
        return int(self._described["hold"])

    @property
    def fields(self) -> tuple[Field, ...]:
        """Clock and command."""
        return (Field("clock", 1, self.hold), *self.composer.fields)

    def start(self) -> Command:
        """About to decide."""
        shapes = jax.eval_shape(lambda: self.composer.resolve(self.composer.zero()))
        return jnp.zeros((), jnp.int32), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def step(self, obs: Array, z: Array, memory: Command) -> tuple[Array, Command]:
        """Decide when the clock says so, then act."""
        clock, command = memory
        full = self.observation(obs, z)
        command = jax.lax.cond(clock == 0, self.decide, lambda _, held: held, full, command)
        action, command = self.composer.act(full, command)
        return action, ((clock + 1) % self.hold, command)

    def act(self, obs: Array, z: Array) -> Array:
        """Action [A] of its first step."""
        return self.step(obs, z, self.start())[0]

    def decide(self, full: Array, held: Command) -> Command:
        """Command for the policy group [P] of the env it was trained in, where `held` was held until now."""
        logits = super().act(jnp.concatenate([full, self.composer.view(held)]), jnp.zeros(0))
        return self.composer.renew(self.composer.head.mode(logits), held)

    def observation(self, obs: Array, z: Array) -> Array:
        """The policy group [P] of the env it was trained in, from its own slices and its latent."""
        return jnp.concatenate([obs, z * self.command_scale])[self.order]

    @property
    def command_scale(self) -> float:
        """Entry of the command's slice for a latent of 1."""
        return float(self._described["command_scale"])

    @property
    def order(self) -> np.ndarray:
        """Where each entry of its training env's policy group stands in its own slices followed by its latent."""
        spec, own = _spec(self.manifest), self.slices
        index = np.concatenate([spec.obs.index("policy", own), spec.obs.index("policy", self._command_slice)])
        return np.argsort(index).astype(np.int32)

    @property
    def _command_slice(self) -> tuple[str, ...]:
        return tuple(n for n in [self._described["command"]] if n)

    @property
    def _described(self) -> Mapping[str, Any]:
        return dict(self.manifest["controller"])

    def _skills(self) -> tuple[Skill, ...]:
        found = []
        for i, manifest in enumerate(self._described["skills"]):
            prefix = f"skills/{i}/"
            arrays = {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}
            skill = Skill(manifest, arrays)
            if skill.digest() != manifest["digest"]:
                raise UserError(f"controller {self.name}: the skill {skill.name} within is not the one that was frozen")
            found.append(opened(skill))
        return tuple(found)


def opened(skill: Skill) -> Skill:
    """A library entry as what it is: a `FrozenController` where it holds one."""
    return FrozenController(skill.manifest, skill.arrays) if "controller" in skill.manifest else skill


def load(library: Library, reference: str) -> Skill:
    """Skill or frozen controller by `name` or `name@version`, with every hash checked."""
    return opened(library.load(reference))


def freeze(
    name: str,
    learner: Any,
    state: Any,
    provenance: Mapping[str, Any],
    command: str | None = None,
    command_range: float = 1.0,
) -> FrozenController:
    """Library entry of a trained controller of one seed.

    Args:
      learner: over a `MacroEnv`. provenance: stored as it is.
      command: policy slice that becomes its latent (`goal`); None: it has none and only does its task.
      command_range: value of that slice, in its unit, for a latent of 1.
    """
    env: MacroEnv = learner.env
    spec, described = env.composer.env, env.composer.describe()
    full, told = contract(spec, ()), command_slices(spec, command, command_range)
    own = [row for row in full["policy"] if row["name"] != command]
    arrays = policy_arrays(learner, state)
    for i, skill in enumerate(env.composer.skills):
        arrays |= {f"skills/{i}/{k}": np.asarray(v) for k, v in skill.arrays.items()}
    manifest = {
        "schema": SCHEMA,
        "name": name,
        "env": spec.name,
        "contract": {**full, "policy": own},
        "latent": CommandPrior(len(spec.obs.index("policy", told))).describe(),
        "objective": {"name": env.composer.mode, "options": {}},
        "network": network(learner),
        "controller": {
            "composer": described,
            "hold": env.hold,
            "command": command,
            "command_scale": command_range * sum(s.scale for s in spec.obs.groups["policy"] if s.name in told),
            "policy": full["policy"],
            "skills": [{**s.manifest, "digest": s.digest()} for s in env.composer.skills],
        },
        "provenance": dict(provenance),
        "metrics": {},
    }
    return FrozenController(manifest, arrays)


def _spec(manifest: Mapping[str, Any]) -> EnvSpec:
    """The env that a controller was trained in, as far as its composer must know it."""
    told = manifest["contract"]
    policy = tuple(Slice(**row) for row in manifest["controller"]["policy"])
    return EnvSpec(
        name=manifest["env"],
        obs=ObsSpec({"policy": policy, "critic": (), "features": ()}),
        action_size=len(told["action_names"]),
        action_names=tuple(told["action_names"]),
        action_low=tuple(told["action_low"]),
        action_high=tuple(told["action_high"]),
        dt=told["dt"],
        physics_dt=told["physics_dt"],
        episode_length=1,
        gains={name: tuple(row) for name, row in told.get("gains", {}).items()},
    )
