"""What README and docs say is true: commands compose, Python blocks run, links and files exist."""

import re
import shlex
from pathlib import Path

import pytest

from repertoire.scripts import cli, config

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(language):
    return [(page, code) for page in PAGES for lang, code in FENCE.findall(page.read_text()) if lang == language]


def commands():
    lines = [(page.name, line) for page, code in blocks("bash") for line in code.splitlines()]
    inline = [(p.name, c) for p in PAGES for c in re.findall(r"`(repertoire [a-z][^`\n]*)`", p.read_text())]
    return sorted({(n, line.split("#")[0].strip()) for n, line in lines + inline if line.startswith("repertoire ")})


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_are_accepted(page, line):
    _, verb, *args = shlex.split(line)
    if verb == "VERB":
        return
    assert verb in cli.VERBS, line
    module = cli.VERBS[verb][0]
    if module in ("catalogue", "doctor") or "--help" in args:
        return
    first = [re.sub(r"^([^=\[]+=)([^,\[\]]+),.*$", r"\1\2", a) for a in args if a != "-m"]
    launcher = [a for a in first if a.startswith("launcher=")]
    assert all(a.split("=")[1] in config.LAUNCHERS for a in launcher)
    required = {"evaluate": "run=x", "rollout": "run=x", "export": "run=x", "report": "runs=[x]"}.get(verb)
    settings = [a for a in first if a not in launcher and "..." not in a]
    if required and not any(a.startswith(required.split("=")[0] + "=") for a in settings):
        settings.append(required)
    config.compose(module, settings)


def test_the_extractor_finds_commands():
    assert len(commands()) >= 12  # so that the test above cannot pass by finding nothing


@pytest.mark.parametrize(("page", "code"), blocks("python"), ids=lambda v: getattr(v, "stem", "code"))
def test_python_blocks_run(page, code, monkeypatch, tmp_path):
    from repertoire.envs import registry
    from repertoire.skills.objectives import registry as objectives

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "TASKS", dict(registry.TASKS))
    monkeypatch.setattr(registry, "OPEN", dict(registry.OPEN))
    monkeypatch.setattr(objectives, "OBJECTIVES", dict(objectives.OBJECTIVES))
    import sys
    import types

    module = types.ModuleType(f"doc_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
    exec(compile(code, str(page), "exec"), module.__dict__)
    if page.stem == "add_objective":
        _train("point", "directions")
    if page.stem == "add_env":
        _train("pendulum", "metra")


def _train(env_name, objective_name):
    import numpy as np

    from repertoire.algos import trainer
    from repertoire.algos.learner import Learner
    from repertoire.algos.ppo import PPOConfig
    from repertoire.envs import registry
    from repertoire.skills.objectives import registry as objectives

    config = PPOConfig(envs=8, rollout=4, minibatches=2, hidden=(8,))
    learner = Learner(registry.make(env_name), config, objectives.make(objective_name))
    compiled = trainer.programs(learner)
    (event,) = trainer.train(compiled, compiled.init(trainer.seed_keys(0)), 1)
    assert np.isfinite(event.metrics[f"reward/{objective_name}"])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_on_envs_lists_each_once():
    from repertoire.envs import registry

    table = (ROOT / "docs" / "envs.md").read_text().partition("## All envs")[2].partition("\n##")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ") and "---" not in line]
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(registry.names())


def test_readme_names_every_verb():
    text = (ROOT / "README.md").read_text()
    assert [v for v in cli.VERBS if v not in text and v != "demo"] == []
    assert "make demo" in text and "make test" in text


def test_the_objective_tutorial_is_short():
    (code,) = [c for p, c in blocks("python") if p.stem == "add_objective"]
    assert len(code.splitlines()) < 60
