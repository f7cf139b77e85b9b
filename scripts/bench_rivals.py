"""The rivals in the speed tables: Brax's engines, MJX, Gymnasium's processes and MuJoCo Playground's envs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import jax
import numpy as np

from repertoire.envs import playground_env, registry
from repertoire.errors import UserError
from repertoire.scripts.bench_ours import CHUNK, Contestant, batch_caller, gym_caller, jit_caller, scan_caller

#: Our name -> (Brax's, Gymnasium's) for the same robot.
RIVALS = {
    "ant": ("ant", "Ant-v5"),
    "half_cheetah": ("halfcheetah", "HalfCheetah-v5"),
    "hopper": ("hopper", "Hopper-v5"),
    "walker2d": ("walker2d", "Walker2d-v5"),
    "humanoid": ("humanoid", "Humanoid-v5"),
}
#: Our robot, which begins the name of an env -> MuJoCo Playground's env of the same robot, or of the nearest it has.
PLAYGROUND = {
    "half_cheetah": "CheetahRun",
    "hopper": "HopperHop",
    "walker2d": "WalkerWalk",
    "humanoid": "HumanoidWalk",
    "point": "PointMass",
    "go2": "Go1JoystickFlatTerrain",
    "g1": "G1JoystickFlatTerrain",
    "h1": "H1JoystickGaitTracking",
    "panda": "PandaPickCube",
    "panda_drawer": "PandaOpenCabinet",
}
BRAX_ENGINES = ("generalized", "positional", "spring", "mjx")


def rivals(env_name: str, quick: bool) -> list[Contestant]:
    """MJX on our own env; for a robot in `RIVALS` also Brax's engines and Gymnasium's processes."""
    batch, workers = (16, 2) if quick else (256, 64)
    own = mjx(env_name, batch, "MJX in JAX steps our own env")
    if env_name not in RIVALS:
        return [own]
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
    return [own, same, *brax, processes]


def mjx(env_name: str, worlds: int, note: str = "") -> Contestant:
    """Our own env on MJX in JAX."""
    return Contestant("repertoire mjx", worlds, 1, lambda: scan_caller(registry.make(env_name, "mjx"), worlds, 1), note)


def playground_id(env_name: str) -> str | None:
    """Playground's env for the robot of ours, or None (see `PLAYGROUND`)."""
    robots = [robot for robot in PLAYGROUND if f"{env_name}_".startswith(f"{robot}_")]
    return PLAYGROUND[max(robots, key=len)] if robots else None


def playground(env_name: str, worlds: int) -> tuple[Contestant, float]:
    """Playground's env for the robot of ours, in JAX under its own training wrappers, and its control step, s.

    Raises `UserError` where there is none, or its files are not here.
    """
    env_id = playground_id(env_name)
    if env_id is None:
        raise UserError(f"MuJoCo Playground has no robot of env {env_name}")
    env, library = playground_env.load(env_id), playground_env.library()
    length, repeat = (library.registry.get_default_config(env_id)[k] for k in ("episode_length", "action_repeat"))
    batched = library.wrapper.wrap_for_brax_training(env, length, repeat)

    def build() -> tuple[Callable[[], Any], Callable[[], Any]]:
        keys = jax.random.key_data(jax.random.split(jax.random.key(0), worlds))
        return _batched(batched, jax.jit(batched.reset)(keys), worlds)

    return Contestant("playground", worlds, 1, build, env_id), float(env.dt) * repeat


def _brax(name: str, engine: str, worlds: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    from brax import envs

    env = envs.create(name, backend=engine, batch_size=worlds, episode_length=1000, auto_reset=True)
    return _batched(env, jax.jit(env.reset)(jax.random.key(0)), worlds)


def _batched(env: Any, state: Any, worlds: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """One step of a batched env of Brax's form, episodes and auto-reset included."""

    @jax.jit
    def run(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        state = env.step(state, jax.random.uniform(key, (worlds, env.action_size), minval=-1.0, maxval=1.0))
        return state, state.reward

    return jit_caller(run, state)


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
