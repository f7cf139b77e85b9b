"""`report`: one HTML page of one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repertoire.errors import UserError, words
from repertoire.experiment.report import write_report
from repertoire.experiment.run_dir import RunDir, untrained
from repertoire.scripts import config


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("report", args, run)


def run(cfg: dict[str, Any]) -> Path:
    """Write the page of `runs=` (a list, or one folder) and print its path."""
    paths = words("runs", cfg["runs"])
    if not paths:
        raise UserError("report needs at least one run: runs=[runs/a,runs/b]")
    runs = [RunDir.open(p) for p in paths]
    if all(untrained(run.path) for run in runs):
        raise UserError(f"nothing to report yet: {', '.join(paths)} holds settings alone, train first")
    out = write_report(cfg["out"], runs, title=cfg["title"])
    print(out)
    return out
