"""`compare`: what it trains, what it leaves alone, what it writes."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from repertoire.errors import UserError
from repertoire.experiment import comparison
from repertoire.experiment.comparison import Cell, Table
from repertoire.experiment.files import write_json
from repertoire.experiment.run_dir import RunDir
from repertoire.scripts import arms, compare, config

TINY = ["algo.envs=8", "algo.rollout=8", "algo.minibatches=2", "algo.hidden=[8]", "env.episode_length=10"]
TINY += ["video=false", "eval_every=1", "logging.quiet=true"]


def settings(out):
    cfg = config.compose("compare", ["comparison=skills", "envs=[point]", "total_steps=128", "seeds=2", f"out={out}"])
    arms = {"metra": ["objective=metra"], "diayn": ["objective=diayn", "objective.skills=4"]}
    return {**cfg, "arms": arms, "overrides": TINY}


def test_tables_show_what_was_measured_and_a_dash_for_the_rest():
    table = Table("t", ("a", "b"), ("ant",), ("cells", "reach", "nobody"))
    cells = {("ant", "a", "cells"): Cell(10.0, 8.0, 12.5, 3), ("ant", "b", "reach"): Cell(1.0, 1.0, 1.0, 3)}
    header, rows = table.rows(cells, "ant")
    assert header == ["ant", "cells", "reach"]
    assert rows == [["a", "10 (8 .. 12.5)", "–"], ["b", "–", "1 (1 .. 1)"]]
    assert "| a | 10 (8 .. 12.5) | – |" in comparison.markdown(table, cells)


def test_results_are_written_between_their_markers_only(tmp_path):
    page = tmp_path / "results.md"
    page.write_text(
        "before\n<!-- comparison: t -->\nold\n<!-- end -->\nafter\n<!-- comparison: u -->\nkept\n<!-- end -->\n"
    )
    comparison.insert(page, "t", "| new |\n")
    assert page.read_text().startswith("before\n<!-- comparison: t -->\n| new |\n<!-- end -->\nafter\n")
    assert "kept" in page.read_text()
    with pytest.raises(UserError, match="no line '<!-- comparison: v -->'"):
        comparison.insert(page, "v", "")


def test_settings_of_the_runs_are_no_settings_of_compare():
    with pytest.raises(UserError, match=r"unknown setting of compare 'channels\.safety\.weight'"):
        config.compose("compare", ["channels.safety.weight=0.3"])


def test_a_wrong_name_fails_before_anything_is_trained(tmp_path):
    cfg = settings(tmp_path / "out")
    with pytest.raises(UserError, match="did you mean 'metra'"):
        compare.run({**cfg, "arms": {**cfg["arms"], "typo": ["objective=metro"]}})
    with pytest.raises(UserError, match="verb to compare"):
        compare.run({**cfg, "verb": "rollout"})
    assert not (tmp_path / "out").exists()


def test_arms_may_have_a_verb_of_their_own_envs_and_skills():
    cfg = config.compose("compare", ["comparison=controllers_hurdle", "seeds=2", "out=there"])
    cfg["envs"] = ["half_cheetah_hurdle", "ant_maze"]
    cfg["skills"]["ant_maze"], cfg["settings"]["ant_maze"] = ["ant-pos"], ["env.maze=u"]
    cfg["arms"]["sequence"]["envs"] = ["half_cheetah_hurdle"]
    cfg["arms"]["compose"] = {"skills": ["ant-east", "ant-west"], "settings": ["controller=compose"]}
    jobs = {(j.env, j.arm): j for j in arms.plan(cfg)}
    assert len(jobs) == 2 * 6 - 1 and ("ant_maze", "sequence") not in jobs
    blend, sequence = jobs["ant_maze", "blend"], jobs["half_cheetah_hurdle", "sequence"]
    assert blend.verb == "train-controller" and "skills=[ant-pos]" in blend.args
    assert "skills=[ant-east,ant-west]" in jobs["ant_maze", "compose"].args  # an arm's own
    assert "env.maze=u" in blend.args and "library=library" in blend.args and "env.maze=u" not in sequence.args
    assert "skills=[half_cheetah-metra]" in sequence.args  # one skill set, for mode=latent
    flat = jobs["ant_maze", "flat_ppo"]
    assert flat.verb == "train" and "env.maze=u" in flat.args and not any("skills" in a for a in flat.args)
    assert compare._command(cfg, flat)[4] == "train"
    cells = {("ant_maze", arm, "return"): Cell(1.0, 1.0, 1.0, 2) for arm in cfg["arms"]}
    table = Table("c", tuple(cfg["arms"]), ("ant_maze",), ("return",))
    assert [row[0] for row in table.rows(cells, "ant_maze")[1]] == list(cfg["arms"])


def test_one_word_is_a_list_of_one():
    """Wherever a comparison wants a list of words, none is read letter by letter."""
    cfg = config.compose("compare", ["comparison=controllers_hurdle"])
    one = {"settings": "controller=sequence", "skills": "half_cheetah-metra", "envs": "half_cheetah_hurdle"}
    short = {"envs": "half_cheetah_hurdle", "overrides": "video=false", "metrics": "return", "curves": "return"}
    short |= {"skills": {"half_cheetah_hurdle": "half_cheetah-diayn"}, "downstream_overrides": "video=false"}
    short |= {"settings": {"half_cheetah_hurdle": "env.episode_length=50"}}
    told = arms.listed({**cfg, **short, "arms": {"a": one, "b": "controller=blend"}})
    first, second = arms.plan(told)
    assert {"skills=[half_cheetah-metra]", "controller=sequence", "video=false"} <= set(first.args)
    assert {"skills=[half_cheetah-diayn]", "controller=blend", "env.episode_length=50"} <= set(second.args)
    assert compare._metrics(told) == ("return",) == told["curves"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"arms": {"a": {"verbs": "train"}}}, "setting of arm a 'verbs'.*did you mean 'verb'"),
        ({"arms": {"a": {"verb": "trian"}}}, "did you mean 'train'"),
        ({"arms": {"a": {"skills": []}}}, "arm a: skills must be how many of the env's"),
        ({"arms": {"a": {"skills": ["ant-pos", 2]}}}, r"arms\.a\.skills\[1\] must be a word, got 2"),
        ({"arms": {"a": {"skills": 0}}}, "arm a: skills must be how many of the env's"),
        ({"skills": {"ant_mase": ["ant-metra"]}}, "did you mean 'ant_maze'"),
        ({"settings": {"half_cheetah_hurdle": ["env.hurdle=u", "controler.hold=5"]}}, "did you mean 'controller"),
    ],
)
def test_arms_that_say_nothing_sensible_are_named(changed, message):
    cfg = config.compose("compare", ["comparison=controllers_hurdle"])
    with pytest.raises(UserError, match=message):
        arms.plan({**cfg, **changed})


def test_a_run_that_never_trained_is_made_anew_one_that_did_is_kept(tmp_path):
    (job, _) = arms.plan(settings(tmp_path / "out"))
    RunDir.create_or_resume(job.path, kind=job.verb, config={**job.config, "num_seeds": 5}).close()
    assert not arms.finished(job)
    (job.path / "metrics.jsonl").write_text('{"update": 1}\n')
    with pytest.raises(UserError, match="was made with num_seeds=5"):
        arms.finished(job)


def test_only_chosen_arms_are_run(tmp_path):
    cfg = settings(tmp_path / "out")
    assert [j.arm for j in arms.plan(arms.listed({**cfg, "only": "diayn"}))] == ["diayn"]
    assert list(arms.listed({**cfg, "only": ["diayn", "metra"]})["arms"]) == ["metra", "diayn"]
    with pytest.raises(UserError, match="unknown arm 'diany': did you mean 'diayn'"):
        compare.run({**cfg, "only": ["diany"]})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seeds": -1}, "seeds must be at least 1, got -1"),
        ({"seeds": "many"}, "seeds must be a whole number"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        (
            {"downstream": {"point": "ant_multi_goals"}},
            "downstream.point=ant_multi_goals: skill point-metra does not fit env ant_multi_goals",
        ),
    ],
)
def test_what_no_run_could_do_is_refused_before_any(tmp_path, changed, message):
    with pytest.raises(UserError, match=message):
        compare.run({**settings(tmp_path / "out"), **changed})
    assert not (tmp_path / "out").exists()


def test_a_failed_job_is_told_with_its_last_error(tmp_path, capsys, monkeypatch):
    (job, _), log = arms.plan(cfg := settings(tmp_path / "out")), tmp_path / "out" / "logs" / "point-metra.log"
    log.parent.mkdir(parents=True)
    log.write_text("error: of a day before\n")
    say = "print('error: one\\nerror: the disk is full\\nbye'); raise SystemExit(2)"
    monkeypatch.setattr(compare, "_command", lambda *_: [sys.executable, "-c", say])
    assert compare.launch(cfg, [job]) == [job.path]
    assert "point, metra: exit code 2: the disk is full" in capsys.readouterr().out
    monkeypatch.setattr(compare, "_command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    compare.launch(cfg, [job])
    assert "exit code 3\n" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_what_is_trained_ends_with_the_comparison():
    child = "import os, time; from repertoire.scripts.tied import tie; tie(os.getppid()); print('up', flush=True); "
    child += "time.sleep(100)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        process.kill()
        began = time.monotonic()
        assert process.stdout.read() == b""  # its end is closed once the child is gone too
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_compare_trains_what_is_missing_and_gives_the_same_table_again(tmp_path, capsys):
    out = tmp_path / "out"
    page = compare.run(settings(out))
    found = json.loads((out / "comparison.json").read_text())
    rows = comparison.seed_rows(out / "runs" / "point-metra")
    assert [r["seed"] for r in rows] == [0, 1]
    assert found["scores"]["point/metra/coverage_cells"] == [r["coverage_cells"] for r in rows]
    value, low, high, runs = found["cells"]["point/metra/coverage_cells"]
    np.testing.assert_allclose(value, np.mean([r["coverage_cells"] for r in rows]))  # of two, none is trimmed
    assert low <= value <= high and runs == 2
    assert "point/random actions/reach_m" in found["cells"]
    text = page.read_text()
    assert "random actions" in text and "data:image/png;base64" in text
    first = capsys.readouterr().out
    assert "[2/2]" in first

    (out / "runs" / "point-diayn" / "done.json").unlink()
    compare.run(settings(out))
    again = capsys.readouterr().out
    assert "[1/1] point, diayn" in again and "metra:" not in again
    assert json.loads((out / "comparison.json").read_text())["cells"] == found["cells"]


@pytest.mark.slow
def test_a_failed_arm_is_named_and_the_others_are_written(tmp_path, capsys):
    cfg = settings(tmp_path / "out")
    cfg["arms"] = {"metra": ["objective=metra"], "broken": ["objective=metra", "algo.minibatches=7"]}
    with pytest.raises(UserError, match=r"1 of 2 runs failed \(point-broken\)"):
        compare.run(cfg)
    assert "| metra |" in capsys.readouterr().out


def small(out, *extra):
    """One arm and one seed, as small as they get."""
    cfg = config.compose("compare", ["comparison=skills", "envs=[point]", "total_steps=128", f"out={out}", *extra])
    return {**cfg, "seeds": 1, "arms": {"metra": ["objective=metra", "objective.hidden=[8]"]}, "overrides": TINY}


def numbers(out):
    """All that a comparison and its run measured, without the clock."""
    found = json.loads((out / "comparison.json").read_text())
    run = out / "runs" / "point-metra"
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if k not in ("seconds", "time")} for row in log]
    return found["cells"], found["scores"], json.loads((run / "evaluation.json").read_text()), kept


@pytest.mark.slow
def test_the_same_seed_gives_the_same_table(tmp_path):
    for folder in ("one", "two"):
        compare.run(small(tmp_path / folder))
    assert numbers(tmp_path / "one") == numbers(tmp_path / "two")
    assert numbers(tmp_path / "one")[1]["point/metra/reach_m"][0] > 0


@pytest.mark.slow
def test_flat_arms_are_found_again(tmp_path, capsys):
    cfg = {**small(tmp_path / "out"), "arms": {"flat": {"verb": "train"}}, "metrics": ["return"], "floor": {}}
    cfg["overrides"] = [o for o in TINY if not o.startswith("env.")]
    compare.run(cfg)
    assert "| flat | " in capsys.readouterr().out
    compare.run(cfg)
    assert "[1/1]" not in capsys.readouterr().out


@pytest.mark.slow
def test_runs_of_other_settings_are_no_rows_of_the_table(tmp_path):
    cfg = small(tmp_path / "out")
    compare.run(cfg)
    with pytest.raises(UserError, match=r"made with algo\.envs=8, now algo\.envs=4"):
        compare.run({**cfg, "overrides": [*TINY, "algo.envs=4"]})
    with pytest.raises(UserError, match="made with total_steps=128, now total_steps=64"):
        compare.run({**cfg, "total_steps": 64})
    assert "objective=metra" in arms.plan({**cfg, "arms": {"metra": "objective=metra"}})[0].args  # a list of one


def test_downstream_tasks_are_checked_before_anything_is_trained(tmp_path):
    cfg = small(tmp_path / "out", "downstream.point=point_maze")
    assert cfg["downstream"] == {"point": "point_maze"}
    with pytest.raises(UserError, match="did you mean 'point_maze'"):
        arms.plan({**cfg, "downstream": {"point": "point_mase"}})
    with pytest.raises(UserError, match="unknown env with a downstream task 'ant'"):
        arms.plan({**cfg, "downstream": {"ant": "ant_multi_goals"}})
    with pytest.raises(UserError, match="downstream needs skills"):
        arms.plan({**cfg, "verb": "train"})


def pretended(cfg, jobs):
    """Runs that are done at once: skills reach 3 m, controllers earn 7, beside random skills' 2."""
    for job in jobs:
        opened = RunDir.create_or_resume(job.path, kind=job.verb, config={**job.config, "run_dir": str(job.path)})
        rules = {"trained": {"return": 7.0}, "random": {"return": 2.0}}
        write_json(opened.path / "evaluation.json", {"seeds": [{"reach_m": 3.0}], "rules": rules, "return": 7.0})
        (opened.path / "metrics.jsonl").touch()
        opened.mark_done(**({"skills": ["point-metra@4"]} if job.verb == "train-skills" else {}))
        opened.close()
    return []


def test_downstream_returns_are_figures_like_any_other(tmp_path, monkeypatch):
    launched = []
    monkeypatch.setattr(compare, "launch", lambda cfg, jobs: launched.append(list(jobs)) or pretended(cfg, jobs))
    monkeypatch.setattr(arms.pinning, "pinned", lambda config, kind: dict(config))  # there are no skills to pin to
    cfg = small(tmp_path / "out", "downstream.point=point_maze", "downstream_steps=256")
    cfg["metrics"] = ["reach_m", "downstream_return", "downstream_random_return"]
    compare.run(cfg)
    (skills,), (controller,) = launched
    assert skills.verb == "train-skills" and controller.verb == "train-controller"
    assert controller.path.name == "point_maze-point-metra-v4"
    assert {"skills=[point-metra@4]", "total_steps=256", "seed=0"} <= set(controller.args)
    scores = json.loads((tmp_path / "out" / "comparison.json").read_text())["scores"]
    assert scores["point/metra/downstream_return"] == [7.0]
    assert scores["point/metra/downstream_random_return"] == [2.0]
    launched.clear()
    compare.run(cfg)
    assert launched == [[], []]


@pytest.mark.slow
def test_controllers_over_the_frozen_skills_put_their_return_into_the_table(tmp_path, capsys):
    cfg = small(tmp_path / "out", "downstream.point=point_maze", "downstream_steps=256")
    cfg["downstream_overrides"] = ["env.episode_length=20", "controller.hold=5", *TINY[:4], "logging.quiet=true"]
    compare.run(cfg)
    run = tmp_path / "out" / "runs" / "point_maze-point-metra-v1"
    rules = json.loads((run / "evaluation.json").read_text())["rules"]
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["scores"]["point/metra/downstream_return"] == [rules["trained"]["return"]]
    assert "downstream_return" in capsys.readouterr().out.split("point-metra-v1.log")[1]

    (run / "done.json").unlink()
    compare.run(cfg)
    again = capsys.readouterr().out
    assert again.count("[1/1]") == 1 and "point_maze-point-metra-v1.log" in again
    compare.run(cfg)
    assert "[1/1]" not in capsys.readouterr().out
