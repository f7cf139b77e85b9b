"""Our envs as Gymnasium envs: `GymEnv` is one world, `GymVectorEnv` one batched simulation of many.

Both run the same jitted programs over a batch, so that a world of the vector env and the single env that was
given the same seed and actions go through the same episodes, those after a reset included.
"""

from __future__ import annotations

import atexit
import dataclasses
import importlib
import os
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from repertoire.envs import registry
from repertoire.envs.mujoco_env import MujocoEnv, tree_where
from repertoire.envs.task import Marker, Task
from repertoire.envs.types import Array, EnvSpec, State
from repertoire.errors import UserError, unknown

OBS_MODES = ("policy", "dict")
_OUTCOME = ("obs", "reward", "terminated", "truncated", "metrics")
_MODES = {mode.value: mode for mode in AutoresetMode}
#: How far the camera is at most from a robot that it follows, m.
FOLLOW_M = 9.0
_NO_DISPLAY = (
    "render_mode='human' needs a display, and DISPLAY and WAYLAND_DISPLAY are not set: use render_mode='rgb_array'"
)
_NO_GL = (
    "render_mode='rgb_array' needs OpenGL ({}): install libegl1 and libgl1, or set MUJOCO_GL=osmesa with libosmesa6"
)


class Programs(NamedTuple):
    """The env and its jitted programs over worlds [N]."""

    env: MujocoEnv
    reset: Callable[[Any], State]  # words [N, 2] uint32 of keys
    step: Callable[[State, Any], State]  # state, actions [N, A]
    restart: Callable[[State, Any, Any, Any], State]  # state, mask [N], whether to take new words [N], words
    select: Callable[[Any, State, State], State]  # mask [N]


_PROGRAMS: dict[str, Programs] = {}


def programs(env_name: str, physics_backend: str, options: Mapping[str, Any]) -> Programs:
    """Programs of an env, built once per process: 64 single envs compile once."""
    key = repr((env_name, physics_backend, sorted(options.items())))
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _build(registry.make(env_name, physics_backend, **options))
    return _PROGRAMS[key]


def _build(env: MujocoEnv) -> Programs:
    def key(words: Array) -> Array:
        return jax.random.wrap_key_data(words, impl="threefry2x32")

    def restart(state: State, mask: Array, seeded: Array, words: Array) -> State:
        """A fresh episode where `mask`; other worlds keep their key, whatever their neighbours do."""
        state = dataclasses.replace(state, key=jnp.where(mask & seeded, key(words), state.key))
        fresh = env.reset_where(mask, state)
        return dataclasses.replace(fresh, key=jnp.where(mask, fresh.key, state.key))

    return Programs(
        env,
        jax.jit(jax.vmap(lambda words: env.reset(key(words)))),
        jax.jit(jax.vmap(env.step)),
        jax.jit(jax.vmap(restart)),
        jax.jit(jax.vmap(tree_where)),
    )


class Worlds:
    """Host side of both envs: `n` worlds, their seeds, and their state as numpy arrays."""

    def __init__(self, programs: Programs, n: int) -> None:
        self.programs, self.n = programs, n
        self.spec: EnvSpec = programs.env.spec
        self.state: State | None = None

    def reset(self, mask: np.ndarray, seeds: Sequence[int | None], rng: Callable[[], np.random.Generator]) -> None:
        """Start new episodes where `mask` [n]: from the seed, else from where the world's stream stands.

        `rng` gives the generator that seeds worlds on the very first reset.
        """
        words = np.zeros((self.n, 2), np.uint32)
        seeded = np.array([s is not None for s in seeds])
        for i in np.flatnonzero(mask & seeded):
            words[i] = _words(seeding.np_random(_integer(seeds[int(i)]))[0])
        if self.state is None:
            for i in np.flatnonzero(~(mask & seeded)):
                words[i] = _words(rng())
            self.state = self.programs.reset(words)
        else:
            self.state = self.programs.restart(self.state, mask, seeded, words)

    def next_episode(self, mask: np.ndarray) -> None:
        """Start new episodes where `mask` [n], each from where its random stream stands."""
        self.state = self._restarted(mask)

    def step(self, actions: Any, resetting: np.ndarray | None = None) -> None:
        """Step every world, but start a new episode where `resetting` [n]."""
        if self.state is None:
            raise UserError("call reset() before step()")
        shape = (self.n, self.spec.action_size)
        actions = np.asarray(actions, np.float32)
        if actions.shape != shape:
            raise UserError(f"actions must have shape {shape}, got {actions.shape}")
        stepped = self.programs.step(self.state, actions)
        if resetting is not None and resetting.any():
            stepped = self.programs.select(resetting, self._restarted(resetting), stepped)
        self.state = stepped

    def read(self, *names: str) -> Any:
        """Fields of the state, as writable numpy arrays [n, ...]; a tuple unless one name is given."""
        found = jax.tree.map(np.array, jax.device_get(tuple(getattr(self._state(), name) for name in names)))
        return found[0] if len(names) == 1 else found

    def world(self, i: int) -> State:
        """World `i` as numpy arrays."""
        state = self._state()
        state = dataclasses.replace(state, key=jax.random.key_data(state.key))
        return jax.device_get(jax.tree.map(lambda x: x[i], state))

    def _state(self) -> State:
        if self.state is None:
            raise UserError("call reset() first")
        return self.state

    def _restarted(self, mask: np.ndarray) -> State:
        unused = np.zeros((self.n, 2), np.uint32)
        return self.programs.restart(self._state(), mask, np.zeros(self.n, bool), unused)


def _words(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(2**32, size=2, dtype=np.uint32)


def _integer(seed: Any) -> int:
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UserError(f"a seed is a non-negative integer, got {seed!r}")
    return int(seed)


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
        self._obs = _obs_mode(obs)
        spec = self._worlds.spec
        modes = [m for m in type(self).metadata["render_modes"] if m != "human" or _has_display()]
        self.metadata = {"render_modes": modes, "render_fps": round(1 / spec.dt)}
        self.render_mode = _render_mode(render_mode, type(self).metadata["render_modes"])
        self._size = (height, width)
        self._picture: Picture | None = None
        self._window: Window | None = None
        self.observation_space, self.action_space = _observation_space(spec, obs), _action_space(spec)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """New episode: from `seed`, or from where the random stream stands. No `options` are known."""
        super().reset(seed=seed)
        _check_options(options, ())
        self._worlds.reset(np.ones(1, bool), [seed], lambda: self.np_random)
        self._show()
        return self._observation(self._worlds.read("obs")), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One control step; `action` [A] in [-1, 1]."""
        self._worlds.step(np.asarray(action)[None])
        obs, reward, ended, cut, metrics = self._worlds.read(*_OUTCOME)
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
            self._picture = Picture(self._worlds.programs.env.task, *self._size)
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
                self._window = Window(self._worlds.programs.env.task, self._worlds.spec.dt)
            self._window.frame(self._worlds.world(0))

    def _observation(self, obs: dict[str, np.ndarray]) -> Any:
        return _world(_groups(obs, self._obs), 0)


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
        self._obs, self._mode = _obs_mode(obs), _autoreset_mode(autoreset_mode)
        self.render_mode = _render_mode(render_mode, type(self).metadata["render_modes"])
        spec, self.num_envs = self._worlds.spec, num_envs
        self.metadata = {
            **type(self).metadata,
            "render_fps": round(1 / spec.dt),
            "autoreset_mode": self._mode,
        }
        self._view: Picture | None = None
        self._done = np.zeros(num_envs, bool)
        self.single_observation_space, self.single_action_space = (
            _observation_space(spec, obs),
            _action_space(spec),
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """New episodes everywhere, or where `options["reset_mask"]` [N]; world i gets `seed + i` or `seed[i]`."""
        _check_options(options, ("reset_mask",))
        mask = _mask((options or {}).get("reset_mask"), self.num_envs)
        super().reset(seed=_integer(seed) if isinstance(seed, (int, np.integer)) else None)
        self._worlds.reset(mask, _seeds(seed, self.num_envs), lambda: self.np_random)
        self._done &= ~mask
        return _groups(self._worlds.read("obs"), self._obs), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One control step of all worlds; `actions` [N, A] in [-1, 1]."""
        resetting = self._resetting()
        self._worlds.step(actions, resetting)
        obs, reward, ended, cut, metrics = self._worlds.read(*_OUTCOME)
        obs, reward = _groups(obs, self._obs), np.where(resetting, 0.0, reward.astype(np.float64))
        done = ended | cut
        if self._mode != AutoresetMode.SAME_STEP:
            self._done = done
            return obs, reward, ended, cut, _infos(metrics, ~resetting)
        infos = _infos(metrics, ~done)
        if done.any():
            infos |= self._finals(obs, metrics, done)
            self._worlds.next_episode(done)
            obs = _groups(self._worlds.read("obs"), self._obs)
        return obs, reward, ended, cut, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """One frame [height, width, 3] uint8 per world with `rgb_array`."""
        if self.render_mode is None:
            return None
        if self._view is None:
            self._view = Picture(self._worlds.programs.env.task, *self._size)
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
            final_obs[i] = _world(obs, i)
        finals = {"final_obs": final_obs, "final_info": _infos(metrics, done)}
        return finals | {f"_{name}": done.copy() for name in finals}


def _groups(obs: dict[str, np.ndarray], mode: str) -> Any:
    return obs["policy"] if mode == "policy" else {name: v for name, v in obs.items() if v.shape[-1]}


def _world(obs: Any, i: Any) -> Any:
    return jax.tree.map(lambda x: x[i].copy(), obs)


def _infos(metrics: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, Any]:
    """Infos of the worlds in `mask`, in the layout of Gymnasium's vector envs."""
    if not mask.any():
        return {}
    values = {name: np.where(mask, value.astype(np.float64), 0.0) for name, value in metrics.items()}
    return values | {f"_{name}": mask.copy() for name in values}


def _seeds(seed: Any, n: int) -> list[int | None]:
    if seed is None:
        return [None] * n
    if isinstance(seed, (int, np.integer)):
        return [int(seed) + i for i in range(n)]
    if len(seed) != n:
        raise UserError(f"a list of seeds needs one per env: {n}, got {len(seed)}")
    return list(seed)


def _mask(mask: Any, n: int) -> np.ndarray:
    if mask is None:
        return np.ones(n, bool)
    if not isinstance(mask, np.ndarray) or mask.shape != (n,) or mask.dtype != bool or not mask.any():
        raise UserError(f"options['reset_mask'] must be a boolean numpy array [{n}] with at least one True")
    return mask


def _check_options(options: Mapping[str, Any] | None, known: Sequence[str]) -> None:
    for name in options or {}:
        if name not in known:
            raise (unknown("reset option", name, known) if known else UserError(f"reset takes no option {name!r}"))


def _obs_mode(obs: str) -> str:
    if obs not in OBS_MODES:
        raise unknown("obs", obs, OBS_MODES)
    return obs


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    if mode not in _MODES:
        raise unknown("autoreset mode", mode, _MODES)
    return _MODES[mode]


def _render_mode(mode: str | None, known: Sequence[str]) -> str | None:
    if mode is not None and mode not in known:
        raise unknown("render mode", mode, known)
    if mode == "human" and not _has_display():
        raise UserError(_NO_DISPLAY)
    return mode


def _observation_space(spec: EnvSpec, obs: str) -> spaces.Space:
    """Boxes over all finite float32: observations have no tighter bound that always holds."""
    bound = float(np.finfo(np.float32).max)
    sizes = {name: spec.obs.size(name) for name in spec.obs.groups}
    boxes: dict[str, spaces.Space] = {
        name: spaces.Box(-bound, bound, (size,), np.float32) for name, size in sizes.items() if size
    }
    return boxes["policy"] if obs == "policy" else spaces.Dict(boxes)


def _action_space(spec: EnvSpec) -> spaces.Box:
    return spaces.Box(-1.0, 1.0, (spec.action_size,), np.float32)


# -- pictures -------------------------------------------------------------------------------------------------


class Picture:
    """Frames of one world at a time, off screen."""

    def __init__(self, task: Task, height: int, width: int) -> None:
        self._task, self._data = task, mujoco.MjData(task.model)
        self._camera = _camera(task.model)
        task.model.vis.global_.offheight = max(height, task.model.vis.global_.offheight)
        task.model.vis.global_.offwidth = max(width, task.model.vis.global_.offwidth)
        try:
            _prefer_egl()
            self._renderer = mujoco.Renderer(task.model, height, width)
        except Exception as error:  # every GL platform fails in its own way
            raise UserError(_NO_GL.format(" ".join(str(error).split()))) from error
        self._free = weakref.finalize(self, self._renderer.close)
        self._free.atexit = False
        atexit.register(self._free)  # runs before the GL platform's own, which was registered earlier

    def frame(self, state: State) -> np.ndarray:
        """[height, width, 3] uint8 of `state` (numpy, one world)."""
        _pose(self._task.model, self._data, state)
        self._renderer.update_scene(self._data, self._camera)
        _mark(self._renderer.scene, self._task.markers(state))
        return self._renderer.render().copy()

    def close(self) -> None:
        """Free the GL context."""
        atexit.unregister(self._free)
        self._free()


class Window:
    """MuJoCo's passive viewer, drawn at most at real time."""

    def __init__(self, task: Task, dt: float) -> None:
        viewer = importlib.import_module("mujoco.viewer")
        self._task, self._data, self._dt, self._last = task, mujoco.MjData(task.model), dt, 0.0
        self._viewer = viewer.launch_passive(task.model, self._data, show_left_ui=False, show_right_ui=False)
        camera = _camera(task.model)
        for name in ("type", "trackbodyid", "distance", "azimuth", "elevation", "lookat"):
            setattr(self._viewer.cam, name, getattr(camera, name))

    def frame(self, state: State) -> None:
        """Draw `state` (numpy, one world), and wait for the end of its control step."""
        if not self._viewer.is_running():  # closed by hand
            return
        with self._viewer.lock():
            _pose(self._task.model, self._data, state)
            self._viewer.user_scn.ngeom = 0
            _mark(self._viewer.user_scn, self._task.markers(state))
        self._viewer.sync()
        time.sleep(max(0.0, self._last + self._dt - time.monotonic()))
        self._last = time.monotonic()

    def close(self) -> None:
        """Close the window."""
        self._viewer.close()


def _pose(model: mujoco.MjModel, data: mujoco.MjData, state: State) -> None:
    data.qpos[:], data.qvel[:] = state.data.qpos, state.data.qvel
    mujoco.mj_forward(model, data)


def _camera(model: mujoco.MjModel) -> mujoco.MjvCamera:
    """Free camera on the whole model; follows the robot when its root moves through the world."""
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    moving = (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_SLIDE)
    if model.njnt and int(model.jnt_type[0]) in map(int, moving):
        camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        camera.trackbodyid = int(model.jnt_bodyid[0])
        camera.distance = min(camera.distance, FOLLOW_M)
    return camera


def _mark(scene: mujoco.MjvScene, markers: Sequence[Marker]) -> None:
    """Append spheres to `scene`, as many as it has room for."""
    for position, radius, rgba in markers[: scene.maxgeom - scene.ngeom]:
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom],
            mujoco.mjtGeom.mjGEOM_SPHERE,
            np.full(3, radius, np.float64),
            np.asarray(position, np.float64),
            np.eye(3).ravel(),
            np.asarray(rgba, np.float32),
        )
        scene.ngeom += 1


def _has_display() -> bool:
    return not sys.platform.startswith("linux") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def _prefer_egl() -> None:
    """Without a display MuJoCo's default (GLFW) cannot draw: choose EGL, unless MUJOCO_GL says what to use.

    MuJoCo reads MUJOCO_GL once, when it is imported; `Renderer` looks its context class up in that module.
    """
    if not _has_display() and not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = "egl"
        importlib.reload(importlib.import_module("mujoco.rendering.classic.gl_context"))
