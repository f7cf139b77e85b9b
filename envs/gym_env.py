"""Our envs as Gymnasium envs: `GymEnv` is one world, `GymVectorEnv` (gym_vector.py) a batched simulation of many.

Both run the same jitted programs over a batch, so that a world of the vector env and the single env that was
given the same seed and actions go through the same episodes, those after a reset included.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from repertoire.envs import gym_picture, gym_spaces
from repertoire.envs.gym_worlds import OUTCOME, Worlds, programs


class GymEnv(gymnasium.Env):
    """One world of a registered env.

    Args:
      env_name: registry name.
      render_mode: None, `rgb_array` (frames [height, width, 3] uint8 that follow the robot, with goal markers)
        or `human` (a window in real time, drawn by `step` and `reset`).
      obs: `policy` for the vector that runs on the robot, `dict` for all groups (policy, critic, features).
      physics_backend: see `registry.make`.
      width, height: of frames, pixels.
      options: the task's own (`registry.make_task`), among them `episode_length`.

    `info` holds the step's weighted reward terms ("reward/<term>") and task metrics. The env truncates by itself
    after `episode_length` steps; `gymnasium.make(..., max_episode_steps=)` can only shorten that. Raises
    `UserError` for unknown names and for a render mode that does not work here.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self,
        env_name: str = "ant",
        render_mode: str | None = None,
        obs: str = "policy",
        physics_backend: str = "native",
        width: int = 480,
        height: int = 480,
        **options: Any,
    ) -> None:
        self._worlds = Worlds(programs(env_name, physics_backend, options), 1)
        self._obs = gym_spaces.checked_obs(obs)
        spec = self._worlds.spec
        modes = [m for m in type(self).metadata["render_modes"] if m != "human" or gym_picture.has_display()]
        self.metadata = {"render_modes": modes, "render_fps": round(1 / spec.dt)}
        self.render_mode = gym_picture.checked_render_mode(render_mode, type(self).metadata["render_modes"])
        self._size = (height, width)
        self._picture: gym_picture.Picture | None = None
        self._window: gym_picture.Window | None = None
        self.observation_space, self.action_space = (
            gym_spaces.observation_space(spec, obs),
            gym_spaces.action_space(spec),
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """New episode: from `seed`, or from where the random stream stands. No `options` are known."""
        super().reset(seed=seed)
        gym_spaces.check_options(options, ())
        self._worlds.reset(np.ones(1, bool), [seed], lambda: self.np_random)
        self._show()
        return self._observation(self._worlds.read("obs")), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One control step; `action` [A] in [-1, 1]."""
        self._worlds.step(np.asarray(action)[None])
        obs, reward, ended, cut, metrics = self._worlds.read(*OUTCOME)
        self._show()
        info = {name: float(value[0]) for name, value in metrics.items()}
        return self._observation(obs), float(reward[0]), bool(ended[0]), bool(cut[0]), info

    def render(self) -> np.ndarray | None:
        """Frame [height, width, 3] uint8 with `rgb_array`; the window is drawn by itself."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() draws nothing without a render_mode, such as 'rgb_array'")
            return None
        if self.render_mode == "human":
            return None
        if self._picture is None:
            self._picture = gym_picture.Picture(self._worlds.programs.env.task, *self._size)
        return self._picture.frame(self._worlds.world(0))

    def close(self) -> None:
        """Close the window or the renderer."""
        for view in (self._picture, self._window):
            if view is not None:
                view.close()
        self._picture = self._window = None

    def _show(self) -> None:
        if self.render_mode == "human":
            if self._window is None:
                self._window = gym_picture.Window(self._worlds.programs.env.task, self._worlds.spec.dt)
            self._window.frame(self._worlds.world(0))

    def _observation(self, obs: dict[str, np.ndarray]) -> Any:
        return gym_spaces.world(gym_spaces.groups(obs, self._obs), 0)
