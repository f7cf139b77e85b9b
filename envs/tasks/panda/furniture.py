"""Cubes, a drawer that can be locked and a button, for the Panda's table."""

from __future__ import annotations

import mujoco

HALF, MASS, FRICTION = 0.02, 0.1, 0.8  # m, kg, 1: an ordinary cube
COLOURS = ((0.85, 0.25, 0.2, 1.0), (0.2, 0.4, 0.85, 1.0))
BOX, CAPSULE, CYLINDER = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER
#: The drawer slides along -y by this much, m; its middle when shut; half its inside along x and y; height of its walls.
TRAVEL, SHUT_AT, INSIDE, WALL = 0.16, (0.48, 0.29), (0.065, 0.065), 0.05
#: The handle, a bar along x, from the middle of the drawer, m.
HANDLE = (0.0, -0.125, 0.065)
THICK = 0.005  # m, half of a wall
#: The button's middle and top, m; how deep it must be pressed and how deep it goes, m.
BUTTON, PRESSED, BUTTON_TRAVEL = (0.42, -0.27, 0.05), 0.008, 0.012
#: Spring (N/m), damper (N s/m) and strength (N) of the lock.
LOCK = 20000.0, 250.0, 200.0

_WOOD, _PALE, _METAL, _RED = (0.5, 0.36, 0.25, 1), (0.8, 0.7, 0.55, 1), (0.3, 0.3, 0.35, 1), (0.9, 0.5, 0.1, 1)
_SOLID = {"contype": 0, "conaffinity": 3}


def add_contact(spec: mujoco.MjSpec, name: str, one: str, other: str) -> None:
    """A sensor that counts the contacts of two geoms."""
    sensor = spec.add_sensor(name=name, type=mujoco.mjtSensor.mjSENS_CONTACT, objtype=mujoco.mjtObj.mjOBJ_GEOM)
    sensor.objname, sensor.reftype, sensor.refname = one, mujoco.mjtObj.mjOBJ_GEOM, other
    sensor.intprm[:3] = [1 << int(mujoco.mjtConDataField.mjCONDATA_FOUND), 0, 1]


def add_cube(spec: mujoco.MjSpec, name: str, half: float, rgba: tuple[float, ...]) -> None:
    """A free cube. Its own friction holds in all its contacts (`priority`), so that varying it has an effect."""
    body = spec.worldbody.add_body(name=name, pos=[0.5, 0.0, half])
    body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_FREE)
    body.add_geom(
        name=name, type=BOX, size=[half] * 3, mass=MASS, rgba=rgba,
        contype=2, conaffinity=3, priority=1, friction=[FRICTION, 0.02, 0.0001],
    )  # fmt: skip


def add_drawer(spec: mujoco.MjSpec) -> None:
    """A box open at the top that slides out of a cabinet; joint `drawer`, 0 shut to `TRAVEL` open.

    The cabinet's roof covers the drawer when it is shut. A light friction keeps it where it was left.
    """
    x, y = SHUT_AT
    _add_cabinet(spec, x, y)
    body = spec.worldbody.add_body(name="drawer", pos=[x, y, 0.0])
    body.add_joint(
        name="drawer", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, -1, 0], range=[0, TRAVEL],
        damping=[5, 0, 0], frictionloss=1.0, armature=0.1,
    )  # fmt: skip
    (a, b), high = INSIDE, WALL / 2
    walls = {
        "floor": ((0, 0, 0.008), (a, b, THICK)),
        "front": ((0, -b, high + 0.004), (a + THICK, THICK, high)),
        "back": ((0, b, high + 0.004), (a + THICK, THICK, high)),
        "left": ((-a, 0, high + 0.004), (THICK, b, high)),
        "right": ((a, 0, high + 0.004), (THICK, b, high)),
    }
    for name, (pos, size) in walls.items():
        body.add_geom(name=f"drawer_{name}", type=BOX, pos=pos, size=size, mass=0.1, rgba=_PALE, **_SOLID)
    hx, hy, hz = HANDLE
    body.add_geom(
        name="handle", type=CAPSULE, fromto=[hx - 0.04, hy, hz, hx + 0.04, hy, hz], size=[0.008, 0, 0], mass=0.05,
        rgba=_METAL, **_SOLID,
    )  # fmt: skip
    for side in (-0.04, 0.04):
        post = [side, hy, hz, side, -b, WALL]
        body.add_geom(type=CAPSULE, fromto=post, size=[0.005, 0, 0], mass=0.01, rgba=_METAL)


def _add_cabinet(spec: mujoco.MjSpec, x: float, y: float) -> None:
    body = spec.worldbody.add_body(name="cabinet", pos=[x, y, 0.0])
    (a, b), top = INSIDE, WALL + 0.03
    back, depth = 0.02, b - 0.005
    body.add_geom(
        name="roof", type=BOX, pos=[0, back, top], size=[a + 4 * THICK, depth, THICK], rgba=_WOOD, **_SOLID
    )  # fmt: skip
    for name, side in (("cabinet_left", -1), ("cabinet_right", 1)):
        pos = [side * (a + 3 * THICK), back, top / 2]
        body.add_geom(name=name, type=BOX, pos=pos, size=[THICK, depth, top / 2], rgba=_WOOD, **_SOLID)


def add_lock(spec: mujoco.MjSpec) -> None:
    """Actuator `lock`: at control 1 a stiff spring holds the drawer shut, at 0 nothing does."""
    spring, damper, strength = LOCK
    actuator = spec.add_actuator(name="lock", target="drawer", trntype=mujoco.mjtTrn.mjTRN_JOINT)
    actuator.gaintype, actuator.gainprm[:3] = mujoco.mjtGain.mjGAIN_AFFINE, [0.0, -spring, -damper]
    actuator.ctrllimited, actuator.ctrlrange = True, [0.0, 1.0]
    actuator.forcelimited, actuator.forcerange = True, [-strength, strength]


def add_button(spec: mujoco.MjSpec) -> None:
    """A button on a post; joint `button`, 0 at rest to -`BUTTON_TRAVEL` pressed against a spring."""
    x, y, top = BUTTON
    spec.worldbody.add_geom(
        name="post", type=BOX, pos=[x, y, 0.015], size=[0.03, 0.03, 0.015], rgba=_WOOD, **_SOLID
    )  # fmt: skip
    body = spec.worldbody.add_body(name="button", pos=[x, y, top])
    body.add_joint(
        name="button", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 0, 1], range=[-BUTTON_TRAVEL, 0],
        stiffness=[200, 0, 0], springref=0.01, damping=[5, 0, 0], armature=0.1,
    )  # fmt: skip
    body.add_geom(name="button", type=BOX, pos=[0, 0, -0.01], size=[0.02, 0.02, 0.01], mass=0.05, rgba=_RED, **_SOLID)
