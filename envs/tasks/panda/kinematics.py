"""Kinematics of the Panda in JAX: forward, geometric Jacobian, damped least squares. Unbatched, metres, radians.

Numbers: the vendor's "Robot and interface specifications" (DH table after Craig; limits for Panda).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.envs.types import Array

HALF_PI = np.pi / 2
#: (a, d, alpha) of each joint in Craig's convention: rotate alpha and shift a along x, then turn and shift d along z.
DH = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -HALF_PI),
    (0.0, 0.316, HALF_PI),
    (0.0825, 0.0, HALF_PI),
    (-0.0825, 0.384, -HALF_PI),
    (0.0, 0.0, HALF_PI),
    (0.088, 0.0, HALF_PI),
)
#: The same as rotations [7, 3, 3] about x and offsets [7, 3] in the frame of the joint before.
TILTS = np.array([[[1, 0, 0], [0, np.cos(t), -np.sin(t)], [0, np.sin(t), np.cos(t)]] for _, _, t in DH], np.float32)
OFFSETS = np.array([[a, -d * np.sin(t), d * np.cos(t)] for a, d, t in DH], np.float32)
FLANGE, TCP = 0.107, 0.1034  # m: joint 7 to flange, flange to the point between the fingertips
HAND_TURN = -np.pi / 4  # rad: the hand on the flange
JOINT_LOW = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
JOINT_HIGH = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
JOINT_SPEED = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])  # rad/s
TORQUE = np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0])  # N m
#: Fingers down, open along y.
DOWN = np.diag([1.0, -1.0, -1.0])

STEPS = 2  # linearisations per control step
DAMPING = 0.03  # least squares: errors along directions of less leverage than this are left
REST_GAIN = 0.1  # share of the way to the rest posture that a step takes with the free joint
#: GPUs multiply float32 matrices in 10 bits unless told otherwise.
EXACT = jax.lax.Precision.HIGHEST


class Chain(NamedTuple):
    """The arm at some joint angles, in the world frame (that of the base).

    joints: [7, 3] m, a point on each axis. axes: [7, 3]. position: [3] m of the tool centre point.
    rotation: [3, 3] of the hand.
    """

    joints: Array
    axes: Array
    position: Array
    rotation: Array


def forward(q: Array) -> Chain:
    """The chain at joint angles `q` [7]."""

    def link(hand: Any, joint: Any) -> Any:
        (position, rotation), (tilt, offset, angle) = hand, joint
        position = position + _times(rotation, offset)
        rotation = _times(_times(rotation, tilt), about_z(angle))
        return (position, rotation), (position, rotation[:, 2])

    # A loop, not 7 copies: these few operations stand in many places of a step, and compiling them is what costs.
    (position, rotation), (joints, axes) = jax.lax.scan(
        link, (jnp.zeros(3, q.dtype), jnp.eye(3, dtype=q.dtype)), (TILTS, OFFSETS, q)
    )
    position = position + (FLANGE + TCP) * rotation[:, 2]
    return Chain(joints, axes, position, _times(rotation, about_z(jnp.asarray(HAND_TURN, q.dtype))))


def jacobian(chain: Chain) -> Array:
    """Geometric Jacobian [6, 7] of the tool centre point: linear over angular velocity per joint velocity."""
    return jnp.concatenate([jnp.cross(chain.axes, chain.position - chain.joints), chain.axes], axis=1).T


def rotation_error(target: Array, rotation: Array) -> Array:
    """Vector [3] about which `rotation` [3, 3] must turn to become `target`; its length is the sine of the angle."""
    return 0.5 * jnp.sum(jnp.cross(rotation.T, target.T), axis=0)


def turned(rotation: Array, vector: Array) -> Array:
    """`rotation` [3, 3] turned about `vector` [3] (world frame) by its length (Rodrigues)."""
    angle = jnp.sqrt(jnp.sum(vector**2) + 1e-12)
    x, y, z = vector / angle
    cross = jnp.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    turn = jnp.eye(3) + jnp.sin(angle) * cross + (1 - jnp.cos(angle)) * _times(cross, cross)
    return _times(turn, rotation)


def solve(q: Array, position: Array, rotation: Array, rest: Array, steps: int = STEPS) -> Array:
    """Joint angles [7] near `q` [7] whose hand is at `position` [3] and `rotation` [3, 3], by damped least squares.

    The free joint drifts towards `rest` [7]. Each of `steps` is one linearisation (Nakamura, Hanafusa 1986; Wampler
    1986), clipped to the joint limits; what is out of reach stays an error.
    """

    def step(_: int, q: Array) -> Array:
        chain = forward(q)
        turn = jacobian(chain)
        error = jnp.concatenate([position - chain.position, rotation_error(rotation, chain.rotation)])
        drift = REST_GAIN * (rest - q)
        square = _times(turn, turn.T) + DAMPING**2 * jnp.eye(6)
        force = jnp.linalg.solve(square, error - _times(turn, drift))
        return jnp.clip(q + drift + _times(turn.T, force), JOINT_LOW, JOINT_HIGH)

    return jax.lax.fori_loop(0, steps, step, q)


def about_z(angle: Array) -> Array:
    """Rotation [3, 3] about z."""
    c, s, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle), jnp.ones_like(angle)
    return jnp.stack([c, -s, zero, s, c, zero, zero, zero, one]).reshape(3, 3)


def _times(a: Array, b: Array | np.ndarray) -> Array:
    return jnp.matmul(a, b, precision=EXACT)
