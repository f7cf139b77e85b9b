"""Watches a replay in C MuJoCo as the task does: its memory, rewards and observations, and what it tells the runner.

A runner on a robot is told what its joints do not say (goals, what a camera sees); in a replay the task's own memory,
kept along the simulation, tells it. It also sets the actuators that are the scene's and no robot's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.deploy import runner
from repertoire.deploy.contract_terms import COMMAND, FEATURES
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.types import Array, Data, ObsSpec, State

#: The task's memory, its random key, the observation groups.
Mind = tuple[Any, Array, Any]


def terms_of(spec: ObsSpec, contract: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Any]:
    """(observation groups [..., P]) -> the contract's terms [..., .]: policy slices, then feature slices."""
    names = [t["name"] for t in contract["observation"]["terms"]]
    more = tuple(n.removeprefix(FEATURES) for n in names if n.startswith(FEATURES))
    policy = spec.index("policy", tuple(n for n in names if not n.startswith(FEATURES)))
    features = spec.index("features", more)
    return lambda obs: jnp.concatenate([obs["policy"][..., policy], obs["features"][..., features]], axis=-1)


def varied(model: mujoco.MjModel, overrides: Mapping[str, Array]) -> mujoco.MjModel:
    """A copy of `model` with fields set, and what is derived from them, as the physics do it for each world."""
    model = model.__copy__()
    for name, value in overrides.items():
        owner, field = (model.opt, name.removeprefix("opt.")) if name.startswith("opt.") else (model, name)
        wanted = np.asarray(value, np.asarray(getattr(owner, field)).dtype)
        setattr(owner, field, wanted if wanted.ndim else wanted.item())
    if overrides:
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


class Witness:
    """What the task of `env` makes of a simulation, compiled once for all episodes of a check."""

    def __init__(self, env: MujocoEnv, contract: Mapping[str, Any]) -> None:
        self.task, terms = env.task, contract["observation"]["terms"]
        known = {t["name"] for t in terms}
        features = tuple(s for s in env.spec.obs.groups["features"] if FEATURES + s.name in known)
        self.spec = ObsSpec({"policy": env.spec.obs.groups["policy"], "features": features})
        self.terms = terms_of(self.spec, contract)
        #: command -> the slice that it is, or nothing where only the difference to something is a slice
        self.commands = {
            m[1]: t["name"] if m[0] == t["source"] else "" for t in terms if (m := COMMAND.search(t["source"]))
        }
        self.first, self.next = jax.jit(self._first), jax.jit(self._next)

    def unknown(self, begin: State) -> list[str]:
        """Commands that the task cannot tell, from the `begin` of an episode."""
        asked = jax.eval_shape(self.task.asked, begin.data, begin.memory)
        return [c for c, s in self.commands.items() if not (s or c in asked or hasattr(begin.memory, c))]

    def watch(self, begin: State, loaded: runner.Runner) -> Watch:
        """Of one episode, driven by `loaded`."""
        return Watch(self, begin, loaded)

    def _first(self, begin: State, data: Data) -> tuple[Mind, dict[str, Any]]:
        """(mind, view) at the start of an episode."""
        values = self.task.observe(data, begin.memory) | begin.drawn
        mind = (begin.memory, begin.key, self.spec.build(values))
        return mind, self._view(mind, data, values)

    def _next(
        self, mind: Mind, drawn: dict[str, Array], before: Data, data: Data, action: Array, t: Array
    ) -> tuple[Mind, dict[str, Any], dict[str, Array]]:
        """(mind, view, outcome) after step `t`."""
        memory, key, obs = mind
        key, memory_key, _ = jax.random.split(key, 3)  # as `MujocoEnv.step` does, so that goals are drawn alike
        new = self.task.advance(memory_key, before, data, action, memory, t)
        terms = self.task.weighted(self.task.terms(before, data, action, memory), drawn)
        values = self.task.observe(data, new) | drawn
        mind = (new, key, self.spec.slide(obs, self.spec.build(values)))
        outcome = {"reward": sum(terms.values(), start=jnp.zeros(())), "ended": self.task.terminated(data, new)}
        return mind, self._view(mind, data, values), outcome

    def _view(self, mind: Mind, data: Data, values: Mapping[str, Array]) -> dict[str, Any]:
        """Commands, the scene's own controls, and what the runner should observe."""
        memory, _, obs = mind
        told, switches = self._told(data, memory, values), self.task.switches(memory)
        return {"told": told, "switches": switches, "expected": self.terms(obs)}

    def _told(self, data: Data, memory: Any, values: Mapping[str, Array]) -> dict[str, Array]:
        """The commands, by name."""
        asked = self.task.asked(data, memory)
        return {
            name: values[s] if s else asked[name] if name in asked else getattr(memory, name)
            for name, s in self.commands.items()
        }


class Watch:
    """One episode: an `on_step` of `runner.Runner.simulate`.

    Attributes:
      told: the commands of this step, by name.
    """

    def __init__(self, witness: Witness, begin: State, loaded: runner.Runner) -> None:
        self._witness, self._begin, self._loaded = witness, begin, loaded
        self._mind: Mind | None = None
        self._before: Data | None = None
        self._log: dict[str, list[Any]] = {"expected": [], "reward": [], "ended": []}
        self.told: dict[str, Any] = {}

    def __call__(self, data: mujoco.MjData) -> None:
        """Take in the state that a step led to, the first one's included, and set the switches."""
        witness, now = self._witness, self._look(data)
        if self._mind is None:
            self._mind, view = witness.first(self._begin, now)
        else:
            drawn, t = self._begin.drawn, np.int32(len(self._log["reward"]) + 1)
            self._mind, view, outcome = witness.next(self._mind, drawn, self._before, now, self._loaded.action, t)
            for name, value in outcome.items():
                self._log[name].append(value)
        self._before, self.told = now, {name: np.asarray(value) for name, value in view["told"].items()}
        self._log["expected"].append(view["expected"])
        switches = np.asarray(view["switches"])
        data.ctrl[data.ctrl.size - switches.size :] = switches

    def log(self) -> dict[str, np.ndarray]:
        """`expected` [T, P] observations, `reward` and `ended` [T]."""
        found = {name: np.asarray(rows) for name, rows in self._log.items()}
        return {**found, "expected": found["expected"][:-1]}

    def _look(self, data: mujoco.MjData) -> Data:
        names = ("time", "qpos", "qvel", *self._witness.task.fields)
        fields: dict[str, Any] = {name: np.array(getattr(data, name), np.float32) for name in names}
        return Data(backend=None, overrides=self._begin.data.overrides, **fields)
