"""The robots of SkillBench in the scenes of its tasks: what starts where, with which mass, and where it is."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.envs.tasks import skillbench_scenes as scenes
from repertoire.envs.tasks.panda.arm import uniform
from repertoire.envs.tasks.posture import Posture
from repertoire.envs.tasks.skillbench_table import Row
from repertoire.envs.types import Array, Data, Start

#: How far the doors are open at the start, rad.
AJAR = 1.0


@dataclass(frozen=True)
class Furnished(Posture):
    """Mix-in for a `Humanoid`: the scene of one row of the table."""

    camera: ClassVar[str] = scenes.CAMERA
    row: ClassVar[Row]
    build_of: ClassVar[scenes.Build]

    # -- scene and start -----------------------------------------------------------------------------------------

    def spec_mjcf(self) -> mujoco.MjSpec:
        """Adds the scene; its joints come after the robot's."""
        spec = super().spec_mjcf()
        self.row.furnish(spec, self.build_of)
        scenes.add_camera(spec, *self.row.view)
        return spec

    def start(self, key: Array) -> Start:
        """The robot's start; the object at rest in its range, with a mass of its own, or the doors ajar."""
        key, place_key, mass_key = jax.random.split(key, 3)
        start, row, first = super().start(key), self.row, 7 + self.model.nu
        start = start.replace(overrides=self._own(start.overrides))
        if row.moved == "doors":
            return start.replace(qpos=start.qpos.at[first:].set(AJAR))
        if row.start is None:
            return start
        start = start.replace(qpos=start.qpos.at[first : first + 3].set(uniform(place_key, *row.start)))
        if row.mass is None:
            return start
        return start.replace(overrides=start.overrides | self._weighing(uniform(mass_key, *row.mass), start.overrides))

    @functools.cached_property
    def _scene(self) -> dict[str, np.ndarray]:
        """Randomised model field -> its rows that belong to the scene."""
        robot, model = super().spec_mjcf().compile(), self.model
        bodies, fixed = np.arange(robot.nbody, model.nbody), np.flatnonzero(model.geom_bodyid == 0)
        furniture = fixed[(robot.geom_bodyid == 0).sum() :]
        geoms = np.concatenate([furniture, np.flatnonzero(model.geom_bodyid >= robot.nbody)])
        return {"geom_friction": geoms, "body_mass": bodies, "body_inertia": bodies}

    def _own(self, overrides: Mapping[str, Array]) -> dict[str, Array]:
        """Randomisation is of the robot and the floor: grip and weight of the scene belong to the task."""
        kept = dict(overrides)
        for name, rows in self._scene.items():
            if name in kept:
                kept[name] = kept[name].at[rows].set(jnp.asarray(getattr(self.model, name)[rows], jnp.float32))
        return kept

    def _weighing(self, mass: Array, overrides: Mapping[str, Array]) -> dict[str, Array]:
        """Model fields with the object's mass set."""
        body, fields = self.model.body("object").id, ("body_mass", "body_inertia")
        have = [overrides.get(f, jnp.asarray(getattr(self.model, f), jnp.float32)) for f in fields]
        inertia = jnp.asarray(self.model.body_inertia[body] / self.model.body_mass[body], jnp.float32)
        return {f: x.at[body].set(value) for f, x, value in zip(fields, have, (mass, mass * inertia))}

    # -- where things are ----------------------------------------------------------------------------------------

    @functools.cached_property
    def hand_sites(self) -> np.ndarray:
        """Ids [2] of the hands' sites, left first."""
        return np.asarray([self.model.site(name).id for name in self.hands])

    def object(self, data: Data) -> Array:
        """Centre of the object, or where the task's `place` is, [3] m."""
        first = 7 + self.model.nu
        return jnp.asarray(self.row.place) if self.row.start is None else data.qpos[first : first + 3]

    def moved(self, data: Data) -> Array:
        """What must come to the goal, [rows, d]: positions in m, or angles of doors in rad."""
        assert data.site_xpos is not None
        if self.row.moved == "doors":
            return data.qpos[7 + self.model.nu :, None]
        if self.row.moved == "object":
            return self.object(data)[None]
        return data.site_xpos[self.hand_sites][: 1 if self.row.moved == "left_hand" else 2]

    def hands_offset(self, data: Data) -> Array:
        """From each hand to the object, [2, 3] m."""
        assert data.site_xpos is not None
        return self.object(data) - data.site_xpos[self.hand_sites]

    def torso(self, data: Data) -> Array:
        """Position of the torso [3], m."""
        assert data.xpos is not None
        return data.xpos[self.model.body(self.trunk).id]
