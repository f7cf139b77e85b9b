"""Ant: the discovery variant (no early end, 200 steps) of Gymnasium's quadruped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from repertoire.envs.tasks.gym_robot import GymRobot


@dataclass(frozen=True)
class Ant(GymRobot):
    """Ant without reward and without early termination: the arena of skill discovery (0.05 s per step)."""

    name: ClassVar[str] = "ant"
    doc: ClassVar[str] = "Gymnasium's Ant for skill discovery: 200 steps of 0.05 s, never ends early"
    xml: ClassVar[str] = "ant.xml"
    substeps: ClassVar[int] = 5
