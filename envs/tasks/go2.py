"""Unitree Go2: a quadruped with twelve motors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from repertoire.envs.tasks.legged import Legged


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
    fallen_height: ClassVar[float] = 0.12
