"""Run forward: the reward terms, weights, terminations and 1000 steps of Gymnasium's v5 tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp

from repertoire.envs.symmetry import Mirror
from repertoire.envs.task import interval
from repertoire.envs.tasks.ant import Ant
from repertoire.envs.tasks.robots import HalfCheetah, Hopper, Humanoid, Walker2d
from repertoire.envs.types import Array, Data

if TYPE_CHECKING:
    from repertoire.envs.tasks.gym_robot import GymRobot as _Robot
else:
    _Robot = object  # a mix-in: the robot comes with the subclass

_INF = float("inf")


@dataclass(frozen=True)
class Forward(_Robot):
    """Mix-in for a `GymRobot`: terms `forward` (m/s along `progress`), `alive`, `ctrl` and, where asked for, `contact`.

    With `dynamics=reference` all terms equal Gymnasium's but `contact`: contact wrenches are sensed at the beginning
    of the last physics step, whereas Gymnasium takes them from the last stage of Runge-Kutta. With Euler these agree.

    Attributes:
      episode_length: Gymnasium's time limit.
      terminate: end the episode when the robot is no longer healthy.
    """

    episode_length: int = 1000
    terminate: bool = True

    height: ClassVar[int] = 1  # index of the root height in qpos
    healthy_height: ClassVar[tuple[float, float]] = (-_INF, _INF)  # m
    healthy_pitch: ClassVar[tuple[float, float] | None] = None  # rad, the qpos entry after the height
    healthy_state: ClassVar[float] = _INF  # bound on |entry| of the state after (x, z)

    def progress(self, data: Data) -> Array:
        """The x coordinate whose change is rewarded, m."""
        return data.qpos[0]

    def healthy(self, data: Data) -> Array:
        """Whether height, pitch and state lie strictly inside their ranges; false for NaN."""
        checks = [_inside(data.qpos[self.height], self.healthy_height)]
        if self.healthy_pitch is not None:
            checks.append(_inside(data.qpos[self.height + 1], self.healthy_pitch))
        if self.healthy_state < _INF:
            state = jnp.concatenate([data.qpos[2:], data.qvel])
            checks.append((jnp.abs(state) < self.healthy_state).all())
        return jnp.stack(checks).all()

    def terms(self, before: Data, data: Data, action: Array, memory: object) -> dict[str, Array]:
        """Terms of the step; costs are positive here and have negative weights."""
        dt = self.substeps * self.model.opt.timestep
        ctrl = self.control(action, before, memory)
        terms = {
            "forward": (self.progress(data) - self.progress(before)) / dt,
            "alive": self.healthy(data).astype(jnp.float32),
            "ctrl": jnp.sum(jnp.square(ctrl)),
            "contact": self.contact(data),
        }
        return {name: terms[name] for name in self.weights}

    def contact(self, data: Data) -> Array:
        """Contact cost before its weight."""
        return jnp.zeros(())

    def terminated(self, data: Data, memory: object) -> Array:
        """Unhealthy, where that ends the episode."""
        return ~self.healthy(data) & self.terminate


def _inside(x: Array, bounds: tuple[float, float]) -> Array:
    return (x > bounds[0]) & (x < bounds[1])


def _weights(**weights: float) -> Mapping[str, float]:
    return field(default_factory=lambda: dict(weights))


@dataclass(frozen=True)
class HalfCheetahForward(Forward, HalfCheetah):
    """Never ends early: it has no notion of health."""

    weights: Mapping[str, float] = _weights(forward=1.0, ctrl=-0.1)

    name: ClassVar[str] = "half_cheetah_forward"
    doc: ClassVar[str] = "HalfCheetah-v5: run along x"


@dataclass(frozen=True)
class HopperForward(Forward, Hopper):
    """Ends when the hopper tips over, sinks or its state leaves +-100."""

    weights: Mapping[str, float] = _weights(forward=1.0, alive=1.0, ctrl=-1e-3)

    name: ClassVar[str] = "hopper_forward"
    doc: ClassVar[str] = "Hopper-v5: hop along x without falling"
    healthy_height: ClassVar[tuple[float, float]] = (Hopper.fall_height_m, _INF)
    healthy_pitch: ClassVar[tuple[float, float] | None] = (-0.2, 0.2)
    healthy_state: ClassVar[float] = 100.0


@dataclass(frozen=True)
class Walker2dForward(Forward, Walker2d):
    """Ends when the walker tips over or sinks."""

    weights: Mapping[str, float] = _weights(forward=1.0, alive=1.0, ctrl=-1e-3)

    name: ClassVar[str] = "walker2d_forward"
    doc: ClassVar[str] = "Walker2d-v5: walk along x without falling"
    healthy_height: ClassVar[tuple[float, float]] = (Walker2d.fall_height_m, 2.0)
    healthy_pitch: ClassVar[tuple[float, float] | None] = (-1.0, 1.0)


@dataclass(frozen=True)
class AntForward(Forward, Ant):
    """Contact cost: squared contact wrenches, each component clipped to +-1 (N m, N).

    Attributes:
      direction: where `forward` points, degrees from x to y. The robot does not observe it: one policy, one direction.
    """

    direction: float = 0.0
    weights: Mapping[str, float] = _weights(forward=1.0, alive=1.0, ctrl=-0.5, contact=-5e-4)

    name: ClassVar[str] = "ant_forward"
    doc: ClassVar[str] = "Ant-v5: run along x without falling or jumping"
    fields: ClassVar[tuple[str, ...]] = ("xpos", "cfrc_ext")
    height: ClassVar[int] = 2
    healthy_height: ClassVar[tuple[float, float]] = (0.2, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        interval(self.name, direction=(self.direction, self.direction))

    def mirror(self) -> Mirror | None:
        """Left and right, where the way ahead is the same in the mirror."""
        return super().mirror() if self.direction % 180 == 0 else None

    def progress(self, data: Data) -> Array:
        """Position of the torso frame along `direction`."""
        assert data.xpos is not None
        angle = math.radians(self.direction)
        return math.cos(angle) * data.xpos[1, 0] + math.sin(angle) * data.xpos[1, 1]

    def contact(self, data: Data) -> Array:
        """Sum of squares of the clipped wrenches."""
        assert data.cfrc_ext is not None
        return jnp.sum(jnp.square(jnp.clip(data.cfrc_ext, -1.0, 1.0)))


@dataclass(frozen=True)
class HumanoidForward(Forward, Humanoid):
    """Rewards the centre of mass; the weighted contact cost is at most 10, as in Gymnasium."""

    weights: Mapping[str, float] = _weights(forward=1.25, alive=5.0, ctrl=-0.1, contact=-5e-7)

    name: ClassVar[str] = "humanoid_forward"
    doc: ClassVar[str] = "Humanoid-v5: walk along x without falling"
    fields: ClassVar[tuple[str, ...]] = ("subtree_com", "cfrc_ext")
    height: ClassVar[int] = 2
    healthy_height: ClassVar[tuple[float, float]] = (Humanoid.fall_height_m, 2.0)
    contact_limit: ClassVar[float] = 10.0 / 5e-7

    def progress(self, data: Data) -> Array:
        """x of the centre of mass."""
        assert data.subtree_com is not None
        return data.subtree_com[0, 0]

    def contact(self, data: Data) -> Array:
        """Sum of squared wrenches, limited."""
        assert data.cfrc_ext is not None
        return jnp.minimum(jnp.sum(jnp.square(data.cfrc_ext)), self.contact_limit)
