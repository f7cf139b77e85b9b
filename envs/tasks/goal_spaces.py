"""The goal spaces of SkillBlender (Kuang et al. 2025) for humanoids: reaching, squatting and stepping.

A goal space says what a target is, how far the robot is from it, and how targets are drawn; the fourth, walking, is in
`humanoid_walking`, and what all four share in `posture`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from repertoire.envs import rotations
from repertoire.envs.task import Marker, at_least
from repertoire.envs.tasks.pd_robot import PDMemory
from repertoire.envs.tasks.posture import REGULARISERS, Posture, closeness
from repertoire.envs.types import Array, Data, Slice, State

MARKER = (0.1, 0.8, 0.2, 0.6)


def in_balls(key: Array, count: int, radius: float) -> Array:
    """Points [count, 3], each uniform in a ball of `radius` around the origin."""
    direction_key, radius_key = jax.random.split(key)
    direction = jax.random.normal(direction_key, (count, 3))
    direction /= jnp.linalg.norm(direction, axis=1, keepdims=True)
    return radius * jax.random.uniform(radius_key, (count, 1)) ** (1 / 3) * direction


def _weights(**more: float) -> Mapping[str, float]:
    return field(default_factory=lambda: REGULARISERS | more)


@struct.dataclass
class TargetMemory(PDMemory):
    """The target, and what it is drawn around."""

    target: Array
    origin: Array


@dataclass(frozen=True)
class Target(Posture):
    """Mix-in: a target that is drawn anew every `hold` steps, and the term `goal` for being near it.

    Attributes:
      hold: control steps that a target stays: 8 s.
    """

    episode_length: int = 1200
    hold: int = 400

    reward_terms: ClassVar[tuple[str, ...]] = ("goal",)
    goal_slice: ClassVar[Slice] = Slice("", 0)  # what the policy is told: how far it is from the target

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self.name, 1, hold=self.hold)

    def origin(self, data: Data) -> Array:
        """What targets are drawn around, at the start of an episode."""
        return jnp.zeros(0)

    def draw(self, key: Array, origin: Array, previous: Array) -> Array:
        """A target."""
        raise NotImplementedError

    def error(self, data: Data, memory: TargetMemory) -> Array:
        """The goal slice: from where the robot is to the target."""
        raise NotImplementedError

    def distance(self, error: Array) -> Array:
        """What `goal` takes the mean absolute value of."""
        return error

    def extra_slices(self) -> tuple[Slice, ...]:
        """Adds the goal slice."""
        return (*super().extra_slices(), self.goal_slice)

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """The robot's values and the goal slice."""
        return {**super().observe(data, memory), self.goal_slice.name: self.error(data, memory)}

    def remember(self, key: Array, data: Data) -> TargetMemory:
        """First target."""
        key, target_key = jax.random.split(key)
        origin = self.origin(data)
        target = self.draw(target_key, origin, origin)
        return TargetMemory(**vars(super().remember(key, data)), target=target, origin=origin)

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> Any:
        """Replace a target that has held long enough."""
        key, target_key = jax.random.split(key)
        memory = super().advance(key, before, data, action, memory, t)
        new = self.draw(target_key, memory.origin, memory.target)
        return memory.replace(target=jnp.where(t % self.hold == 0, new, memory.target))

    def judged(self, before: Any, memory: Any) -> Any:
        """The target that was to be reached."""
        return super().judged(before, memory).replace(target=before.target)

    def rates(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Callable[[], Array]]:
        """Adds `goal`."""
        error = self.error(data, memory)
        return {
            **super().rates(before, data, action, memory),
            "goal": lambda: closeness(self.distance(error)),
        }

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `goal_error`, SkillBench's accuracy: mean absolute error per axis (m; of hands, quaternions too)."""
        error = jnp.mean(jnp.abs(self.distance(self.error(data, memory))))
        return {**super().measure(data, memory), "goal_error": error}


@dataclass(frozen=True)
class Reaching(Target):
    """Both hands to poses within `reach` of their places in the default pose, turned as there; in the pelvis' frame."""

    weights: Mapping[str, float] = _weights(goal=5.0)

    goal_slice: ClassVar[Slice] = Slice("hands_error", 14, "m, quaternion")

    def draw(self, key: Array, origin: Array, previous: Array) -> Array:
        """Positions [2, 3] in the pelvis' frame: uniform in a ball, on the hand's own side."""
        place = jnp.asarray(self._places[0]) + in_balls(key, 2, self.reach)
        side = jnp.asarray([1.0, -1.0])
        return place.at[:, 1].set(side * jnp.maximum(side * place[:, 1], 0.05))

    def error(self, data: Data, memory: TargetMemory) -> Array:
        """For each hand the way to its target [3], and the turn to it as a quaternion [4] with w >= 0."""
        places, turns = self._hands(data)
        wanted = jnp.asarray(self._places[1])
        turn = jax.vmap(rotations.product)(wanted, jax.vmap(rotations.inverse)(turns))
        turn = jnp.where(turn[:, :1] < 0, -turn, turn)
        return jnp.concatenate([memory.target - places, turn], axis=1).ravel()

    def distance(self, error: Array) -> Array:
        """Quaternions count by how far they are from no turn."""
        return error.reshape(2, 7) - jnp.asarray([0.0, 0, 0, 1, 0, 0, 0])

    def markers(self, state: State) -> list[Marker]:
        """The targets, as if the pelvis stood upright."""
        c, s = np.asarray(rotations.heading(jnp.asarray(state.data.qpos[3:7])))
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        spots = state.data.qpos[:3] + state.memory.target @ turn.T
        return [((float(x), float(y), float(z)), 0.04, MARKER) for x, y, z in spots]

    def _hands(self, data: Data) -> tuple[Array, Array]:
        """Positions [2, 3] and quaternions [2, 4] of the hands in the pelvis' frame."""
        assert data.xpos is not None and data.xquat is not None and data.site_xpos is not None
        sites = np.asarray([self.model.site(name).id for name in self.hands])
        bodies = self.model.site_bodyid[sites]
        pelvis, frame = data.xpos[1], data.xquat[1]
        places = jax.vmap(lambda x: rotations.unrotate(frame, x - pelvis))(data.site_xpos[sites])
        turns = jax.vmap(lambda q: rotations.product(rotations.inverse(frame), q))(data.xquat[bodies])
        return places, turns

    @functools.cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """`_hands` of the default pose."""
        with jax.ensure_compile_time_eval():
            names = ("qpos", "qvel", "xpos", "xquat", "site_xpos")
            fields: dict[str, Any] = {name: jnp.asarray(getattr(self.home, name)) for name in names}
            places, turns = self._hands(Data(time=jnp.zeros(()), backend=None, **fields))
            return np.asarray(places), np.asarray(turns)


@dataclass(frozen=True)
class Squatting(Target):
    """The root to a height, m."""

    weights: Mapping[str, float] = _weights(goal=5.0, upper_posture=1.0)

    goal_slice: ClassVar[Slice] = Slice("height_error", 1, "m")
    fall_height_m: ClassVar[float] = 0.15

    def draw(self, key: Array, origin: Array, previous: Array) -> Array:
        """Normal with standard deviation 0.2 m around the usual height, clipped."""
        mean, low, high = self.squat
        return jnp.clip(mean + 0.2 * jax.random.normal(key, (1,)), low, high)

    def error(self, data: Data, memory: TargetMemory) -> Array:
        """Height that is missing."""
        return memory.target - data.qpos[2:3]


@dataclass(frozen=True)
class Stepping(Target):
    """Both feet to places on the ground within `reach` of where they stood; one foot's place changes at a time."""

    weights: Mapping[str, float] = _weights(goal=5.0)

    goal_slice: ClassVar[Slice] = Slice("feet_error", 4, "m")

    def origin(self, data: Data) -> Array:
        """Where the feet stand, [2, 2] in the world."""
        assert data.site_xpos is not None
        return data.site_xpos[self.foot_sites, :2]

    def draw(self, key: Array, origin: Array, previous: Array) -> Array:
        """A new place for one foot, uniform in a disc around its origin; the other keeps its own."""
        foot_key, angle_key, radius_key = jax.random.split(key, 3)
        foot = jax.random.randint(foot_key, (), 0, 2)
        angle = jax.random.uniform(angle_key, (), maxval=2 * jnp.pi)
        radius = self.reach * jnp.sqrt(jax.random.uniform(radius_key))
        return previous.at[foot].set(origin[foot] + radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)]))

    def error(self, data: Data, memory: TargetMemory) -> Array:
        """For each foot the way to its place, forward and left of the heading."""
        assert data.site_xpos is not None
        c, s = rotations.heading(data.qpos[3:7])
        away = memory.target - data.site_xpos[self.foot_sites, :2]
        return (away @ jnp.stack([jnp.stack([c, -s]), jnp.stack([s, c])])).ravel()

    def markers(self, state: State) -> list[Marker]:
        """The places."""
        return [((float(x), float(y), 0.0), 0.05, MARKER) for x, y in state.memory.target]
