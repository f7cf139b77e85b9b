"""Who steps the physics, and how fast: our backends beside Brax, MJX and Gymnasium, in one process.

Contestants run in turns, several rounds long, so that a busy machine slows all of them alike; a figure is the median
over rounds, and its ratio to bare MuJoCo is the median of the ratios within a round. One step is one control step of
one world.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from repertoire.errors import UserError
from repertoire.scripts import bench_ours, bench_rivals, machine
from repertoire.scripts.bench_ours import Contestant

#: Calls before anything is timed: Brax compiles a second time when its own output comes back as input.
WARM_UP = 2
#: Seconds per round: ordinary, quick.
ROUND_S = (1.5, 0.2)


@dataclasses.dataclass
class Entry:
    """A contestant that was built, and what was measured so far."""

    contestant: Contestant
    call: Callable[[], Any]
    close: Callable[[], Any]
    compile_s: float
    peak_rss_mib: float
    calls: int = 1
    rounds: list[float] = dataclasses.field(default_factory=list)  # env steps/s


def measure(
    env_name: str = "ant",
    worlds: int = 1024,
    rounds: int = 3,
    quick: bool = False,
    rivals: bool = True,
    extra: Sequence[Contestant] = (),
) -> dict[str, Any]:
    """Throughput side by side: {"env", "machine", "rows"}, ready for JSON.

    Args:
      env_name: registry name; rivals exist for the robots in `bench_rivals.RIVALS`.
      worlds: batch of our contestants and of bare MuJoCo. rounds: measured rounds.
      quick: short rounds and small batches of rivals, to see that everything works.
      rivals: also the other engines, which compile for minutes. extra: further contestants, after ours.

    A row is {name, worlds, steps_per_s, ratio_to_bare, compile_s, peak_rss_mib, note}. `compile_s` is building and
    the first calls, `peak_rss_mib` the peak of memory until then (child processes included), above what was held
    before. A contestant that fails has None for figures and the reason in `note`. Raises `UserError` for bad input.
    """
    if worlds < 1 or rounds < 1:
        raise UserError(f"worlds and rounds must be at least 1, got {worlds} and {rounds}")
    contestants = [*bench_ours.ours(env_name, worlds), *extra]
    if rivals:
        contestants += bench_rivals.rivals(env_name, quick)
    return {"env": env_name, "machine": machine.describe(), "rows": side_by_side(contestants, rounds, quick)}


def side_by_side(contestants: Sequence[Contestant], rounds: int, quick: bool = False) -> list[dict[str, Any]]:
    """One row per contestant (see `measure`), all measured in turns; the first is what ratios are taken to."""
    seconds = ROUND_S[quick]
    entries: dict[str, Entry] = {}
    failures: dict[str, str] = {}
    for contestant in contestants:
        _try(failures, contestant.name, partial(_add, entries, contestant, seconds))
    for _ in range(rounds):
        for name, entry in entries.items():
            _try(failures, name, partial(_measure_round, entry))
    for name, entry in entries.items():
        _try(failures, name, entry.close)
    return [_row(c, entries.get(c.name), entries.get(contestants[0].name), failures) for c in contestants]


def _try(failures: dict[str, str], name: str, action: Callable[[], Any]) -> None:
    """Run `action` for contestant `name` unless it failed before; a failure is noted, not raised."""
    if name in failures:
        return
    try:
        action()
    except Exception as error:  # a rival's trouble is a result
        lines = str(error).strip().splitlines() or [""]
        failures[name] = f"failed: {type(error).__name__}: {lines[0]}"[:200]


def _enter(contestant: Contestant, seconds: float) -> Entry:
    """Build, compile and warm up; then choose how many calls make a round of `seconds`."""
    gc.collect()
    before = machine.reset_peak()
    start = time.perf_counter()
    call, close = contestant.build()
    for _ in range(WARM_UP):
        call()
    entry = Entry(contestant, call, close, time.perf_counter() - start, machine.total_mib("VmHWM") - before)
    rate = _round(entry)
    entry.calls = max(1, round(seconds * rate / (contestant.worlds * contestant.steps)))
    return entry


def _add(entries: dict[str, Entry], contestant: Contestant, seconds: float) -> None:
    entries[contestant.name] = _enter(contestant, seconds)


def _measure_round(entry: Entry) -> None:
    entry.rounds.append(_round(entry))


def _round(entry: Entry) -> float:
    """Env steps per second over one round."""
    start = time.perf_counter()
    for _ in range(entry.calls):
        entry.call()
    steps = entry.calls * entry.contestant.steps * entry.contestant.worlds
    return steps / (time.perf_counter() - start)


def _row(contestant: Contestant, entry: Entry | None, bare: Entry | None, failures: dict[str, str]) -> dict[str, Any]:
    rounds = entry.rounds if entry and contestant.name not in failures else []
    ratios = [a / b for a, b in zip(rounds, bare.rounds if bare else [])]
    return {
        "name": contestant.name,
        "worlds": contestant.worlds,
        "steps_per_s": statistics.median(rounds) if rounds else None,
        "ratio_to_bare": statistics.median(ratios) if ratios else None,
        "compile_s": entry.compile_s if entry else None,
        "peak_rss_mib": entry.peak_rss_mib if entry else None,
        "note": failures.get(contestant.name, contestant.note),
    }


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
