"""Every env beside the bare physics of its own model and, where asked, beside rivals on the same cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from repertoire.envs import playground_env, registry
from repertoire.errors import UserError, unknown
from repertoire.scripts import bench_ours, bench_physics, bench_rivals, elsewhere, machine
from repertoire.scripts.bench_ours import Contestant

#: Worlds that a rival steps at once: on a CPU more of them only take longer.
RIVAL_WORLDS = 256
#: Who may stand beside an env -> its contestant for env and worlds, and how long a control step of it is, s.
RIVALS: dict[str, Callable[[str, int], tuple[Contestant, float]]] = {
    "mjx": lambda name, worlds: (bench_rivals.mjx(name, worlds), registry.make_spec(name).dt),
    "playground": bench_rivals.playground,
}


def measure(
    names: Sequence[str] = (),
    worlds: int = 1024,
    rounds: int = 3,
    quick: bool = False,
    rivals: Sequence[str] = (),
    limit_s: float = 300.0,
) -> dict[str, Any]:
    """Throughput of envs, each with random actions and auto-reset: {"env", "machine", "rows"}, ready for JSON.

    Args:
      names: registry names, none for all. worlds, rounds, quick: see `bench_physics.measure`.
      rivals: of `RIVALS`, each in a process of its own that gets `limit_s` to compile and run.

    A row is {name, worlds, bare_per_s, steps_per_s, ratio_to_bare, ratio_to_mjx, ratio_to_playground, compile_s,
    peak_rss_mib, note}. `bare_per_s` is C MuJoCo alone: same model, worlds and substeps, controls as random actions
    give them at the start. Ratios are medians of those within a round; a rival is held against bare physics of its own
    process, and Playground's env, whose control step has another length, in simulated time. What fails has None for
    figures and the reason in `note`. Raises `UserError` for bad input.
    """
    _check(names, rivals)
    if worlds < 1 or rounds < 1 or not limit_s > 0:
        raise UserError(f"worlds, rounds and rival_limit must be positive, got {worlds}, {rounds} and {limit_s}")
    chosen = list(dict.fromkeys(names)) or list(registry.TASKS)
    rows = []
    for i, name in enumerate(chosen):
        print(f"{i + 1}/{len(chosen)} {name}", flush=True)
        row = _row(name, *bench_physics.side_by_side(bench_ours.ours(name, worlds)[:2], rounds, quick))
        for rival in rivals:
            row = _beside(rival, row, rounds, quick, limit_s)
        rows.append(row)
    return {"env": ", ".join(chosen), "machine": machine.describe(), "rows": rows}


def _check(names: Sequence[str], rivals: Sequence[str]) -> None:
    for name in names:
        if name not in registry.TASKS:
            if name in registry.names():
                raise UserError(f"env {name} is made from a model or an id that it is given: it has no row of its own")
            raise unknown("env", name, registry.TASKS)
    for rival in rivals:
        if rival not in RIVALS:
            raise unknown("rival", rival, RIVALS)
    if "playground" in rivals:
        playground_env.library()


def _row(name: str, bare: dict[str, Any], native: dict[str, Any]) -> dict[str, Any]:
    note = next((row["note"] for row in (bare, native) if row["steps_per_s"] is None), "")
    none = {f"ratio_to_{rival}": None for rival in RIVALS}
    return {**native, "name": name, "bare_per_s": bare["steps_per_s"], **none, "note": note}


def _beside(rival: str, row: dict[str, Any], rounds: int, quick: bool, limit_s: float) -> dict[str, Any]:
    """`row` with `ratio_to_<rival>`, or a note on why there is none; as it is where the rival has no such robot."""
    if rival == "playground" and bench_rivals.playground_id(row["name"]) is None:
        return row
    other = _elsewhere([rival, row["name"], row["worlds"], rounds, quick], limit_s)
    notes = [row["note"], other["note"] and f"{rival}: {other['note']}"]
    known = None not in (row["ratio_to_bare"], other["ratio_to_bare"])
    ratio = row["ratio_to_bare"] / other["ratio_to_bare"] if known else None
    return {**row, f"ratio_to_{rival}": ratio, "note": "; ".join(filter(None, notes))}


def _elsewhere(asked: list[Any], limit_s: float) -> dict[str, Any]:
    """`rival_row(*asked)` of a process of its own; without a figure, and with the reason as a note, if it fails."""
    found = elsewhere.ask("repertoire.scripts.bench_envs", asked, limit_s)
    return {"ratio_to_bare": None, "note": found} if isinstance(found, str) else found


def rival_row(rival: str, name: str, worlds: int, rounds: int, quick: bool) -> dict[str, Any]:
    """The row (see `bench_physics.measure`) of a rival beside bare physics of `worlds` worlds of env `name`.

    `ratio_to_bare` is that of simulated times, not of control steps.
    """
    contestant, dt = RIVALS[rival](name, min(worlds, RIVAL_WORLDS))
    row = bench_physics.side_by_side([bench_ours.ours(name, worlds)[0], contestant], rounds, quick)[1]
    if row["ratio_to_bare"] is not None:
        row["ratio_to_bare"] *= dt / registry.make_spec(name).dt
    return row


if __name__ == "__main__":
    elsewhere.answer(rival_row)
