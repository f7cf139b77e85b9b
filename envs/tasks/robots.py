"""The discovery variants: no reward, no early end, 200 control steps, world position for objectives only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from repertoire.envs.tasks.gym_robot import GymRobot


@dataclass(frozen=True)
class HalfCheetah(GymRobot):
    """Planar two-legged runner, 0.05 s per step; `position` is x."""

    name: ClassVar[str] = "half_cheetah"
    doc: ClassVar[str] = "Gymnasium's HalfCheetah for skill discovery: 200 steps of 0.05 s, never ends early"
    xml: ClassVar[str] = "half_cheetah.xml"
    substeps: ClassVar[int] = 5
    root: ClassVar[int] = 1
    #: Flat PPO on half_cheetah_forward after 1.84 M env steps a seed, best of three seeds, mean of 64 episodes.
    ceiling_m: ClassVar[Mapping[int, float]] = {200: 67.6}


@dataclass(frozen=True)
class Hopper(GymRobot):
    """Planar one-legged hopper, 0.008 s per step; `position` is x."""

    reset_noise: float = 5e-3

    name: ClassVar[str] = "hopper"
    doc: ClassVar[str] = "Gymnasium's Hopper for skill discovery: 200 steps of 0.008 s, never ends early"
    xml: ClassVar[str] = "hopper.xml"
    substeps: ClassVar[int] = 4
    root: ClassVar[int] = 1
    gaussian_qvel: ClassVar[bool] = False
    #: PPO paid for speed alone, 3 M env steps a seed, best of three seeds, mean of 64 episodes; likewise below.
    ceiling_m: ClassVar[Mapping[int, float]] = {200: 3.31}
    fall_height_m: ClassVar[float] = 0.7  # Hopper-v5's bound of health; likewise below


@dataclass(frozen=True)
class Walker2d(Hopper):
    """Planar biped, 0.008 s per step; `position` is x. Starts as the hopper does."""

    name: ClassVar[str] = "walker2d"
    doc: ClassVar[str] = "Gymnasium's Walker2d for skill discovery: 200 steps of 0.008 s, never ends early"
    xml: ClassVar[str] = "walker2d_v5.xml"
    ceiling_m: ClassVar[Mapping[int, float]] = {200: 4.48}
    fall_height_m: ClassVar[float] = 0.8


@dataclass(frozen=True)
class Humanoid(GymRobot):
    """Humanoid with 17 torques, 0.015 s per step.

    `policy` sees posture and rates. Gymnasium adds body inertias and velocities about the centre of mass, joint
    torques and contact wrenches (348 values in all): functions of state and action that no robot measures, so they
    are left out.
    """

    reset_noise: float = 1e-2

    name: ClassVar[str] = "humanoid"
    doc: ClassVar[str] = "Gymnasium's Humanoid for skill discovery: 200 steps of 0.015 s, never ends early"
    xml: ClassVar[str] = "humanoid.xml"
    substeps: ClassVar[int] = 5
    gaussian_qvel: ClassVar[bool] = False
    fall_height_m: ClassVar[float] = 1.0
