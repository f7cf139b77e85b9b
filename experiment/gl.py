"""Which OpenGL works here: found out in a subprocess, because a wrong choice can hang or break `import mujoco`."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys

_PROBE = """
import mujoco
m = mujoco.MjModel.from_xml_string('<mujoco/>')
with mujoco.Renderer(m, 16, 16) as r:
    r.update_scene(mujoco.MjData(m))
    assert r.render().shape == (16, 16, 3)
print('GL_OK', flush=True)
"""
_OFF = {"disable", "disabled", "off", "false", "0"}
_DEFAULT = {"enable", "enabled", "on", "true", "1", ""}


def _works(name: str, timeout: float) -> bool:
    env = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"} | {"MUJOCO_GL": name}
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], env=env, capture_output=True, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return b"GL_OK" in done.stdout  # not the exit code: drivers may crash after all is done


def _candidates() -> list[str]:
    current = os.environ.get("MUJOCO_GL", "").lower().strip()
    if current in _OFF:
        return []
    named = [] if current in _DEFAULT else [current]
    rest = ["egl", "osmesa"] if sys.platform.startswith("linux") else ["glfw"]
    if sys.platform.startswith("linux") and os.environ.get("DISPLAY"):
        rest.append("glfw")
    return list(dict.fromkeys(named + rest))


@functools.cache
def pick_gl(timeout: float = 30.0) -> str | None:
    """Name of a MUJOCO_GL value that renders here, or None; found once per process.

    Tries MUJOCO_GL if set, then EGL, then OSMesa (GLFW on a Mac and on Windows), each in a subprocess for at most
    `timeout` seconds. The choice is put into os.environ, and into `mujoco` if that is imported already. MUJOCO_GL=off
    answers None.
    """
    for name in _candidates():
        if _works(name, timeout) and _activate(name):
            return name
    return None


def _activate(name: str) -> bool:
    """Make `mujoco.Renderer` of this process use `name`.

    MuJoCo 3.17 reads MUJOCO_GL once, when `mujoco` itself is imported, into the module `gl_context`, but `Renderer`
    looks its GLContext up there at each call: reloading that module is enough.
    """
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = name
    if "mujoco" not in sys.modules:
        return True
    try:
        context = importlib.import_module("mujoco.rendering.classic.gl_context")
        if getattr(context, "_MUJOCO_GL", None) != name:
            importlib.reload(context)
        importlib.import_module("mujoco.rendering.classic.renderer")
        return True
    except Exception:  # PyOpenGL was bound to another platform earlier in this process
        if before is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = before
        return False


def why_no_gl() -> str:
    """One line for a person whose machine cannot render."""
    if os.environ.get("MUJOCO_GL", "").lower().strip() in _OFF:
        return "rendering is switched off by MUJOCO_GL"
    return "no OpenGL here (tried EGL, OSMesa): install libegl1 and libgl1, or libosmesa6; doctor tells more"
