"""Host side of the Gymnasium envs: the jitted programs that they share, and worlds stepped by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.utils import seeding

from repertoire.envs import registry
from repertoire.envs.gym_spaces import checked_seed
from repertoire.envs.mujoco_env import MujocoEnv, tree_where
from repertoire.envs.types import Array, EnvSpec, State
from repertoire.errors import UserError

#: Fields of a state that `step` of an env returns, to be read in one go.
OUTCOME = ("obs", "reward", "terminated", "truncated", "metrics")


class Programs(NamedTuple):
    """The env and its jitted programs over worlds [N]."""

    env: MujocoEnv
    reset: Callable[[Any], State]  # words [N, 2] uint32 of keys
    step: Callable[[State, Any], State]  # state, actions [N, A]
    restart: Callable[[State, Any, Any, Any], State]  # state, mask [N], whether to take new words [N], words
    select: Callable[[Any, State, State], State]  # mask [N]


_PROGRAMS: dict[str, Programs] = {}


def programs(env_name: str, physics_backend: str, options: Mapping[str, Any]) -> Programs:
    """Programs of an env, built once per process: 64 single envs compile once."""
    key = repr((env_name, physics_backend, sorted(options.items())))
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _build(registry.make(env_name, physics_backend, **options))
    return _PROGRAMS[key]


def _build(env: MujocoEnv) -> Programs:
    def key(words: Array) -> Array:
        return jax.random.wrap_key_data(words, impl="threefry2x32")

    def restart(state: State, mask: Array, seeded: Array, words: Array) -> State:
        """A fresh episode where `mask`; other worlds keep their key, whatever their neighbours do."""
        state = dataclasses.replace(state, key=jnp.where(mask & seeded, key(words), state.key))
        fresh = env.reset_where(mask, state)
        return dataclasses.replace(fresh, key=jnp.where(mask, fresh.key, state.key))

    return Programs(
        env,
        jax.jit(jax.vmap(lambda words: env.reset(key(words)))),
        jax.jit(jax.vmap(env.step)),
        jax.jit(jax.vmap(restart)),
        jax.jit(jax.vmap(tree_where)),
    )


class Worlds:
    """Host side of both envs: `n` worlds, their seeds, and their state as numpy arrays."""

    def __init__(self, programs: Programs, n: int) -> None:
        self.programs, self.n = programs, n
        self.spec: EnvSpec = programs.env.spec
        self.state: State | None = None

    def reset(self, mask: np.ndarray, seeds: Sequence[int | None], rng: Callable[[], np.random.Generator]) -> None:
        """Start new episodes where `mask` [n]: from the seed, else from where the world's stream stands.

        `rng` gives the generator that seeds worlds on the very first reset.
        """
        words = np.zeros((self.n, 2), np.uint32)
        seeded = np.array([s is not None for s in seeds])
        for i in np.flatnonzero(mask & seeded):
            words[i] = _words(seeding.np_random(checked_seed(seeds[int(i)]))[0])
        if self.state is None:
            for i in np.flatnonzero(~(mask & seeded)):
                words[i] = _words(rng())
            self.state = self.programs.reset(words)
        else:
            self.state = self.programs.restart(self.state, mask, seeded, words)

    def next_episode(self, mask: np.ndarray) -> None:
        """Start new episodes where `mask` [n], each from where its random stream stands."""
        self.state = self._restarted(mask)

    def step(self, actions: Any, resetting: np.ndarray | None = None) -> None:
        """Step every world, but start a new episode where `resetting` [n]."""
        if self.state is None:
            raise UserError("call reset() before step()")
        shape = (self.n, self.spec.action_size)
        actions = np.asarray(actions, np.float32)
        if actions.shape != shape:
            raise UserError(f"actions must have shape {shape}, got {actions.shape}")
        stepped = self.programs.step(self.state, actions)
        if resetting is not None and resetting.any():
            stepped = self.programs.select(resetting, self._restarted(resetting), stepped)
        self.state = stepped

    def read(self, *names: str) -> Any:
        """Fields of the state, as writable numpy arrays [n, ...]; a tuple unless one name is given."""
        found = jax.tree.map(np.array, jax.device_get(tuple(getattr(self._state(), name) for name in names)))
        return found[0] if len(names) == 1 else found

    def world(self, i: int) -> State:
        """World `i` as numpy arrays."""
        state = self._state()
        state = dataclasses.replace(state, key=jax.random.key_data(state.key))
        return jax.device_get(jax.tree.map(lambda x: x[i], state))

    def _state(self) -> State:
        if self.state is None:
            raise UserError("call reset() first")
        return self.state

    def _restarted(self, mask: np.ndarray) -> State:
        unused = np.zeros((self.n, 2), np.uint32)
        return self.programs.restart(self._state(), mask, np.zeros(self.n, bool), unused)


def _words(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(2**32, size=2, dtype=np.uint32)
