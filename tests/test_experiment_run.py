"""Run directory, metrics log, trackers, console."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from repertoire.errors import UserError
from repertoire.experiment import files, metrics_log, trackers
from repertoire.experiment.console import Progress, duration, human, plan
from repertoire.experiment.metrics_log import MetricsLog
from repertoire.experiment.run_dir import RunDir, first_difference, latest

CONFIG = {"env": {"name": "ant"}, "ppo": {"lr": 1e-3, "hidden": [64, 64]}, "total_steps": 1000}


def make(path, config=CONFIG, kind="train-skills"):
    run = RunDir.create_or_resume(path, kind=kind, config=config)
    run.close()
    return run


def make_trained(path, config=CONFIG):
    """A run that holds more than its settings."""
    run = make(path, config)
    run.metrics.write_text('{"update": 1, "env_steps": 8}\n')
    return run


def test_fresh_run_then_resume(tmp_path):
    run = make(tmp_path / "a")
    assert not run.resumed and run.manifest["versions"]["jax"] and run.manifest["numerics"]["platform"]
    again = make(tmp_path / "a", {**CONFIG, "total_steps": 5000})
    assert again.resumed and len(again.manifest["sessions"]) == 2
    assert RunDir.open(tmp_path / "a").config["total_steps"] == 5000


def test_a_run_that_never_trained_starts_over(tmp_path, capsys):
    wrong = {**CONFIG, "num_seeds": 0}
    first = make(tmp_path / "a", wrong)
    assert make(tmp_path / "a", wrong).resumed and capsys.readouterr().out == ""
    (first.path / "metrics.jsonl").touch()  # logs are opened before the first update
    (first.path / "tensorboard").mkdir()
    first.checkpoints.mkdir()
    assert not make(tmp_path / "a").resumed
    (line,) = capsys.readouterr().out.splitlines()
    assert "never trained" in line and RunDir.open(first.path).config == CONFIG
    assert not make(tmp_path / "a", kind="train").resumed and RunDir.open(first.path).kind == "train"


@pytest.mark.parametrize("kept", ["checkpoints/1/state", "metrics.jsonl", "evaluation.json"])
def test_what_was_trained_is_never_overwritten(tmp_path, kept):
    path = make(tmp_path / "a").path / kept
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}\n")
    with pytest.raises(UserError, match="was made with"):
        make(tmp_path / "a", {**CONFIG, "num_seeds": 2})
    assert path.read_text() == "{}\n" and RunDir.open(tmp_path / "a").config == CONFIG


def test_config_mismatch_names_key_and_values(tmp_path):
    make_trained(tmp_path / "a")
    with pytest.raises(UserError, match=r"ppo\.lr=0\.001, now ppo\.lr=0\.0003: use another run_dir="):
        make(tmp_path / "a", {**CONFIG, "ppo": {"lr": 3e-4, "hidden": [64, 64]}})
    with pytest.raises(UserError, match="'train-skills' run, not 'train'"):
        make(tmp_path / "a", kind="train")
    assert RunDir.open(tmp_path / "a").config == CONFIG


def test_difference_sees_added_and_removed_keys():
    assert first_difference({"a": 1}, {"a": 1, "b": {"c": 2}}) == ("b.c", "(unset)", 2)
    assert first_difference({"a": {"x": 1}}, {}, mutable=("a",)) is None
    assert first_difference({"ab": 1}, {"ab": 2}, mutable=("a",)) is not None


def test_order_counts_where_it_is_meaning(tmp_path):
    """Entries of a one-hot, slices, channels and weights stand where the config has them."""
    tasks = {"reach": {"reach": 1.0, "safety": 0.0}, "flee": {"reach": -1.0}}
    config = {**CONFIG, "env": {"name": "point_disc", "tasks": tasks}}
    make_trained(tmp_path / "a", config)
    other = {**config, "env": {"name": "point_disc", "tasks": dict(reversed(tasks.items()))}}
    with pytest.raises(UserError, match=r"env\.tasks=\['reach', 'flee'\], now env\.tasks=\['flee', 'reach'\]: use"):
        make(tmp_path / "a", other)
    inner = {"flee": {"reach": -1.0}, "reach": {"safety": 0.0, "reach": 1.0}}
    same = {**dict(reversed(config.items())), "env": {"tasks": dict(reversed(inner.items())), "name": "point_disc"}}
    assert make(tmp_path / "a", same).resumed  # weights have no order, and other settings neither
    groups = [{"controller": {"groups": g}} for g in ({"z": ["x"], "a": ["y"]}, {"a": ["y"], "z": ["x"]}, "all")]
    assert first_difference(*groups[:2]) == ("controller.groups", ["z", "a"], ["a", "z"])
    assert first_difference(groups[2], groups[2]) is None
    assert first_difference(*groups[:2], mutable=("controller",)) is None


def test_open_explains_what_is_wrong(tmp_path):
    make(tmp_path / "ant-metra")
    with pytest.raises(UserError, match=r"did you mean .*ant-metra"):
        RunDir.open(tmp_path / "ant-mettra")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no manifest"):
        RunDir.open(tmp_path / "empty")
    (tmp_path / "ant-metra" / "config.json").write_text('{"env": ')
    with pytest.raises(UserError, match=r"config.json is damaged"):
        RunDir.open(tmp_path / "ant-metra")


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"not a run \(it holds thesis.tex\)"):
        make(tmp_path)


def test_start_killed_before_its_manifest_is_fresh(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert not make(tmp_path).resumed


def test_latest(tmp_path):
    with pytest.raises(UserError, match="no run under"):
        latest(tmp_path)
    for i, name in enumerate(("old", "sweep/new")):
        make(tmp_path / name)
        os.utime(tmp_path / name / "manifest.json", (i, i))
    assert RunDir.open("latest", root=tmp_path).name == "new"
    with pytest.raises(UserError, match="no train-controller run"):
        latest(tmp_path, kind="train-controller")


def test_done_marker(tmp_path):
    run = make(tmp_path / "a")
    assert not run.is_done
    run.mark_done(update=3)
    assert run.is_done and json.loads((run.path / "done.json").read_text()) == {"update": 3}
    run.clear_done()
    assert not run.is_done


@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX")
def test_second_writer_is_refused(tmp_path):
    make(tmp_path)
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    lock = str(tmp_path / ".lock")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, lock], stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another process"):
            make(tmp_path)
        other.communicate()
    make(tmp_path)


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "no permission"), (errno.EACCES, "no permission")],
)
def test_write_errors_are_one_clear_line(tmp_path, monkeypatch, code, words):
    real = builtins.open

    def broken(path, mode="r", *args, **kwargs):
        if str(path).startswith(str(tmp_path)) and mode[0] in "wa":
            raise OSError(code, os.strerror(code))
        return real(path, mode, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", broken)
    with pytest.raises(UserError, match=words) as caught:
        make(tmp_path / "run")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_place_that_cannot_be_made_is_one_clear_line():
    with pytest.raises(UserError, match=r"cannot write /proc/nope: no folder is or can be made there"):
        make("/proc/nope")


def test_guard_reads_wrapped_library_errors():
    with pytest.raises(OSError, match="later"), files.guard_writes("x"):  # what was looked for and missed on the way
        try:
            raise FileNotFoundError("cache")
        except FileNotFoundError:
            raise OSError("later") from None
    with pytest.raises(UserError, match="disk is full"), files.guard_writes("x"):
        try:
            raise ValueError("RESOURCE_EXHAUSTED: write failed [No space left on device]")
        except ValueError as inner:
            raise RuntimeError("save failed") from inner
    with pytest.raises(ZeroDivisionError), files.guard_writes("x"):
        _ = 1 / 0


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    files.write_json(tmp_path / "a.json", {"a": float("nan"), "b": np.float32(2)})

    def full(*args):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError):
        files.write_json(tmp_path / "a.json", {"a": 1})
    assert files.read_json(tmp_path / "a.json") == {"a": None, "b": 2.0}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_metrics_with_seeds_gaps_and_torn_line(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.append(1, 10, 0.5, {"loss": [1.0, np.nan], "kl": np.float32(0.5)})
    log.append(2, 20, 1.0, {"loss": np.array([3.0, 4.0]), "eval/return": 7})
    log.close()
    with open(tmp_path / "m.jsonl", "a") as f:
        f.write('{"update": 3, "env_st')
    data = metrics_log.read(tmp_path / "m.jsonl")
    assert data["update"].tolist() == [1, 2] and data["update"].dtype == np.int64
    np.testing.assert_array_equal(data["loss"], [[1, np.nan], [3, 4]])
    np.testing.assert_array_equal(data["eval/return"], [np.nan, 7])
    assert metrics_log.read(tmp_path / "none.jsonl") == {}


def test_resumed_metrics_equal_uninterrupted(tmp_path):
    def write(path, updates):
        log = MetricsLog(path)
        for u in updates:
            log.append(u, 10 * u, float(u), {"loss": 1 / u})
        log.close()

    write(tmp_path / "whole", range(1, 7))
    write(tmp_path / "cut", range(1, 6))
    with open(tmp_path / "cut", "a") as f:
        f.write('{"update": 6,')
    MetricsLog(tmp_path / "cut").truncate_after(4)
    write(tmp_path / "cut", range(5, 7))
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()


def test_tracker_names_are_checked(tmp_path):
    run = make(tmp_path / "a")
    with pytest.raises(UserError, match="did you mean 'tensorboard'"):
        trackers.make_trackers(["tensorbord"], run)
    assert len(trackers.make_trackers("jsonl", run)) == 1


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_tracker_names_the_extra(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"pip install 'repertoire-rl\[{name}\]'"):
        trackers.make_trackers([name], make(tmp_path / "a"))


def test_jsonl_and_tensorboard_write_and_resume(tmp_path):
    run = make(tmp_path / "a")
    for after, updates in ((0, (1, 2, 3)), (2, (3,))):
        made = trackers.make_trackers(["tensorboard", "jsonl"], run, after)
        assert [type(t).__name__ for t in made] == ["JsonlTracker", "TensorBoardTracker"]
        for u in updates:
            for t in made:
                t.log(u, 100 * u, {"loss": [1.0, 3.0]})
        for t in made:
            t.close()
    assert metrics_log.read(run.metrics)["update"].tolist() == [1, 2, 3]
    assert list((run.path / "tensorboard").glob("events*"))


class FakeWandb:
    """Steps only increase: a row of an earlier one is dropped. A run that is resumed goes on after its last step.

    Offline it knows of no other session, and what it was given is in a folder of this one.
    """

    def __init__(self, offline=False):
        self.offline, self.rows, self.step, self.ids = offline, [], 0, set()

    def init(self, *, id, resume, **_):
        assert resume == "allow"
        self.ids.add(id)
        if self.offline:
            self.rows, self.step = [], 0
        return self

    def log(self, row, step=None, commit=None):
        step = self.step if step is None else step
        assert step >= self.step, "W&B would drop it"
        self.rows.append(row)
        self.step = step + 1

    def define_metric(self, *args, **kwargs): ...

    def finish(self): ...


class FakeMlflow:
    """One run, which keeps every point."""

    def __init__(self):
        self.points, self.tags = [], None

    def search_runs(self, filter_string, output_format):
        latest = max(self.points, key=lambda p: p[0], default=(0, {}))[1]
        run = SimpleNamespace(info=SimpleNamespace(run_id="a"), data=SimpleNamespace(metrics=latest))
        return [run] if self.tags and self.tags["repertoire_run"] in filter_string else []

    def start_run(self, run_id=None, run_name=None, tags=None):
        assert run_id == "a" or self.tags is None
        self.tags = tags or self.tags

    def log_metrics(self, metrics, step):
        self.points.append((step, metrics))

    def set_experiment(self, name): ...

    def log_params(self, params): ...

    def end_run(self): ...


@pytest.mark.parametrize("fake", [FakeWandb, FakeMlflow])
def test_services_get_every_update_once(tmp_path, monkeypatch, fake):
    """Killed at update 4, resumed from the checkpoint of update 2: 3 and 4 come again, and are the same."""
    name, service = fake.__name__.removeprefix("Fake").lower(), fake()
    monkeypatch.setitem(sys.modules, name, service)
    run = make(tmp_path / "a")
    for after, updates in ((0, (1, 2, 3, 4)), (2, (3, 4, 5, 6)), (6, (7,))):
        tracker = trackers.make_trackers([name], run, after)[1]
        for u in updates:
            tracker.log(u, 100 * u, {"loss": [1.0, float(u)]})
        tracker.close()
    rows = service.rows if name == "wandb" else [{**row, "env_steps": step} for step, row in service.points]
    assert [(r["update"], r["env_steps"], r["loss/seed1"]) for r in rows] == [(u, 100 * u, u) for u in range(1, 8)]


def test_offline_the_newest_folder_is_that_of_a_run_never_killed(tmp_path, monkeypatch):
    """W&B keeps rows in memory, so of a session killed at update 4 any may be missing, also 1 and 2."""
    found, killed = [], ((0, (1, 2, 3, 4)), (2, (3, 4, 5, 6)), (6, (7,)))
    for name, sessions in {"killed": killed, "whole": ((0, range(1, 8)),)}.items():
        monkeypatch.setitem(sys.modules, "wandb", service := FakeWandb(offline=True))
        run = make(tmp_path / name)
        for after, updates in sessions:
            jsonl, wandb = trackers.make_trackers(["wandb"], run, after)
            for u in updates:
                for tracker in (jsonl, wandb):
                    tracker.log(u, 100 * u, {"loss": [1.0, float(u)], "last": u if u % 2 else float("nan")})
            jsonl.close()
        found.append(service.rows)
        assert len(service.ids) == 1
    assert [r["update"] for r in found[0]] == list(range(1, 8)) and str(found[0]) == str(found[1])


def test_scalars_split_seeds():
    assert dict(trackers.scalars({"a": [1.0, 3.0], "b": 2})) == {"a": 2, "a/seed0": 1, "a/seed1": 3, "b": 2}


def plain_console():
    from rich.console import Console

    return Console(file=io.StringIO(), force_terminal=False, width=200)


def test_plain_lines_are_rare_and_carry_the_eta():
    now, console = [0.0], plain_console()
    progress = Progress(100, metrics=["cells"], every=10, console=console, clock=lambda: now[0])
    with progress:
        progress.compiling("update")
        for u in range(1, 31):
            now[0] += 1
            progress.update(u, 1000 * u, {"cells": [u, 3 * u]})
        progress.note("[checkpoint] 30")
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "compiling (cached next time) ... update" and "[checkpoint] 30" in lines
    counted = [line for line in lines if line.startswith("update ")]
    assert 3 <= len(counted) <= 5
    assert "steps/s 1000" in counted[-1] and "time left 1 min 10 s" in counted[-1]
    assert "cells 60  (30 .. 90)" in counted[-1]


def test_live_table_and_plan_on_a_terminal():
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, width=90)
    plan("train-skills", {"env": "ant", "hidden": [256, 256]}, console=console)
    with Progress(10, metrics=["cells"], console=console) as progress:
        progress.update(1, 1000, {"cells": 1.0})
        progress.update(2, 2000, {"cells": 4.0})
    out = console.file.getvalue()
    assert "[256, 256]" in out and "2 / 10" in out and "cells" in out


def test_quiet_prints_nothing():
    console = plain_console()
    plan("t", {"a": 1}, quiet=True, console=console)
    with Progress(3, quiet=True, console=console) as progress:
        progress.compiling()
        progress.update(3, 3)
        progress.note("x")
    assert console.file.getvalue() == ""


def test_numbers_for_people():
    assert [human(v) for v in (950, 0.01234, 12_345, 8.2e6, float("nan"))] == [
        "950",
        "0.0123",
        "12.3 k",
        "8.2 M",
        "nan",
    ]
    assert [duration(s) for s in (45, 450, 11_100, float("nan"))] == ["45 s", "7 min 30 s", "3 h 05 min", "?"]
