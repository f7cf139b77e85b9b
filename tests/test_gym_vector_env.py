"""Many worlds as one Gymnasium vector env, held against Gymnasium's own loop over single envs."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeObservation, RecordEpisodeStatistics

from repertoire.envs.gym_env import GymEnv
from repertoire.envs.gym_vector import GymVectorEnv
from repertoire.errors import UserError

NAME, LENGTH = "ant_multi_goals", 4  # one env and mostly three worlds, so that the tests compile little
#: XLA may round differently in batches of different size, and contacts amplify: tolerance over a few steps.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def _same(ours: Any, theirs: Any, where: str = "") -> None:
    """Equal structure and dtypes, values to tolerance."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            _same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, tuple) or (isinstance(ours, np.ndarray) and ours.dtype == object):
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            _same(*pair, f"{where}/{i}")
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, where
        np.testing.assert_allclose(ours, theirs, **CLOSE, err_msg=where)
    else:
        assert ours == theirs, where


def _actions(steps: int, worlds: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (steps, worlds, 8)).astype(np.float32)


@pytest.mark.parametrize("obs", ["policy", "dict"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_it_equals_gymnasiums_loop_over_single_envs(mode: AutoresetMode, obs: str) -> None:
    options: dict[str, Any] = {"obs": obs, "episode_length": LENGTH}
    ours = GymVectorEnv(NAME, 3, autoreset_mode=mode, **options)
    theirs = SyncVectorEnv([lambda: GymEnv(NAME, **options)] * 3, autoreset_mode=mode)
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    _same(ours.reset(seed=5), theirs.reset(seed=5), "reset")
    late = np.array([False, True, False])
    actions = _actions(2 * LENGTH + 3, 3)
    for i, action in enumerate(actions):
        if i == 2:  # from here on worlds end at different times
            _same(
                ours.reset(seed=[1, 2, 3], options={"reset_mask": late}),
                theirs.reset(seed=[1, 2, 3], options={"reset_mask": late}),
            )
        _same(ours.step(action), theirs.step(action), f"step {i}")


def test_worlds_do_not_depend_on_their_neighbours() -> None:
    few, many = GymVectorEnv(NAME, 3, episode_length=LENGTH), GymVectorEnv(NAME, 5, episode_length=LENGTH)
    _same(few.reset(seed=[7, 8, 9])[0], many.reset(seed=[7, 8, 9, 10, 11])[0][:3])
    mask = np.arange(5) > 3
    for i, action in enumerate(_actions(2 * LENGTH, 5)):
        if i == 1:
            many.reset(options={"reset_mask": mask})
        _same(few.step(action[:3])[0], many.step(action)[0][:3], f"step {i}")


def _run(env: GymVectorEnv, seed: Any, steps: int = 6) -> list[np.ndarray]:
    return [env.reset(seed=seed)[0], *(env.step(a)[0] for a in _actions(steps, env.num_envs))]


def test_seeds_decide_bit_for_bit() -> None:
    env, other = (GymVectorEnv(NAME, 3, episode_length=LENGTH) for _ in range(2))
    first = _run(env, 0)
    assert all(np.array_equal(a, b) for a, b in zip(first, _run(other, 0)))
    assert all(np.array_equal(a, b) for a, b in zip(first, _run(env, [0, 1, 2])))
    assert not np.array_equal(first[0], _run(env, 100)[0])
    assert len(np.unique(first[0], axis=0)) == 3
    np.testing.assert_array_equal(_run(env, [4, None, 0])[0][2], first[0][0])
    fresh, other = (GymVectorEnv(NAME, 3, episode_length=LENGTH) for _ in range(2))
    assert not np.array_equal(fresh.reset()[0], other.reset()[0])


def test_the_final_observation_is_the_true_one_and_starts_are_fresh() -> None:
    env = GymVectorEnv(NAME, 3, autoreset_mode="SameStep", episode_length=LENGTH)
    later = GymVectorEnv(NAME, 3, autoreset_mode="NextStep", episode_length=LENGTH)
    start, _ = env.reset(seed=0)
    later.reset(seed=0)
    for action in _actions(LENGTH, 3):
        obs, _, _, truncated, info = env.step(action)
        true, *_ = later.step(action)
    assert truncated.all() and info["_final_obs"].all()
    np.testing.assert_array_equal(np.stack(list(info["final_obs"])), true)
    assert not np.isclose(obs, true).all(axis=1).any()
    starts = [start, obs]
    for action in _actions(LENGTH, 3):
        obs, *_ = env.step(action)
    assert len(np.unique(np.concatenate([*starts, obs]), axis=0)) == 9


def test_next_step_autoreset_returns_the_true_last_observation_itself() -> None:
    env = GymVectorEnv(NAME, 3, episode_length=LENGTH)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    env.reset(seed=0)
    actions = _actions(LENGTH + 1, 3)
    last, _, _, truncated, _ = [env.step(a) for a in actions[:LENGTH]][-1]
    obs, reward, terminated, cut, info = env.step(actions[-1])
    assert truncated.all() and not terminated.any() and not cut.any() and not reward.any() and info == {}
    assert not np.isclose(obs, last).all(axis=1).any()


def test_worlds_are_reset_by_hand() -> None:
    env = GymVectorEnv(NAME, 3, autoreset_mode="Disabled", episode_length=LENGTH)
    env.reset(seed=0)
    obs, _, _, truncated, _ = [env.step(a) for a in _actions(LENGTH, 3)][-1]
    assert truncated.all()
    with pytest.raises(UserError, match="world 0 has ended"):
        env.step(_actions(1, 3)[0])
    fresh, _ = env.reset(options={"reset_mask": np.array([True, False, False])})
    assert not np.array_equal(fresh[0], obs[0])
    np.testing.assert_array_equal(fresh[1:], obs[1:])
    with pytest.raises(UserError, match="world 1 has ended"):
        env.step(_actions(1, 3)[0])


def test_make_vec_and_gymnasiums_wrappers() -> None:
    env = gymnasium.make_vec("repertoire/AntMultiGoals-v0", num_envs=3, max_episode_steps=LENGTH)
    assert isinstance(env, GymVectorEnv) and env.num_envs == 3
    wrapped = RecordEpisodeStatistics(NormalizeObservation(env))
    wrapped.reset(seed=0)
    for action in _actions(LENGTH, 3):
        *_, truncated, info = wrapped.step(action)
    assert truncated.all() and (info["episode"]["l"] == LENGTH).all()
    sync = gymnasium.make_vec("repertoire/AntMultiGoals-v0", 3, vectorization_mode="sync", episode_length=LENGTH)
    _same(env.reset(seed=3), sync.reset(seed=3))


def test_results_are_the_callers_own() -> None:
    env = GymVectorEnv(NAME, 3, episode_length=LENGTH)
    first, _ = env.reset(seed=0)
    copy = first.copy()
    stepped, reward, *_ = env.step(_actions(1, 3)[0])
    np.testing.assert_array_equal(first, copy)
    stepped += 1
    reward += 1


def test_one_frame_per_world() -> None:
    from repertoire.envs.gym_picture import Picture
    from repertoire.envs.gym_worlds import programs

    try:
        Picture(programs("ant", "native", {}).env.task, 16, 16).close()
    except UserError:
        pytest.skip("no OpenGL here")
    size = {"width": 48, "height": 32}
    env = gymnasium.make_vec("repertoire/AntMultiGoals-v0", 3, render_mode="rgb_array", episode_length=LENGTH, **size)
    env.reset(seed=0)
    frames = env.render()
    assert isinstance(frames, tuple) and [f.shape for f in frames] == [(32, 48, 3)] * 3
    assert not np.array_equal(*frames[:2])
    env.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "at least 1"),
        ({"autoreset_mode": "SameStp"}, "did you mean 'SameStep'"),
        ({"render_mode": "human"}, "unknown render mode"),
    ],
)
def test_bad_options_are_answered(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GymVectorEnv("ant", **options)


def test_bad_calls_are_answered() -> None:
    env = GymVectorEnv(NAME, 3, episode_length=LENGTH)
    with pytest.raises(UserError, match="call reset"):
        env.step(np.zeros((3, 8)))
    for seed, message in (([1], "one per env: 3, got 1"), (-1, "non-negative"), ([0, 1, "a"], "non-negative")):
        with pytest.raises(UserError, match=message):
            env.reset(seed=seed)  # type: ignore[arg-type]
    for mask in (np.zeros(3, bool), [True] * 3, np.ones(2, bool), np.ones(3)):
        with pytest.raises(UserError, match="boolean numpy array"):
            env.reset(options={"reset_mask": mask})
    with pytest.raises(UserError, match="did you mean 'reset_mask'"):
        env.reset(options={"resetmask": None})
    env.reset()
    with pytest.raises(UserError, match=r"shape \(3, 8\), got \(8,\)"):
        env.step(np.zeros(8))
