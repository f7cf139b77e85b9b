"""Constants that MuJoCo derives from a model (`mj_setConst`), for MJX models whose masses differ by world.

MJX takes them over from the compiled model and never recomputes them. They decide how soft contacts and joint limits
are, so without them a heavier robot would stand on another floor than under C MuJoCo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.envs.physics.quiet import mjx
from repertoire.envs.types import Array

#: Fields whose change moves the constants below.
INERTIAL = frozenset(
    {"body_mass", "body_inertia", "body_pos", "body_quat", "body_ipos", "body_iquat", "dof_armature", "qpos0"}
)


def derived(model: mujoco.MjModel, overrides: Mapping[str, Array]) -> dict[str, Array]:
    """`body_subtreemass`, `body_invweight0` and `dof_invweight0` of `model` with `overrides`.

    Empty where no override is inertial. Source: `mj_setConst` in MuJoCo's engine (inverse inertia at qpos0, averaged
    over the axes of a body or joint).
    """
    if not INERTIAL & set(overrides):
        return {}
    mx = mjx.put_model(model, impl="jax").tree_replace(dict(overrides))
    data = mjx.make_data(model, impl="jax").replace(qpos=mx.qpos0)
    data = mjx.crb(mx, mjx.com_pos(mx, mjx.kinematics(mx, data)))
    inverse = jnp.linalg.inv(mjx.full_m(mx, data))
    return {
        "body_subtreemass": _ancestors(model) @ mx.body_mass,
        "body_invweight0": _body_invweight(model, mx, data, inverse),
        "dof_invweight0": jnp.asarray(_joint_average(model)) @ jnp.diag(inverse),
    }


def _body_invweight(model: mujoco.MjModel, mx: Any, data: Any, inverse: Array) -> Array:
    """[nbody, 2]: mean inverse mass for translation and rotation of each body's centre of mass; 0 if it is fixed.

    A body on orthogonal sliders alone (`body_simple` 2) has its plain inverse mass.
    """

    def one(body: Array, centre: Array) -> Array:
        jacobians = mjx.jac(mx, data, centre, body)
        return jnp.stack([jnp.einsum("ik,ij,jk->", j, inverse, j) / 3 for j in jacobians])

    weights = jax.vmap(one)(jnp.arange(model.nbody), data.xipos)
    slider = jnp.stack([1 / jnp.maximum(mx.body_mass, 1e-15), jnp.zeros(model.nbody)], axis=1)
    weights = jnp.where((model.body_simple == 2)[:, None], slider, weights)
    return jnp.where((model.body_weldid > 0)[:, None], weights, 0.0)


def _joint_average(model: mujoco.MjModel) -> np.ndarray:
    """[nv, nv]: the mean over the translations, and over the rotations, of a free or ball joint; else the identity."""
    mean = np.eye(model.nv, dtype=np.float32)
    for kind, first in zip(model.jnt_type, model.jnt_dofadr):
        triples = {int(mujoco.mjtJoint.mjJNT_FREE): (0, 3), int(mujoco.mjtJoint.mjJNT_BALL): (0,)}.get(int(kind), ())
        for offset in triples:
            part = slice(first + offset, first + offset + 3)
            mean[part, part] = 1 / 3
    return mean


def _ancestors(model: mujoco.MjModel) -> np.ndarray:
    """[nbody, nbody] float32: 1 where the column's body lies in the row's subtree."""
    inside = np.eye(model.nbody, dtype=np.float32)
    for body in range(model.nbody - 1, 0, -1):
        inside[model.body_parentid[body]] += inside[body]
    return inside
