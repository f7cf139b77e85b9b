"""One HTML file about one or more runs that stands alone: styles, plots and videos are inside."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repertoire.errors import UserError
from repertoire.experiment import embed, metrics_log, plots
from repertoire.experiment.console import human
from repertoire.experiment.files import read_json
from repertoire.experiment.run_dir import RunDir, flatten

_MAX_PANELS = 18
_FIRST = ("eval/", "env/reward", "reward/")  # of the metrics: what was achieved, then what was earned
_CENTRES = ("mean", "iqm", "gap")  # how an estimate with an interval may be called
_CARDS = ("card.md", "card.txt", "CARD.md")


def write_report(
    out_html: str | Path, runs: Sequence[RunDir], extra: Mapping[str, str] | None = None, title: str = "Report"
) -> Path:
    """Write the report of `runs` to `out_html`.

    Per run: what made it, config, final metrics, learning curves, `evaluation.json`, plots (`plots/*.png`), videos
    (`videos/*.mp4`) and the skill card (`card.md`). Several runs are first compared in one table and one figure.

    Args:
      extra: heading -> HTML fragment of further sections, shown before the runs; the caller vouches for the HTML.

    Raises:
      UserError: no runs, a damaged file in a run, disk full or read-only.
    """
    if not runs:
        raise UserError("a report needs at least one run: runs=PATH[,PATH]")
    out_html, budget = Path(out_html), [embed.MAX_PAGE]
    data = [metrics_log.read(run.metrics) for run in runs]
    parts = [_comparison(runs, data)] if len(runs) > 1 else []
    parts += [f"<section><h2>{embed.escape(name)}</h2>{body}</section>" for name, body in (extra or {}).items()]
    parts += [_run_section(run, d, out_html, budget) for run, d in zip(runs, data, strict=True)]
    return embed.write_page(out_html, title, parts)


def _run_section(run: RunDir, data: dict[str, np.ndarray], out: Path, budget: list[int]) -> str:
    state = "" if run.is_done else ' <span class="tag">not finished</span>'
    blocks = [
        _facts(run, data),
        embed.block("Evaluation", _evaluation(run)),
        embed.block("Videos", _videos(run, out, budget)),
        embed.block("Plots", _pictures(run)),
        embed.block("Learning curves", _learning([run], [data])),
        embed.block("Skill card", _card(run)),
        _details("Final metrics", _table(_final(data).items())),
        _details("Config", _table(flatten(run.config))),
        _details("Versions", _table(flatten(run.manifest.get("versions", {})))),
    ]
    return f"<section><h2>{embed.escape(run.name)}{state}</h2>{''.join(blocks)}</section>"


def _details(heading: str, body: str) -> str:
    return f"<details><summary>{heading}</summary>{body}</details>" if body else ""


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    cells = "".join(f"<tr><th>{embed.escape(k)}</th><td>{embed.escape(v)}</td></tr>" for k, v in rows)
    return f'<div class="scroll"><table>{cells}</table></div>' if cells else ""


def _facts(run: RunDir, data: dict[str, np.ndarray]) -> str:
    """The summary line of tiles: what was run, where, when, how far."""
    m = run.manifest
    numerics, git = m.get("numerics") or {}, m.get("git") or {}
    commit = (git.get("commit") or "")[:10] + (" + changes" if git.get("dirty") else "")
    rows = {"kind": run.kind, "made": str(m.get("created", "?")).replace("T", " ").replace("+00:00", " UTC")}
    rows["device"] = f"{numerics.get('device', '?')} × {numerics.get('device_count', 1)}"
    if len(data.get("update", ())):
        rows |= {"updates": str(int(data["update"][-1])), "env steps": human(float(data["env_steps"][-1]))}
        rows["time"] = _minutes(float(data["seconds"][-1])) if "seconds" in data else "?"
    rows["code"] = commit or "no repository"
    starts = len(m.get("sessions", ()))
    rows |= {"starts": str(starts)} if starts > 1 else {}
    tiles = "".join(f"<div><dt>{embed.escape(k)}</dt><dd>{embed.escape(v)}</dd></div>" for k, v in rows.items())
    return f'<dl class="facts">{tiles}</dl>'


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _number(value: Any) -> str:
    """A metric value: number, {mean, low, high} (or another of `_CENTRES`), or one entry per seed."""
    if isinstance(value, Mapping) and _centre(value):
        low, high = value.get("low", value.get("ci_low")), value.get("high", value.get("ci_high"))
        band = f" ({human(low)} .. {human(high)})" if low is not None and high is not None else ""
        return human(value[_centre(value)]) + band
    if isinstance(value, (list, np.ndarray)) and len(value) and np.ndim(value) == 1 and _all_numbers(value):
        numbers = np.asarray(value, float)
        return f"{human(numbers.mean())} ({human(numbers.min())} .. {human(numbers.max())})"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return human(float(value))
    return "–" if value is None else str(value)


def _centre(value: Mapping[str, Any]) -> str:
    """The key of an estimate's centre; empty for other mappings."""
    return next((k for k in _CENTRES if k in value), "")


def _all_numbers(values: Iterable[Any]) -> bool:
    return all(isinstance(v, (int, float, np.number)) for v in values)


def _final(data: dict[str, np.ndarray]) -> dict[str, str]:
    """Last finite value of every metric, shown."""
    shown = {}
    for name, column in data.items():
        rows = column[np.isfinite(column).reshape(len(column), -1).all(1)]
        if len(rows):
            last = rows[-1]
            shown[name] = _number(last.tolist())
    return shown


def _scores(run: RunDir) -> dict[str, str]:
    """`evaluation.json` as {dotted name: shown value}; {} when the run was not evaluated."""
    file = run.path / "evaluation.json"
    found: dict[str, str] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, Mapping) and not _centre(value):
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else str(key))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            if len(value) > 1:  # one row per seed: with a single one the figures stand beside it
                for i, inner in enumerate(value):
                    walk(inner, f"{name}[{i}]")
        else:
            found[name] = _number(value)

    if file.exists():
        walk(read_json(file), "")
    return found


def _evaluation(run: RunDir) -> str:
    return _table(_scores(run).items())


def _learning(runs: Sequence[RunDir], data: Sequence[dict[str, np.ndarray]]) -> str:
    names = [n for n in dict.fromkeys(n for d in data for n in d) if n not in ("update", "env_steps", "seconds")]
    names.sort(key=lambda name: next((i for i, group in enumerate(_FIRST) if name.startswith(group)), len(_FIRST)))
    panels = {}
    for name in names[:_MAX_PANELS]:
        have = [(r, d) for r, d in zip(runs, data, strict=True) if name in d]
        panels[name] = [plots.seed_series(r.name, d["env_steps"], d[name]) for r, d in have]
    if not panels:
        return ""
    with tempfile.TemporaryDirectory() as tmp:
        png = plots.curves(Path(tmp) / "curves.png", panels).read_bytes()
    note = "Over env steps. With several seeds: mean, and a band from the lowest to the highest."
    left = f" {_MAX_PANELS} of {len(names)} metrics." if len(names) > _MAX_PANELS else ""
    return f'{embed.image(png, "learning curves", "wide")}<p class="note">{note}{left}</p>'


def _pictures(run: RunDir) -> str:
    found = sorted(run.plots.glob("*.png"))
    body = "".join(embed.image(p.read_bytes(), p.stem.replace("_", " ")) for p in found)
    return f'<div class="grid">{body}</div>' if body else ""


def _videos(run: RunDir, out: Path, budget: list[int]) -> str:
    body = "".join(embed.video(p, out, budget) for p in sorted(run.videos.glob("*.mp4")))
    pages = "".join(
        f'<p class="note">Interactive page beside this report: {embed.link(p, out)}</p>'
        for p in sorted(run.videos.glob("*.html"))
    )
    return f'<div class="grid">{body}</div>{pages}' if body or pages else ""


def _card(run: RunDir) -> str:
    for name in _CARDS:
        if (run.path / name).exists():
            return f"<pre>{embed.escape((run.path / name).read_text(encoding='utf-8', errors='replace'))}</pre>"
    return ""


def _comparison(runs: Sequence[RunDir], data: Sequence[dict[str, np.ndarray]]) -> str:
    """Table of what differs in the configs and of all scores, a column per run, and the curves together."""
    configs = [dict(flatten(r.config)) for r in runs]
    keys = list(dict.fromkeys(k for c in configs for k in c))
    differ = [k for k in keys if len({str(c.get(k)) for c in configs}) > 1]
    scores = [_scores(r) or _final(d) for r, d in zip(runs, data, strict=True)]
    names = list(dict.fromkeys(n for s in scores for n in s))
    head = "<tr><th></th>" + "".join(f"<th>{embed.escape(r.name)}</th>" for r in runs) + "</tr>"
    body = _rows("config", differ, configs) + _rows("results", names, scores)
    table = f'<div class="scroll"><table class="compare">{head}{body}</table></div>'
    return f"<section><h2>Comparison</h2>{table}{embed.block('Learning curves', _learning(runs, data))}</section>"


def _rows(heading: str, names: Sequence[str], columns: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f"<th>{embed.escape(n)}</th>" + "".join(f"<td>{embed.escape(c.get(n, '–'))}</td>" for c in columns)
        for n in names
    ]
    span = f'<tr><th class="group" colspan="{len(columns) + 1}">{heading}</th></tr>' if rows else ""
    return span + "".join(f"<tr>{r}</tr>" for r in rows)
