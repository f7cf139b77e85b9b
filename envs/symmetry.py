"""Left-right mirror symmetry of robots: what the reflection y -> -y makes of states, actions and observations.

Joints find their mirror images by geometry, in the default pose, so that no robot needs a table of its own. A robot
says which of its slices are vectors, rotations or joints; the rest follows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import mujoco
import numpy as np

from repertoire.envs.types import Array, ObsSpec
from repertoire.errors import UserError

#: How far from the mirror image of its partner a joint may lie, m, and the cosine between their axes.
DISTANCE, PARALLEL = 0.02, 0.99
#: Prefix of low-passed slices (`Task.smooth`), which mirror as what they follow.
SMOOTH = "smooth_"


class Flip(NamedTuple):
    """A signed permutation of the last axis: entry i of the image is `sign[i]` times entry `source[i]`."""

    source: np.ndarray
    sign: np.ndarray

    def __call__(self, x: Array) -> Array:
        """Mirror image of x [..., n]."""
        return x[..., self.source] * self.sign.astype(np.float32)

    def part(self, start: int, stop: int | None = None) -> Flip:
        """The entries `start` to `stop`, which must be mirrored among themselves."""
        return Flip(self.source[start:stop] - start, self.sign[start:stop])


def signs(*values: float) -> Flip:
    """Entries that stay in place."""
    return Flip(np.arange(len(values)), np.asarray(values, float))


def same(size: int) -> Flip:
    """`size` entries that do not change."""
    return signs(*[1.0] * size)


#: Vectors (velocities, directions), and what turns about axes (angular velocities); along x, y, z.
PLANAR, VECTOR, AXIAL, YAW = signs(1, -1), signs(1, -1, 1), signs(-1, 1, -1), signs(-1)


def side_by_side(flips: Sequence[Flip]) -> Flip:
    """The flip of a concatenation."""
    starts = np.cumsum([0, *(len(f.sign) for f in flips)])[: len(flips)]
    return Flip(
        np.concatenate([f.source + s for f, s in zip(flips, starts, strict=True)]),
        np.concatenate([f.sign for f in flips]),
    )


@dataclass(frozen=True)
class Mirror:
    """A robot's mirror symmetry.

    Attributes:
      qpos, qvel, action: flips of state and action. slices: of observation slices, by name.
    """

    qpos: Flip
    qvel: Flip
    action: Flip
    slices: Mapping[str, Flip]

    def group(self, spec: ObsSpec, group: str) -> Flip:
        """Flip of a whole observation group. Raises `UserError` for a slice whose image nobody declared."""
        return side_by_side([f for s in spec.groups[group] for f in [self._slice(s.name)] * s.history])

    def _slice(self, name: str) -> Flip:
        known = name.removeprefix(SMOOTH)
        if known not in self.slices:
            raise UserError(f"no mirror image is declared for the observation {name!r}: train with algo.symmetry=false")
        return self.slices[known]


def of(env: Any) -> Mirror:
    """The mirror symmetry of an env. Raises `UserError` where it has none."""
    mirror = env.task.mirror() if hasattr(env, "task") else None
    if mirror is None:
        raise UserError(f"env {env.spec.name} has no mirror symmetry: train with algo.symmetry=false")
    more = {s.name: same(s.size) for s in env.task.task_slices()}
    return dataclasses.replace(mirror, slices={**mirror.slices, **more}) if more else mirror


def model_flips(model: mujoco.MjModel, pose: np.ndarray) -> tuple[Flip, Flip, Flip]:
    """Flips of qpos, qvel and the actuators of a robot with a free base, from its geometry at `pose` [nq].

    Raises `UserError` where the model, or the pose, is not symmetric.
    """
    partners = _partners(model, pose)
    qpos, qvel = np.zeros((2, model.nq)), np.zeros((2, model.nv))
    for joint, (partner, sign) in enumerate(partners):
        q, v = (int(a[joint]) for a in (model.jnt_qposadr, model.jnt_dofadr))
        if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
            qpos[:, q : q + 7] = np.arange(q, q + 7), (1, -1, 1, 1, -1, 1, -1)
            qvel[:, v : v + 6] = np.arange(v, v + 6), (1, -1, 1, -1, 1, -1)
        else:
            qpos[:, q] = model.jnt_qposadr[partner], sign
            qvel[:, v] = model.jnt_dofadr[partner], sign
    flips = [Flip(source.astype(int), sign) for source, sign in (qpos, qvel)]
    if not np.allclose(pose[flips[0].source] * flips[0].sign, pose, atol=1e-6):
        raise UserError("the default pose is not its own mirror image")
    return flips[0], flips[1], _actuators(model, partners)


def _partners(model: mujoco.MjModel, pose: np.ndarray) -> list[tuple[int, float]]:
    """(mirror image, sign) of every joint: turning about axis a becomes turning about -M a, sliding along a, M a."""
    data = mujoco.MjData(model)
    data.qpos[:] = pose
    mujoco.mj_forward(model, data)
    mirror, found = np.array([1.0, -1.0, 1.0]), []
    for joint in range(model.njnt):
        kind = model.jnt_type[joint]
        if kind == mujoco.mjtJoint.mjJNT_FREE:
            found.append((joint, 1.0))
            continue
        axis = data.xaxis[joint] * mirror * (-1 if kind == mujoco.mjtJoint.mjJNT_HINGE else 1)
        alike = data.xaxis @ axis
        gap = np.linalg.norm(data.xanchor - data.xanchor[joint] * mirror, axis=1)
        gap[(np.abs(alike) < PARALLEL) | (model.jnt_type != kind)] = np.inf
        partner = int(gap.argmin())
        if gap[partner] > DISTANCE:
            raise UserError(f"joint {model.joint(joint).name} has no mirror image in its model")
        found.append((partner, float(np.sign(alike[partner]))))
    return found


def _actuators(model: mujoco.MjModel, partners: Sequence[tuple[int, float]]) -> Flip:
    """Flip of the actuators: each drives a joint, and its image the joint's image."""
    joints = model.actuator_trnid[:, 0].tolist()
    source = np.asarray([joints.index(partners[joint][0]) for joint in joints])
    sign = np.asarray([partners[joint][1] for joint in joints])
    gears = model.actuator_gear[:, 0]
    return Flip(source, sign * np.sign(gears * gears[source]))


def site_flip(model: mujoco.MjModel, pose: np.ndarray, sites: np.ndarray) -> Flip:
    """Which of `sites` [F] (ids) is the mirror image of which, at `pose`."""
    data = mujoco.MjData(model)
    data.qpos[:] = pose
    mujoco.mj_forward(model, data)
    places = data.site_xpos[sites]
    gaps = np.linalg.norm(places[:, None] * np.array([1.0, -1.0, 1.0]) - places[None], axis=-1)
    return Flip(gaps.argmin(1), np.ones(len(sites)))
