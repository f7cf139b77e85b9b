"""Any MuJoCo Playground env as one of ours: `env=playground id=CartpoleBalance` (extra `playground`)."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from repertoire.envs.brax_env import seen
from repertoire.envs.foreign import Foreign, ForeignEnv, Options
from repertoire.errors import UserError, unknown


@dataclass(frozen=True)
class PlaygroundOptions(Options):
    """Options of `env=playground`.

    Attributes:
      impl: implementation of MJX: `jax`, or `warp` where there is an NVIDIA GPU.
    """

    impl: str = "jax"


def library() -> Any:
    """The module `mujoco_playground`. Raises `UserError` where it is not installed."""
    importlib.import_module("repertoire.envs.physics.quiet")  # before Playground imports MJX
    try:
        import mujoco_playground
    except ImportError:
        raise UserError("MuJoCo Playground is not installed: pip install 'repertoire-rl[playground]'") from None
    return mujoco_playground


def make(options: PlaygroundOptions) -> ForeignEnv:
    """The env that Playground has registered under `options.id`."""
    options.check("playground", sorted(library().registry.ALL_ENVS))
    return wrap(load(options.id, options.impl), options)


def load(env_id: str, impl: str = "jax") -> Any:
    """Playground's own env (`mujoco_playground.MjxEnv`) on an implementation of MJX; nothing is downloaded.

    Raises `UserError` where its robot is not in Playground's cache, and for an `impl` that cannot be had.
    """
    registry = library().registry
    robots = Path(library().__file__).parent / "external_deps" / "mujoco_menagerie"
    if env_id not in registry.dm_control_suite.ALL_ENVS and not robots.exists():
        raise UserError(
            "Playground clones its robots when one is first loaded, and a run downloads nothing: load "
            f"{env_id} once with mujoco_playground.registry.load"
        )
    if impl not in ("jax", "warp"):
        raise unknown("env.impl", impl, ("jax", "warp"))
    if impl == "warp" and jax.default_backend() != "gpu":
        raise UserError("env.impl=warp needs an NVIDIA GPU that JAX can see: leave it out here")
    config = registry.get_default_config(env_id)
    config.impl = impl
    return registry.load(env_id, config=config)


def wrap(env: Any, options: Options) -> ForeignEnv:
    """`env`, a `mujoco_playground.MjxEnv`, as ours; `options.id` is its name."""
    foreign = Foreign(
        name=f"playground:{options.id}",
        reset=env.reset,
        step=env.step,
        see=lambda state: seen(state, state.data.qpos, state.data.qvel),
        action_size=int(env.action_size),
        dt=float(env.dt),
        physics_dt=float(env.sim_dt),
        engine="playground (mjx)",
        model=env.mj_model,
    )
    return ForeignEnv(foreign, options)
