"""An interactive page of a motion for machines without OpenGL, made with the viewer of brax."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from repertoire.errors import UserError
from repertoire.experiment.files import write_text

_MAX_FRAMES = 1000  # a page of a few MB
_SHAPES = (0, 2, 3, 4, 5, 6, 7)  # mjtGeom of plane, sphere, capsule, ellipsoid, cylinder, box, mesh
_PLANE, _SPHERE, _ELLIPSOID = 0, 2, 4


def write_html(path: str | os.PathLike[str], model: Any, qpos: np.ndarray, dt: float) -> Path:
    """Write an HTML page that plays `qpos` [T, nq], `dt` seconds apart; drag to turn.

    The page holds model and motion but fetches the scripts of the viewer, so it needs a network when opened. Long
    motions are thinned to 1000 frames. Ellipsoids are drawn as spheres; height fields are left out.

    Raises:
      UserError: wrong shape, disk full or read-only.
    """
    from brax.io import html, json

    qpos = np.asarray(qpos, float)
    if qpos.ndim != 2 or qpos.shape[1] != model.nq:
        raise UserError(f"the viewer wants qpos [T, {model.nq}], got {list(qpos.shape)}")
    stride = max(1, -(-len(qpos) // _MAX_FRAMES))
    system = json.dumps(_system(model, dt * stride), _states(model, qpos[::stride]))
    page = html.render_from_json(system, height="100vh", colab=False, base_url=None)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, page)


def _system(model: Any, dt: float) -> Any:
    """The few fields of a brax System that its viewer reads.

    Not `brax.io.mjcf.load_model`: that refuses models whose *physics* brax lacks, which a viewer does not need.
    """
    shown = [g for g in range(model.ngeom) if model.geom_type[g] in _SHAPES and model.geom_group[g] < 3]
    types, sizes = model.geom_type[shown].copy(), model.geom_size[shown].copy()
    round_ = types == _ELLIPSOID
    types[round_], sizes[round_, 0] = _SPHERE, sizes[round_].mean(axis=1)
    sizes[types == _PLANE] = 0  # drawn as a checker floor without end
    colours = SimpleNamespace(geom_rgba=_colours(model)[shown], nmesh=model.nmesh)
    for field in ("mesh_faceadr", "mesh_face", "mesh_vertadr", "mesh_vert"):
        setattr(colours, field, getattr(model, field))
    return SimpleNamespace(
        opt=SimpleNamespace(timestep=dt),
        link_names=[model.body(b).name for b in range(1, model.nbody)],
        ngeom=len(shown),
        geom_bodyid=model.geom_bodyid[shown],
        geom_type=types,
        geom_size=sizes,
        geom_pos=model.geom_pos[shown],
        geom_quat=model.geom_quat[shown],
        geom_dataid=model.geom_dataid[shown],
        mj_model=colours,
    )


def _colours(model: Any) -> np.ndarray:
    """[ngeom, 4]: as MuJoCo draws it, a geom's own colour, or its material's where the geom has the default grey."""
    colours = model.geom_rgba.copy()
    grey = (model.geom_matid >= 0) & (colours == [0.5, 0.5, 0.5, 1]).all(axis=1)
    colours[grey] = model.mat_rgba[model.geom_matid[grey]]
    return colours


def _states(model: Any, qpos: np.ndarray) -> list[Any]:
    """Body positions [nbody - 1, 3] and orientations [nbody - 1, 4] of every frame, rounded to 0.1 mm."""
    import mujoco

    data, states = mujoco.MjData(model), []
    for row in qpos:
        data.qpos[:] = row
        mujoco.mj_kinematics(model, data)
        pose = SimpleNamespace(pos=data.xpos[1:].round(4), rot=data.xquat[1:].round(4))
        states.append(SimpleNamespace(x=pose))
    return states
