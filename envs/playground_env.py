"""Any MuJoCo Playground env as one of ours: `env=playground id=CartpoleBalance` (extra `playground`)."""

from __future__ import annotations

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


def make(options: PlaygroundOptions) -> ForeignEnv:
    """The env that Playground has registered under `options.id`."""
    try:
        import mujoco_playground
        from mujoco_playground import registry
    except ImportError:
        raise UserError("env playground needs MuJoCo Playground: pip install 'repertoire-rl[playground]'") from None
    options.check("playground", sorted(registry.ALL_ENVS))
    robots = Path(mujoco_playground.__file__).parent / "external_deps" / "mujoco_menagerie"
    if options.id not in registry.dm_control_suite.ALL_ENVS and not robots.exists():
        raise UserError(
            "Playground clones its robots when one is first loaded, and a run downloads nothing: load "
            f"{options.id} once with mujoco_playground.registry.load"
        )
    if options.impl not in ("jax", "warp"):
        raise unknown("env.impl", options.impl, ("jax", "warp"))
    if options.impl == "warp" and jax.default_backend() != "gpu":
        raise UserError("env.impl=warp needs an NVIDIA GPU that JAX can see: leave it out here")
    config = registry.get_default_config(options.id)
    config.impl = options.impl
    return wrap(registry.load(options.id, config=config), options)


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
