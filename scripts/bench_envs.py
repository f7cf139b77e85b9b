"""Every env beside the bare physics of its own model and, where asked, beside MJX on the same cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from repertoire.envs import registry
from repertoire.errors import UserError, unknown
from repertoire.scripts import bench_ours, bench_physics, machine
from repertoire.scripts.bench_ours import Contestant, scan_caller

#: Worlds that MJX steps at once: on a CPU more of them only take longer.
MJX_WORLDS = 256


def measure(
    names: Sequence[str] = (),
    worlds: int = 1024,
    rounds: int = 3,
    quick: bool = False,
    mjx: bool = False,
    mjx_limit_s: float = 300.0,
) -> dict[str, Any]:
    """Throughput of envs, each with random actions and auto-reset: {"env", "machine", "rows"}, ready for JSON.

    Args:
      names: registry names, none for all. worlds, rounds, quick: see `bench_physics.measure`.
      mjx: also the same env on MJX, in a process of its own that gets `mjx_limit_s` to compile and run.

    A row is {name, worlds, bare_per_s, steps_per_s, ratio_to_bare, ratio_to_mjx, compile_s, peak_rss_mib, note}.
    `bare_per_s` is C MuJoCo alone: same model, worlds and substeps, controls as random actions give them at the start.
    Both ratios are medians of those within a round; MJX is held against bare physics of its own process. What fails
    has None for figures and the reason in `note`. Raises `UserError` for bad input.
    """
    if worlds < 1 or rounds < 1 or not mjx_limit_s > 0:
        raise UserError(f"worlds, rounds and mjx_limit must be positive, got {worlds}, {rounds} and {mjx_limit_s}")
    for name in names:
        if name not in registry.TASKS:
            if name in registry.names():
                raise UserError(f"env {name} is made from a model or an id that it is given: it has no row of its own")
            raise unknown("env", name, registry.TASKS)
    chosen = list(dict.fromkeys(names)) or list(registry.TASKS)
    rows = []
    for i, name in enumerate(chosen):
        print(f"{i + 1}/{len(chosen)} {name}", flush=True)
        row = _row(name, *bench_physics.side_by_side(bench_ours.ours(name, worlds)[:2], rounds, quick))
        rows.append(_beside_mjx(row, rounds, quick, mjx_limit_s) if mjx else row)
    return {"env": ", ".join(chosen), "machine": machine.describe(), "rows": rows}


def _row(name: str, bare: dict[str, Any], native: dict[str, Any]) -> dict[str, Any]:
    note = next((row["note"] for row in (bare, native) if row["steps_per_s"] is None), "")
    return {**native, "name": name, "bare_per_s": bare["steps_per_s"], "ratio_to_mjx": None, "note": note}


def _beside_mjx(row: dict[str, Any], rounds: int, quick: bool, limit_s: float) -> dict[str, Any]:
    """`row` with `ratio_to_mjx`, or a note on why there is none."""
    command = [sys.executable, "-P", "-m", "repertoire.scripts.bench_envs"]
    asked = json.dumps([row["name"], row["worlds"], rounds, quick])
    try:
        done = subprocess.run(
            [*command, asked],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        return {**row, "note": f"{row['note']} mjx: not done after {limit_s:g} s".strip()}
    last = ((done.stderr if done.returncode else done.stdout).strip().splitlines() or ["no output"])[-1]
    other = {"ratio_to_bare": None, "note": last[:200]} if done.returncode else json.loads(last)
    if other["ratio_to_bare"] is None or row["ratio_to_bare"] is None:
        return {**row, "note": f"{row['note']} mjx: {other['note']}".strip()}
    return {**row, "ratio_to_mjx": row["ratio_to_bare"] / other["ratio_to_bare"]}


def mjx_row(name: str, worlds: int, rounds: int, quick: bool) -> dict[str, Any]:
    """The row (see `bench_physics.measure`) of env `name` on MJX, beside bare physics of `worlds` worlds."""
    batch = min(worlds, MJX_WORLDS)
    mjx = Contestant("mjx", batch, 1, lambda: scan_caller(registry.make(name, "mjx"), batch, 1))
    return bench_physics.side_by_side([bench_ours.ours(name, worlds)[0], mjx], rounds, quick)[1]


if __name__ == "__main__":
    print(json.dumps(mjx_row(*json.loads(sys.argv[1]))))
