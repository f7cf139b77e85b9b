"""`GymVectorEnv`: many worlds of a registered env as one Gymnasium vector env, in one batched simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from repertoire.envs import gym_picture, gym_spaces, registry
from repertoire.envs.gym_worlds import OUTCOME, Worlds, programs
from repertoire.errors import UserError


class GymVectorEnv(VectorEnv):
    """`num_envs` worlds of a registered env in one batched simulation.

    Args: those of `GymEnv`, and
      max_episode_steps: shortens `episode_length`, as `gymnasium.make` does for one env.
      autoreset_mode: `NextStep` (Gymnasium's default, and all that its normalising wrappers accept): the step
        after an episode's last one ignores that world's action and returns the next start with reward 0;
        `SameStep`: the last step returns the next start, and the true last observation and info in `final_obs`
        and `final_info`; `Disabled`: worlds are reset by `reset(options={"reset_mask": mask})`.

    Infos are those of Gymnasium's vector envs: name -> values [N] and "_name" -> mask [N].
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        env_name: str = "ant",
        num_envs: int = 1,
        render_mode: str | None = None,
        obs: str = "policy",
        physics_backend: str = "native",
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **options: Any,
    ) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs must be at least 1, got {num_envs}")
        self._size = (options.pop("height", 480), options.pop("width", 480))
        limit = options.pop("max_episode_steps", None)
        if limit is not None:
            options["episode_length"] = min(limit, registry.make_task(env_name, **options).episode_length)
        self._worlds = Worlds(programs(env_name, physics_backend, options), num_envs)
        self._obs, self._mode = gym_spaces.checked_obs(obs), gym_spaces.checked_autoreset(autoreset_mode)
        self.render_mode = gym_picture.checked_render_mode(render_mode, type(self).metadata["render_modes"])
        spec, self.num_envs = self._worlds.spec, num_envs
        self.metadata = {
            **type(self).metadata,
            "render_fps": round(1 / spec.dt),
            "autoreset_mode": self._mode,
        }
        self._view: gym_picture.Picture | None = None
        self._done = np.zeros(num_envs, bool)
        self.single_observation_space, self.single_action_space = (
            gym_spaces.observation_space(spec, obs),
            gym_spaces.action_space(spec),
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """New episodes everywhere, or where `options["reset_mask"]` [N]; world i gets `seed + i` or `seed[i]`."""
        gym_spaces.check_options(options, ("reset_mask",))
        mask = gym_spaces.checked_mask((options or {}).get("reset_mask"), self.num_envs)
        super().reset(seed=gym_spaces.checked_seed(seed) if isinstance(seed, (int, np.integer)) else None)
        self._worlds.reset(mask, gym_spaces.checked_seeds(seed, self.num_envs), lambda: self.np_random)
        self._done &= ~mask
        return gym_spaces.groups(self._worlds.read("obs"), self._obs), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One control step of all worlds; `actions` [N, A] in [-1, 1]."""
        resetting = self._resetting()
        self._worlds.step(actions, resetting)
        obs, reward, ended, cut, metrics = self._worlds.read(*OUTCOME)
        obs, reward = gym_spaces.groups(obs, self._obs), np.where(resetting, 0.0, reward.astype(np.float64))
        done = ended | cut
        if self._mode != AutoresetMode.SAME_STEP:
            self._done = done
            return obs, reward, ended, cut, _infos(metrics, ~resetting)
        infos = _infos(metrics, ~done)
        if done.any():
            infos |= self._finals(obs, metrics, done)
            self._worlds.next_episode(done)
            obs = gym_spaces.groups(self._worlds.read("obs"), self._obs)
        return obs, reward, ended, cut, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One frame [height, width, 3] uint8 per world with `rgb_array`."""
        if self.render_mode is None:
            return None
        if self._view is None:
            self._view = gym_picture.Picture(self._worlds.programs.env.task, *self._size)
        return tuple(self._view.frame(self._worlds.world(i)) for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """Close the renderer."""
        if self._view is not None:
            self._view.close()
        self._view = None

    def _resetting(self) -> np.ndarray:
        """Worlds [N] whose next step is the start of an episode."""
        if self._mode == AutoresetMode.DISABLED and self._done.any():
            world = int(np.argmax(self._done))
            raise UserError(f"world {world} has ended: first reset it with options={{'reset_mask': mask}}")
        return self._done

    def _finals(self, obs: Any, metrics: dict[str, np.ndarray], done: np.ndarray) -> dict[str, Any]:
        final_obs = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(done):
            final_obs[i] = gym_spaces.world(obs, i)
        finals = {"final_obs": final_obs, "final_info": _infos(metrics, done)}
        return finals | {f"_{name}": done.copy() for name in finals}


def _infos(metrics: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, Any]:
    """Infos of the worlds in `mask`, in the layout of Gymnasium's vector envs."""
    if not mask.any():
        return {}
    values = {name: np.where(mask, value.astype(np.float64), 0.0) for name, value in metrics.items()}
    return values | {f"_{name}": mask.copy() for name in values}
