"""Shared fixtures. The compilation cache makes repeated test runs cheap; programs with host callbacks skip it."""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "")  # gl.pick_gl decides
if not os.environ["MUJOCO_GL"]:
    del os.environ["MUJOCO_GL"]
