"""What the skills of humanoids after SkillBlender (Kuang et al. 2025) share: a posture, its weights, a gait's clock.

Positive terms are exp(-4 * mean absolute error), that of the feet's distance is sharper, and all weights are per
second. SkillBlender clips the total at 0; here it may be negative.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.envs import rotations
from repertoire.envs.types import Array, Data
from repertoire.errors import UserError

if TYPE_CHECKING:
    from repertoire.envs.tasks.humanoids import Humanoid as _Humanoid
else:
    _Humanoid = object  # a mix-in: the robot comes with the subclass

#: SkillBlender's weights of what its skills share.
REGULARISERS = {
    "posture": 0.5,
    "upper_posture": 0.5,
    "upright": 1.0,
    "feet_distance": 0.5,
    "torque": -1e-5,
    "joint_velocity": -5e-4,
    "joint_acceleration": -1e-7,
    "action_rate": -0.1,
}
#: Of the gait of walking skills, s.
PERIOD = 0.64
#: Feet should be apart by this much of what they are in the default pose.
APART = (0.6, 1.4)


def closeness(error: Array, sharpness: float = 4.0) -> Array:
    """exp(-sharpness * mean absolute error), []."""
    return jnp.exp(-sharpness * jnp.mean(jnp.abs(error)))


def check_period(env: str, period: float) -> None:
    """`UserError` unless the period of a gait's clock, s, is positive: the phase would be no number."""
    if not 0.0 < period < float("inf"):
        raise UserError(f"env {env}: period must be positive, got {period}")


def gait_phase(time: Array, period: float) -> Array:
    """Sine and cosine [2] of the gait's clock after `time` s of an episode."""
    angle = 2 * jnp.pi * time / period
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)])


@dataclass(frozen=True)
class Posture(_Humanoid):
    """Mix-in for a `Humanoid`: the terms that all its skills share."""

    fields: ClassVar[tuple[str, ...]] = ("sensordata", "actuator_force", "xpos", "xquat", "site_xpos")
    reward_terms: ClassVar[tuple[str, ...]] = ("posture", "upper_posture", "upright", "feet_distance")

    @functools.cached_property
    def home(self) -> mujoco.MjData:
        """Kinematics of the default pose. Host side."""
        data = mujoco.MjData(self.model)
        data.qpos[:] = self.default_pose()
        mujoco.mj_kinematics(self.model, data)
        return data

    def rates(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Callable[[], Array]]:
        """Adds `posture`, `upper_posture`, `upright` and `feet_distance`."""
        assert data.site_xpos is not None
        offsets, tilt = self.angles(data) - self.joints, rotations.gravity(data.qpos[3:7])[:2]
        left, right = (data.site_xpos[i, :2] for i in self.foot_sites)
        apart, usual = jnp.linalg.norm(left - right), self._feet_apart
        beyond = jnp.maximum(APART[0] * usual - apart, 0.0) + jnp.maximum(apart - APART[1] * usual, 0.0)
        return {
            **super().rates(before, data, action, memory),
            "posture": lambda: closeness(offsets),
            "upper_posture": lambda: closeness(offsets[self.upper_joints]),
            "upright": lambda: closeness(tilt),
            "feet_distance": lambda: closeness(beyond, 20.0),
        }

    @functools.cached_property
    def _feet_apart(self) -> float:
        left, right = self.home.site_xpos[self.foot_sites, :2]
        return float(np.linalg.norm(left - right))
