"""What legged robots stand on: a plane, or rough ground as a height field with a plane around it."""

from __future__ import annotations

import mujoco
import numpy as np

#: Side of the rough ground, m, and points along a side: 0.2 m apart.
SIDE, POINTS = 40.0, 201
#: Half-width of the flat patch at the start, and width of the rim over which rough ground levels off, m.
PATCH = 0.6
#: How far below the rough ground's rim the plane around it lies, m: deep enough that nothing touches both.
DROP = 0.02
GROUNDS = ("flat", "rough")


def add(spec: mujoco.MjSpec, kind: str, roughness: float) -> None:
    """Add a light and the geom `floor` to a robot's `spec`; `roughness` is the largest height of `rough` ground, m."""
    spec.visual.headlight.ambient = [0.5, 0.5, 0.5]
    checker(spec, "grid")
    spec.worldbody.add_light(pos=[0, 0, 10], dir=[0, 0, -1], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    floor = {"name": "floor", "material": "grid", "rgba": [1, 1, 1, 1], "group": 0, "condim": 3, "friction": [0, 0, 0]}
    floor |= {"contype": 1, "conaffinity": 0}  # the robot's shapes decide on friction, and touch nothing else
    plane = {"type": mujoco.mjtGeom.mjGEOM_PLANE, "size": [40, 40, 1]}
    if kind == "flat":
        spec.worldbody.add_geom(**floor, **plane)
        return
    around = {**floor, "name": "around", "pos": [0, 0, -DROP]}  # without it, who leaves the field falls for good
    spec.worldbody.add_geom(**around, **plane)
    heights = rough_heights()
    spec.add_hfield(
        name="rough", nrow=POINTS, ncol=POINTS, size=[SIDE / 2, SIDE / 2, roughness, 0.5], userdata=heights.ravel()
    )
    floor |= {"material": "", "rgba": [0.5, 0.5, 0.45, 1]}
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname="rough", **floor)


def checker(spec: mujoco.MjSpec, name: str, dark: float = 0.8, repeat: float = 40) -> None:
    """Add the material `name` to `spec`: squares of light and `dark` grey, two by two, `repeat` times along a plane."""
    spec.add_texture(
        name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.9, 0.9, 0.9], rgb2=[dark, dark, dark], width=256, height=256,
    )  # fmt: skip
    material = spec.add_material(name=name, texrepeat=[repeat, repeat])
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name


def rough_heights() -> np.ndarray:
    """[POINTS, POINTS] in [0, 1]: random heights, flat around the middle and at the rim, the same in every run."""
    heights = np.random.default_rng(0).uniform(size=(POINTS, POINTS))
    distance = np.abs(np.linspace(-SIDE / 2, SIDE / 2, POINTS))
    away = np.maximum.outer(distance, distance)
    return heights * np.clip(np.minimum(away - PATCH, SIDE / 2 - away) / PATCH, 0.0, 1.0)
