"""Unitree Go2: a quadruped with twelve motors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from repertoire.envs.tasks.legged import Legged
from repertoire.envs.tasks.velocity import Velocity


@dataclass(frozen=True)
class Go2(Legged):
    """Go2 for skill discovery: never ends early unless told to; style terms are its reward."""

    episode_length: int = 500

    name: ClassVar[str] = "go2"
    doc: ClassVar[str] = "Unitree Go2 for skill discovery: 500 steps of 0.02 s, position targets, style terms"
    xml: ClassVar[str] = "go2.xml"
    preset: ClassVar[str] = "go2"
    trunk: ClassVar[str] = "base"
    feet: ClassVar[tuple[str, ...]] = ("FR_foot", "FL_foot", "RR_foot", "RL_foot")
    stance: ClassVar[float] = 0.27
    fall_height_m: ClassVar[float] = 0.12


@dataclass(frozen=True)
class Go2Velocity(Velocity, Go2):
    """Go2 under a joystick: commands of velocity, a new one every 5 s."""

    episode_length: int = 1000

    pairs: ClassVar[tuple[tuple[int, int], ...]] = ((0, 3), (1, 2))
    name: ClassVar[str] = "go2_velocity"
    doc: ClassVar[str] = "Unitree Go2: track commands of velocity (forward, left, turning), 1000 steps of 0.02 s"
