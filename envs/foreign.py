"""Environments of other projects as ours: what an adapter tells of one, and the `Env` made of it.

Ours is a task over a physics backend; theirs are whole. So the seam is `Env` itself: a foreign state travels as the
opaque part of `Data`, and `task` and `physics` are descriptions for evaluation and video, without functions that step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco

from repertoire.envs.mujoco_env import DIVERGED, tree_where
from repertoire.envs.physics.batching import over_worlds
from repertoire.envs.symmetry import Mirror
from repertoire.envs.task import Marker, at_least
from repertoire.envs.tasks.mjcf_model import world_axes
from repertoire.envs.types import Array, Data, EnvSpec, ObsSpec, Slice, State
from repertoire.errors import UserError, finite, unknown

_SOURCE = re.compile(r"(qpos|qvel|policy|critic)\[(\d+):(\d+)\]")


class Seen(NamedTuple):
    """What a foreign state shows. Arrays of one world."""

    qpos: Array  # [nq], [0] where it has none
    qvel: Array  # [nv]
    policy: Array  # [P]
    critic: Array  # [C]
    reward: Array  # []
    done: Array  # [] bool: the MDP ended
    metrics: dict[str, Array]  # [] each


@dataclass(frozen=True)
class Foreign:
    """One environment of another project.

    Attributes:
      name: `<project>:<id>`. reset: raw key [2] uint32 -> state. step: (state, action [-1, 1]) -> state. see: what a
        state shows. action_size, dt [s], physics_dt [s]: as the env has them. model: for video and default features.
      engine: what steps it, in words.
    """

    name: str
    reset: Callable[[Array], Any]
    step: Callable[[Any, Array], Any]
    see: Callable[[Any], Seen]
    action_size: int
    dt: float
    physics_dt: float
    engine: str
    model: mujoco.MjModel | None = None


@dataclass(frozen=True)
class Options:
    """Options of every foreign env.

    Attributes:
      id: its name in its own project. episode_length: control steps until truncation.
      features: slice -> `qpos[a:b]`, `qvel[a:b]`, `policy[a:b]` or `critic[a:b]`: what objectives see. None: `position`
        and `velocity` of a root that moves through the world, and `obs`, all that the policy sees.
      coverage: feature slice -> side of the cells in which its coverage is counted.
      weights: of the reward, {"env": 1.0}; 0 leaves it out.
    """

    id: str = ""
    episode_length: int = 200
    features: Mapping[str, str] | None = None
    coverage: Mapping[str, float] = field(default_factory=lambda: {"position": 1.0})
    weights: Mapping[str, float] = field(default_factory=lambda: {"env": 1.0})

    def check(self, project: str, known: list[str]) -> None:
        """`UserError` for an `id` that is not among `known`, and for impossible values."""
        if not self.id:
            raise UserError(f"env {project} needs the name of one of its envs: id={known[0] if known else '...'}")
        if self.id not in known:
            raise unknown(f"env of {project}", self.id, known)
        at_least(project, 1, episode_length=self.episode_length)
        at_least(project, 1e-9, **{f"coverage.{k}": v for k, v in self.coverage.items()})
        for term, weight in self.weights.items():
            if term != "env":
                raise unknown(f"reward term of env {project}", term, ["env"])
            finite(f"env.weights.{term}", weight)


@dataclass(frozen=True)
class ForeignTask:
    """What evaluation asks of a task. Its controls are not known, so figures of effort are left out."""

    name: str
    options: Options
    coverage_cells: Mapping[str, float]
    weights: Mapping[str, float]
    episode_length: int
    ceiling_m: Mapping[int, float] = field(default_factory=dict)
    mechanics: bool = False
    camera: str = "follow"

    def control(self, action: Array, data: Data, memory: Any) -> Array:
        """The action: what becomes of it is the foreign env's affair."""
        return action

    def mirror(self) -> Mirror | None:
        """None is known."""
        return None

    def markers(self, state: Any) -> list[Marker]:
        """None."""
        return []


@dataclass(frozen=True)
class ForeignPhysics:
    """Name of the engine, and the model for pictures (or None)."""

    name: str
    model: mujoco.MjModel | None


class ForeignEnv:
    """`Env` over a `Foreign`.

    Episodes start anew with a fresh key, never from a cached first state; a world that diverges keeps its last finite
    state, earns nothing and truncates, as in `MujocoEnv`.
    """

    def __init__(self, foreign: Foreign, options: Options) -> None:
        self.foreign, self.options = foreign, options
        weights = {k: float(w) for k, w in options.weights.items()}
        self.task = ForeignTask(foreign.name, options, dict(options.coverage), weights, options.episode_length)
        self.physics = ForeignPhysics(foreign.engine, foreign.model)
        shown = jax.eval_shape(lambda: foreign.see(foreign.reset(jax.random.key_data(jax.random.key(0)))))
        self._parts = _parts(foreign, options, shown)
        self.spec = _spec(foreign, options, shown, self._parts)

    def reset(self, key: Array) -> State:
        """Fresh episode."""
        key, start_key = jax.random.split(key)
        inner = self.foreign.reset(jax.random.key_data(start_key))
        return self._state(jax.tree.map(jnp.asarray, inner), key, jnp.zeros((), jnp.int32))

    def step(self, state: State, action: Array) -> State:
        """One control step, no reset."""
        usable = jnp.isfinite(action).all()
        before = state.data.backend
        handed = jax.tree.map(lambda x: x, before)  # new dictionaries: theirs write into `info` as they step
        after = self.foreign.step(handed, jnp.where(usable, jnp.clip(action, -1.0, 1.0), 0.0))
        diverged = _diverged(self.foreign.see(after)) | ~usable
        kept = tree_where(diverged, before, _like(after, before))
        return self._state(kept, state.key, state.t + 1, diverged)

    def reset_where(self, mask: Array, state: State) -> State:
        """A fresh episode where `mask`; costs nothing in a batch where no world asks for one."""
        return over_worlds(self._restart)(mask, state)

    def _restart(self, mask: Array, state: State) -> State:
        def one(mask: Array, state: State) -> State:
            fresh = self.reset(state.key)
            fresh = fresh.replace(reward=state.reward, metrics=state.metrics)
            return tree_where(mask, _like(fresh, state), state)

        return jax.lax.cond(mask.any(), jax.vmap(one), lambda mask, state: state, mask, state)

    def _state(self, inner: Any, key: Array, t: Array, diverged: Array | None = None) -> State:
        seen, begins = self.foreign.see(inner), diverged is None
        lost = jnp.zeros((), bool) if diverged is None else diverged
        reward = jnp.where(lost | begins, 0.0, self.task.weights.get("env", 0.0) * seen.reward)
        own = {f"{self.foreign.name.partition(':')[0]}/{k}": v for k, v in seen.metrics.items()}
        time = t * jnp.asarray(self.foreign.dt, jnp.float32)
        return State(
            data=Data(time=time, qpos=seen.qpos, qvel=seen.qvel, backend=inner),
            obs=self.spec.obs.build(self._values(seen)),
            reward=reward,
            terminated=jnp.where(begins, False, seen.done & ~lost),
            truncated=(t >= self.options.episode_length) | lost,
            metrics={"reward/env": reward, "diverged": lost.astype(jnp.float32), **own},
            memory=(),
            key=key,
            t=t,
        )

    def _values(self, seen: Seen) -> dict[str, Array]:
        parts = {name: getattr(seen, of)[start:stop] for name, (of, start, stop) in self._parts.items()}
        return {"policy": seen.policy, "critic": seen.critic, **parts}


def _like(new: Any, old: Any) -> Any:
    """`new` with the types of `old`: foreign steps leave plain numbers and other types here and there."""

    def one(a: Any, b: Any) -> Array:
        a = jnp.asarray(a)
        return a if a.dtype == b.dtype else a.astype(b.dtype)

    return jax.tree.map(one, new, old)


def _diverged(seen: Seen) -> Array:
    values = jnp.concatenate([jnp.ravel(x).astype(jnp.float32) for x in (*seen[:4], seen.reward)])
    return ~(jnp.abs(values) < DIVERGED).all()


def _parts(foreign: Foreign, options: Options, shown: Seen) -> dict[str, tuple[str, int, int]]:
    """Feature slice -> (field of `Seen`, start, stop), checked."""
    if options.features is not None and (not options.features or not isinstance(options.features, Mapping)):
        raise UserError("env.features wants slice: part, such as {position: 'qpos[0:2]'}")
    texts = dict(options.features or {})
    if options.features is None:
        axes = 0 if foreign.model is None else world_axes(foreign.model)
        texts = {"position": f"qpos[0:{axes}]", "velocity": f"qvel[0:{axes}]"} if axes else {}
        texts["obs"] = f"policy[0:{shown.policy.shape[0]}]"
    found = {}
    for name, text in texts.items():
        match = _SOURCE.fullmatch(str(text))
        if match is None or name in ("policy", "critic"):
            raise UserError(
                f"env.features.{name} must be qpos[a:b], qvel[a:b], policy[a:b] or critic[a:b], got {text!r}"
            )
        of, start, stop = match[1], int(match[2]), int(match[3])
        size = getattr(shown, of).shape[0]
        if not start < stop <= size:
            raise UserError(f"env.features.{name}={text}: {of} of {foreign.name} has {size} entries")
        found[name] = (of, start, stop)
    for name in options.coverage:
        if name not in found and name != "position":
            raise unknown("feature slice of env.coverage", name, found)
    return found


def _spec(foreign: Foreign, options: Options, shown: Seen, parts: Mapping[str, tuple[str, int, int]]) -> EnvSpec:
    features = tuple(Slice(name, stop - start) for name, (_, start, stop) in parts.items())
    groups = {name: (Slice(name, getattr(shown, name).shape[0]),) for name in ("policy", "critic")}
    size = foreign.action_size
    return EnvSpec(
        name=foreign.name,
        obs=ObsSpec({**groups, "features": features}),
        action_size=size,
        action_names=tuple(f"action{i}" for i in range(size)),
        action_low=(-1.0,) * size,
        action_high=(1.0,) * size,
        dt=foreign.dt,
        physics_dt=foreign.physics_dt,
        episode_length=options.episode_length,
    )
