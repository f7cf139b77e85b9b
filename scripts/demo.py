"""`demo`: the main job end to end on a laptop: skills, library, controller, videos, checked export, one report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from repertoire.errors import UserError
from repertoire.experiment.report import write_report
from repertoire.experiment.run_dir import RunDir
from repertoire.scripts import config, export, train_controller, train_skills


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("demo", args, run)


def run(cfg: dict[str, Any]) -> Path:
    """Run (or resume) the demo and print the report's path last."""
    began, root = time.monotonic(), Path(cfg["run_dir"])
    common = [f"seed={cfg['seed']}", f"library={cfg['library']}"]
    _step(1, "discover skills without a reward: METRA on Ant", began)
    settings = ["env=ant", "objective=metra", "name=demo-ant", f"total_steps={cfg['skill_steps']}"]
    skills = config.compose("train_skills", [*settings, f"run_dir={root}/skills", *common])
    skill_run = train_skills.run(skills)
    reference = _reference(skill_run)
    _step(2, f"train a controller over the frozen {reference}: ant_multi_goals", began)
    settings = ["task=ant_multi_goals", f"skills=[{reference}]", f"total_steps={cfg['controller_steps']}"]
    controller = config.compose("train_controller", [*settings, f"run_dir={root}/controller", *common])
    controller_run = train_controller.run(controller)
    _step(3, "export the controller and its skills as one ONNX graph, and check it", began)
    exported = _export(controller_run)
    _step(4, "write the report", began)
    page = write_report(
        root / "report.html", [skill_run, controller_run], extra={"Export": exported}, title="repertoire demo"
    )
    print(f"done in {(time.monotonic() - began) / 60:.1f} min; open the report:")
    print(page)
    return page


def _reference(run_dir: RunDir) -> str:
    from repertoire.experiment.files import read_json

    return str(read_json(run_dir.path / "done.json")["skills"][0])


def _export(run_dir: RunDir) -> str:
    """Export with check; the HTML fragment for the report. Without the extra, a line that says so."""
    overrides = [f"run={run_dir.path}", "check=true"]
    try:
        folder = export.run(config.compose("export", overrides))
    except UserError as error:
        print(f"export skipped: {error}")
        return f"<p>Not exported: {error}</p>"
    parity = (folder / "parity.json").read_text()
    files = ", ".join(sorted(p.name for p in folder.iterdir()))
    return f"<p>{folder}: {files}</p><details><summary>parity.json</summary><pre>{parity}</pre></details>"


def _step(number: int, what: str, began: float) -> None:
    print(f"\n[{number}/4, {(time.monotonic() - began) / 60:.1f} min] {what}", flush=True)
