"""The whole road on the point: METRA skills, library, maze controller, evaluation, export, report. Under a minute."""

import json
import time

import pytest

from repertoire.experiment.files import read_json
from repertoire.scripts import cli


def test_point_skills_to_maze_controller(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    cli.main(["train-skills", "env=point", "objective=metra", "total_steps=320000", "run_dir=skills",
              "eval_every=0", "video=false", "logging.quiet=true"])  # fmt: skip
    skills = read_json(tmp_path / "skills" / "evaluation.json")
    assert skills["reach_m"] > 0.8 * 50 * 0.1  # straight at full speed is 50 steps of 0.1 m
    assert skills["goal_distance_m"] < 0.6 * skills["goal_distance_random_m"]

    cli.main(["train-controller", "task=point_maze", "skills=[point-metra]", "controller.hold=10",
              "env.goal=random", "algo.envs=128", "total_steps=1000000", "run_dir=maze", "eval_every=0",
              "video=false", "logging.quiet=true"])  # fmt: skip
    rules = read_json(tmp_path / "maze" / "evaluation.json")["rules"]
    elapsed = time.monotonic() - start
    assert rules["trained"]["return"] > 1.3 * rules["random"]["return"], rules
    assert rules["trained"]["return"] > 0.6, rules
    print(f"end to end in {elapsed:.0f} s: {json.dumps(rules)}")

    cli.main(["report", "runs=[skills,maze]", "out=report.html"])
    page = (tmp_path / "report.html").read_text()
    assert "point-metra" in page and "<img" in page

    pytest.importorskip("onnxruntime")
    cli.main(["export", "run=maze", "--check"])
    assert "check passed" in capsys.readouterr().out
