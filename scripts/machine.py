"""This machine, and the memory of this process and its children (Linux: read from /proc)."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax


def describe() -> dict[str, Any]:
    """Processor, cores, device, load and versions, ready for JSON."""
    packages = ("jax", "mujoco", "mujoco-mjx", "brax", "gymnasium")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "device": jax.devices()[0].device_kind,
        "load": os.getloadavg()[0],
        "versions": {name: metadata.version(name) for name in packages},
    }


def reset_peak() -> float:
    """Let the peak of this process start from now, where the system can; memory now, MiB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return total_mib("VmRSS")


def total_mib(name: str) -> float:
    """Field `name` (VmRSS: now, VmHWM: peak) of this process, and what its children hold now, MiB."""
    own, *children = _family()
    return _memory_mib(own, "status", name) + sum(_memory_mib(child, "smaps_rollup", "Pss") for child in children)


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _family() -> list[Path]:
    """/proc folders of this process and all below it."""
    found, todo = [], [os.getpid()]
    while todo:
        folder = Path(f"/proc/{todo.pop()}")
        found.append(folder)
        try:
            todo += [int(p) for task in folder.glob("task/*/children") for p in task.read_text().split()]
        except OSError:  # gone meanwhile
            continue
    return found


def _memory_mib(folder: Path, file: str, name: str) -> float:
    """Field `name` (VmRSS: now, VmHWM: peak, Pss: now, shared pages divided) of a process, MiB; 0 if it is gone."""
    try:
        lines = (folder / file).read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)
