"""MuJoCo's `mjx`, without the two lines that its import prints where Warp is not installed: they look like errors."""

from __future__ import annotations

import contextlib
import importlib.util
import io

with contextlib.nullcontext() if importlib.util.find_spec("warp") else contextlib.redirect_stdout(io.StringIO()):
    from mujoco import mjx

__all__ = ["mjx"]
