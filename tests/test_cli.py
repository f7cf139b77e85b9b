"""The command line: speed of --help, and bad input answered in one line with exit code 2, nothing lost."""

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repertoire.scripts import cli, config

TINY = ["env=point", "algo.envs=8", "algo.rollout=4", "algo.minibatches=2", "algo.hidden=[8]", "objective.hidden=[8]",
        "total_steps=64", "eval_every=0", "video=false", "logging.quiet=true"]  # fmt: skip


def fails(capsys, *args):
    """The one line that `repertoire ARGS` answers with; asserts exit code 2."""
    with pytest.raises(SystemExit) as exit_info:
        cli.main(args)
    assert exit_info.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def test_the_headline_does_not_flatter_a_set_that_stands_still():
    from repertoire.scripts.train_skills import _headline

    still = {"reach_m": 0.0527, "random_reach_m": 0.049, "goal_reached_3m": 1.0, "goal_range_m": 0.0527}
    assert _headline(still) == "  (reach_m 0.0527 (random actions 0.049))"
    far = {"reach_m": 9.0, "random_reach_m": 0.5, "goal_reached_3m": 0.8, "goal_range_m": 9.0}
    assert _headline(far) == "  (reach_m 9 (random actions 0.5), goal_reached_3m 0.8)"
    assert _headline({"held_out_accuracy": 0.5}) == "  (held_out_accuracy 0.5)"


def test_help_answers_in_under_a_second():
    best = min(_timed([sys.executable, "-m", "repertoire.scripts.cli", "--help"]) for _ in range(3))
    assert best < 1.0


def _timed(command):
    start = time.monotonic()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert all(verb in out for verb in cli.VERBS)
    return time.monotonic() - start


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["trian"], "did you mean 'train'"),
        (["train-skills", "env=antt"], "did you mean 'ant'"),
        (["train-skills", "objective=metraa"], "did you mean 'metra'"),
        (["train-skills", "sede=1"], "did you mean 'seed'"),
        (["train-skills", "algo.epoch=3"], "did you mean 'algo.epochs'"),
        (["train-skills", "objective.dual_rl=1"], "did you mean 'dual_lr'"),
        (["train-skills", "env.dynamic=fast"], "did you mean 'dynamics'"),
        (["train-skills", "env.dynamics=quick"], "unknown dynamics"),
        (["train-skills", "env.episode_length=0"], "episode_length must be"),
        (["train-skills", "algo.envs=0"], "algo.envs must be at least 1"),
        (["train-skills", "algo.minibatches=7"], "must be a multiple of algo.minibatches"),
        (["train-skills", "algo.lr=fast"], "algo.lr must be a number"),
        (["train-skills", "objective.skills=0"], "size >= 1"),
        (["train-skills", "objective.features=[positon]"], "features has no slice 'positon'"),
        (["train-skills", "total_steps=0"], "total_steps must be at least 1"),
        (["train-skills", "total_steps=many"], "total_steps must be a whole number, got 'many'"),
        (["train-skills", "eval_every=ten"], "eval_every must be a whole number, got 'ten'"),
        (["train-skills", "algo.hidden=128"], "algo.hidden must be a list, got 128"),
        (["train-skills", "algo.hidden=[256,-1]"], "algo.hidden[1] must be at least 1, got -1"),
        (["train", "algo=sac", "algo.hidden=[0]"], "algo.hidden[0] must be at least 1, got 0"),
        (["train-skills", "objective.hidden=[8,0]"], "objective.hidden[1] must be at least 1, got 0"),
        (["train-skills", "objective=csd", "objective.density_hidden=[-8]"], "objective.density_hidden[0] must be"),
        (["imitate", "dagger.hidden=[0]"], "dagger.hidden[0] must be at least 1"),
        (["train-skills", "objective.hidden=128"], "objective.hidden must be a list, got 128"),
        (["train-skills", "objective.lr=abc"], "objective.lr must be a number, got 'abc'"),
        (["train-skills", "objective.skills=2.5"], "objective.skills must be a whole number, got 2.5"),
        (["train-skills", "algo.target_kl=0.01", "algo.lr_final=0.2"], "needs algo.lr_final=1"),
        (["train-skills", "objective=smerl", "objective.inner_options={mask:20}"], "cannot set mask"),
        (["train-skills", "num_seeds=0"], "num_seeds must be at least 1"),
        (["train-skills", "seed=-1"], "seed must be at least 0, got -1"),
        (["train-skills", "eval_every=-1"], "eval_every must be at least 0"),
        (["train-skills", "logging.trackers=[wandbb]"], "did you mean 'wandb'"),
        (["train-skills", "logging.quiet=maybe"], "logging.quiet must be true or false"),
        (["train-skills", "name=a/b"], "skill name 'a/b': use letters"),
        (["train-skills", "name=bad@1"], "skill name 'bad@1': use letters"),
        (["train", "env=point", "name=7"], "name must be a word, got 7"),
        (["train-skills", "library=file"], "file is a file; set library=DIR"),
        (["train-controller", "library=file/inside", "skills=[a]"], "file is a file; set library=DIR"),
        (["train-skills", "video=maybe"], "video must be true or false, got 'maybe'"),
        (
            ["train-skills", "env=ant", "channels.style={terms:[oriention],weight:0.5}"],
            "channels.style.terms: env ant has no reward terms",
        ),
        (["train-skills", "matmul_precision=low"], "unknown matmul_precision"),
        (["train-skills", "physics=warp"], "needs an NVIDIA GPU"),
        (["train-skills", "physics=natve"], "did you mean 'native'"),
        (["train-skills", "-m", "launcher=slrum", "seed=0,1"], "did you mean 'slurm'"),
        (["train-skills", "-m", "env=point", "objective=metra,diany"], "did you mean 'diayn'"),
        (["train-skills", "-m", "env=point", "seed=0,x"], "seed must be a whole number, got 'x'"),
        (["train-skills", "-m", "env=point", "algo.hidden=[8],[0]"], "algo.hidden[0] must be at least 1"),
        (["train-skills", "-m", "algo.gamma=0.9,0.99", "sede=1,2"], "did you mean 'seed'"),
        (["train-skills", "-m", "algo.gamma=interval(0,1)"], "goes through listed values or a range"),
        (["train-skills", "-m", "seed=0,1", "env.x=a[b"], "cannot read 'env.x=a[b'"),
        (["train-skills", "env=ant,point"], "env=ant,point is a sweep: add -m"),
        (["train-skills", "env=ant", "seed=0,1"], "seed=0,1 is a sweep: add -m"),
        (["train-skills", "nonsense"], "settings are written key=value"),
        (["train-controller", "skills=[nobody]", "library=/nonexistent"], "is empty"),
        (["train-controller", "controller.mode=laten"], "did you mean"),
        (["train-controller", "controller=blond"], "did you mean 'blend'"),
        (["train-controller", "controller=blend", "controller.combine=swich"], "did you mean 'switch'"),
        (["train-controller", "controller=blend", "controller.std=0"], "controller.std must be positive"),
        (["train-controller", "controller=switch", "controller.hold=often"], "controller.hold must be a whole number"),
        (["train-controller", "command=gaol"], "no policy slice 'gaol' to command"),
        (["evaluate"], "run is required"),
        (["evaluate", "run=/nonexistent/run"], "there is no run at"),
        (["train", "adapter.latent=[1,0]"], "adapter.latent needs adapter.base"),
        (["train", "adapter.count=2"], "adapter.count needs adapter.base"),
        (["train-skills", "env=point", "starts.skills=[a]", "starts.share=7"], "starts.share must lie above 0"),
        (
            ["train-controller", "controller.switch_cost=0.1"],
            "need controller.termination=learned",
        ),
        (["rollout", "run=/nonexistent/run"], "there is no run at"),
        (["export", "run=/nonexistent/run"], "there is no run at"),
        (["report", "runs=[/nonexistent/run]"], "there is no run at"),
        (["envs", "ante"], "did you mean 'ant'"),
        (["objectives", "metro"], "did you mean 'metra'"),
        (["skills", "show", "nobody", "library=/nonexistent"], "is empty"),
        (["compare", "comparison=disc", "~arms.cds"], "unknown setting of compare 'arms.cds'"),
        (["compare", "~arms.csd", "overrides=[video=false]"], "cannot read 'overrides=[video=false]': put quotes"),
        (["compare", "overrides=[algo.envs=32]"], "as in 'overrides=[\"algo.envs=32\"]'"),
        (["train", "env=go2_velocity", "env.play=no"], "env.play must be true or false"),
    ],
)
def test_bad_input_is_one_line(capsys, monkeypatch, tmp_path, args, says):
    if says.startswith("needs an NVIDIA") and _gpu():
        pytest.skip("this machine has a GPU")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    if args[0] == "train-controller" and not any(a.startswith("skills") for a in args):
        _library(tmp_path)
        args = [*args, "skills=[point-metra]", "task=point_maze"]
    assert says in fails(capsys, *args)
    left = {p.name for p in tmp_path.iterdir()} - {"library", "file"}
    assert not left, left  # nothing made for a run that never began


def _gpu():
    import jax

    return jax.default_backend() == "gpu"


def _library(folder):
    from repertoire.skills.library import Library

    return Library(folder / "library").add(_skill())


@functools.cache
def _skill():
    from repertoire.algos import trainer
    from repertoire.scripts import build
    from repertoire.skills.freezing import freeze

    learner = build.learner_of("train-skills", config.compose("train_skills", TINY))
    return freeze("point-metra", learner, trainer.programs(learner).init(trainer.seed_keys(0)), {})


def test_jobs_of_a_sweep_are_all_combinations():
    found = config.jobs("train_skills", ["launcher=slurm", "objective=glob(metra_*)", "seed=range(0,2)", "a='x,y'"])
    assert found == [
        [f"objective={o}", f"seed={s}", "a='x,y'"] for o in ("metra_discrete", "metra_position") for s in (0, 1)
    ]


@pytest.mark.parametrize("verb", ["evaluate", "benchmark"])
def test_a_group_that_is_none_of_the_verbs_is_named(capsys, verb):
    assert f"unknown setting of {verb} 'env'" in fails(capsys, verb, "env=ant")


def test_rollout_draws_the_seed_that_is_asked_for(monkeypatch, tmp_path):
    import jax
    import numpy as np

    from repertoire.algos import trainer
    from repertoire.scripts import build, session, train_skills

    monkeypatch.chdir(tmp_path)
    cfg = config.compose("train_skills", [*TINY, "num_seeds=2", "run_dir=run"])
    run, learner, drawn = session.open_run("train-skills", cfg, ""), build.learner_of("train-skills", cfg), []
    state = trainer.programs(learner, 2).init(trainer.seed_keys(0, 2))
    session._save(run, 1, state)
    run.close()
    monkeypatch.setattr(train_skills, "draw", lambda *args, **kwargs: drawn.append(args))
    cli.main(["rollout", "run=run", "seed=1", "count=3", "start_seed=7"])
    ((_, _, one, *rest),) = drawn
    assert rest == ["-s1", True, 3, 7]
    jax.tree.map(np.testing.assert_array_equal, one.params, jax.tree.map(lambda x: x[1], state.params))


def test_a_skill_of_another_robot_does_not_fit(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    _library(tmp_path)
    line = fails(capsys, "train-controller", "task=ant_multi_goals", "skills=[point-metra]")
    assert "does not fit env ant_multi_goals" in line


def test_a_controller_asks_for_skills(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "give skills=[...]; library is empty" in fails(capsys, "train-controller", "task=point_maze")
    _library(tmp_path)
    assert "give skills=[...]; library holds point-metra" in fails(capsys, "train-controller", "task=point_maze")


def test_there_is_nothing_to_report_of_a_run_that_never_trained(capsys, tmp_path):
    from repertoire.experiment.run_dir import RunDir

    RunDir.create_or_resume(tmp_path / "run", kind="train", config={}).close()
    args = ["report", f"runs={tmp_path}/run", f"out={tmp_path}/page.html"]
    assert "nothing to report yet" in fails(capsys, *args) and not (tmp_path / "page.html").exists()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"update": 1, "env_steps": 8, "seconds": 1.0}\n')
    cli.main(args)
    assert (tmp_path / "page.html").exists()


def test_a_headline_has_brackets_only_around_figures():
    from repertoire.scripts.train_skills import _headline

    assert _headline({"vendi": 2.0}) == "" and _headline({"reach_m": 2.0}) == "  (reach_m 2)"


def test_a_tampered_skill_is_refused(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    _library(tmp_path)
    path = tmp_path / "library" / "point-metra" / "1" / "arrays.safetensors"
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(bytes(blob))
    assert "changed after it was frozen" in fails(capsys, "train-controller", "task=point_maze", "skills=[point-metra]")


def test_a_run_directory_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "run_dir" in fails(capsys, "train-skills", *TINY, f"run_dir={tmp_path}/file/run")


def test_a_full_disk_loses_nothing(capsys, monkeypatch, tmp_path):
    from repertoire.experiment import checkpoints

    run = ["train-skills", *TINY, f"run_dir={tmp_path}/run", f"library={tmp_path}/library"]
    cli.main([*run, "checkpoint_every=1"])
    intact = checkpoints.steps(tmp_path / "run" / "checkpoints")
    real = checkpoints.save

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save", full)
    more = [a if not a.startswith("total_steps") else "total_steps=128" for a in run]
    line = fails(capsys, *more, "checkpoint_every=1")
    assert "full" in line or "space" in line
    assert checkpoints.steps(tmp_path / "run" / "checkpoints") == intact
    monkeypatch.setattr(checkpoints, "save", real)
    cli.main([*more, "checkpoint_every=1"])  # goes on from where it stood
    assert max(checkpoints.steps(tmp_path / "run" / "checkpoints")) == 4


def test_the_same_directory_with_another_config_is_refused(capsys, tmp_path):
    run = ["train-skills", *TINY, f"run_dir={tmp_path}/run", f"library={tmp_path}/library"]
    cli.main(run)
    line = fails(capsys, *run, "algo.gamma=0.5")
    assert "algo.gamma" in line and "run_dir=" in line


def test_catalogues_as_json(capsys):
    for verb, least in (("envs", 15), ("objectives", 2)):
        cli.main([verb, "--json"])
        rows = json.loads(capsys.readouterr().out)
        assert len(rows) >= least and all(r["name"] for r in rows)
    cli.main(["objectives"])
    assert "metra" in capsys.readouterr().out


def test_every_verb_explains_itself(capsys):
    for verb in cli.VERBS:
        cli.main([verb, "--help"])
        assert "repertoire" in capsys.readouterr().out


def test_every_env_has_a_config():
    from repertoire.envs import registry

    assert set(config.options("env")) == set(registry.names())
    for name in registry.names():
        assert config.compose("train", [f"env={name}"])["env"]["name"] == name


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_configs_hold_every_setting_of_a_learner(algo):
    import dataclasses

    from repertoire.scripts.build import ALGOS

    settings = set(config.compose("train", [f"algo={algo}"])["algo"])
    assert settings == {"name", *(f.name for f in dataclasses.fields(ALGOS[algo][0]))}


def test_slurm_launcher_config_is_complete(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    from hydra import compose, initialize_config_module

    with initialize_config_module("repertoire.configs", version_base="1.3"):
        cfg = compose("train_skills", [config.translate("launcher=slurm")], return_hydra_config=True)
    assert "SlurmLauncher" in cfg.hydra.launcher._target_


@pytest.mark.slow
def test_local_sweep_runs_every_job(tmp_path):
    command = [sys.executable, "-m", "repertoire.scripts.cli", "train-skills", "-m", *TINY, "seed=0,1"]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ})
    assert out.returncode == 0, out.stderr[-2000:]
    runs = sorted(p.name for p in Path(tmp_path / "runs").iterdir())
    assert runs == ["skills-point-metra-s0", "skills-point-metra-s1"]
    assert all((tmp_path / "runs" / r / "done.json").exists() for r in runs)
    assert sorted(p.name for p in (tmp_path / "library").iterdir()) == ["point-metra-s0", "point-metra-s1"]


@pytest.mark.slow
def test_jobs_of_a_sweep_over_any_setting_have_places_of_their_own(tmp_path):
    sweep = ["objective=metra,metra_position", "algo.gamma=0.9,0.95"]
    command = [sys.executable, "-m", "repertoire.scripts.cli", "train-skills", "-m", *TINY, *sweep]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ})
    assert out.returncode == 0, out.stderr[-2000:]
    names = {p.name for p in Path(tmp_path / "runs").iterdir()}
    assert len(names) == 4 and "point-metra-metra_position-algo.gamma_0.95-s0" in names
    assert len(list((tmp_path / "library").iterdir())) == 4
