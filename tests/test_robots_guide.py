"""The guide in docs/robots.md, walked with its own robot and commands, at a thousandth of their length."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from repertoire.experiment.files import read_json
from repertoire.scripts import cli

GUIDE = (Path(__file__).resolve().parent.parent / "docs" / "robots.md").read_text()
SHORT = [
    "total_steps=256", "algo.envs=16", "algo.rollout=8", "algo.minibatches=2", "algo.hidden=[8]", "eval_every=0",
    "env.episode_length=10", "logging.quiet=true", "video=false",
]  # fmt: skip


def commands():
    """The guide's `repertoire` commands about its own robot, in order."""
    lines = [c for code in re.findall(r"^```bash\n(.*?)^```", GUIDE, re.M | re.S) for c in code.splitlines()]
    return [shlex.split(c)[1:] for c in lines if "id=" not in c]


@pytest.mark.slow
def test_the_guide_walks(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (xml,) = re.findall(r"^```xml\n(.*?)^```", GUIDE, re.M | re.S)
    Path("robot.xml").write_text(xml)
    walked = commands()
    verbs = ["train-skills", "rollout", "skills", "train", "train-controller", "benchmark", "export"]
    assert [c[0] for c in walked] == verbs
    for verb, *args in walked:
        cli.main([verb, *args, *(SHORT if verb.startswith("train") else ["count=2"] if verb == "rollout" else [])])
    printed = capsys.readouterr().out
    assert "frozen: mjcf_robot-metra@1" in printed and "check passed" in printed
    assert list(Path("crawl/videos").iterdir())
    model = read_json(Path("library/mjcf_robot-metra/1/manifest.json"))["contract"]["model"]
    assert model["file"] == "robot.xml" and model["sha256"] in printed
    assert all(row["agrees"] == "yes" for row in read_json(Path("benchmark.json"))["rows"])
    contract = read_json(Path("crawl/export/contract.json"))
    assert [a["kp"] for a in contract["actuators"]] == [8.0, 8.0]

    Path("robot.xml").write_text(xml.replace('mass="2"', 'mass="3"'))
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "run=crawl"])
    error = capsys.readouterr().err
    assert "robot.xml has changed" in error and error.count("\n") == 1
