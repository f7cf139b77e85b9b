"""One world as a Gymnasium env."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import types
from typing import Any

import gymnasium
import mujoco.viewer
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence

from repertoire.envs import gym_picture
from repertoire.envs.gym_env import GymEnv
from repertoire.envs.gym_ids import NAMES, gym_id
from repertoire.envs.gym_picture import Picture
from repertoire.envs.gym_worlds import programs
from repertoire.errors import UserError

#: Envs of every kind, for the quick round; the slow one takes all.
FEW = ("ant_multi_goals", "half_cheetah_forward", "point_maze")


def _renders() -> bool:
    try:
        Picture(programs("ant", "native", {}).env.task, 16, 16).close()
    except UserError:
        return False
    return True


@pytest.fixture(scope="module")
def opengl() -> None:
    if not _renders():
        pytest.skip("no OpenGL here")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [*FEW, *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES if n not in FEW)])
def test_gymnasium_has_no_complaint(name: str, opengl: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    env = gymnasium.make(gym_id(name), width=32, height=32)
    check_env(env.unwrapped)
    env.close()


@pytest.mark.filterwarnings("error")
def test_groups_as_a_dictionary() -> None:
    env = gymnasium.make("repertoire/AntForward-v0", obs="dict")
    check_env(env.unwrapped, skip_render_check=True)
    obs, _ = env.reset(seed=0)
    vector, _ = gymnasium.make("repertoire/AntForward-v0").reset(seed=0)
    assert set(obs) == {"policy", "critic", "features"}
    np.testing.assert_array_equal(obs["policy"], vector)


def _episode(env: gymnasium.Env, seed: int | None, steps: int = 4) -> list[Any]:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)
    return [env.reset(seed=seed), *(env.step(action) for action in actions)]


def test_seeds_decide() -> None:
    env, other = GymEnv("ant"), GymEnv("ant")
    first = _episode(env, 3)
    second = _episode(env, None)
    assert data_equivalence(_episode(other, 3), first, exact=True)
    assert data_equivalence(_episode(other, None), second, exact=True)
    assert not np.array_equal(first[0][0], second[0][0])
    assert not np.array_equal(_episode(other, 4)[0][0], first[0][0])
    assert not np.array_equal(GymEnv("ant").reset()[0], GymEnv("ant").reset()[0])
    other.reset(seed=2**40 + 1)


def test_it_truncates_by_itself_and_reports_reward_terms() -> None:
    env = gymnasium.make("repertoire/AntMultiGoals-v0", episode_length=3)
    steps = _episode(env, 0, 3)[1:]
    assert [truncated for *_, truncated, _ in steps] == [False, False, True]
    assert not any(terminated for _, _, terminated, _, _ in steps)
    _, reward, _, _, info = steps[-1]
    assert reward == pytest.approx(sum(v for k, v in info.items() if k.startswith("reward/")))
    assert {"reward/goal", "distance", "diverged"} <= set(info)


def test_max_episode_steps_shortens() -> None:
    env = gymnasium.make("repertoire/Ant-v0", max_episode_steps=2)
    assert [step[3] for step in _episode(env, 0, 2)[1:]] == [False, True]


def test_frames_follow_the_robot_and_show_the_goal(opengl: None) -> None:
    env = gymnasium.make("repertoire/AntMultiGoals-v0", render_mode="rgb_array", width=96, height=64)
    env.reset(seed=0)
    frame = env.render()
    assert isinstance(frame, np.ndarray) and frame.shape == (64, 96, 3) and frame.dtype == np.uint8
    inner = env.unwrapped
    assert isinstance(inner, GymEnv) and inner._picture is not None
    scene, state = inner._picture._renderer.scene, inner._worlds.world(0)
    np.testing.assert_allclose(scene.geoms[scene.ngeom - 1].pos[:2], state.memory.goal, rtol=1e-5)
    before = scene.camera[0].pos.copy()
    moved = state.data.replace(qpos=state.data.qpos + np.eye(15, dtype=np.float32)[0] * 4)
    inner._picture.frame(dataclasses.replace(state, data=moved))
    np.testing.assert_allclose(scene.camera[0].pos - before, [4, 0, 0], atol=1e-4)
    env.close()
    env.close()


def test_drawing_without_render_mode_says_so() -> None:
    env = GymEnv("ant")
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="without a render_mode"):
        assert env.render() is None


def test_a_window_needs_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym_picture, "has_display", lambda: False)
    with pytest.raises(UserError, match="needs a display"):
        gymnasium.make("repertoire/Ant-v0", render_mode="human")


class _Viewer:
    """Stands in for MuJoCo's passive viewer."""

    def __init__(self, model: Any, data: Any, **_: Any) -> None:
        self.data, self.shown, self.closed = data, [], False
        self.cam = types.SimpleNamespace()
        self.user_scn = mujoco.MjvScene(model, 10)

    def lock(self) -> Any:
        return contextlib.nullcontext()

    def is_running(self) -> bool:
        return not self.closed

    def sync(self) -> None:
        self.shown.append((self.data.qpos.copy(), self.user_scn.ngeom))

    def close(self) -> None:
        self.closed = True


def test_the_window_shows_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    viewers: list[_Viewer] = []

    def launch(*args: Any, **kwargs: Any) -> _Viewer:
        viewers.append(_Viewer(*args, **kwargs))
        return viewers[0]

    monkeypatch.setattr(gym_picture, "has_display", lambda: True)
    monkeypatch.setattr(mujoco.viewer, "launch_passive", launch)
    env = gymnasium.make("repertoire/AntMultiGoals-v0", render_mode="human")
    _episode(env, 0, 2)
    assert env.render() is None
    (viewer,) = viewers
    assert [markers for _, markers in viewer.shown] == [1, 1, 1]
    assert not np.array_equal(viewer.shown[0][0], viewer.shown[2][0])
    assert viewer.cam.trackbodyid == 1
    viewer.closed = True  # by hand: training goes on
    env.step(env.action_space.sample())
    env.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env_name": "ent"}, "did you mean 'ant'"),
        ({"obs": "policies"}, "did you mean 'policy'"),
        ({"render_mode": "rgb"}, "did you mean 'rgb_array'"),
        ({"physics_backend": "nativ"}, "did you mean 'native'"),
        ({"episode_lenght": 3}, "did you mean 'episode_length'"),
    ],
)
def test_bad_options_are_answered(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GymEnv(**options)


def test_bad_calls_are_answered() -> None:
    env = GymEnv("ant")
    with pytest.raises(UserError, match="call reset"):
        env.step(np.zeros(8))
    with pytest.raises(UserError, match="no option 'start'"):
        env.reset(options={"start": 1})
    env.reset()
    with pytest.raises(UserError, match=r"shape \(1, 8\), got \(1, 3\)"):
        env.step(np.zeros(3))


def test_no_opengl_is_answered_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(mujoco, "Renderer", broken)
    env = GymEnv("ant", render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(UserError, match="needs OpenGL \\(two lines\\): install libegl1"):
        env.render()


def test_a_chosen_gl_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym_picture, "has_display", lambda: False)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    gym_picture._prefer_egl()
    assert os.environ["MUJOCO_GL"] == "osmesa"
