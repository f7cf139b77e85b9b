"""Physics backends behind one protocol: `native` (C MuJoCo threads), `mjx` (JAX), `warp` (MJX on NVIDIA GPUs)."""

from __future__ import annotations

import os

import jax
import mujoco

from repertoire.envs.types import Physics
from repertoire.errors import UserError, unknown

#: XLA's concurrency-optimized CPU scheduler lets two loops with host callbacks run at once, and then hangs for good
#: (seen on 2 cores with jaxlib 0.10.2: all threads idle, the program never completes). JAX reads the flag when its
#: backend starts, so it is set on import.
SCHEDULER_FLAG = "--xla_cpu_enable_concurrency_optimized_scheduler"
if SCHEDULER_FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {SCHEDULER_FLAG}=false".strip()

BACKENDS = ("native", "warp", "mjx")


def resolve(name: str) -> str:
    """Backend that `name` stands for here; `auto` picks warp on an NVIDIA GPU, mjx on a TPU, native on a CPU."""
    platform = jax.default_backend()
    if name == "auto":
        return {"gpu": "warp", "cuda": "warp", "cpu": "native"}.get(platform, "mjx")
    if name not in BACKENDS:
        raise unknown("physics backend", name, (*BACKENDS, "auto"))
    if name == "warp" and platform not in ("gpu", "cuda"):
        raise UserError(
            "physics=warp needs an NVIDIA GPU that JAX can see (found: "
            f"{platform}); install the 'cuda' extra, or use physics=native on this machine"
        )
    return name


def make(name: str, model: mujoco.MjModel, fields: tuple[str, ...]) -> Physics:
    """Build a backend for `model` that reads back `fields`. Raises `UserError` for what it cannot do here."""
    name = resolve(name)
    if name == "native":
        from repertoire.envs.physics.native import NativePhysics

        return NativePhysics(model, fields)
    from repertoire.envs.physics.mjx import MjxPhysics

    return MjxPhysics(model, fields, impl="warp" if name == "warp" else "jax")
