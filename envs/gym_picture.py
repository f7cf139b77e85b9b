"""Pictures of the Gymnasium envs: frames off screen, a window, and what this machine can draw."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import time
import weakref
from collections.abc import Sequence

import mujoco
import numpy as np

from repertoire.envs.task import Marker, Task
from repertoire.envs.types import State
from repertoire.errors import UserError, unknown

#: How far the camera is at most from a robot that it follows, m.
FOLLOW_M = 9.0
_NO_DISPLAY = (
    "render_mode='human' needs a display, and DISPLAY and WAYLAND_DISPLAY are not set: use render_mode='rgb_array'"
)
_NO_GL = (
    "render_mode='rgb_array' needs OpenGL ({}): install libegl1 and libgl1, or set MUJOCO_GL=osmesa with libosmesa6"
)


class Picture:
    """Frames of one world at a time, off screen."""

    def __init__(self, task: Task, height: int, width: int) -> None:
        self._task, self._data = task, mujoco.MjData(task.model)
        self._camera = _camera(task.model)
        task.model.vis.global_.offheight = max(height, task.model.vis.global_.offheight)
        task.model.vis.global_.offwidth = max(width, task.model.vis.global_.offwidth)
        try:
            _prefer_egl()
            self._renderer = mujoco.Renderer(task.model, height, width)
        except Exception as error:  # every GL platform fails in its own way
            raise UserError(_NO_GL.format(" ".join(str(error).split()))) from error
        self._free = weakref.finalize(self, self._renderer.close)
        self._free.atexit = False
        atexit.register(self._free)  # runs before the GL platform's own, which was registered earlier

    def frame(self, state: State) -> np.ndarray:
        """[height, width, 3] uint8 of `state` (numpy, one world)."""
        _pose(self._task.model, self._data, state)
        self._renderer.update_scene(self._data, self._camera)
        _mark(self._renderer.scene, self._task.markers(state))
        return self._renderer.render().copy()

    def close(self) -> None:
        """Free the GL context."""
        atexit.unregister(self._free)
        self._free()


class Window:
    """MuJoCo's passive viewer, drawn at most at real time."""

    def __init__(self, task: Task, dt: float) -> None:
        viewer = importlib.import_module("mujoco.viewer")
        self._task, self._data, self._dt, self._last = task, mujoco.MjData(task.model), dt, 0.0
        self._viewer = viewer.launch_passive(task.model, self._data, show_left_ui=False, show_right_ui=False)
        camera = _camera(task.model)
        for name in ("type", "trackbodyid", "distance", "azimuth", "elevation", "lookat"):
            setattr(self._viewer.cam, name, getattr(camera, name))

    def frame(self, state: State) -> None:
        """Draw `state` (numpy, one world), and wait for the end of its control step."""
        if not self._viewer.is_running():  # closed by hand
            return
        with self._viewer.lock():
            _pose(self._task.model, self._data, state)
            self._viewer.user_scn.ngeom = 0
            _mark(self._viewer.user_scn, self._task.markers(state))
        self._viewer.sync()
        time.sleep(max(0.0, self._last + self._dt - time.monotonic()))
        self._last = time.monotonic()

    def close(self) -> None:
        """Close the window."""
        self._viewer.close()


def checked_render_mode(mode: str | None, known: Sequence[str]) -> str | None:
    """`mode`, if it is None or one of `known` and works on this machine."""
    if mode is not None and mode not in known:
        raise unknown("render mode", mode, known)
    if mode == "human" and not has_display():
        raise UserError(_NO_DISPLAY)
    return mode


def has_display() -> bool:
    """Whether a window can be opened; only Linux says so beforehand."""
    return not sys.platform.startswith("linux") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def _pose(model: mujoco.MjModel, data: mujoco.MjData, state: State) -> None:
    data.qpos[:], data.qvel[:] = state.data.qpos, state.data.qvel
    mujoco.mj_forward(model, data)


def _camera(model: mujoco.MjModel) -> mujoco.MjvCamera:
    """Free camera on the whole model; follows the robot when its root moves through the world."""
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    moving = (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_SLIDE)
    if model.njnt and int(model.jnt_type[0]) in map(int, moving):
        camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        camera.trackbodyid = int(model.jnt_bodyid[0])
        camera.distance = min(camera.distance, FOLLOW_M)
    return camera


def _mark(scene: mujoco.MjvScene, markers: Sequence[Marker]) -> None:
    """Append spheres to `scene`, as many as it has room for."""
    for position, radius, rgba in markers[: scene.maxgeom - scene.ngeom]:
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom],
            mujoco.mjtGeom.mjGEOM_SPHERE,
            np.full(3, radius, np.float64),
            np.asarray(position, np.float64),
            np.eye(3).ravel(),
            np.asarray(rgba, np.float32),
        )
        scene.ngeom += 1


def _prefer_egl() -> None:
    """Without a display MuJoCo's default (GLFW) cannot draw: choose EGL, unless MUJOCO_GL says what to use.

    MuJoCo reads MUJOCO_GL once, when it is imported; `Renderer` looks its context class up in that module.
    """
    if not has_display() and not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = "egl"
        importlib.reload(importlib.import_module("mujoco.rendering.classic.gl_context"))
