"""Constants of DAgger (Ross, Gordon, Bagnell 2011) on an expert in stages; `imitation` learns by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from repertoire.errors import UserError, at_least_one, positive


@dataclass(frozen=True)
class DAggerConfig:
    """How a policy is learned for each stage.

    Attributes:
      envs: parallel worlds. rollout: steps per world and update. steps: gradient steps per update.
      batch: rows of each stage per gradient step. capacity: rows that are kept of each stage, the newest.
      lr: Adam step size, which falls along a half cosine to lr_final times itself.
      warmup: share of the training in which the expert alone acts (round 0); the normaliser is of what was seen then.
      decay: share of it at which the expert's part has fallen to `beta`, in a straight line.
      beta: share of the stages that the expert leads in the end. Who leads is drawn as a stage begins.
      patience: control steps after which the expert takes over a stage that the learner leads; at most half an episode.
      noise: standard deviation of what is added to actions as they are executed (as in DART, Laskey et al. 2017).
      linger: control steps that an episode goes on after the last stage.
      hidden, activation: networks of the policies.
    """

    envs: int = 64
    rollout: int = 32
    steps: int = 64
    batch: int = 256
    capacity: int = 65536
    lr: float = 1e-3
    lr_final: float = 0.02
    warmup: float = 0.1
    decay: float = 0.5
    beta: float = 0.1
    patience: int = 150
    noise: float = 0.1
    linger: int = 20
    hidden: tuple[int, ...] = (256, 128)
    activation: str = "swish"

    label: ClassVar[str] = "DAgger"

    def __post_init__(self) -> None:
        at_least_one(self, "dagger", "envs", "rollout", "steps", "batch", "patience", "linger", "hidden")
        positive(self, "dagger", "lr", "lr_final")
        if self.envs * self.rollout > self.capacity:
            raise UserError(
                f"dagger.capacity must be at least dagger.envs * dagger.rollout = {self.envs * self.rollout}, got "
                f"{self.capacity}"
            )
        if not 0 < self.warmup <= self.decay <= 1:
            raise UserError(f"dagger needs 0 < warmup <= decay <= 1, got {self.warmup} and {self.decay}")
        if not (0 <= self.beta <= 1 and self.noise >= 0):
            raise UserError(f"dagger.beta must lie in [0, 1] and dagger.noise from 0 on, got {self.beta}, {self.noise}")
