"""Model files of gymnasium-robotics (extra `robotics`): found without importing it, stepped by our own backends.

Its envs themselves are not used. They step one world at a time, and those of 1.4.2 do not start with MuJoCo 3.17: they
ask `x in (enum, ...)` of numpy integers, which is false there.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import mujoco

from repertoire.envs.types import Array, Data
from repertoire.errors import UserError


def asset(env: str, name: str) -> str:
    """Path of the package's asset `name` for env `env`. Raises `UserError` where the package is missing."""
    spec = importlib.util.find_spec("gymnasium_robotics")
    if spec is None or spec.origin is None:
        raise UserError(f"env {env} needs gymnasium-robotics: pip install 'repertoire-rl[robotics]'")
    return str(Path(spec.origin).parent / "envs" / "assets" / name)


def sensor(model: mujoco.MjModel, data: Data, name: str) -> Array:
    """Values of the sensor `name`."""
    assert data.sensordata is not None
    found = model.sensor(name)
    start = int(found.adr[0])
    return data.sensordata[start : start + int(found.dim[0])]
