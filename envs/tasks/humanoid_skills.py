"""SkillBlender's four goal spaces on each humanoid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from repertoire.envs.tasks.goal_spaces import Reaching, Squatting, Stepping
from repertoire.envs.tasks.humanoid_walking import Walking
from repertoire.envs.tasks.humanoids import G1, H1


@dataclass(frozen=True)
class G1Walking(Walking, G1):
    """G1 walks."""

    name: ClassVar[str] = "g1_walking"
    doc: ClassVar[str] = "Unitree G1: track commands of velocity with a gait of 0.64 s (SkillBlender's walking)"


@dataclass(frozen=True)
class G1Reaching(Reaching, G1):
    """G1 reaches."""

    name: ClassVar[str] = "g1_reaching"
    doc: ClassVar[str] = "Unitree G1: both hands to poses within 0.15 m (SkillBlender's reaching)"


@dataclass(frozen=True)
class G1Squatting(Squatting, G1):
    """G1 squats."""

    name: ClassVar[str] = "g1_squatting"
    doc: ClassVar[str] = "Unitree G1: the pelvis to a height between 0.2 and 0.8 m (SkillBlender's squatting)"


@dataclass(frozen=True)
class G1Stepping(Stepping, G1):
    """G1 steps."""

    name: ClassVar[str] = "g1_stepping"
    doc: ClassVar[str] = "Unitree G1: the feet to places within 0.15 m (SkillBlender's stepping)"


@dataclass(frozen=True)
class H1Walking(Walking, H1):
    """H1 walks."""

    name: ClassVar[str] = "h1_walking"
    doc: ClassVar[str] = "Unitree H1: track commands of velocity with a gait of 0.64 s (SkillBlender's walking)"


@dataclass(frozen=True)
class H1Reaching(Reaching, H1):
    """H1 reaches."""

    name: ClassVar[str] = "h1_reaching"
    doc: ClassVar[str] = "Unitree H1: both hands to poses within 0.25 m (SkillBlender's reaching)"


@dataclass(frozen=True)
class H1Squatting(Squatting, H1):
    """H1 squats."""

    name: ClassVar[str] = "h1_squatting"
    doc: ClassVar[str] = "Unitree H1: the pelvis to a height between 0.2 and 1.1 m (SkillBlender's squatting)"


@dataclass(frozen=True)
class H1Stepping(Stepping, H1):
    """H1 steps."""

    name: ClassVar[str] = "h1_stepping"
    doc: ClassVar[str] = "Unitree H1: the feet to places within 0.25 m (SkillBlender's stepping)"
