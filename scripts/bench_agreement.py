"""How far apart the physics backends get on every env: the same starts and controls, in simulated time."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import mujoco
import numpy as np

from repertoire.envs import physics, registry
from repertoire.envs.physics import agreement
from repertoire.envs.physics.native import NativePhysics
from repertoire.envs.task import Task
from repertoire.errors import UserError, unknown
from repertoire.scripts import elsewhere, machine

#: Starts of each env.
WORLDS = 2
#: Backend -> whether it computes in float64, and how far it may be from C MuJoCo, m, rad. In float32 contacts stretch
#: rounding a hundredfold every 0.1 s. What starts in touch to the last bit may be caught one substep later by one of
#: them: it falls by g dt^2 more (0.16 mm in 4 ms), and the contact takes that back. All else is far smaller.
BACKENDS = {"mjx": (True, 1e-3), "warp": (False, 1e-3)}
FIGURES = ("seconds", "position_m", "angle_rad", "tolerance", "holds_s", "agrees", "compile_s")


def measure(
    names: Sequence[str] = (), options: Mapping[str, Any] | None = None, seconds: float = 0.2, limit_s: float = 300.0
) -> dict[str, Any]:
    """Agreement of `native` with every other backend that can run here: {"env", "machine", "rows"}, ready for JSON.

    Args:
      names: envs, none for all of `registry.TASKS`. options: of those envs.
      seconds: simulated time, at least one control step. limit_s: what each env and backend gets, in its own process.

    A row is {name, backend, seconds, position_m, angle_rad, tolerance, holds_s, agrees, compile_s, note}: the largest
    differences over worlds and time (see `agreement.apart`), and the time until which both keep within `tolerance`.
    What fails, or a backend cannot hold, has None for figures and the reason in `note`. Raises `UserError` for bad
    input.
    """
    if not (seconds > 0 and limit_s > 0):
        raise UserError(f"seconds and rival_limit must be positive, got {seconds} and {limit_s}")
    chosen = list(dict.fromkeys(names)) or list(registry.TASKS)
    for name in chosen:
        if name in registry.ADAPTERS:
            raise UserError(f"env {name} brings its own physics: there is nothing to compare")
        registry.make_task(name, **(options or {}))
    rows = []
    for i, name in enumerate(chosen):
        for backend in here():
            print(f"{i + 1}/{len(chosen)} {name} on {backend}", flush=True)
            rows.append(_beside(name, dict(options or {}), backend, seconds, limit_s))
    return {"env": ", ".join(chosen), "machine": machine.describe(), "rows": rows}


def here() -> list[str]:
    """Backends beside `native` that this machine can run."""
    found = []
    for backend in BACKENDS:
        with contextlib.suppress(UserError):
            found.append(physics.resolve(backend))
    return found


def _beside(name: str, options: dict[str, Any], backend: str, seconds: float, limit_s: float) -> dict[str, Any]:
    platform = "cuda" if backend == "warp" else "cpu"
    asked = [name, options, backend, seconds]
    found = elsewhere.ask("repertoire.scripts.bench_agreement", asked, limit_s, platform)
    blank = {"name": name, "backend": backend, **dict.fromkeys(FIGURES)}
    return {**blank, "note": found} if isinstance(found, str) else {**blank, **found}


def row(name: str, options: dict[str, Any], backend: str, seconds: float) -> dict[str, Any]:
    """Figures of one env on `backend`, and what had to be changed for it. Raises `UserError` where it cannot be."""
    if backend not in BACKENDS:
        raise unknown("backend to compare with native", backend, BACKENDS)
    task = registry.make_task(name, **options)
    figures = _figures(task, backend, seconds)
    if figures["agrees"] == "yes" or task.model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC:
        return {**figures, "note": ""}
    worst = max(figures["position_m"], figures["angle_rad"])
    agreement.elliptic(task.model)
    note = f"with elliptic friction cones; as the env has them {worst:.1e} apart"
    return {**_figures(task, backend, seconds), "note": note}


def _figures(task: Task, backend: str, seconds: float) -> dict[str, Any]:
    double, tolerance = BACKENDS[backend]
    period = task.substeps * float(task.model.opt.timestep)
    steps = max(1, round(seconds / period))
    with jax.enable_x64(double):
        other = physics.make(backend, task.model, ())
    start, controls = agreement.drawn(task, WORLDS, steps)
    with jax.enable_x64(double):
        ours = agreement.motion(NativePhysics(task.model), start, controls, task.substeps)
        theirs = agreement.motion(other, start, controls, task.substeps)
    apart = agreement.apart(task.model, ours.qpos, theirs.qpos)
    good = np.maximum(apart["m"], apart["rad"]) <= tolerance  # NaN is not
    holds = steps if good.all() else int(np.argmin(good)) - 1
    return {
        "seconds": steps * period,
        "position_m": float(apart["m"].max()),
        "angle_rad": float(apart["rad"].max()),
        "tolerance": tolerance,
        "holds_s": max(holds, 0) * period,
        "agrees": "yes" if good.all() else "NO",
        "compile_s": theirs.compile_s,
    }


if __name__ == "__main__":
    elsewhere.answer(row)
