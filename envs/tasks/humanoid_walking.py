"""Walking, the first of SkillBlender's goal spaces (Kuang et al. 2025): velocity commands and a reference gait."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from repertoire.envs import symmetry
from repertoire.envs.symmetry import Mirror
from repertoire.envs.tasks.posture import PERIOD, REGULARISERS, Posture, check_period, closeness, gait_phase
from repertoire.envs.tasks.velocity import Velocity, VelocityMemory
from repertoire.envs.types import Array, Data, Slice

#: SkillBlender's, per second.
WALKING = REGULARISERS | {
    "gait": 1.6,
    "clearance": 2.0,
    "schedule": 2.4,
    "air_time": 1.0,
    "tracking_linear": 2.4,
    "tracking_yaw": 2.2,
}
#: How far the hip of a swinging leg bends, rad; the knee twice as far, the ankle back by as much.
SWING = 0.25
#: Height at which a foot swings, and how far from it earns 1 / e, m.
CLEARANCE, CLEARANCE_WIDTH = 0.08, 0.02


@struct.dataclass
class WalkingMemory(VelocityMemory):
    """And the clock of the gait."""

    clock: Array  # [] s


@dataclass(frozen=True)
class Walking(Posture, Velocity):
    """Mix-in for a `Humanoid`: velocity commands, with terms for a gait of a given period.

    Attributes:
      period: of the gait, s.
    """

    episode_length: int = 1200
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WALKING))
    vx: tuple[float, float] = (-1.0, 2.0)
    vy: tuple[float, float] = (-1.0, 1.0)
    hold: int = 400
    period: float = PERIOD

    short_step: ClassVar[float] = 0.0
    reward_terms: ClassVar[tuple[str, ...]] = ("gait", "clearance", "schedule")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_period(self.name, self.period)

    def extra_slices(self) -> tuple[Slice, ...]:
        """Adds `phase`: sine and cosine of the gait's clock."""
        return (*super().extra_slices(), Slice("phase", 2))

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """The walker's values and `phase`."""
        return {**super().observe(data, memory), "phase": gait_phase(memory.clock, self.period)}

    def mirror(self) -> Mirror | None:
        """The walker's; the legs are half a period apart."""
        base = super().mirror()
        return base and dataclasses.replace(base, slices={**base.slices, "phase": symmetry.signs(-1, -1)})

    def sources(self) -> dict[str, str]:
        """The clock starts with the episode."""
        return {**super().sources(), "phase": f"clock({self.period:g})"}

    def remember(self, key: Array, data: Data) -> WalkingMemory:
        """The clock starts."""
        return WalkingMemory(**vars(super().remember(key, data)), clock=jnp.zeros(()))

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> Any:
        """The clock goes on."""
        return super().advance(key, before, data, action, memory, t).replace(clock=t * self.dt)

    def rates(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Callable[[], Array]]:
        """Adds `gait` (joints as a stepping leg has them), `clearance` of swinging feet, `schedule` of contacts."""
        assert data.site_xpos is not None
        swing = jnp.sin(
            2 * jnp.pi * (memory.clock / self.period + jnp.asarray([0.0, 0.5]))
        )  # of each leg; > 0: in the air
        bend = SWING * jnp.maximum(swing, 0.0)[:, None] * jnp.asarray([-1.0, 2.0, -1.0])
        joints = self.angles(data)[self.leg_joints] - self.joints[self.leg_joints]
        lift = data.site_xpos[self.foot_sites, 2] - CLEARANCE
        return {
            **super().rates(before, data, action, memory),
            "gait": lambda: closeness(joints - bend),
            "clearance": lambda: jnp.mean((swing > 0) * jnp.exp(-jnp.abs(lift) / CLEARANCE_WIDTH)),
            "schedule": lambda: jnp.mean((swing > 0) != self.feet_down(data)),
        }
