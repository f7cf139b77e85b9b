"""Any `brax.envs.Env` as one of ours: `env=brax id=ant`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from repertoire.envs.foreign import Foreign, ForeignEnv, Options, Seen
from repertoire.envs.types import Array
from repertoire.errors import UserError

_BACKENDS = ("generalized", "spring", "positional", "mjx")


@dataclass(frozen=True)
class BraxOptions(Options):
    """Options of `env=brax`.

    Attributes:
      engine: `generalized`, `spring`, `positional` or `mjx`; None: the env's own default.
    """

    engine: str | None = None


def make(options: BraxOptions) -> ForeignEnv:
    """The env that Brax has registered under `options.id`."""
    importlib.import_module("repertoire.envs.physics.quiet")  # before Brax imports MJX
    from brax import envs

    options.check("brax", sorted(envs._envs))
    wanted = {} if options.engine is None else {"backend": options.engine}
    if options.engine is not None and options.engine not in _BACKENDS:
        raise UserError(f"env.engine must be one of {', '.join(_BACKENDS)}, got {options.engine!r}")
    return wrap(envs.get_environment(options.id, **wanted), options)


def wrap(env: Any, options: Options) -> ForeignEnv:
    """`env`, a `brax.envs.Env` without Brax's training wrappers, as ours; `options.id` is its name."""
    sys = getattr(env, "sys", None)
    engine = env.backend if sys is not None else "no physics"
    dt = float(getattr(env, "dt", 1.0))  # an env without physics has no clock: a step counts as 1 s
    foreign = Foreign(
        name=f"brax:{options.id}",
        reset=env.reset,
        step=env.step,
        see=_see,
        action_size=int(env.action_size),
        dt=dt,
        physics_dt=dt / int(getattr(env, "_n_frames", 1)),
        engine=f"brax ({engine})",
        model=getattr(sys, "mj_model", None),
    )
    return ForeignEnv(foreign, options)


def _see(state: Any) -> Seen:
    inner, nothing = state.pipeline_state, jnp.zeros(0)
    return seen(state, getattr(inner, "q", nothing), getattr(inner, "qd", nothing))


def seen(state: Any, qpos: Array, qvel: Array) -> Seen:
    """What a state of Brax's form (obs, reward, done, metrics) shows, with the coordinates of its physics."""
    policy, critic = groups(state.obs)
    return Seen(
        qpos=qpos,
        qvel=qvel,
        policy=policy,
        critic=critic,
        reward=jnp.asarray(state.reward, jnp.float32),
        done=jnp.asarray(state.done) > 0.5,
        metrics=scalars(state.metrics),
    )


def groups(obs: Any) -> tuple[Array, Array]:
    """(policy, critic) of an observation: an array, or a dictionary with `state` and maybe `privileged_state`."""
    if not isinstance(obs, dict):
        return jnp.ravel(obs), jnp.ravel(obs)
    if "state" not in obs:
        raise UserError(f"an observation of {', '.join(obs)} is none that this adapter knows: it reads 'state'")
    return jnp.ravel(obs["state"]), jnp.ravel(obs["privileged_state" if "privileged_state" in obs else "state"])


def scalars(metrics: Any) -> dict[str, Array]:
    """The metrics that are one number."""
    return {k: jnp.asarray(v, jnp.float32) for k, v in dict(metrics).items() if jnp.ndim(v) == 0}
