"""Killed and resumed equals never killed, bit for bit; and a damaged newest checkpoint falls back."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from repertoire.algos import trainer
from repertoire.experiment import checkpoints
from repertoire.experiment.metrics_log import read
from repertoire.experiment.run_dir import RunDir
from repertoire.scripts import build, cli

SKILLS = ["train-skills", "env=point", "algo.envs=16", "algo.rollout=8", "algo.minibatches=2", "algo.hidden=[16]",
          "objective.hidden=[16]", "total_steps=5120", "checkpoint_every=3", "eval_every=0", "video=false",
          "logging.quiet=true"]  # fmt: skip
CONTROLLER = ["train-controller", "task=point_maze", "skills=[point-metra]", "controller.hold=5", "algo.envs=8",
              "algo.rollout=4", "algo.minibatches=2", "algo.epochs=2", "algo.hidden=[16]", "total_steps=4800",
              "checkpoint_every=3", "eval_every=0", "video=false", "logging.quiet=true"]  # fmt: skip


def final_state(path):
    run = RunDir.open(path)
    learner = build.learner_of(run.kind, run.config)
    return build.restore(run, learner)


def assert_bit_equal(a, b):
    for (path, x), (_, y) in zip(*(jax.tree_util.tree_leaves_with_path(t) for t in (a, b)), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=jax.tree_util.keystr(path))


def kill_and_resume(command, run, cwd):
    """Start, SIGKILL once a checkpoint exists and the run is not over, then run the same command to the end."""
    child = subprocess.Popen([sys.executable, "-m", "repertoire.scripts.cli", *command], cwd=cwd)
    deadline = time.monotonic() + 240
    while not checkpoints.steps(run / "checkpoints"):
        assert child.poll() is None and time.monotonic() < deadline, "no checkpoint before the end"
        time.sleep(0.002)
    assert child.poll() is None, "over before it could be killed"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (run / "done.json").exists()
    subprocess.run([sys.executable, "-m", "repertoire.scripts.cli", *command], cwd=cwd, check=True)


@pytest.mark.slow
def test_sigkill_and_resume_equals_uninterrupted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main([*SKILLS, "run_dir=whole"])
    kill_and_resume([*SKILLS, "run_dir=killed"], tmp_path / "killed", tmp_path)
    (u, whole), (v, killed) = final_state("whole"), final_state("killed")
    assert u == v == 40
    assert_bit_equal(whole, killed)
    a, b = (read(Path(p) / "metrics.jsonl") for p in ("whole", "killed"))
    np.testing.assert_array_equal(a["reward/metra"], b["reward/metra"])
    np.testing.assert_array_equal(a["update"], np.arange(1, 41))
    assert (np.diff(b["seconds"]) >= 0).all()  # the clock goes on where it stood

    cli.main([*CONTROLLER, "run_dir=c-whole"])
    kill_and_resume([*CONTROLLER, "run_dir=c-killed"], tmp_path / "c-killed", tmp_path)
    (u, whole), (v, killed) = final_state("c-whole"), final_state("c-killed")
    assert u == v == 30
    assert_bit_equal(whole, killed)


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path):
    command = [sys.executable, "-m", "repertoire.scripts.cli", *SKILLS, "run_dir=run", "checkpoint_every=1000"]
    command = [c if not c.startswith("total_steps") else "total_steps=1000000" for c in command]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 130
    assert "the same command goes on from there" in out or "stopping after this update" in out
    (saved,) = checkpoints.steps(tmp_path / "run" / "checkpoints")
    assert saved >= 1
    assert read(tmp_path / "run" / "metrics.jsonl")["update"][-1] == saved


def test_a_corrupt_newest_checkpoint_falls_back_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main([*SKILLS, "run_dir=run", "total_steps=1152"])  # 9 updates: checkpoints 3, 6, 9
    _, whole = final_state("run")
    newest = max((tmp_path / "run" / "checkpoints").glob("step_*"))
    victims = [p for p in newest.rglob("*") if p.is_file()]
    biggest = max(victims, key=lambda p: p.stat().st_size)
    blob = bytearray(biggest.read_bytes())
    blob[len(blob) // 2] ^= 0xFF
    biggest.write_bytes(bytes(blob))
    capsys.readouterr()
    cli.main([*SKILLS, "run_dir=run", "total_steps=1152"])
    assert "warning" in capsys.readouterr().out
    _, again = final_state("run")
    assert_bit_equal(whole, again)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path):
    from repertoire.scripts import config

    cfg = config.compose("train_skills", [a for a in SKILLS[1:] if "=" in a])
    learner = build.learner_of("train-skills", cfg)
    compiled = trainer.programs(learner)

    def run(seed):
        *_, event = trainer.train(compiled, compiled.init(trainer.seed_keys(seed)), 2)
        return event.state.params

    a, b, c = run(0), run(0), run(1)
    assert_bit_equal(a, b)
    assert not np.array_equal(jax.tree.leaves(a)[0], jax.tree.leaves(c)[0])


def test_nothing_is_compiled_twice(tmp_path):
    from repertoire.scripts import config

    cfg = config.compose("train_skills", [a for a in SKILLS[1:] if "=" in a])
    compiled = trainer.programs(build.learner_of("train-skills", cfg))
    for _ in trainer.train(compiled, compiled.init(trainer.seed_keys(0)), 4):
        pass
    assert compiled.collect._cache_size() == 1
    assert compiled.update._cache_size() == 1


def test_a_seed_in_a_batch_starts_as_it_would_alone():
    from repertoire.scripts import config

    cfg = config.compose("train_skills", [a for a in SKILLS[1:] if "=" in a])
    learner = build.learner_of("train-skills", cfg)
    both = trainer.programs(learner, 2).init(trainer.seed_keys(3, 2))
    alone = trainer.programs(learner).init(trainer.seed_keys(4))
    second = trainer.seed_state(both, 1, 2)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), alone.params, second.params)
    *_, event = trainer.train(trainer.programs(learner, 2), both, 1)
    assert np.shape(event.metrics["reward/metra"]) == (2,)
