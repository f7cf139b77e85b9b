"""How far apart two backends get from the same starts under the same controls."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.envs.physics.native import NativePhysics
from repertoire.envs.task import Task
from repertoire.envs.types import Array, Physics, Start

#: Compile fast. At level 0 XLA leaves a loop of MJX as it is written: a step of the Panda then takes seconds.
QUICK = {"xla_backend_optimization_level": 1, "xla_llvm_disable_expensive_passes": True}


class Motion(NamedTuple):
    """Where worlds went, and how long it took to compile."""

    qpos: np.ndarray  # [1 + T, N, nq]
    compile_s: float


def drawn(task: Task, worlds: int, steps: int, seed: int = 0) -> tuple[Start, Array]:
    """Starts of `task` [N, ...] and controls [T, N, nu], as random actions give them in the first state."""
    physics = NativePhysics(task.model, task.fields)

    def one(key: Array) -> tuple[Start, Array]:
        start_key, memory_key, action_key = jax.random.split(key, 3)
        start = task.start(start_key)
        data = physics.init(start.qpos, start.qvel, start.overrides)
        memory = task.remember(memory_key, data)
        actions = jax.random.uniform(action_key, (steps, len(task.action_names())), minval=-1.0, maxval=1.0)
        return start, jax.vmap(lambda action: task.control(action, data, memory))(actions)

    keys = jax.random.split(jax.random.key(seed), worlds)
    return jax.jit(jax.vmap(one, out_axes=(0, 1)), compiler_options=QUICK)(keys)


def motion(physics: Physics, start: Start, controls: Array, substeps: int) -> Motion:
    """qpos at the start and after each of the controls [T, N, nu], which act for `substeps` each."""

    def step(data: Any, ctrl: Array) -> tuple[Any, Array]:
        data = jax.vmap(lambda d, u: physics.step(d, u, substeps))(data, ctrl)
        return data, data.qpos

    def run(start: Start, controls: Array) -> Array:
        data = jax.vmap(physics.init)(start.qpos, start.qvel, start.overrides)
        qpos = jax.lax.scan(step, data, controls)[1]
        return jnp.concatenate([data.qpos[None], qpos])

    begun = time.perf_counter()
    program = jax.jit(run, compiler_options=QUICK).lower(start, controls).compile()
    compile_s = time.perf_counter() - begun
    return Motion(np.asarray(program(start, controls)), compile_s)


def elliptic(model: mujoco.MjModel) -> None:
    """Give `model` elliptic friction cones, and friction to contacts without, which MJX needs for such cones.

    Pyramidal cones depend on how the contact frame is turned about its normal, and MJX turns it by another rule for
    capsules steeper than 60 degrees.
    """
    model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    model.geom_condim[:] = np.maximum(model.geom_condim, 3)


def apart(model: mujoco.MjModel, one: np.ndarray, other: np.ndarray) -> dict[str, np.ndarray]:
    """Largest difference of qpos [T, N, nq] over N, after each step [T]: `m` of positions, `rad` of angles.

    `rad` is of the entries of quaternions too, which are half as large as the angle.
    """
    difference = np.abs(np.asarray(one, float) - np.asarray(other, float))
    metres = is_position(model)
    return {k: difference[..., i].max((1, 2), initial=0.0) for k, i in (("m", metres), ("rad", ~metres))}


def is_position(model: mujoco.MjModel) -> np.ndarray:
    """[nq] bool: entries of qpos in metres, those of slides and the first three of free joints."""
    found = np.zeros(model.nq, bool)
    for kind, first in zip(model.jnt_type, model.jnt_qposadr):
        sizes = {int(mujoco.mjtJoint.mjJNT_FREE): 3, int(mujoco.mjtJoint.mjJNT_SLIDE): 1}
        found[first : first + sizes.get(int(kind), 0)] = True
    return found
