"""A skill graph as a controller: at every macro step the option on the shortest way from where the robot really is."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array
from repertoire.envs.lattice import Lattice, lattice
from repertoire.envs.tasks.goals import Goal
from repertoire.envs.tasks.maze import Walled
from repertoire.envs.types import State
from repertoire.errors import UserError
from repertoire.high_level.graph import SkillGraph, check_path, cost_to_go, parts
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.rules import Reader, goal_offset, position_index

#: Macro steps that an option costs from which no path leads on: taken only when all do.
LOST = 1e4
#: Draws of the task's goal that decide which goals there are, and whether each can be reached.
DRAWS = 4096
#: Largest lattice that is searched, cells.
CELLS = 1e6


@dataclass(frozen=True)
class NavigateConfig:
    """How a skill graph is searched.

    Attributes:
      least: hand-offs that succeed less often are not made.
      cells: cells of the plane per mean displacement of an option.
      margin: distance that the root keeps from walls, m. reach: on open ground, the farthest goal, m.
    """

    least: float = 0.5
    cells: float = 4.0
    margin: float = 0.8
    reach: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.least <= 1:
            raise UserError(f"controller.navigate.least must lie above 0 and at most at 1, got {self.least}")
        if not (self.cells >= 1 and self.margin >= 0 and self.reach > 0):
            raise UserError("controller.navigate needs cells >= 1, margin >= 0 and reach > 0")


@dataclass(frozen=True)
class Field:
    """Least cost to each of G goals.

    Attributes:
      cells: between the walls of the world, or around a goal at the origin on open ground.
      goals: [G, 2] m. value: [G, n + 1, X, Y]. absolute: whether positions are the world's, not the goal's.
      config: how it was searched.
    """

    cells: Lattice
    goals: np.ndarray
    value: np.ndarray
    absolute: bool
    config: NavigateConfig


def task_of(env: MacroEnv) -> Goal:
    """The task of `env`. Raises `UserError` for one without a goal in the plane."""
    task = getattr(env.env, "task", None)
    if not isinstance(task, Goal) or task.root != 2:
        raise UserError(f"env {env.env.spec.name} has no goal in the plane: a skill graph has no way to find")
    return task


def field_of(env: MacroEnv, graph: SkillGraph, config: NavigateConfig) -> Field:
    """Search `graph` for the goals of a task. Raises `UserError` for a goal without a path, or no goal at all."""
    task = task_of(env)
    drawn = goals_of(task)
    cell = float(np.linalg.norm(graph.moves, axis=-1).mean()) / config.cells
    if cell < 1e-3:
        raise UserError("these skills do not move the robot: no graph of theirs leads anywhere")
    walled = isinstance(task, Walled)
    if isinstance(task, Walled):
        low, high = task.extent()
        _check_size(low, high, cell)
        cells = lattice(low, high, cell, lambda xy: task.clearance(xy) > config.margin)
        goals, starts = drawn, np.zeros((len(drawn), 2))
    else:
        edge = np.full(2, config.reach)
        _check_size(-edge, edge, cell)
        cells = lattice(-edge, edge, cell, lambda xy: np.ones(xy.shape[:-1], bool))
        goals, starts = np.zeros((1, 2)), -drawn
    value = np.stack([cost_to_go(graph, cells, goal, max(task.radius, cell / 2)) for goal in goals])
    for i, start in enumerate(starts):
        check_path(value[i if walled else 0], cells, start)
    return Field(cells, goals, value, walled, config)


def goals_of(task: Goal) -> np.ndarray:
    """The different goals [G, 2] that a task sets, m, or `DRAWS` of them."""
    if isinstance(task, Walled):
        return task.goals()
    keys = jax.random.split(jax.random.key(0), DRAWS)
    return np.unique(np.asarray(jax.vmap(lambda k: task.draw(k, jnp.zeros(2)))(keys), float), axis=0)


def _check_size(low: np.ndarray, high: np.ndarray, cell: float) -> None:
    if np.prod((high - low) / cell) > CELLS:
        raise UserError(
            "these skills move too little for so large a place: raise controller.hold, or lower "
            "controller.navigate.cells or controller.navigate.reach"
        )


@dataclass(frozen=True, eq=False)  # told apart by identity, as functions are: jit asks
class Navigator:
    """Follow `field`: a rule whose memory is 0 at first, then 1 + the option done last.

    Attributes:
      graph: what was searched.
      price: [n + 1, n] macro steps of each option, by memory. value: [G, n, X, Y] those from there on to each goal.
      ways: [n + 1, parts, n, 2] where each option leads, m, at the parts of its way, by memory.
      position: entries of the position in the feature group. goal: reads where the goal lies from the robot.
    """

    graph: SkillGraph
    field: Field
    price: np.ndarray
    value: np.ndarray
    ways: np.ndarray
    position: np.ndarray
    goal: Reader

    def start(self, key: Array, state: State) -> Array:
        """Nothing done yet."""
        return jnp.zeros((), jnp.int32)

    def step(self, key: Array, state: State, last: Array) -> tuple[Array, Array]:
        """The option on the shortest way; of equally short ways that of the first."""
        option = self.option(state, last, jnp.zeros(2))
        return option, option + 1

    def option(self, state: State, last: Array, beside: Array) -> Array:
        """What `step` chooses, [], if the robot's place lies `beside` [2] m from where it is."""
        here, ahead = state.obs["features"][self.position], self.goal(state)
        goals, cells = jnp.asarray(self.field.goals), self.field.cells
        which = jnp.argmin(jnp.linalg.norm(goals - here - ahead, axis=-1)) if self.field.absolute else 0
        way = self.place(state) + beside + jnp.asarray(self.ways)[last]  # [parts, n, 2]
        blocked = ~jnp.asarray(cells.free)[cells.indices(way)].all(0)
        options = jnp.arange(self.graph.start)
        onward = jnp.asarray(self.value)[which, options, *cells.indices(way[-1])]
        return jnp.argmin(jnp.asarray(self.price)[last] + onward + LOST * blocked).astype(jnp.int32)

    def place(self, state: State) -> Array:
        """Where the robot is in `field`, [2] m."""
        return state.obs["features"][self.position] if self.field.absolute else -self.goal(state)


def navigator(env: MacroEnv, graph: SkillGraph, field: Field) -> Navigator:
    """The rule that follows `field`. Where no way leads on, the option that ends nearest to the goal."""
    spec, cells = env.env.spec, field.cells
    offset = goal_offset(spec)
    assert offset is not None  # `field_of` saw a goal
    first = {"shift": 1, "axis": 0}  # a fresh start, whose row is the last, is memory 0
    far = np.linalg.norm(cells.centres - field.goals[:, None, None], axis=-1)[:, None]
    value = np.where(np.isfinite(field.value), field.value, LOST + far)[:, : graph.start]
    price = np.roll(np.where(np.isfinite(graph.cost), graph.cost, LOST), **first)
    ways = parts(graph, cells)[:, None, None] * np.roll(graph.moves, **first)[:, None]
    price, value, ways = (x.astype(np.float32) for x in (price, value, ways))
    return Navigator(graph, field, price, value, ways, position_index(spec), offset)
