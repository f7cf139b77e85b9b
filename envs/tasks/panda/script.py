"""Scripted experts for the Panda: rules in stages that solve its tasks in `ee_delta` control.

A rule looks at the state and says where the hand should go and how open it should be; what holds now decides, not what
was done before (a teleo-reactive program, Nilsson 1994). All that a rule reads, `policy` observes: a policy without
memory can learn it, and what went wrong is done again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from repertoire.envs.expert import Expert
from repertoire.envs.tasks.panda import control, furniture
from repertoire.envs.types import Array, Data, State
from repertoire.errors import UserError

SHUT, AJAR, OPEN = 0.0, 0.025, 0.036  # m per finger; any wider, a finger lands on the handle beside the cube
HIGH, SLOPE, BELOW = 0.18, 6.0, 0.05  # m: height to travel at; rise per m aside; m below the slope where ways end
HELD, FREE = 0.026, 0.032  # m per finger: fingers around a cube hold it below this, and let it go beyond
BAR_HELD, BAR_FREE = 0.013, 0.018  # the same for the handle
SETTLE = 8  # control steps for which a stage goes on after its end


class Move(NamedTuple):
    """Where the hand should go [3] (m), how open it should be [] (m per finger), and whether the stage is over []."""

    position: Array
    opening: Array
    done: Array


#: (task, data, memory) -> what to do now.
Rule = Callable[[Any, Data, Any], Move]


@struct.dataclass
class Progress:
    """Which stage, and for how many steps its end has held."""

    stage: Array  # [] int32
    settled: Array  # [] int32


def begin() -> Progress:
    """At the first stage."""
    zero = jnp.zeros((), jnp.int32)
    return Progress(stage=zero, settled=zero)


def expert(task: Any, **rules: Rule) -> Expert:
    """The expert of `task` whose stages are `rules`. Raises `UserError` unless the action moves the hand alone."""
    if task.control_mode != "ee_delta":
        raise UserError(f"scripts drive env.control_mode=ee_delta, env {task.name} has {task.control_mode}")
    count = len(rules)

    def act(state: State, progress: Progress) -> tuple[Progress, Array, Array]:
        moves = [rule(task, state.data, state.memory) for rule in rules.values()]
        position, opening, done = (jnp.stack([jnp.asarray(x) for x in field]) for field in zip(*moves))
        now = jnp.minimum(progress.stage, count - 1)
        settled = jnp.where(done[now], progress.settled + 1, 0)
        over = (settled > SETTLE) & (progress.stage < count)
        stage = progress.stage + over
        now, targets = jnp.minimum(stage, count - 1), state.memory.targets
        step = jnp.append(position[now] - targets.position, opening[now] - targets.opening)
        action = jnp.clip(step / np.array(control.MODES["ee_delta"].steps, np.float32), -1.0, 1.0)
        return Progress(stage, jnp.where(over, 0, settled)), stage, action

    return Expert(tuple(rules), begin, act)


# -- rules ----------------------------------------------------------------------------------------------------------


def reach(task: Any, data: Data, memory: Any) -> Move:
    """The hand to the goal (`PandaReach`)."""
    off = jnp.linalg.norm(memory.goal - task.hand(data))
    return Move(memory.goal, jnp.float32(OPEN), off < 0.01)


def take(task: Any, data: Data, memory: Any) -> Move:
    """Take the cube from above and lift it (`PandaPickPlace`, `PandaStack`)."""
    cube = task.cube(data)
    up = _held(task, data) & (cube[2] > HIGH - 0.03)
    return Move(*_bring(task, data, _high(cube)), up)


def bring(task: Any, data: Data, memory: Any) -> Move:
    """Hold the cube where it should be (`PandaPickPlace`)."""
    goal = task.target(data, memory)
    return Move(*_bring(task, data, goal), jnp.linalg.norm(goal - task.cube(data)) < 0.02)


def stack(task: Any, data: Data, memory: Any) -> Move:
    """Put the cube where it should be and let go (`PandaStack`)."""
    goal = task.target(data, memory)
    return _put(task, data, goal, _beside(task.cube(data) - goal, (0.015, 0.015, 0.01)))


def rearrange(index: int) -> Rule:
    """Put cube number `index` at its goal and let go (`PandaRearrange`)."""

    def rule(task: Any, data: Data, memory: Any) -> Move:
        there = _beside(task.cube(data, index) - memory.goals[index], (0.02, 0.02, 0.01))
        return _put(task, data, memory.goals[index], there, index)

    return rule


def press(task: Any, data: Data, memory: Any) -> Move:
    """Press the button, then rise (`PandaScene`)."""
    hand = task.hand(data)
    down = hand + _way(hand, jnp.array(furniture.BUTTON).at[2].add(-0.015), (0.01, 0.01))
    position = jnp.where(memory.unlocked, _high(hand), down)
    return Move(position, jnp.float32(SHUT), memory.unlocked & _risen(hand))


def open_drawer(task: Any, data: Data, memory: Any) -> Move:
    """Pull the drawer open by its handle, let go and rise (`PandaDrawer`, `PandaScene`)."""
    hand, handle, opening = task.hand(data), task.handle(data), task.hand_opening(data)
    around = _grip(hand - handle, (0.03, 0.012, 0.01), opening < BAR_FREE)
    opened = task.drawer(data) > furniture.TRAVEL - 0.01
    pulled = handle.at[1].add(task.drawer(data) - furniture.TRAVEL - 0.02)
    there = jnp.where(opening < BAR_HELD, pulled, handle)
    coming = jnp.where(around, there, hand + _way(hand, handle, (0.02, 0.004)))
    going = jnp.where(opening > BAR_FREE, _high(hand), hand)
    return Move(
        jnp.where(opened, going, coming), jnp.where(around & ~opened, SHUT, AJAR), opened & _risen(hand)
    )  # fmt: skip


def place(task: Any, data: Data, memory: Any) -> Move:
    """Put the cube into the open drawer and let go (`PandaScene`)."""
    goal = task.drawer_middle(data).at[2].set(furniture.WALL)
    return _put(task, data, goal, _beside(task.cube(data) - goal, (0.04, 0.04, 0.015)) | task.inside(data))


def shut_drawer(task: Any, data: Data, memory: Any) -> Move:
    """Push the drawer shut by its handle (`PandaDrawer`, `PandaScene`)."""
    hand, handle = task.hand(data), task.handle(data)
    front = handle.at[1].add(-0.04)
    before = _within(hand - front, (0.04, 0.032, 0.025))
    pushed = handle.at[1].add(task.drawer(data) + 0.02)
    position = jnp.where(before, pushed, hand + _way(hand, front, (0.02, 0.01)))
    return Move(position, jnp.float32(SHUT), task.drawer(data) < 0.005)


def move_drawer(task: Any, data: Data, memory: Any) -> Move:
    """Open it or shut it, as the goal says (`PandaDrawer`)."""
    pairs = zip(open_drawer(task, data, memory), shut_drawer(task, data, memory))
    return Move(*(jnp.where(memory.goal > furniture.TRAVEL / 2, opened, shut) for opened, shut in pairs))


# -- their parts ----------------------------------------------------------------------------------------------------


def _bring(task: Any, data: Data, goal: Array, index: int = 0) -> tuple[Array, Array]:
    """(position of the hand, opening) that take a cube, from wherever it lies, to `goal` [3]."""
    cube, hand, around = task.cube(data, index), task.hand(data), _around(task, data, index)
    coming = jnp.where(around, cube, hand + _way(hand, cube, (0.005, 0.005)))
    carrying = hand + _way(cube, goal, (0.02, 0.02))
    return jnp.where(_held(task, data, index), carrying, coming), jnp.where(around, SHUT, OPEN)


def _put(task: Any, data: Data, goal: Array, there: Array, index: int = 0) -> Move:
    """Bring a cube to `goal`; once it is `there` [] bool, let go and rise."""
    hand = task.hand(data)
    going = jnp.where(task.hand_opening(data) > FREE, _high(hand), hand)
    position, opening = _bring(task, data, goal, index)
    return Move(jnp.where(there, going, position), jnp.where(there, OPEN, opening), there & _risen(hand))


def _way(here: Array, there: Array, box: tuple[float, float]) -> Array:
    """The way [3] from `here` to `there` over obstacles: down a steep slope that ends `box` (m) beside `there`.

    Whatever is below the slope rises first. So the height follows from where things are, without way points.
    """
    beside = (there - here)[:2]
    off = jnp.linalg.norm(jnp.maximum(jnp.abs(beside) - jnp.array(box), 0.0))
    rise = jnp.minimum(SLOPE * off, jnp.maximum(HIGH - there[2], 0.0))
    up = there[2] + rise - here[2]
    return jnp.append(jnp.clip(1.0 - up / BELOW, 0.0, 1.0) * beside, up)


def _around(task: Any, data: Data, index: int = 0) -> Array:
    """Whether the fingers are on both sides of a cube, [] bool."""
    return _grip(task.hand(data) - task.cube(data, index), (0.015, 0.012, 0.016), task.hand_opening(data) < FREE)


def _held(task: Any, data: Data, index: int = 0) -> Array:
    """Whether they hold it, [] bool."""
    return _around(task, data, index) & (task.hand_opening(data) < HELD)


def _beside(offset: Array, box: tuple[float, float, float]) -> Array:
    """Whether what lies at `offset` [3] from its goal is within `box` (m) beside it, and not higher above it, []."""
    return _within(offset[:2], box[:2]) & (offset[2] < box[2])


def _grip(offset: Array, box: tuple[float, float, float], closing: Array) -> Array:
    """Whether fingers at `offset` [3] are around something: within `box` (m), or 1 cm more once they are `closing`.

    What is held at the edge of the box would else be let go.
    """
    return _within(offset, tuple(x + 0.01 for x in box)) & (closing | _within(offset, box))


def _within(offset: Array, box: tuple[float, ...]) -> Array:
    return (jnp.abs(offset) < jnp.array(box)).all()


def _high(position: Array) -> Array:
    return position.at[2].set(HIGH)


def _risen(hand: Array) -> Array:
    return hand[2] > HIGH - 0.02
