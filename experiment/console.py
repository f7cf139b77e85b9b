"""What a person sees while a run works: the plan, a live table with an ETA, plain lines when nobody watches."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

COMPILING = "compiling (cached next time) ..."


def plan(title: str, rows: Mapping[str, Any], *, quiet: bool = False, console: Any = None) -> None:
    """Print what is about to happen: `rows` maps a label to a value (config, updates, memory, where results go)."""
    if quiet:
        return
    console = console or _console()
    if not console.is_terminal:
        console.out("\n".join([title, *(f"  {k}: {v}" for k, v in rows.items())]), highlight=False)
        return
    from rich.panel import Panel

    console.print(Panel(_table(rows), title=f"[bold]{title}[/]", title_align="left", border_style="cyan", expand=False))


def _console() -> Any:
    from rich.console import Console

    return Console()


def _table(rows: Mapping[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows.items():
        table.add_row(Text(str(label)), value if hasattr(value, "__rich_console__") else Text(str(value)))
    return table


def human(value: float) -> str:
    """A number in few characters: 950, 12.3 k, 8.20 M, 1.10 G; small ones with three digits."""
    if not math.isfinite(value):
        return "nan"
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == ' k' else limit):.3g}{unit}"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds as 45 s, 7 min 30 s, 3 h 05 min."""
    if not math.isfinite(seconds):
        return "?"
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60:02d} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60:02d} min"


def _shown(value: Any) -> str:
    """A metric: one number, or mean and range over seeds."""
    array = np.asarray(value, dtype=float)
    if array.ndim == 0 or array.size == 1:
        return human(float(array.reshape(-1)[0]))
    return f"{human(array.mean())}  ({human(array.min())} .. {human(array.max())})"


class Progress:
    """Live table of a run on a terminal, one plain line per `every` seconds elsewhere, nothing when quiet.

    Use as a context manager; call `compiling` before a first call, `update` after every update, `note` for a line
    that stays.
    """

    def __init__(
        self,
        total_updates: int,
        *,
        metrics: Sequence[str] = (),
        start_update: int = 0,
        quiet: bool = False,
        every: float = 10.0,
        console: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Progress from `start_update` (0, or the resumed one) to `total_updates`, showing the named `metrics`."""
        self._total, self._names, self._quiet, self._every, self._clock = total_updates, metrics, quiet, every, clock
        self._console: Any = console or (None if quiet else _console())
        self._live: Any = None
        self._window: deque[tuple[float, int, int]] = deque(maxlen=50)
        self._last_line = -math.inf
        self._rows: dict[str, Any] = {"update": f"{start_update} / {total_updates}"}

    def __enter__(self) -> Progress:
        if not self._quiet and self._console.is_terminal:
            from rich.live import Live

            self._live = Live(self._render(), console=self._console, refresh_per_second=4, transient=False)
            self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*exc)
            self._live = None
        elif not self._quiet and self._window:
            self._line()

    def compiling(self, what: str = "") -> None:
        """Say why the first minute is silent; `what` names the program (rollout, update)."""
        self._rows["now"] = text = f"{COMPILING} {what}".rstrip()
        self._show(text)

    def update(self, update: int, env_steps: int, metrics: Mapping[str, Any] | None = None) -> None:
        """Record that `update` updates and `env_steps` steps (over all worlds) are done."""
        self._window.append((self._clock(), update, env_steps))
        speed, eta = self.rate()
        bar = "" if not self._total else f"  {100 * update / self._total:.0f} %"
        self._rows = {"update": f"{update} / {self._total}{bar}", "env steps": human(env_steps)}
        self._rows |= {"steps/s": human(speed) if math.isfinite(speed) else "?", "time left": duration(eta)}
        self._rows |= {n: _shown(metrics[n]) for n in self._names if metrics and n in metrics}
        if self._live is not None:
            self._live.update(self._render())
        elif not self._quiet and (self._clock() - self._last_line >= self._every or update >= self._total):
            self._line()

    def note(self, text: str) -> None:
        """Print a line that stays above the table (checkpoint written, video made, warning)."""
        self._show(text, keep=True)

    def rate(self) -> tuple[float, float]:
        """(env steps per second, seconds left) over the last 50 updates; NaN before the second update."""
        if len(self._window) < 2:
            return math.nan, math.nan
        (t0, u0, s0), (t1, u1, s1) = self._window[0], self._window[-1]
        if t1 <= t0 or u1 <= u0:
            return math.nan, math.nan
        return (s1 - s0) / (t1 - t0), (self._total - u1) * (t1 - t0) / (u1 - u0)

    def _show(self, text: str, keep: bool = False) -> None:
        if self._quiet:
            return
        if self._live is not None and not keep:
            self._live.update(self._render(), refresh=True)
        else:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> Any:
        from rich.panel import Panel

        return Panel(_table(self._rows), border_style="green", expand=False)

    def _line(self) -> None:
        if self._last_line == self._clock():
            return
        self._last_line = self._clock()
        self._console.out("  ".join(f"{k} {v}" for k, v in self._rows.items()), highlight=False)
