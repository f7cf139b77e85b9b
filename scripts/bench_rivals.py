"""The rivals in the speed table: Brax's engines, MJX and Gymnasium's processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import jax
import numpy as np

from repertoire.envs import registry
from repertoire.scripts.bench_ours import CHUNK, Contestant, batch_caller, gym_caller, jit_caller, scan_caller

#: Our name -> (Brax's, Gymnasium's) for the same robot.
RIVALS = {
    "ant": ("ant", "Ant-v5"),
    "half_cheetah": ("halfcheetah", "HalfCheetah-v5"),
    "hopper": ("hopper", "Hopper-v5"),
    "walker2d": ("walker2d", "Walker2d-v5"),
    "humanoid": ("humanoid", "Humanoid-v5"),
}
BRAX_ENGINES = ("generalized", "positional", "spring", "mjx")


def rivals(env_name: str, quick: bool) -> list[Contestant]:
    """MJX on our own env; for a robot in `RIVALS` also Brax's engines and Gymnasium's processes."""
    batch, workers = (16, 2) if quick else (256, 64)
    mjx_note = "MJX in JAX steps our own env"
    mjx = Contestant(
        "repertoire mjx", batch, 1, lambda: scan_caller(registry.make(env_name, "mjx"), batch, 1), mjx_note
    )
    if env_name not in RIVALS:
        return [mjx]
    brax_name, gym_id = RIVALS[env_name]
    name, note = "mujoco.batch, bare, Brax's model", f"the C physics of Brax's {brax_name}"
    same = Contestant(name, 1024, CHUNK, partial(_brax_bare, brax_name, 1024), note)
    note = f"Brax's {brax_name}, a simpler model, random actions"
    brax = [
        Contestant(f"brax {engine}", batch, 1, partial(_brax, brax_name, engine, batch), note)
        for engine in BRAX_ENGINES
    ]
    note = f"{gym_id}, {workers} processes"
    processes = Contestant("gymnasium async", workers, CHUNK, partial(_async, gym_id, workers), note)
    return [mjx, same, *brax, processes]


def _brax(name: str, engine: str, worlds: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """One step of Brax's own env, episodes and auto-reset included."""
    from brax import envs

    env = envs.create(name, backend=engine, batch_size=worlds, episode_length=1000, auto_reset=True)

    @jax.jit
    def run(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        state = env.step(state, jax.random.uniform(key, (worlds, env.action_size), minval=-1.0, maxval=1.0))
        return state, state.reward

    return jit_caller(run, jax.jit(env.reset)(jax.random.key(0)))


def _brax_bare(name: str, worlds: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """C physics of the model that Brax's engines step, for as long a control step: who is faster on equal work.

    Brax's robots collide with the floor at a few points only and solve contacts in fewer iterations than Gymnasium's.
    """
    from brax import envs

    env = envs.get_environment(name, backend="generalized")
    model = env.sys.mj_model
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (worlds, model.nq))
    substeps = round(env.dt / model.opt.timestep)
    return batch_caller(model, substeps, model.qpos0 + noise, np.zeros((worlds, model.nv)), 1000)


def _async(gym_id: str, workers: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Gymnasium's processes, forked from a server without JAX: a fork of this process could deadlock."""
    multiprocessing.set_forkserver_preload(["gymnasium", "gymnasium.envs.mujoco", "mujoco"])
    vector = gymnasium.make_vec(
        gym_id, num_envs=workers, vectorization_mode="async", vector_kwargs={"context": "forkserver"}
    )
    return gym_caller(vector, CHUNK)
