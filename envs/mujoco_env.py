"""`Env` = task + physics backend. Pure functions over `State`; the same code on all backends."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.envs import keys
from repertoire.envs.physics.batching import over_worlds
from repertoire.envs.task import Task, actuator_name
from repertoire.envs.types import Array, Data, EnvSpec, Observation, ObsSpec, Physics, Start, State
from repertoire.errors import unknown

#: Beyond this a position or velocity counts as diverged; mj_step itself gives up at 1e10.
DIVERGED = 1e6


def tree_where(mask: Array, on_true: Any, on_false: Any) -> Any:
    """Leaf-wise `jnp.where` with a scalar `mask`; typed PRNG keys are leaves too."""
    return jax.tree.map(lambda a, b: jnp.where(mask, a, b), on_true, on_false)


def env_spec(task: Task, model: mujoco.MjModel) -> EnvSpec:
    """What a task declares, over its compiled model."""
    low, high = task.action_limits()
    source, sha256 = task.source_model()
    return EnvSpec(
        name=task.name,
        obs=_observed(task),
        action_size=len(low),
        action_names=task.action_names(),
        action_low=low,
        action_high=high,
        dt=task.substeps * float(model.opt.timestep),
        physics_dt=float(model.opt.timestep),
        episode_length=task.episode_length,
        model=source,
        model_sha256=sha256,
        gains=actuator_gains(model),
    )


def actuator_gains(model: mujoco.MjModel) -> dict[str, tuple[float, float, float]]:
    """Name -> (gain, kp, kd) of every actuator, see `EnvSpec.gains`."""
    rows = zip(model.actuator_gainprm[:, 0], -model.actuator_biasprm[:, 1], -model.actuator_biasprm[:, 2])
    return {actuator_name(model, i): (float(g), float(kp) + 0.0, float(kd) + 0.0) for i, (g, kp, kd) in enumerate(rows)}


def _observed(task: Task) -> ObsSpec:
    """The task's groups, then the low-passed slices it asks for in features and critic, then which task it is."""
    groups = dict(task.obs_spec().groups)
    known = {s.name: s for s in groups["features"]}
    for name in task.smooth:
        if name not in known:
            raise unknown(f"feature slice of env {task.name} to smooth", name, known)
    extra = tuple(dataclasses.replace(known[name], name=f"smooth_{name}") for name in task.smooth)
    groups = {k: v if k == "policy" else (*v, *extra) for k, v in groups.items()}
    return ObsSpec({k: v if k == "features" else (*v, *task.task_slices()) for k, v in groups.items()})


class MujocoEnv:
    """One task on one backend.

    Args:
      task: the task.
      physics: a backend built from `task.model` and `task.fields`.
    """

    def __init__(self, task: Task, physics: Physics) -> None:
        self.task, self.physics = task, physics
        self.spec = env_spec(task, physics.model)
        slices = self.spec.obs.groups["policy"]
        self._noise = np.concatenate([np.full(s.size, s.noise * s.scale) for s in slices]).astype(np.float32)
        starts = np.cumsum([0, *(s.size for s in slices)])
        values = [np.tile(np.arange(a, a + s.size), s.history) for a, s in zip(starts, slices)]
        self._value = np.concatenate(values)  # entry of the observation -> its place in one value of each slice

    def reset(self, key: Array) -> State:
        """Fresh episode."""
        key, start_key = keys.split(key)
        start = self.start(start_key)
        data = self.physics.init(start.qpos, start.qvel, start.overrides)
        return self._begin(key, data)

    def start(self, key: Array) -> Start:
        """Draw where an episode begins."""
        return self.task.start(key)

    def step(self, state: State, action: Array) -> State:
        """One control step.

        A world whose physics diverges, or whose action is not finite, keeps its last finite state, earns nothing,
        truncates and counts in the metric `diverged`.
        """
        key, memory_key, noise_key = keys.split(state.key, 3)
        usable = jnp.isfinite(action).all()  # MuJoCo replaces a NaN control by 0 without a word
        action = jnp.where(usable, jnp.clip(action, -1.0, 1.0), 0.0)
        ctrl = self.task.control(action, state.data, state.memory)
        kick = self.task.kick(state.data, state.memory)
        mocap = self.task.mocap(action, state.data, state.memory)
        data = self.physics.step(state.data, ctrl, self.task.substeps, kick, mocap, self.task.held)
        diverged = _diverged(data) | ~usable
        data = tree_where(diverged, state.data, data)
        t = state.t + 1
        memory = self.task.advance(memory_key, state.data, data, action, state.memory, t)
        terms = self.task.terms(state.data, data, action, state.memory)
        reward, metrics = self._reward(terms, diverged, state.drawn)
        values, smooth = self._values(data, memory, state.smooth)
        values |= state.drawn
        return State(
            data=data,
            obs=self.spec.obs.slide(state.obs, self._observe(noise_key, values)),
            reward=reward,
            terminated=self.task.terminated(data, memory) & ~diverged,
            truncated=(t >= self.task.episode_length) | diverged,
            metrics={**metrics, **self._measure(data, memory, diverged)},
            memory=memory,
            key=key,
            t=t,
            smooth=smooth,
            drawn=state.drawn,
        )

    def reset_where(self, mask: Array, state: State) -> State:
        """A fresh, newly drawn episode where `mask`; costs nothing in a batch where no world asks for one."""
        return over_worlds(self._restart)(mask, state)

    def _restart(self, mask: Array, state: State) -> State:
        """`reset_where` over worlds [N]: one predicate for the batch, where a `vmap` would run both branches."""

        def nobody(_: Array, state: State) -> State:
            return state.replace(key=jax.vmap(lambda key: keys.split(key)[0])(state.key))

        return jax.lax.cond(mask.any(), jax.vmap(self._restart_one), nobody, mask, state)

    def _restart_one(self, mask: Array, state: State) -> State:
        key, start_key = keys.split(state.key)  # as `reset` does: the same key starts the same episode
        data = self.physics.reset_where(mask, state.data, self.start(start_key))
        kept = {"reward": state.reward, "metrics": state.metrics}
        return tree_where(mask, self._begin(key, data).replace(**kept), state.replace(key=key)).replace(data=data)

    def _begin(self, key: Array, data: Data) -> State:
        key, memory_key, noise_key, task_key = keys.split(key, 4)
        memory, drawn = self.task.remember(memory_key, data), self.task.draw_task(task_key)
        zero, false = jnp.zeros(()), jnp.zeros((), bool)
        names = jax.eval_shape(self._metric_names, data, memory, drawn)
        values, smooth = self._values(data, memory, None)
        values |= drawn
        return State(
            data=data,
            obs=self._observe(noise_key, values),
            reward=zero,
            terminated=false,
            truncated=false,
            metrics=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), names),
            memory=memory,
            key=key,
            t=jnp.zeros((), jnp.int32),
            smooth=smooth,
            drawn=drawn,
        )

    def _metric_names(self, data: Data, memory: Any, drawn: dict[str, Array]) -> dict[str, Array]:
        action = jnp.zeros(self.spec.action_size)
        terms = self.task.terms(data, data, action, memory)
        false = jnp.zeros((), bool)
        return {**self._reward(terms, false, drawn)[1], **self._measure(data, memory, false)}

    def _measure(self, data: Data, memory: Any, diverged: Array) -> dict[str, Array]:
        measured = {**self.task.measure(data, memory), **self.physics.metrics(data)}
        return {**measured, "diverged": diverged.astype(jnp.float32)}

    def _reward(
        self, terms: dict[str, Array], diverged: Array, drawn: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        weighted = {k: jnp.where(diverged, 0.0, v) for k, v in self.task.weighted(terms, drawn).items()}
        total = sum(weighted.values(), start=jnp.zeros(()))
        return total, {f"reward/{k}": v for k, v in weighted.items()}

    def _values(self, data: Data, memory: Any, before: dict[str, Array] | None) -> tuple[dict[str, Array], Any]:
        """Values of all slices, and the low-passed ones apart; `before` is None where an episode begins."""
        values = self.task.observe(data, memory)
        smooth = {name: values[name] for name in self.task.smooth}
        if before is not None:
            keep = {name: math.exp(-self.spec.dt / max(tau, 1e-9)) for name, tau in self.task.smooth.items()}
            smooth = {name: keep[name] * before[name] + (1 - keep[name]) * x for name, x in smooth.items()}
        return {**values, **{f"smooth_{name}": x for name, x in smooth.items()}}, smooth

    def _observe(self, key: Array, values: dict[str, Array]) -> Observation:
        obs = self.spec.obs.build(values)
        if self._noise.any():
            noise = jax.random.uniform(key, self._noise.shape, minval=-1.0, maxval=1.0)
            obs["policy"] = obs["policy"] + (noise * self._noise)[self._value]
        return obs


def _diverged(data: Data) -> Array:
    values = jnp.concatenate([data.qpos, data.qvel])
    return ~(jnp.abs(values) < DIVERGED).all()  # NaN compares false, so it counts
