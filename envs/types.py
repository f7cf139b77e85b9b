"""The contracts of `envs`: physics data, declared observations, environment state and the `Env` protocol.

Everything here is written for *one* world; many worlds are a `jax.vmap` away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

Array = jax.Array
Observation = dict[str, Array]

#: (address in qpos, value), ...: what stays as it is whatever the physics does to it.
Held = tuple[tuple[int, float], ...]

#: Observation groups every env declares: what runs on the robot, what only the critic sees, what objectives see.
GROUPS = ("policy", "critic", "features")


class Data(struct.PyTreeNode):
    """Physics state of one world, as tasks read it. Unrequested fields are `None` (see `Task.fields`).

    Positions are metres, velocities m/s or rad/s, quaternions w-first. As with `mj_step`, derived fields
    (`xpos`, `xquat`, `site_xpos`, `sensordata`, `actuator_force`) lag `qpos` by one physics substep, on every backend.
    """

    time: Array  # [] s
    qpos: Array  # [nq]
    qvel: Array  # [nv]
    backend: Any  # opaque: the engine's own exact state
    overrides: dict[str, Array] = struct.field(default_factory=dict)  # per-world model fields
    xpos: Array | None = None  # [nbody, 3]
    xquat: Array | None = None  # [nbody, 4]
    site_xpos: Array | None = None  # [nsite, 3]
    sensordata: Array | None = None  # [nsensordata]
    actuator_force: Array | None = None  # [nu]
    subtree_com: Array | None = None  # [nbody, 3] m: centre of mass of each body's subtree
    cfrc_ext: Array | None = None  # [nbody, 6] N m, N: external contact wrench


class Physics(Protocol):
    """A physics backend bound to one model. All methods are pure, unbatched and `vmap`-able."""

    name: str
    model: mujoco.MjModel

    def init(self, qpos: Array, qvel: Array, overrides: Mapping[str, Array] | None = None) -> Data:
        """World at (qpos [nq], qvel [nv]), with kinematics computed; `overrides` maps model fields to values."""
        ...

    def step(
        self,
        data: Data,
        ctrl: Array,
        substeps: int,
        kick: Array | None = None,
        mocap: Array | None = None,
        held: Held = (),
    ) -> Data:
        """Advance by `substeps` physics steps under constant `ctrl` [nu].

        `kick` [nv] is added to qvel before them. `mocap` [nmocap, 7] are the poses (m, quaternion) to which mocap
        bodies jump before them, None: they stay. `held` are entries of qpos that are set after them; the derived
        fields are then of the new qpos, without a lag.
        """
        ...

    def reset_where(self, mask: Array, data: Data, fresh: Start) -> Data:
        """`init(fresh)` where `mask` [] is true, `data` unchanged elsewhere; cheap when the mask is mostly false."""
        ...

    def metrics(self, data: Data) -> dict[str, Array]:
        """What the engine itself reports of a world after a step (dropped contacts), [] each."""
        ...


class Start(struct.PyTreeNode):
    """Where an episode starts: qpos [nq], qvel [nv] and per-world model overrides."""

    qpos: Array
    qvel: Array
    overrides: dict[str, Array] = struct.field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """One named part of an observation group.

    Attributes:
      name: key of the value in `Task.observe`.
      size: number of entries.
      unit: physical unit, for the docs and the export contract.
      scale: factor applied before concatenation.
      noise: half-width of uniform sensor noise, in the slice's own unit (0 = none).
      history: how many values the slice holds, oldest first: this step's and those of the steps before, as they were
        observed (noise and all). An episode begins with copies of its first value.
    """

    name: str
    size: int
    unit: str = "1"
    scale: float = 1.0
    noise: float = 0.0
    history: int = 1

    @property
    def width(self) -> int:
        """Entries in the observation: `size` for each value of the history."""
        return self.size * self.history


@dataclass(frozen=True)
class ObsSpec:
    """Declared observation: for each group an ordered tuple of slices. It builds observations, contracts and docs."""

    groups: Mapping[str, tuple[Slice, ...]]

    def size(self, group: str) -> int:
        """Length of the concatenated vector of `group`."""
        return sum(s.width for s in self.groups[group])

    def index(self, group: str, names: tuple[str, ...] | None = None) -> np.ndarray:
        """Indices into `group` of the named slices (all when `names` is None). Raises KeyError on an unknown name."""
        offsets, start = {}, 0
        for s in self.groups[group]:
            offsets[s.name] = np.arange(start, start + s.width)
            start += s.width
        chosen = tuple(offsets) if names is None else names
        missing = [n for n in chosen if n not in offsets]
        if missing:
            raise KeyError(f"{group} has no slice {missing[0]!r}; it has {', '.join(offsets)}")
        return np.concatenate([offsets[n] for n in chosen]) if chosen else np.zeros(0, int)

    def build(self, values: Mapping[str, Array]) -> Observation:
        """Concatenate scaled slices of `values` into one float32 vector per group; histories hold copies."""

        def group(slices: tuple[Slice, ...]) -> Array:
            parts = [jnp.tile(jnp.ravel(values[s.name]).astype(jnp.float32) * s.scale, s.history) for s in slices]
            return jnp.concatenate(parts) if parts else jnp.zeros(0, jnp.float32)

        return {name: group(slices) for name, slices in self.groups.items()}

    def slide(self, before: Observation, now: Observation) -> Observation:
        """`now` with the histories of `before` moved on by one step: the oldest values go, those of `now` come last."""
        return {name: self._slide(name, before[name], now[name]) for name in now}

    def _slide(self, group: str, before: Array, now: Array) -> Array:
        slices = self.groups[group]
        if all(s.history == 1 for s in slices):
            return now
        newest = np.concatenate([np.arange(s.width) >= s.width - s.size for s in slices])
        ahead = np.concatenate([np.full(s.width, s.size) for s in slices])
        source = np.minimum(np.arange(len(newest)) + ahead, len(newest) - 1)
        return jnp.where(newest, now, before[source])


@dataclass(frozen=True)
class EnvSpec:
    """What a learner, a library entry or an exporter must know of an env without stepping it.

    Attributes:
      name: registry name. obs: declared observation groups.
      action_size: length of the action vector, in [-1, 1] per entry (the env maps it to actuator units).
      action_names: one name per entry (actuators).
      action_low, action_high: actuator units at action -1 and +1.
      dt: control period, s. physics_dt: integrator step, s. episode_length: steps until truncation.
      discrete: number of choices where the action is one int32 index instead of a vector (0: a vector).
      model: the MJCF file of an env that was made from one, and model_sha256 its fingerprint; empty for our own.
      parameters: with `discrete`, the number of continuous parameters of each choice: the action is then the vector
        [index, parameters of choice 0, of choice 1, ...], of which only those of the chosen one matter.
      reads: policy slices that a policy network reads, critics read all of theirs; (): all.
      gains: actuator name -> (gain, kp, kd): its force is gain * ctrl - kp * position - kd * velocity; empty where the
        actuators are not known.
    """

    name: str
    obs: ObsSpec
    action_size: int
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    dt: float
    physics_dt: float
    episode_length: int
    discrete: int = 0
    model: str = ""
    model_sha256: str = ""
    parameters: tuple[int, ...] = ()
    reads: tuple[str, ...] = ()
    gains: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


class State(struct.PyTreeNode):
    """Environment state of one world.

    `obs` is the observation *after* the step and before any reset, so it is the true next observation of the
    transition that produced this state; `Env.reset_where` starts the next episode afterwards.
    """

    data: Data
    obs: Observation
    reward: Array  # [] weighted sum of the terms
    terminated: Array  # [] bool: the MDP ended
    truncated: Array  # [] bool: time ran out (or the physics diverged): bootstrap
    metrics: dict[str, Array]  # "reward/<term>" (weighted) and task metrics, all []
    memory: Any  # the task's own typed struct
    key: Array  # typed PRNG key
    t: Array  # [] int32 control steps since the episode began
    smooth: dict[str, Array] = struct.field(default_factory=dict)  # low-passed feature slices (`Task.smooth`)
    drawn: dict[str, Array] = struct.field(default_factory=dict)  # slices that an episode keeps (`Task.tasks`)


class Env(Protocol):
    """An environment: pure functions over `State`, unbatched."""

    spec: EnvSpec

    def reset(self, key: Array) -> State:
        """Fresh episode."""
        ...

    def step(self, state: State, action: Array) -> State:
        """One control step, no reset. `action` [action_size] is clipped to [-1, 1] inside."""
        ...

    def reset_where(self, mask: Array, state: State) -> State:
        """A fresh, newly drawn episode where `mask` is true; `state` elsewhere."""
        ...
