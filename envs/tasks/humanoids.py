"""Unitree's humanoids G1 (29 motors) and H1 (19 motors)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from repertoire.envs.tasks.legged import Legged

#: Per second: D3's terms with the weights that SkillBlender gives to motors as strong as these. `alive` is ours: a fall
#: ends the episode, and with costs alone the first fall would be the best.
STYLE = {
    "alive": 1.0,
    "torque": -1e-5,
    "joint_velocity": -5e-4,
    "joint_acceleration": -1e-7,
    "action_rate": -0.2,
    "contacts": -1.0,
    "height": -10.0,
    "orientation": -5.0,
}
#: Joints above the hips have one of these in their names.
UPPER = ("torso", "waist", "shoulder", "elbow", "wrist")


@dataclass(frozen=True)
class Humanoid(Legged):
    """A humanoid for skill discovery; a fall ends the episode."""

    episode_length: int = 500
    weights: Mapping[str, float] = field(default_factory=lambda: dict(STYLE))
    reset_noise: float = 0.05
    terminate: bool = True

    feet: ClassVar[tuple[str, ...]] = ("left_foot", "right_foot")
    hands: ClassVar[tuple[str, ...]] = ("left_hand", "right_hand")  # sites
    trunk: ClassVar[str] = "torso_link"
    pitch_joints: ClassVar[tuple[str, ...]] = ()  # of a leg, without its side: hip, knee, ankle
    reach: ClassVar[float] = 0.0  # m: how far from their places hands and feet are sent
    squat: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)  # m: mean, lowest and highest height of the root

    @functools.cached_property
    def joint_names(self) -> list[str]:
        """Names of the driven joints, in the order of actions."""
        return [self.model.joint(i).name for i in range(1, 1 + self.model.nu)]

    @functools.cached_property
    def upper_joints(self) -> np.ndarray:
        """Places, among the driven joints, of those above the hips."""
        return np.asarray([i for i, name in enumerate(self.joint_names) if any(part in name for part in UPPER)])

    @functools.cached_property
    def leg_joints(self) -> np.ndarray:
        """Places [2, 3] of each leg's pitch joints: hip, knee, ankle; left first."""
        sides = [[f"{side}_{joint}_joint" for joint in self.pitch_joints] for side in ("left", "right")]
        return np.asarray([[self.joint_names.index(name) for name in names] for names in sides])


@dataclass(frozen=True)
class G1(Humanoid):
    """G1 with 29 motors, hands fixed."""

    name: ClassVar[str] = "g1"
    doc: ClassVar[str] = "Unitree G1 (29 motors) for skill discovery: 500 steps of 0.02 s, style terms, ends on a fall"
    xml: ClassVar[str] = "g1.xml"
    substeps: ClassVar[int] = 8
    preset: ClassVar[str] = "g1"
    stance: ClassVar[float] = 0.76
    fall_height_m: ClassVar[float] = 0.4
    pitch_joints: ClassVar[tuple[str, ...]] = ("hip_pitch", "knee", "ankle_pitch")
    reach: ClassVar[float] = 0.15
    squat: ClassVar[tuple[float, float, float]] = (0.728, 0.2, 0.8)


@dataclass(frozen=True)
class H1(Humanoid):
    """H1 with 19 motors."""

    name: ClassVar[str] = "h1"
    doc: ClassVar[str] = "Unitree H1 (19 motors) for skill discovery: 500 steps of 0.02 s, style terms, ends on a fall"
    xml: ClassVar[str] = "h1.xml"
    preset: ClassVar[str] = "h1"
    stance: ClassVar[float] = 1.0
    fall_height_m: ClassVar[float] = 0.5
    pitch_joints: ClassVar[tuple[str, ...]] = ("hip_pitch", "knee", "ankle")
    reach: ClassVar[float] = 0.25
    squat: ClassVar[tuple[float, float, float]] = (0.89, 0.2, 1.1)
