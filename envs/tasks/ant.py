"""Ant: the discovery variant (no early end, 200 steps) of Gymnasium's quadruped."""

from __future__ import annotations

from collections.abc import Mapping
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
    #: Flat PPO on ant_forward, paid for speed alone, after 3 M env steps a seed: best of three, mean of 64 episodes.
    ceiling_m: ClassVar[Mapping[int, float]] = {200: 28.5}
