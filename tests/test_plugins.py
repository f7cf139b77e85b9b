"""A package of somebody else's, installed beside ours: its env and its objective have names like ours."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
CARD = "Metadata-Version: 2.1\nName: mylab\nVersion: 0.7\n"


def tutorial(page):
    """The Python block of a page."""
    return re.search(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.S).group(1)


def install(folder, code, configs=()):
    """What pip makes of a package `mylab`: the module and its metadata, on the path."""
    (folder / "mylab" / "configs" / "objective").mkdir(parents=True)
    (folder / "mylab" / "__init__.py").write_text(code)
    for package in ("configs", "configs/objective"):
        (folder / "mylab" / package / "__init__.py").touch()
    for name, text in configs:
        (folder / "mylab" / "configs" / name).write_text(text)
    info = folder / "mylab-0.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(CARD)
    (info / "entry_points.txt").write_text("[repertoire.plugins]\nmylab = mylab\n")


def repertoire(folder, *words, cwd=None):
    command = [sys.executable, "-m", "repertoire.scripts.cli", *words]
    env = {**os.environ, "PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, env=env, cwd=cwd or folder, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_tutorials_env_and_objective_train_by_name(tmp_path):
    code = tutorial("add_env").replace("env = registry.make", "env = lambda: registry.make") + tutorial("add_objective")
    code = code.replace('registry.TASKS["pendulum"]', 'envs.TASKS["pendulum"]')
    code = code.replace("from repertoire.envs import registry\n", "from repertoire.envs import registry as envs\n")
    install(tmp_path, code, [("objective/loud.yaml", "name: directions\nfeatures: null\nscale: 3.0\n")])
    listed = repertoire(tmp_path, "envs", "--json")
    assert "pendulum" in {row["name"] for row in json.loads(listed.stdout)}, listed.stderr
    small = ["algo.envs=8", "algo.rollout=8", "algo.minibatches=2", "algo.hidden=[8]", "video=false", "total_steps=128"]
    done = repertoire(tmp_path, "train-skills", "env=pendulum", "objective=loud", "run_dir=run", *small)
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (made["env"]["name"], made["objective"]["name"], made["objective"]["scale"]) == ("pendulum", "directions", 3)
    assert '"mylab": "0.7"' in (tmp_path / "run" / "manifest.json").read_text()
    again = repertoire(tmp_path, "evaluate", "run=run", "rollouts=2")
    assert again.returncode == 0, again.stderr
    wrong = repertoire(tmp_path, "train-skills", "env=pendulun")
    assert wrong.returncode == 2 and "did you mean 'pendulum'?" in wrong.stderr
    by_registry = repertoire(tmp_path, "train-skills", "objective=direction")
    assert by_registry.returncode == 2 and "'directions'" in by_registry.stderr


def test_a_plugin_that_does_not_import_is_named(tmp_path):
    install(tmp_path, "import nosuchthing\n")
    done = repertoire(tmp_path, "objectives")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "plugin mylab (mylab) cannot be imported: ModuleNotFoundError" in done.stderr
