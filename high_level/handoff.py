"""How well skills follow one another: what each option does from a fresh start, and from where others leave off.

A hand-off fails where an option that starts in another's end state does not do what it does from a fresh start:
the usual way in which a chain of good skills breaks.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array
from repertoire.envs.tasks.maze import Walled
from repertoire.envs.types import State
from repertoire.errors import UserError
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.rules import position_index

#: A hand-off succeeds when the option makes at least this share of the way that it makes from a fresh start.
SHARE = 0.5
#: An option whose way is shorter, m, stays where it is, and succeeds when it does so after another, too.
STAYS = 0.01


class HandOffs(NamedTuple):
    """Displacements of the root over one macro step, m, of n options in W worlds.

    Attributes:
      fresh: [n, W, d] from a fresh start. after: [n, n, W, d], of option b (second) from the end states of a (first).
      whole: [n, n, W] whether both macro steps went by without an end of the episode.
    """

    fresh: np.ndarray
    after: np.ndarray
    whole: np.ndarray

    @property
    def progress(self) -> np.ndarray:
        """[n, n, W]: how far b went after a along its own way from a fresh start; 1 is as far as from there.

        Of an option that stays where it is: 1 where it stays after a, else 0.
        """
        way = self.fresh.mean(1)
        length = np.linalg.norm(way, axis=-1)[None, :, None]
        along = np.einsum("abwd,bd->abw", self.after, way) / np.maximum(length, STAYS) ** 2
        return np.where(length < STAYS, np.linalg.norm(self.after, axis=-1) < STAYS, along)

    @property
    def succeeded(self) -> np.ndarray:
        """[n, n, W] whether each hand-off did."""
        return np.asarray((self.progress >= SHARE) & self.whole)

    @property
    def success(self) -> np.ndarray:
        """[n, n] share of the hand-offs from a to b that succeed."""
        return np.asarray(self.succeeded.mean(-1))

    @property
    def moved(self) -> np.ndarray:
        """[n, n, d] mean displacement of those that succeed, m; of all where none does."""
        counts = np.where(self.success[..., None] > 0, self.succeeded, 1.0)
        return np.asarray((self.after * counts[..., None]).sum(2) / counts.sum(-1, keepdims=True))

    def figures(self) -> dict[str, float]:
        """Share of failed hand-offs, between different options and of options that go on, and mean progress."""
        failed, n = 1 - self.success, len(self.fresh)
        other = ~np.eye(n, dtype=bool)
        return {
            "handoff_failures": float(failed[other].mean()) if n > 1 else 0.0,
            "handoff_failures_same": float(failed[~other].mean()),
            "handoff_progress": float(self.progress.mean()),
            "fresh_displacement_m": float(np.linalg.norm(self.fresh.mean(1), axis=-1).mean()),
        }


def ends(env: MacroEnv, key: Array, worlds: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """States in which random skills leave off: qpos [B, nq] and qvel [B, nv], of `steps` macro steps in each world.

    Where an episode ended nothing is left off; the world begins anew.
    """

    def step(states: State, key: Array) -> tuple[State, tuple[Array, Array, Array]]:
        actions = jax.vmap(env.composer.sample)(jax.random.split(key, worlds))
        states = states.replace(t=jnp.zeros_like(states.t))  # so that no episode runs out of time
        after = jax.vmap(env.step)(states, actions)
        done = after.terminated | after.truncated
        return jax.vmap(env.reset_where)(done, after), (after.data.qpos, after.data.qvel, ~done)

    @jax.jit
    def run(key: Array) -> tuple[Array, Array, Array]:
        reset_key, key = jax.random.split(key)
        states = jax.vmap(env.reset)(jax.random.split(reset_key, worlds))
        return jax.lax.scan(step, states, jax.random.split(key, steps))[1]

    qpos, qvel, whole = (np.asarray(x) for x in run(key))
    return qpos[whole], qvel[whole]


def check(env: MacroEnv) -> None:
    """`UserError` for an env whose hand-offs cannot be measured: no list of options, no position, or walls."""
    if not env.spec.discrete:
        raise UserError("a skill graph needs controller.mode=choice: its nodes are a list of options")
    position_index(env.env.spec)
    if isinstance(getattr(env.env, "task", None), Walled):
        raise UserError(
            f"hand-offs are measured on open ground and env {env.env.spec.name} has walls: name an env of the same "
            "robot without, such as controller.measured_on=ant"
        )


def measure(env: MacroEnv, key: Array, worlds: int, run_up: int = 1) -> HandOffs:
    """Every option from `worlds` fresh starts, and every option from the end states of every option.

    Args:
      env: on open ground, with a list of options (controller.mode=choice), of which option i is macro action i.
      run_up: macro steps of the first option before the hand-off.

    Raises:
      UserError: see `check`.
    """
    check(env)
    n = env.spec.discrete
    if worlds < 1 or run_up < 1:
        raise UserError(f"controller.worlds and controller.run_up must be at least 1, got {worlds} and {run_up}")
    index, options = position_index(env.env.spec), jnp.arange(n)

    def act(state: State, option: Array) -> tuple[State, Array, Array]:
        before = state.replace(t=jnp.zeros_like(state.t))  # so that no episode runs out of time
        after = env.step(before, option)
        moved = (after.obs["features"] - before.obs["features"])[index]
        return after, moved, ~(after.terminated | after.truncated)

    def chain(state: State, option: Array) -> tuple[Array, Array, Array]:
        """Of one fresh world: displacement [d], then that of all options [n, d], and whether all was whole [n]."""

        def again(state: State, _: None) -> tuple[State, tuple[Array, Array]]:
            state, moved, whole = act(state, option)
            return state, (moved, whole)

        state, (moves, whole) = jax.lax.scan(again, state, None, length=run_up)
        _, moved, still = jax.vmap(act, in_axes=(None, 0))(state, options)
        return moves[0], moved, whole.all() & still

    @jax.jit
    def run(key: Array) -> tuple[Array, Array, Array]:
        states = jax.vmap(env.reset)(jax.random.split(key, worlds))
        over_worlds = jax.vmap(chain, in_axes=(0, None))
        return jax.vmap(over_worlds, in_axes=(None, 0))(states, options)

    fresh, after, whole = map(np.asarray, run(key))  # [n, W, d], [n, W, n, d], [n, W, n]
    return HandOffs(fresh, after.swapaxes(1, 2), whole.swapaxes(1, 2))
