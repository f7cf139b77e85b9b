"""Contestants of the speed table: what one is, ours, and the ways of stepping that ours and rivals share.

A way of stepping is a function named `*_caller`; it gives a contestant's `call` and `close`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco.batch import Batch

from repertoire.envs import registry
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.types import Env

#: Control steps that one call of a contestant makes.
CHUNK = 10


@dataclasses.dataclass(frozen=True)
class Contestant:
    """Someone who steps worlds.

    Attributes:
      name: row of the table. worlds: stepped at once. steps: control steps per call.
      build: makes `call`, which makes `steps` control steps in all worlds and waits for them, and `close`.
      note: what a reader must know of the figure.
    """

    name: str
    worlds: int
    steps: int
    build: Callable[[], tuple[Callable[[], Any], Callable[[], Any]]]
    note: str = ""


def ours(env_name: str, worlds: int) -> list[Contestant]:
    """Bare MuJoCo first, the yardstick of all others; then our backends."""
    env = registry.make(env_name, "native")
    found = [
        Contestant("mujoco.batch, bare", worlds, CHUNK, lambda: _bare(env, worlds), "random controls, no observations"),
        Contestant(
            "repertoire native", worlds, CHUNK, lambda: scan_caller(env, worlds, CHUNK), "random actions, auto-reset"
        ),
        Contestant(
            "repertoire native + policy",
            worlds,
            CHUNK,
            lambda: scan_caller(env, worlds, CHUNK, policy=True),
            "256x256 policy in the loop",
        ),
        Contestant(
            "repertoire GymVectorEnv", worlds, CHUNK, lambda: _vector(env_name, worlds), "called from Python each step"
        ),
    ]
    if jax.default_backend() == "gpu":
        found.append(
            Contestant(
                "repertoire warp + policy",
                worlds,
                CHUNK,
                lambda: scan_caller(registry.make(env_name, "warp"), worlds, CHUNK, policy=True),
                "256x256 policy in the loop",
            )
        )
    return found


def _bare(env: MujocoEnv, worlds: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The floor of all costs: the C physics of our env on all cores, and nothing else.

    Controls are what random actions give at the start: those of an arm or of a PD robot keep near its pose.
    """
    task = env.task
    state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), worlds))
    actions = jax.random.uniform(jax.random.key(1), (CHUNK, worlds, env.spec.action_size), minval=-1.0, maxval=1.0)
    controls = jax.jit(jax.vmap(jax.vmap(task.control), (0, None, None)))(actions, state.data, state.memory)
    qpos, qvel = np.asarray(state.data.qpos), np.asarray(state.data.qvel)
    return batch_caller(env.physics.model, task.substeps, qpos, qvel, task.episode_length, np.asarray(controls))


def _vector(env_name: str, worlds: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    from repertoire.envs.gym_vector import GymVectorEnv

    return gym_caller(GymVectorEnv(env_name, worlds), CHUNK)


def batch_caller(
    model: mujoco.MjModel,
    substeps: int,
    qpos: np.ndarray,
    qvel: np.ndarray,
    length: int,
    controls: np.ndarray | None = None,
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """C physics of worlds that start at qpos [N, nq], qvel [N, nv] every `length` steps.

    `controls` [CHUNK, N, nu] are given over and over; None: drawn beforehand from `actuator_ctrlrange`.
    """
    worlds = len(qpos)
    batch = Batch(model, worlds, 0)
    if controls is None:
        low, high = model.actuator_ctrlrange.T
        controls = np.random.default_rng(0).uniform(low, high, (CHUNK, worlds, model.nu))
    ctrl, clock = batch.bind("ctrl"), [0]

    def call() -> None:
        for row in controls:
            if clock[0] % length == 0:
                batch.reset()
                batch.bind("qpos")[:], batch.bind("qvel")[:] = qpos, qvel
            clock[0] += 1
            ctrl[:] = row
            batch.step(nstep=substeps)

    return call, _nothing


def scan_caller(env: Env, worlds: int, steps: int, policy: bool = False) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Our env in a jitted scan, auto-reset as in a rollout."""
    params = _mlp(jax.random.key(1), (env.spec.obs.size("policy"), 256, 256, env.spec.action_size))

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        noise = jax.random.uniform(key, (worlds, env.spec.action_size), minval=-1.0, maxval=1.0)
        action = _act(params, state.obs["policy"]) + 0.5 * noise if policy else noise
        return stepped(env, state, action)

    return steps_caller(env, step, worlds, steps)


def stepped(env: Env, state: Any, action: jax.Array) -> tuple[Any, jax.Array]:
    """States of all worlds after actions [N, A], auto-reset as in a rollout, and the mean reward []."""
    state = jax.vmap(env.step)(state, action)
    done = state.terminated | state.truncated
    return jax.vmap(env.reset_where)(done, state), state.reward.mean()


def steps_caller(
    env: Env, step: Callable[..., Any], worlds: int, steps: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """`steps` times `step(state, key) -> (state, out)` in a jitted scan, from fresh episodes on."""

    @jax.jit
    def run(state: Any, key: jax.Array) -> tuple[Any, Any]:
        return jax.lax.scan(step, state, jax.random.split(key, steps))

    return jit_caller(run, jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), worlds)))


def jit_caller(run: Callable[..., Any], state: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """`call` that threads state and key through the jitted `run`."""
    held = [state, jax.random.key(2)]

    def call() -> None:
        held[1], key = jax.random.split(held[1])
        held[0], out = run(held[0], key)
        jax.block_until_ready(out)

    return call, held.clear


def gym_caller(vector: Any, steps: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A Gymnasium vector env, called from Python `steps` times; actions drawn beforehand."""
    vector.reset(seed=0)
    space, rng = vector.action_space, np.random.default_rng(0)
    actions = rng.uniform(space.low, space.high, (steps, *space.shape)).astype(np.float32)

    def call() -> None:
        for action in actions:
            vector.step(action)

    return call, vector.close


def _nothing() -> None:
    """For contestants that hold nothing open."""


def _mlp(key: jax.Array, sizes: tuple[int, ...]) -> list[tuple[jax.Array, jax.Array]]:
    """Random (kernel, bias) of each layer."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [(jax.random.normal(k, (i, o)) * i**-0.5, jnp.zeros(o)) for k, i, o in zip(keys, sizes, sizes[1:])]


def _act(params: list[tuple[jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
    for kernel, bias in params[:-1]:
        x = jax.nn.swish(x @ kernel + bias)
    return jnp.tanh(x @ params[-1][0] + params[-1][1])
