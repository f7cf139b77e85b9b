"""What made a run: versions, device, numerics, code state. Written once, then one session entry per start."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

SCHEMA = 1  # of manifest.json; raise it when a reader of the old one would misread the new one
PACKAGES = ("jax", "jaxlib", "flax", "optax", "mujoco", "mujoco-mjx", "brax", "orbax-checkpoint", "numpy")
#: Entry point group of packages that add envs and objectives.
PLUGINS = "repertoire.plugins"
_MAX_DIFF = 5_000_000  # characters


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """Installed version of every package that can change a result, and of Python; None when not installed."""
    added = {e.dist.name: e.dist.version for e in metadata.entry_points(group=PLUGINS) if e.dist}
    return {"python": platform.python_version()} | {p: _version(p) for p in PACKAGES} | added


def numerics() -> dict[str, Any]:
    """Devices and the JAX settings that decide about bits: platform, kind, count, matmul precision, x64."""
    import jax

    devices = jax.devices()
    config: Any = jax.config  # its attributes are made at run time
    return {
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "device_count": len(devices),
        "matmul_precision": config.jax_default_matmul_precision,
        "x64": bool(config.jax_enable_x64),
        "host": platform.platform(),
    }


def _git(*args: str) -> str | None:
    """Output of git in the current directory; None without git, without a repository or on an error."""
    try:
        done = subprocess.run(["git", *args], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def git_state() -> tuple[dict[str, Any] | None, str]:
    """(`{"commit", "dirty"}` or None outside a repository, diff against the commit or "")."""
    status = _git("status", "--porcelain")
    if status is None:
        return None, ""
    commit = (_git("rev-parse", "--verify", "--quiet", "HEAD") or "").strip() or None
    diff = (_git("diff", "HEAD") or "") if status.strip() and commit else ""
    return {"commit": commit, "dirty": bool(status.strip())}, diff[:_MAX_DIFF]


def session(git: dict[str, Any] | None, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """One start of the run: time (UTC), command line, code state."""
    command = list(sys.argv if argv is None else argv)
    return {"time": datetime.now(UTC).isoformat(timespec="seconds"), "command": command, "git": git}


def make_manifest(kind: str, git: dict[str, Any] | None) -> dict[str, Any]:
    """The manifest of a fresh run of `kind`."""
    first = session(git)
    return {
        "schema": SCHEMA,
        "kind": kind,
        "repertoire": _version("repertoire-rl"),
        "versions": versions(),
        "numerics": numerics(),
        "git": git,
        "created": first["time"],
        "command": first["command"],
        "sessions": [first],
    }
