"""Planning over latents, receding horizon: search a sequence of macro actions, do the first, search again.

A planner needs no training. Its model is the simulator itself (a copy of the state in as many worlds as there are
candidates) or learned skill dynamics (`dynamics`, after DADS, Sharma et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array
from repertoire.envs.mujoco_env import tree_where
from repertoire.envs.tasks.goals import MovingGoals
from repertoire.envs.types import EnvSpec, State
from repertoire.errors import UserError
from repertoire.high_level import search
from repertoire.high_level.dynamics import Dynamics
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.rules import Reader, goal_offset, position_index
from repertoire.high_level.space import Space, space_of

#: (key, state) -> the cost [] of a sequence of search vectors [H, D] from there.
Model = Callable[[Array, State], Callable[[Array], Array]]


@dataclass(frozen=True)
class Cost:
    """What a plan costs: end * d_H + along * mean_h d_h - reward * sum_h gamma^(k h) r_h.

    d_h is the distance of the root from the goal, m, after h macro steps (0 where the task shows the root no `goal`),
    r_h the task's own macro reward, 0 after the end of the episode; learned dynamics know of no reward.

    Attributes:
      reward, along, end: the weights.
    """

    reward: float = 1.0
    along: float = 0.1
    end: float = 1.0

    def total(self, distances: Array, rewards: Array) -> Array:
        """Cost [] of distances [H] and discounted rewards [H]."""
        return self.end * distances[-1] + self.along * distances.mean() - self.reward * rewards.sum()


def simulated(env: MacroEnv, cost: Cost) -> Model:
    """The simulator as the model. What the task would draw at random is drawn anew: a plan sees no future goals."""
    space, distance = space_of(env), _distance(env.env.spec)

    def model(key: Array, state: State) -> Callable[[Array], Array]:
        start, to_goal = state.replace(key=key), distance(state)

        def of(sequence: Array) -> Array:
            def step(carry: tuple[State, Array], x: Array) -> tuple[tuple[State, Array], tuple[Array, Array]]:
                state, ended = carry
                stepped = env.step(state, space.decode(x))
                after = tree_where(ended, state, stepped)
                seen = to_goal(after.obs["features"]), jnp.where(ended, 0.0, stepped.reward)
                return (after, ended | stepped.terminated | stepped.truncated), seen

            _, (distances, rewards) = jax.lax.scan(step, (start, jnp.zeros((), bool)), sequence)
            discounts = env.gamma ** (env.hold * jnp.arange(len(sequence)))
            return cost.total(distances, discounts * rewards)

        return of

    return model


@dataclass(frozen=True, eq=False)  # told apart by identity, as functions are: jit asks
class Imagined:
    """Learned dynamics as a `Model`: each member of the ensemble follows its own way, their costs are averaged.

    Attributes:
      space: of the search vectors. position: entries [2] of the root's position among the features.
      goal: reads where the goal lies from the robot.
    """

    space: Space
    dynamics: Dynamics
    cost: Cost
    position: np.ndarray
    goal: Reader

    def __call__(self, key: Array, state: State) -> Callable[[Array], Array]:
        """The cost of a sequence from `state`; nothing is random."""
        start = jnp.tile(state.obs["features"], (self.dynamics.members, 1))
        goal = state.obs["features"][self.position] + self.goal(state)

        def step(features: Array, x: Array) -> tuple[Array, Array]:
            features = self.dynamics.advance(features, self.space.encode(self.space.decode(x)))
            return features, jnp.linalg.norm(features[:, self.position] - goal, axis=-1)

        def of(sequence: Array) -> Array:
            distances = jax.lax.scan(step, start, sequence)[1]
            return jax.vmap(self.cost.total, in_axes=(1, None))(distances, jnp.zeros(1)).mean()

        return of


def imagined(env: MacroEnv, dynamics: Dynamics, cost: Cost) -> Imagined:
    """`Imagined` in `env`. Raises `UserError` for a task without `goal`: dynamics predict features, not rewards."""
    return Imagined(space_of(env), dynamics, cost, *placed(env.env.spec))


def placed(spec: EnvSpec) -> tuple[np.ndarray, Reader]:
    """`position` and `goal` of `Imagined`. Raises `UserError` for an env without either, or where they do not match."""
    if (seen := _goal(spec)) is None:
        raise UserError(f"env {spec.name} has no `goal` for its `position`: plan it with controller.model=simulator")
    return seen


def check(env: MacroEnv, cost: Cost) -> None:
    """`UserError` where all plans would cost the same."""
    if _goal(env.env.spec) is None and not cost.reward:
        name = env.env.spec.name
        raise UserError(f"env {name} has no `goal` for its `position`: controller.cost.reward=0 leaves nothing to plan")


def notes(env: MacroEnv, config: search.SearchConfig) -> tuple[str, ...]:
    """What a user should know of plans in `env`, a line each."""
    spec, task, ahead = env.env.spec, getattr(env.env, "task", None), config.horizon * env.hold
    if _goal(spec) is None:
        return (f"env {spec.name} has no `goal` for its `position`: its reward alone counts in a plan",)
    if not isinstance(task, MovingGoals) or ahead <= task.hold:
        return ()
    fits = task.hold // env.hold
    advice = f"controller.search.horizon={fits}" if fits else f"controller.hold={task.hold} controller.search.horizon=1"
    return (
        f"plans look {ahead} control steps ahead and a goal lasts {task.hold}: they put off going there, as being near "
        f"at their end (controller.cost.end) is paid when the goal is gone; try {advice} "
        "controller.cost.along=1 controller.cost.end=0",
    )


@dataclass(frozen=True, eq=False)
class Planner:
    """Search with `model`, do the first macro action of the best sequence, and go on from the rest of the mean.

    A rule; its memory is what the search begins from, [H, D].
    """

    space: Space
    model: Model
    config: search.SearchConfig

    @property
    def shape(self) -> tuple[int, int]:
        """(H, D) of the sequences."""
        return self.config.horizon, self.space.size

    def start(self, key: Array, state: State) -> Array:
        """Zeros."""
        return jnp.zeros(self.shape)

    def step(self, key: Array, state: State, mean: Array) -> tuple[Array, Array]:
        """First action of the best sequence, and the mean of what follows."""
        model_key, search_key = jax.random.split(key)
        white = search.draw(search_key, self.shape, self.config)
        return self.decide(self.model(model_key, state), mean, white)[:2]

    def decide(self, cost: Callable[[Array], Array], mean: Array, white: Array) -> tuple[Array, Array, search.Tried]:
        """`step` with a given cost of sequences and given draws (see `search.refine`), and all that was tried."""
        found, tried = search.refine(cost, mean, white, self.config)
        rest = jnp.concatenate([found.mean[1:], jnp.zeros((1, self.space.size))])
        return self.space.decode(found.best[0]), rest, tried


def planner(env: MacroEnv, model: Model, config: search.SearchConfig) -> Planner:
    """`Planner` over the macro actions of `env`."""
    return Planner(space_of(env), model, config)


def _distance(spec: EnvSpec) -> Callable[[State], Callable[[Array], Array]]:
    """state -> features [F] -> distance to the goal that the state shows, m; 0 where `_goal` finds none."""
    if (seen := _goal(spec)) is None:
        return lambda state: lambda features: jnp.zeros(())
    index, offset = seen

    def distance(state: State) -> Callable[[Array], Array]:
        goal = state.obs["features"][index] + offset(state)
        return lambda features: jnp.linalg.norm(features[index] - goal)

    return distance


def _goal(spec: EnvSpec) -> tuple[np.ndarray, Reader] | None:
    """(entries of the position among the features, where the goal lies from it); None unless there are both, alike."""
    offset, sizes = goal_offset(spec), {s.name: s.width for s in spec.obs.groups["features"]}
    if offset is None or sizes.get("position") != len(offset.index):
        return None
    return position_index(spec), offset
