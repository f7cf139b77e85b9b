"""`compare`: arms x envs x seeds. Trains what is unfinished, then writes one table, one page and its Markdown.

Skills can be judged by their use: where a downstream task is named, a controller over the frozen skills of each seed is
trained there, and its return is a figure of that seed like any other.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from repertoire.errors import UserError
from repertoire.experiment import comparison
from repertoire.experiment.console import human
from repertoire.experiment.files import read_json, write_json
from repertoire.experiment.run_dir import RunDir
from repertoire.scripts import arms, config, tied
from repertoire.scripts.arms import Job
from repertoire.skills import statistics


class Started(NamedTuple):
    """A job under way; what it says is in `log` from byte `begin` on."""

    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    begin: int


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("compare", args, run)


def run(cfg: dict[str, Any]) -> Path:
    """Train, collect, write. Raises `UserError` when runs failed; what finished is written all the same."""
    cfg = arms.listed(cfg)
    jobs = arms.plan(cfg)
    failed = launch(cfg, [j for j in jobs if not arms.finished(j)])
    controllers = arms.plan_downstream(cfg, jobs)
    failed += launch(cfg, [j for j in controllers if not arms.finished(j)])
    table = comparison.Table(cfg["name"], tuple(cfg["arms"]), tuple(cfg["envs"]), _metrics(cfg))
    cells, scores = collect(cfg, jobs, controllers)
    out = Path(cfg["out"])
    write_json(out / "comparison.json", {"cells": _plain(cells), "scores": _plain(scores), "config": cfg})
    runs = {(j.env, j.arm): RunDir.open(j.path) for j in jobs if arms.finished(j)}
    page = comparison.write_page(out / "compare.html", table, cells, runs, cfg["curves"], cfg["title"])
    markdown = comparison.markdown(table, cells, caption=_caption(cfg))
    print(markdown)
    if cfg["results"]:
        comparison.insert(Path(cfg["results"]), cfg["name"], markdown)
    print(page)
    if failed:
        names = ", ".join(path.name for path in failed)
        total, logs = len(jobs) + len(controllers), out / "logs"
        raise UserError(f"{len(failed)} of {total} runs failed ({names}): see {logs}; the command retries")
    return page


def launch(cfg: Mapping[str, Any], jobs: Sequence[Job]) -> list[Path]:
    """Run each job in a process of its own, in turn here, all at once where a launcher queues them; the failed ones."""
    logs = comparison.folder(Path(cfg["out"]) / "logs")
    local = cfg["launcher"] == "local"
    started: list[Started] = []
    failed = []
    for i, job in enumerate(jobs):
        log = logs / f"{job.path.name}.log"
        print(f"[{i + 1}/{len(jobs)}] {job.env}, {job.arm}: {log}", flush=True)
        with open(log, "ab") as file:
            process = subprocess.Popen(_command(cfg, job), stdout=file, stderr=subprocess.STDOUT)
            started.append(Started(job, process, log, file.tell()))
        if local:
            failed += _wait(started[-1])
    if not local:
        failed = [path for one in started for path in _wait(one)]
    return failed


def _command(cfg: Mapping[str, Any], job: Job) -> list[str]:
    sweep = [] if cfg["launcher"] == "local" else ["-m", f"launcher={cfg['launcher']}"]
    return [sys.executable, "-m", tied.__name__, str(os.getpid()), job.verb, *sweep, *job.args]


def _wait(started: Started) -> list[Path]:
    job, process = started.job, started.process
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # it got the signal too, and saves
        raise
    if code:
        print(f"  {job.env}, {job.arm}: exit code {code}{_reason(started)}", flush=True)
    return [job.path] if code else []


def _reason(started: Started) -> str:
    """The last error that the log has of this process, not of those before it."""
    told = started.log.read_bytes()[started.begin :].decode(errors="replace").splitlines()
    lines = [line for line in told if line.startswith("error: ")]
    return f": {lines[-1].removeprefix('error: ')}" if lines else ""


def collect(
    cfg: Mapping[str, Any], jobs: Sequence[Job], controllers: Sequence[Job] = ()
) -> tuple[comparison.Cells, dict[Any, list[float]]]:
    """(interquartile mean with its interval, scores per seed) of each (env, arm, metric) that was measured."""
    scores: dict[Any, list[float]] = {}
    for job in (j for j in jobs if arms.finished(j)):
        own = [c for c in controllers if (c.env, c.arm) == (job.env, job.arm) and arms.finished(c)]
        rows = [*comparison.seed_rows(job.path), *(downstream_figures(c) for c in own)]
        for metric in _metrics(cfg):
            values = [float(r[metric]) for r in rows if metric in r]
            if values:
                scores[job.env, job.arm, metric] = values
        for metric, key in (cfg["floor"] or {}).items():
            values = [float(r[key]) for r in rows if key in r]
            if values:
                scores.setdefault((job.env, comparison.FLOOR, metric), values[:1])  # it belongs to the env alone
    return {key: cell(values) for key, values in scores.items()}, scores


def _metrics(cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """The rows of the table: the config's, and the downstream return where there is one."""
    return (*cfg["metrics"], *(("downstream_return",) if cfg["downstream"] else ()))


def downstream_figures(job: Job) -> dict[str, float]:
    """Returns of a controller's run: `downstream_return`, and `downstream_random_return` of random skills."""
    found = read_json(job.path / "evaluation.json")
    return {
        "downstream_return": found["return"],
        "downstream_random_return": found["rules"]["random"]["return"],
    }


def cell(values: Sequence[float]) -> comparison.Cell:
    """Interquartile mean over seeds and its bootstrap interval; a single seed has no interval but itself."""
    array = np.asarray(values, float)
    middle = float(statistics.iqm(array))
    low, high = statistics.bootstrap(array) if len(array) > 1 else (middle, middle)
    return comparison.Cell(middle, low, high, len(array))


def _caption(cfg: Mapping[str, Any]) -> str:
    return (
        f"Comparison `{cfg['name']}`: {human(cfg['total_steps'])} env steps, {cfg['seeds']} seeds, "
        "interquartile mean and 95 % stratified bootstrap interval over seeds."
    )


def _plain(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    return {"/".join(key): list(value) for key, value in mapping.items()}
