"""The side-by-side throughput table: complete, paired, and never brought down by a rival."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.scripts import (
    bench_control,
    bench_envs,
    bench_objectives,
    bench_ours,
    bench_physics,
    bench_rivals,
    benchmark,
    config,
    elsewhere,
)
from repertoire.scripts.bench_ours import Contestant
from repertoire.scripts.bench_physics import measure

KEYS = {"name", "worlds", "steps_per_s", "ratio_to_bare", "compile_s", "peak_rss_mib", "note"}


def _worker(steps_per_call: int, name: str, worlds: int = 2) -> Contestant:
    return Contestant(name, worlds, steps_per_call, lambda: (lambda: sum(range(1000)), lambda: None))


def _broken(*_: Any) -> Any:
    raise RuntimeError("no such engine\nand more")


@pytest.mark.slow
def test_our_rows_are_complete_and_json() -> None:
    table = measure("ant", worlds=4, rounds=1, quick=True, rivals=False)
    rows = json.loads(json.dumps(table))["rows"]
    assert [row["name"] for row in rows][:3] == [
        "mujoco.batch, bare",
        "repertoire native",
        "repertoire native + policy",
    ]
    assert all(row.keys() == KEYS and row["steps_per_s"] > 0 and row["compile_s"] > 0 for row in rows)
    assert rows[0]["ratio_to_bare"] == 1.0
    assert table["machine"]["versions"]["mujoco"]


@pytest.mark.slow
def test_blends_are_contestants() -> None:
    rows = bench_control.blends("point", worlds=4, counts=(2, 3), hidden=(8,))
    three = ["+ blend of 3 skills", "+ blend of 3 skills, top=2", "+ switch of 3 skills"]
    assert [row.name for row in rows] == ["+ blend of 2 skills", "+ switch of 2 skills", *three]
    for row in rows[-2:]:
        call, close = row.build()
        call()
        close()
        assert row.worlds == 4
    spec = registry.make_spec("ant")
    first, second = (bench_control.drawn_skill(spec, (16, 8), seed) for seed in (0, 1))
    assert [k.shape for k, _ in first.layers("policy")] == [(29, 16), (16, 8), (8, 8)]
    assert first.digest() != second.digest()


def test_a_failing_rival_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    late = {"calls": 0}

    def fails_later() -> None:
        late["calls"] += 1
        if late["calls"] > 2:
            raise ValueError("ran out of breath")

    rivals = [
        Contestant("absent", 2, 1, _broken),
        Contestant("tired", 2, 1, lambda: (fails_later, lambda: None)),
        _worker(1, "fine"),
    ]
    monkeypatch.setattr(bench_ours, "ours", lambda *_: [_worker(1, "bare")])
    monkeypatch.setattr(bench_rivals, "rivals", lambda *_: rivals)
    monkeypatch.setattr(bench_physics, "ROUND_S", (0.01, 0.01))
    bare, absent, tired, fine = measure("ant", rounds=2)["rows"]
    assert bare["ratio_to_bare"] == 1.0 and fine["steps_per_s"] > 0
    assert absent["steps_per_s"] is None and absent["note"] == "failed: RuntimeError: no such engine"
    assert tired["steps_per_s"] is None and "ran out of breath" in tired["note"]


def test_ratios_are_taken_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([1.0, 1.0, 10.0, 20.0, 100.0, 200.0, 1.0, 2.0])
    monkeypatch.setattr(bench_physics, "_round", lambda entry: next(rates))
    monkeypatch.setattr(bench_ours, "ours", lambda *_: [_worker(1, "bare"), _worker(1, "twice")])
    bare, twice = measure("ant", rounds=3, rivals=False)["rows"]
    assert (bare["steps_per_s"], twice["steps_per_s"], twice["ratio_to_bare"]) == (10.0, 20.0, 2.0)


def test_every_kind_of_rival_is_asked() -> None:
    names = [c.name for c in bench_rivals.rivals("ant", quick=False)]
    engines = [f"brax {engine}" for engine in bench_rivals.BRAX_ENGINES]
    assert names == ["repertoire mjx", "mujoco.batch, bare, Brax's model", *engines, "gymnasium async"]
    assert [c.name for c in bench_rivals.rivals("ant_multi_goals", quick=False)] == ["repertoire mjx"]
    assert set(bench_rivals.RIVALS) <= set(registry.TASKS)


def test_bare_mujoco_feels_its_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    real = bench_ours.Batch

    def keep(*args: Any) -> Any:
        batches.append(real(*args))
        batches[-1].bind("actuator_force")  # fields are filled in from the binding on
        return batches[-1]

    monkeypatch.setattr(bench_ours, "Batch", keep)
    env = registry.make("ant", "native")
    call, _ = bench_ours._bare(env, 2)
    call()
    (batch,) = batches
    assert np.allclose(batch.bind("time"), bench_ours.CHUNK * env.spec.dt)
    assert np.abs(batch.bind("actuator_force")).min() > 0


@pytest.mark.parametrize("wrong", [{"worlds": 0}, {"rounds": 0}, {"env_name": "ent"}])
def test_bad_input_is_answered(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        measure(**wrong, rivals=False)


@pytest.mark.slow
def test_gymnasiums_processes_run() -> None:
    pytest.importorskip("imageio", reason="gymnasium's MuJoCo envs need it: gymnasium[mujoco]")
    call, close = bench_rivals._async("Ant-v5", 2)
    call()
    close()


@pytest.mark.slow
def test_overhead_of_objectives_beside_the_physics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_physics, "ROUND_S", (0.01, 0.01))
    table = bench_objectives.measure("point", rounds=1, quick=True, names=("rnd", "knn"))
    rnd, knn = json.loads(json.dumps(table))["rows"]
    for row in (rnd, knn):
        assert row["note"] == "" and row["worlds"] * row["steps"] == 128 * 16
        assert row["objective_ms"] > 0
        assert row["ratio_to_physics"] == pytest.approx(row["objective_ms"] / row["physics_ms"])  # of one round
    with pytest.raises(UserError, match="rounds"):
        bench_objectives.measure("point", rounds=0)


def test_groups_of_rows_are_named() -> None:
    with pytest.raises(UserError, match="did you mean 'objectives'"):
        benchmark.run(config.compose("benchmark", ["rows=[objective]"]))
    with pytest.raises(UserError, match="at least one of throughput, objectives, envs"):
        benchmark.run(config.compose("benchmark", ["rows=[]"]))


def test_an_env_beside_the_bare_physics_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_physics, "ROUND_S", (0.01, 0.01))
    monkeypatch.setattr(bench_envs, "_elsewhere", _broken)
    table = bench_envs.measure(["point", "point"], worlds=4, rounds=2, quick=True)
    (row,) = json.loads(json.dumps(table))["rows"]
    assert row.keys() == KEYS | {"bare_per_s", "ratio_to_mjx", "ratio_to_playground"}
    assert (row["name"], row["worlds"], row["ratio_to_mjx"], row["note"]) == ("point", 4, None, "")
    assert min(row["bare_per_s"], row["steps_per_s"], row["ratio_to_bare"], row["compile_s"]) > 0
    benchmark.show(table, benchmark.GROUPS["envs"])


def test_rivals_stand_beside_an_env_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"worlds": 4, "steps_per_s": 8.0, "ratio_to_bare": 0.5, "note": ""}
    said = {"mjx": {"ratio_to_bare": None, "note": "no"}, "playground": {"ratio_to_bare": 0.25, "note": "HopperHop"}}
    asked = []
    monkeypatch.setattr(bench_physics, "side_by_side", lambda *_: [measured, measured])
    monkeypatch.setattr(bench_envs, "_elsewhere", lambda what, _: asked.append(what) or said[what[0]])
    monkeypatch.setattr(bench_envs.playground_env, "library", lambda: None)
    hopper, ant = bench_envs.measure(["hopper", "ant"], 4, 2, rivals=["mjx", "playground"])["rows"]
    assert asked == [[r, n, 4, 2, False] for r, n in (("mjx", "hopper"), ("playground", "hopper"), ("mjx", "ant"))]
    assert (hopper["ratio_to_mjx"], hopper["ratio_to_playground"]) == (None, 2.0)
    assert hopper["note"] == "mjx: no; playground: HopperHop"
    assert (ant["ratio_to_playground"], ant["note"]) == (None, "mjx: no")  # Playground has no ant


def test_playground_has_some_of_our_robots() -> None:
    named = {name: bench_rivals.playground_id(name) for name in registry.TASKS}
    assert set(named.values()) == {*bench_rivals.PLAYGROUND.values(), None}
    assert (named["half_cheetah_goal"], named["humanoid"], named["ant_maze"]) == ("CheetahRun", "HumanoidWalk", None)
    assert (named["h1_lift"], named["panda_cube"]) == ("H1JoystickGaitTracking", "PandaPickCube")
    assert (named["panda_drawer"], named["point_maze"]) == ("PandaOpenCabinet", "PointMass")


def test_a_rival_is_held_against_us_in_simulated_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_physics, "side_by_side", lambda *_: [{}, {"ratio_to_bare": 0.5}])
    monkeypatch.setitem(bench_envs.RIVALS, "playground", lambda *_: (_worker(1, "theirs"), 0.02))
    row = bench_envs.rival_row("playground", "point", 4, 1, True)
    assert row["ratio_to_bare"] == pytest.approx(0.1)  # half as many control steps, of 0.02 s; the point's last 0.1 s


def test_playground_must_be_installed_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)
    monkeypatch.setattr(bench_physics, "side_by_side", _broken)
    cfg = config.compose("benchmark", ["rows=[envs]", "envs=[ant]", "playground=true"])
    with pytest.raises(UserError, match=r"pip install 'repertoire-rl\[playground\]'"):
        benchmark.measure("envs", cfg)


ROW = {"name": "point", "worlds": 4, "ratio_to_bare": 0.5, "ratio_to_mjx": None, "note": ""}


@pytest.mark.parametrize(
    ("script", "limit", "ratio", "note"),
    [
        ('print("noise"); print(json.dumps({"ratio_to_bare": 0.025, "note": ""}))', 60.0, 20.0, ""),
        ('print(json.dumps({"ratio_to_bare": None, "note": "failed: no"}))', 60.0, None, "mjx: failed: no"),
        ('raise ValueError("two\\nlines")', 60.0, None, "mjx: lines"),
        ("import time; time.sleep(60)", 2.0, None, "mjx: not done after 2 s"),
    ],
)
def test_what_a_rival_says_of_itself_becomes_a_ratio_or_a_note(
    script: str, limit: float, ratio: float | None, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = elsewhere.subprocess.run
    monkeypatch.setattr(
        elsewhere.subprocess, "run", lambda _, **kw: real([sys.executable, "-c", f"import json\n{script}"], **kw)
    )
    row = bench_envs._beside("mjx", dict(ROW), 1, True, limit)
    assert (row["ratio_to_mjx"], row["note"]) == (ratio and pytest.approx(ratio), note)


@pytest.mark.slow
def test_mjx_is_measured_in_a_process_of_its_own() -> None:
    row = bench_envs._beside("mjx", dict(ROW), 1, True, 120.0)
    assert row["note"] == "" and row["ratio_to_mjx"] > 0


@pytest.mark.slow
def test_playground_is_measured_in_a_process_of_its_own() -> None:
    theirs = pytest.importorskip("mujoco_playground")
    assert set(bench_rivals.PLAYGROUND.values()) <= set(theirs.registry.ALL_ENVS)
    row = bench_envs._beside("playground", dict(ROW), 1, True, 240.0)
    assert row["note"] == "playground: PointMass" and row["ratio_to_playground"] > 0


@pytest.mark.parametrize("wrong", [{"names": ["ent"]}, {"worlds": 0}, {"limit_s": 0.0}, {"rivals": ["brax"]}])
def test_bad_input_of_envs_is_answered(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        bench_envs.measure(**wrong)
