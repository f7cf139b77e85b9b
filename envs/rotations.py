"""Unit quaternions [4], w first: the few formulas that tasks need. Unbatched JAX."""

from __future__ import annotations

import jax.numpy as jnp

from repertoire.envs.types import Array


def rotate(q: Array, v: Array) -> Array:
    """`v` [3] of the rotated frame, in the frame that `q` rotates."""
    w, u = q[0], q[1:]
    return v + 2.0 * jnp.cross(u, jnp.cross(u, v) + w * v)


def unrotate(q: Array, v: Array) -> Array:
    """`v` [3] of the outer frame, in the rotated one: the inverse of `rotate`."""
    return rotate(inverse(q), v)


def inverse(q: Array) -> Array:
    """The opposite rotation."""
    return q * jnp.asarray([1.0, -1.0, -1.0, -1.0])


def product(p: Array, q: Array) -> Array:
    """First `q`, then `p`."""
    w = p[0] * q[0] - jnp.dot(p[1:], q[1:])
    return jnp.concatenate([w[None], p[0] * q[1:] + q[0] * p[1:] + jnp.cross(p[1:], q[1:])])


def gravity(q: Array) -> Array:
    """Unit vector [3] that points down, in the rotated frame: what an IMU at rest feels, reversed."""
    return unrotate(q, jnp.asarray([0.0, 0.0, -1.0]))


def heading(q: Array) -> Array:
    """Cosine and sine of the yaw angle (of intrinsic z-y-x angles), [2]."""
    w, x, y, z = q
    forward = jnp.stack([1.0 - 2.0 * (y * y + z * z), 2.0 * (w * z + x * y)])
    return forward / jnp.maximum(jnp.linalg.norm(forward), 1e-6)


def yaw(angle: Array) -> Array:
    """Quaternion of a turn by `angle` [] rad about the vertical."""
    return jnp.stack([jnp.cos(angle / 2), *jnp.zeros(2), jnp.sin(angle / 2)])


def euler(q: Array) -> Array:
    """Intrinsic x-y-z angles [3], rad: first about x, then about the new y, then about the new z."""
    w, x, y, z = q
    sine = jnp.clip(2.0 * (x * z + w * y), -1.0, 1.0)
    first = jnp.arctan2(2.0 * (w * x - y * z), 1.0 - 2.0 * (x * x + y * y))
    last = jnp.arctan2(2.0 * (w * z - x * y), 1.0 - 2.0 * (y * y + z * z))
    return jnp.stack([first, jnp.arcsin(sine), last])
