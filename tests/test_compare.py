"""`compare`: what it trains, what it leaves alone, what it writes."""

import json

import numpy as np
import pytest

from repertoire.errors import UserError
from repertoire.experiment import comparison
from repertoire.experiment.comparison import Cell, Table
from repertoire.scripts import compare, config

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
