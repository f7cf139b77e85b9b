"""A comparison of runs as a table, a page and Markdown; the numbers come in ready."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from repertoire.errors import UserError
from repertoire.experiment import embed, metrics_log, plots
from repertoire.experiment.console import human
from repertoire.experiment.files import guard_writes, read_json, write_text
from repertoire.experiment.run_dir import RunDir

#: Name of the row that is no arm: random actions.
FLOOR = "random actions"


class Cell(NamedTuple):
    """An aggregate over seeds with its interval."""

    value: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        interval = f" ({human(self.low)} .. {human(self.high)})" if self.runs > 1 else ""
        return human(self.value) + interval


class Table(NamedTuple):
    """What is compared: one table per env, a row per arm, a column per metric."""

    name: str
    arms: tuple[str, ...]
    envs: tuple[str, ...]
    metrics: tuple[str, ...]

    def rows(self, cells: Cells, env: str) -> tuple[list[str], list[list[str]]]:
        """(header, rows) of one env; metrics that no arm has are left out, missing cells are a dash."""
        metrics = [m for m in self.metrics if any((env, arm, m) in cells for arm in self.arms)]
        arms = [a for a in (*self.arms, FLOOR) if any((env, a, m) in cells for m in metrics)]
        return [env, *metrics], [[a, *(str(cells.get((env, a, m), "–")) for m in metrics)] for a in arms]


Cells = Mapping[tuple[str, str, str], Cell]


def seed_rows(run: Path) -> list[dict[str, Any]]:
    """Figures of a run, one dictionary per seed."""
    found = read_json(run / "evaluation.json")
    return list(found["seeds"])


def markdown(table: Table, cells: Cells, caption: str = "") -> str:
    """The tables as Markdown."""
    parts = [caption] if caption else []
    for env in table.envs:
        header, rows = table.rows(cells, env)
        lines = [header, ["---"] * len(header), *rows]
        parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(parts) + "\n"


def insert(path: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- comparison: NAME -->` and `<!-- end -->` in a Markdown file."""
    begin, end = f"<!-- comparison: {name} -->", "<!-- end -->"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.S)
    if not pattern.search(old):
        raise UserError(f"{path} has no line {begin!r} followed by {end!r}: add them where the table should stand")
    write_text(path, pattern.sub(lambda _: f"{begin}\n{text}{end}", old))


def write_page(
    out: Path,
    table: Table,
    cells: Cells,
    runs: Mapping[tuple[str, str], RunDir],
    curves: Sequence[str],
    title: Any = None,
) -> Path:
    """One HTML file: per env the table, curves over env steps and over time, plots and videos side by side."""
    budget = [embed.MAX_PAGE]
    body = []
    for env in table.envs:
        chosen = {arm: run for (e, arm), run in runs.items() if e == env}
        header, rows = table.rows(cells, env)
        note = '<p class="note">Interquartile mean over seeds, with its 95 % stratified bootstrap interval.</p>'
        parts = [embed.grid(header, rows) + note, embed.block("Learning curves", _curves(chosen, curves))]
        for heading, folder, pattern in (("Plots", "plots", "*.png"), ("Videos", "videos", "*.mp4")):
            parts.append(embed.block(heading, _gallery(chosen, folder, pattern, out, budget)))
        body.append(f"<section><h2>{embed.escape(env)}</h2>{''.join(parts)}</section>")
    return embed.write_page(out, title or f"Comparison: {table.name}", body)


def _curves(runs: Mapping[str, RunDir], metrics: Sequence[str]) -> str:
    """Curves of evaluated metrics: mean over seeds and a band from the lowest to the highest."""
    data = {arm: metrics_log.read(run.metrics) for arm, run in runs.items()}
    panels = {}
    for metric in metrics:
        for axis in ("env_steps", "seconds"):
            series = [
                plots.seed_series(arm, d[axis], d[f"eval/{metric}"]) for arm, d in data.items() if f"eval/{metric}" in d
            ]
            if series:
                panels[f"{metric} over {axis.replace('_', ' ')}"] = series
    if not panels:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        png = plots.curves(Path(folder) / "curves.png", panels, columns=2, xlabel="").read_bytes()
    return embed.image(png, "learning curves", "wide")


def _gallery(runs: Mapping[str, RunDir], where: str, pattern: str, out: Path, budget: list[int]) -> str:
    """The first picture or video of every arm, side by side."""
    found = []
    for arm, run in runs.items():
        for path in sorted((run.path / where).glob(pattern))[:1]:
            body = embed.image(path.read_bytes(), arm) if path.suffix == ".png" else embed.video(path, out, budget, arm)
            found.append(body)
    return f'<div class="grid">{"".join(found)}</div>' if found else ""


def folder(path: Path) -> Path:
    """Make a folder of a comparison. Raises `UserError` where that is not possible."""
    with guard_writes(path):
        path.mkdir(parents=True, exist_ok=True)
    return path
