"""`metrics.jsonl`: one line per update, append-only, cut back on resume so that resumed equals uninterrupted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from repertoire.experiment.files import guard_writes, plain, write_text

_COUNTERS = ("update", "env_steps")


class MetricsLog:
    """Append-only writer of a metrics file.

    A value is a scalar or, with several seeds, a list with one entry per seed. NaN and infinities are stored as null
    and read back as NaN.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path` for appending; a line torn by a killed process is removed first."""
        self.path = Path(path)
        with guard_writes(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] | None = None
        self._cut(lambda row: True)

    def append(self, update: int, env_steps: int, seconds: float, metrics: Mapping[str, Any]) -> None:
        """Write one line and flush it. `seconds` is wall time of the run; `metrics` maps names to values.

        Raises:
          UserError: disk full or read-only.
        """
        row = {"update": int(update), "env_steps": int(env_steps), "seconds": round(float(seconds), 3)}
        line = json.dumps(plain({**row, **metrics}), allow_nan=False)
        with guard_writes(self.path):
            if self._file is None:
                self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
            self._file.write(line + "\n")
            self._file.flush()

    def truncate_after(self, update: int) -> None:
        """Drop every line whose update is greater than `update`: the checkpoint that is resumed never saw them."""
        self._cut(lambda row: row["update"] <= update)

    def close(self) -> None:
        """Close the file; a later `append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _cut(self, keep: Any) -> None:
        self.close()
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        kept = "".join(line + "\n" for line, row in _rows(text) if keep(row))
        if kept != text:
            write_text(self.path, kept)


def _rows(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(line, parsed row) of every whole line; torn or foreign lines are skipped."""
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "update" in row:
            yield line, row


def lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The whole lines as written, oldest first; none of a missing file."""
    return [row for _, row in _rows(_text(path))]


def last_row(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The newest whole line as written, {} when there is none."""
    rows = lines(path)
    return rows[-1] if rows else {}


def _text(path: str | os.PathLike[str]) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace") if Path(path).exists() else ""


def _column(values: list[Any]) -> np.ndarray:
    """[T] or [T, seeds] float64, NaN where a line lacks the metric."""
    width = max((len(v) for v in values if isinstance(v, list)), default=0)
    blank = [np.nan] * width
    rows = [(v if isinstance(v, list) else blank) if width else v for v in values]
    return np.array(rows, dtype=float)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Columns of a metrics file: {name: [T] or [T, seeds]}, `update` and `env_steps` as int64.

    T counts lines; a metric that a line lacks is NaN there. A missing file gives {}.
    """
    rows = lines(path)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column([row.get(name) for row in rows]) for name in names if _numeric(name, rows)}
    return {n: c.astype(np.int64) if n in _COUNTERS else c for n, c in columns.items()}


def _numeric(name: str, rows: list[dict[str, Any]]) -> bool:
    return not any(isinstance(row.get(name), (str, dict)) for row in rows)
