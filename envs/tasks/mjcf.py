"""Any MJCF file as an env from a config: actuators, control, start, observations, rewards by name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax.numpy as jnp
import mujoco
from flax import struct

from repertoire.envs.task import Task, at_least
from repertoire.envs.tasks.mjcf_robot import MjcfRobot, names
from repertoire.envs.tasks.mjcf_slices import Seen, Slices, ask_for_sensors, slice_name
from repertoire.envs.types import Array, Data, ObsSpec
from repertoire.errors import UserError, unknown

#: Reward terms, per step; costs are positive and want negative weights.
TERMS = ("forward", "alive", "control", "action_rate")


@struct.dataclass
class LastAction:
    """The action before."""

    action: Array  # [A] in [-1, 1]


@dataclass(frozen=True)
class Mjcf(MjcfRobot):
    """The robot of an MJCF file as a task.

    Attributes:
      policy, privileged, features: slices (see `mjcf_slices`) of the policy, those that only the critic sees beside
        them, and those that objectives see; None: what suits the root.
      coverage: feature slice -> side of the cells in which its coverage is counted, in its own unit, beside those of
        `coverage_cells` of all tasks (`position: 1.0`); None leaves one out.
      terminate: end the episode when the root has fallen: it tilts by more than `max_tilt` deg or sinks below
        `min_height` m.
    """

    policy: tuple[str, ...] | None = None
    privileged: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    coverage: Mapping[str, float | None] = field(default_factory=dict)
    terminate: bool = False
    max_tilt: float = 60.0
    min_height: float | None = None

    name: ClassVar[str] = "mjcf"
    doc: ClassVar[str] = "any MJCF file: model=path/to/robot.xml, or model=menagerie:unitree_go2/scene.xml"
    reward_terms: ClassVar[tuple[str, ...]] = TERMS

    def __post_init__(self) -> None:
        """Adds what is seen and rewarded."""
        self._adopt(**{k: names(k, getattr(self, k)) for k in ("policy", "privileged", "features")})
        super().__post_init__()
        asked = {**Task.coverage_cells, **{slice_name(k): v for k, v in self.coverage.items()}}
        cells = {k: v for k, v in asked.items() if v is not None}
        at_least(self.name, 1e-9, **{f"coverage.{k}": v for k, v in cells.items()})
        self._adopt(
            fields=("sensordata",) if self.model.nsensor else (),
            coverage_cells=cells,
            fall_tilt_deg=self.max_tilt,
            fall_height_m=self.min_height,
            weights={k: float(w) for k, w in self.weights.items() if w},
        )
        self._check()

    def _check(self) -> None:
        seen = {s.slice.name for s in self._groups["features"]}
        for cell in self.coverage_cells:
            if cell not in seen and cell != "position":
                raise unknown("feature slice of env.coverage", cell, seen)
        if self.terminate and not self.slices.free:
            raise UserError(f"env.terminate asks whether the root fell, but {self.file} begins with no free joint")
        self.check_weights()
        if "forward" in self.weights and not self.root:
            raise UserError(f"reward term 'forward' needs a root that moves, which {self.file} has not")

    def spec_mjcf(self) -> mujoco.MjSpec:
        """Adds the sensors that slices read."""
        spec = super().spec_mjcf()
        ask_for_sensors(spec, self.file, (*(self.policy or ()), *(self.privileged or ()), *(self.features or ())))
        return spec

    # -- observation ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def slices(self) -> Slices:
        """All that can be seen of the model."""
        return Slices(self.file, self.model, self.default_pose(), self.model.nu)

    @functools.cached_property
    def _groups(self) -> dict[str, tuple[Seen, ...]]:
        asked = (self.policy, self.privileged, self.features)
        policy, privileged, features = (d if a is None else a for a, d in zip(asked, self.slices.defaults()))
        texts = {"policy": policy, "critic": (*policy, *privileged), "features": features}
        for group, wanted in texts.items():
            if not wanted:
                raise UserError(f"env {self.name}: {group} has no slices: name some, such as joint_pos")
        return {group: tuple(self.slices.seen(t) for t in dict.fromkeys(wanted)) for group, wanted in texts.items()}

    def obs_spec(self) -> ObsSpec:
        """The slices asked for."""
        return ObsSpec({group: tuple(s.slice for s in seen) for group, seen in self._groups.items()})

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Values of all slices."""
        seen = {s.slice.name: s for group in self._groups.values() for s in group}
        return {name: s.read(data, memory.action) for name, s in seen.items()}

    def sources(self) -> dict[str, str]:
        """Of all slices that are made of qpos, qvel and the last action."""
        return {s.slice.name: s.source for s in self._groups["policy"] if s.source is not None}

    def remember(self, key: Array, data: Data) -> LastAction:
        """No action so far."""
        return LastAction(jnp.zeros(self.model.nu))

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> LastAction:
        """File the action."""
        return LastAction(action)

    # -- rewards -------------------------------------------------------------------------------------------------

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """The terms that have a weight: `forward` in m/s along x, `alive` 1 until a fall, squares of the action."""
        terms = {
            "forward": lambda: (data.qpos[0] - before.qpos[0]) / self.dt,
            "alive": lambda: 1.0 - self.fallen(data).astype(jnp.float32),
            "control": lambda: jnp.sum(jnp.square(action)),
            "action_rate": lambda: jnp.sum(jnp.square(action - memory.action)),
        }
        return {name: term() for name, term in terms.items() if name in self.weights}

    def fallen(self, data: Data) -> Array:
        """Whether a free root tilts too far or lies too low, [] bool; never without one."""
        if not self.slices.free:
            return jnp.zeros((), bool)
        return super().fallen(data)

    def terminated(self, data: Data, memory: Any) -> Array:
        """A fall, where that ends the episode."""
        return self.fallen(data) & self.terminate
