"""Episodes that begin where other skills leave off."""

import jax
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.envs.starts import BankedEnv
from repertoire.errors import UserError
from repertoire.experiment.files import read_json
from repertoire.high_level import handoff
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.sequence import Choice
from repertoire.scripts import build, cli, config, pinning, starting
from repertoire.skills.library import Library

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def place(oracle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("starts")
    Library(folder / "library").add(oracle)
    return folder


def drawn(env, count=200):
    """qpos [count, nq] and qvel [count, nv] of starts."""
    found = jax.jit(jax.vmap(env.start))(jax.random.split(KEY, count))
    return np.asarray(found.qpos), np.asarray(found.qvel)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_bank_is_drawn_from_but_for_the_place(share):
    ant, rng = registry.make("ant", "native"), np.random.default_rng(0)
    qpos, qvel = (100 + rng.normal(size=(5, n)).astype(np.float32) for n in (15, 14))
    q, v = drawn(BankedEnv(ant, qpos, qvel, share))
    recorded = v[:, 0] > 50
    assert recorded.mean() == pytest.approx(share, abs=0.1 * (share < 1))
    assert (np.abs(q[:, :2]) < 1).all() and (np.abs(q[~recorded]) < 2).all()  # the task's own
    rows = [int(np.flatnonzero((qvel == row).all(1))[0]) for row in v[recorded]]
    assert set(rows) == set(range(5))
    np.testing.assert_array_equal(q[recorded, 2:], qpos[rows, 2:])


def test_what_is_no_bank_is_refused():
    point = registry.make("point", "native")
    with pytest.raises(UserError, match=r"holds \[B, 2\] and \[B, 2\], got \(3, 3\) and \(3, 2\)"):
        BankedEnv(point, np.zeros((3, 3)), np.zeros((3, 2)), 0.5)
    with pytest.raises(UserError, match="must lie above 0 and at most at 1, got 0"):
        BankedEnv(point, np.zeros((3, 2)), np.zeros((3, 2)), 0.0)
    with pytest.raises(UserError, match=r"got \(0, 2\)"):
        BankedEnv(point, np.zeros((0, 2)), np.zeros((0, 2)), 0.5)


def test_skills_leave_off_where_they_are(oracle):
    """At 1 m/s, in one of four directions, about a whole number of half metres from the start."""
    point = registry.make("point", "native", reset_noise=0.0)
    qpos, qvel = handoff.ends(MacroEnv(point, Choice((oracle,), point.spec, per_skill=4), 5), KEY, 3, 20)
    assert qpos.shape == qvel.shape == (60, 2)  # though 100 steps are more than an episode of 50
    np.testing.assert_allclose(np.linalg.norm(qvel, axis=1), 1.0, atol=1e-3)
    assert np.abs(2 * qpos - np.rint(2 * qpos)).max() < 0.2 and np.abs(qpos).max() > 1


def test_where_an_episode_ends_nothing_is_left_off(oracle):
    maze = registry.make("point_maze", "native", radius=20.0)  # its first step ends every episode
    qpos, _ = handoff.ends(MacroEnv(maze, Choice((oracle,), maze.spec, per_skill=4), 2), KEY, 2, 3)
    assert qpos.shape == (0, 2)


def test_starts_from_a_config(place, monkeypatch):
    monkeypatch.chdir(place)
    starts = ["starts.skills=[oracle]", "starts.states=16", "starts.share=1.0"]
    cfg = config.compose("train_skills", ["env=point", *starts])
    env = starting.env_of(cfg)
    q, v = drawn(env, 20)
    assert type(env) is BankedEnv and np.linalg.norm(v, axis=1) == pytest.approx(1.0, abs=1e-3)
    assert np.abs(q).max() <= 0.1  # the place is the env's own
    assert type(starting.env_of({**cfg, "starts": {}})) is not BankedEnv
    with pytest.raises(UserError, match=r"starts\.hold must be at least 1"):
        starting.env_of({**cfg, "starts": {"hold": 0}})
    with pytest.raises(UserError, match=r"did you mean 'starts\.share'"):
        starting.env_of({**cfg, "starts": {"shares": 0.5}})
    with pytest.raises(UserError, match="does not fit env ant"):
        starting.env_of({**cfg, "env": {"name": "ant"}})


def test_one_skill_and_one_slice_are_lists_of_one(place, monkeypatch):
    monkeypatch.chdir(place)
    words = ["starts.skills=oracle", "objective.features=position"]
    cfg = config.compose("train_skills", ["env=point", *words])
    assert pinning.pinned(cfg, "train-skills")["starts"]["skills"] == ["oracle@1"]
    assert build.objective_of(cfg, build.env_of(cfg))[1] == ("position",)
    assert pinning.references({"skills": "oracle"}) == pinning.references({"skills": ["oracle"]}) == ["oracle"]
    with pytest.raises(UserError, match=r"skills\[1\] must be a word, got 2"):
        pinning.references({"skills": ["oracle", 2]})


@pytest.mark.slow
def test_skills_train_from_where_others_leave_off(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    tiny = ["env=point", "objective.hidden=[8]", "algo.hidden=[8]", "algo.envs=8", "algo.rollout=8", "total_steps=64",
            "algo.minibatches=2", "video=false", "logging.quiet=true", "eval_every=0", "run_dir=run"]  # fmt: skip
    cli.main(["train-skills", *tiny, "starts.skills=[oracle]", "starts.states=16"])
    assert "starts: 16 states in which oracle left off, of 50% of episodes" in capsys.readouterr().out
    assert read_json(place / "run" / "config.json")["starts"]["skills"] == ["oracle@1"]
