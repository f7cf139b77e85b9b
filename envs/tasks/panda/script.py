"""Scripted controllers for the Panda: a list of waypoints, followed in `ee_delta` control.

They show that the tasks can be solved, and give demonstrations. Pure and unbatched: `vmap` makes many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from repertoire.envs.tasks.panda import control, furniture
from repertoire.envs.tasks.panda.arm import Panda
from repertoire.envs.types import Array, Data, State
from repertoire.errors import UserError

NEAR, PATIENCE = 0.008, 40  # m, control steps: a waypoint is reached, or given up
SHUT, AJAR, OPEN = 0.0, 0.025, control.OPEN  # m per finger
HIGH, OVER = 0.18, 0.06  # m: height to travel at, clearance over a place


class Waypoint(NamedTuple):
    """Where the hand should go [3] (m), how open it should be (m per finger), and for how many steps it then waits."""

    position: Array
    opening: float
    wait: int = 0


#: (task, data, memory) -> waypoints in order, as they are now: a cube that moved is followed.
Plan = Callable[[Any, Data, Any], list[Waypoint]]


@struct.dataclass
class Progress:
    """Which waypoint, for how many steps, and for how many of these it was near."""

    index: Array  # [] int32
    steps: Array  # [] int32
    there: Array  # [] int32


def begin() -> Progress:
    """At the first waypoint."""
    zero = jnp.zeros((), jnp.int32)
    return Progress(index=zero, steps=zero, there=zero)


def act(plan: Plan, task: Panda, progress: Progress, state: State) -> tuple[Progress, Array]:
    """(progress, action [4]) after looking at `state`; after the last waypoint the hand stays there."""
    if task.control_mode != "ee_delta":
        raise UserError(f"scripts drive control_mode=ee_delta, env {task.name} has {task.control_mode}")
    points = plan(task, state.data, state.memory)
    position = jnp.stack([p.position for p in points])[progress.index]
    opening, wait = (jnp.asarray([getattr(p, f) for p in points])[progress.index] for f in ("opening", "wait"))
    near = jnp.linalg.norm(position - task.hand(state.data)) < NEAR
    there, steps = progress.there + near, progress.steps + 1
    done = (there > wait) | (steps > PATIENCE + wait)
    targets = state.memory.targets
    step = jnp.append(position - targets.position, opening - targets.opening)
    action = jnp.clip(step / np.array(control.MODES["ee_delta"].steps, np.float32), -1.0, 1.0)
    index = jnp.minimum(progress.index + done, len(points) - 1)
    return Progress(index=index, steps=jnp.where(done, 0, steps), there=jnp.where(done, 0, there)), action


# -- plans ----------------------------------------------------------------------------------------------------------


def pick_place(task: Any, data: Data, memory: Any) -> list[Waypoint]:
    """Take the cube from above and hold it where it should be (`PandaPickPlace`)."""
    return [*_take(task, data), *_bring(task, data, task.target(data, memory))]


def stack(task: Any, data: Data, memory: Any) -> list[Waypoint]:
    """Take the cube, put it where it should be, let go (`PandaStack`)."""
    return [*pick_place(task, data, memory), *_let_go(task, data)]


def open_drawer(task: Any, data: Data, memory: Any) -> list[Waypoint]:
    """Pull the drawer open by its handle (`PandaDrawer`)."""
    handle = task.handle(data)
    end = handle + jnp.array([0.0, task.drawer(data) - furniture.TRAVEL, 0.0])
    return [
        Waypoint(_at_height(handle, HIGH), AJAR),
        Waypoint(handle, AJAR),
        Waypoint(handle, SHUT, 8),
        Waypoint(end, SHUT, 3),
        Waypoint(handle, AJAR, 5),
        Waypoint(_at_height(handle, HIGH), AJAR),
    ]


def scene(task: Any, data: Data, memory: Any) -> list[Waypoint]:
    """Press the button, open the drawer, put the cube in, shut the drawer (`PandaScene`)."""
    button, middle = jnp.array(furniture.BUTTON), task.drawer_middle(data)
    return [
        Waypoint(button.at[2].add(OVER), SHUT),
        Waypoint(button.at[2].add(-0.01), SHUT, 3),
        Waypoint(_at_height(button, HIGH), SHUT),
        *open_drawer(task, data, memory),
        *_take(task, data),
        *_bring(task, data, middle.at[2].set(furniture.WALL)),
        *_let_go(task, data),
        *_shut_drawer(task, data),
    ]


def rearrange(task: Any, data: Data, memory: Any) -> list[Waypoint]:
    """Take one cube after the other to its goal, the first one first (`PandaRearrange`)."""
    one = [[*_take(task, data, i), *_bring(task, data, memory.goals[i], i), *_let_go(task, data)] for i in range(2)]
    return [*one[0], *one[1]]


def _take(task: Any, data: Data, index: int = 0) -> list[Waypoint]:
    cube = task.cube(data, index)
    return [
        Waypoint(_at_height(cube, HIGH), OPEN),
        Waypoint(cube, OPEN),
        Waypoint(cube, SHUT, 8),
        Waypoint(_at_height(cube, HIGH), SHUT),
    ]


def _bring(task: Any, data: Data, goal: Array, index: int = 0) -> list[Waypoint]:
    """Move the hand by what the cube lacks to `goal`, from above."""
    hand = task.hand(data) + goal - task.cube(data, index)
    return [Waypoint(hand.at[2].add(OVER), SHUT), Waypoint(hand, SHUT, 3)]


def _let_go(task: Any, data: Data) -> list[Waypoint]:
    hand = task.hand(data)
    return [Waypoint(hand, OPEN, 6), Waypoint(_at_height(hand, HIGH), OPEN)]


def _shut_drawer(task: Any, data: Data) -> list[Waypoint]:
    handle = task.handle(data)
    before = handle + jnp.array([0.0, -0.04, 0.0])
    end = handle + jnp.array([0.0, task.drawer(data), 0.0])
    return [
        Waypoint(_at_height(before, HIGH), SHUT),
        Waypoint(before, SHUT),
        Waypoint(end, SHUT, 3),
    ]


def _at_height(position: Array, height: float) -> Array:
    return position.at[2].set(height)
