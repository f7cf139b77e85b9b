"""Fit skill dynamics on random skills, and measure them on worlds that were held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from repertoire.algos import networks, normalize
from repertoire.algos.types import Array, Params
from repertoire.envs.types import State
from repertoire.errors import UserError, at_least_one
from repertoire.high_level.dynamics import ACTIVATION, Dynamics, normalized_inputs
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.space import space_of

#: Features [N, F], latents [N, D] and what the features became [N, F].
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class DynamicsConfig:
    """How to fit.

    Attributes:
      members: networks in the ensemble. hidden: their layers. lr: first learning rate, which decays to zero.
      updates: gradient steps. batch: transitions per step and member.
      position: whether the change may depend on where the robot is. Between walls it does; on open ground it does not,
        and leaving it out makes the model hold everywhere.
      held_out: share of the worlds that only measures the error.
    """

    members: int = 4
    hidden: tuple[int, ...] = (128, 128)
    lr: float = 3e-3
    updates: int = 3000
    batch: int = 256
    position: bool = True
    held_out: float = 0.2

    def __post_init__(self) -> None:
        at_least_one(self, "controller.dynamics", "members", "updates", "batch", "hidden")
        if not 0 < self.held_out < 1:
            raise UserError(f"controller.dynamics.held_out must lie between 0 and 1, got {self.held_out}")


class Transitions(NamedTuple):
    """Whole macro steps of random skills: features [B, T, F], latents [B, T, D], what the features became [B, T, F].

    `valid` [B, T] is false where an episode ended inside the macro step.
    """

    features: Array
    latents: Array
    after: Array
    valid: Array


def collect(env: MacroEnv, key: Array, worlds: int, steps: int) -> Transitions:
    """`steps` macro steps of `worlds` worlds, with a new random macro action in each."""
    space = space_of(env)

    def step(states: State, key: Array) -> tuple[State, Transitions]:
        actions = jax.vmap(space.sample)(jax.random.split(key, worlds))
        stepped = jax.vmap(env.step)(states, actions)
        done = stepped.terminated | stepped.truncated
        row = Transitions(states.obs["features"], jax.vmap(space.encode)(actions), stepped.obs["features"], ~done)
        return jax.vmap(env.reset_where)(done, stepped), row

    @jax.jit
    def run(key: Array) -> Transitions:
        start_key, key = jax.random.split(key)
        states = jax.vmap(env.reset)(jax.random.split(start_key, worlds))
        return jax.lax.scan(step, states, jax.random.split(key, steps))[1]

    return Transitions(*(jnp.swapaxes(x, 0, 1) for x in run(key)))


def fit(
    data: Transitions, config: DynamicsConfig, position: np.ndarray, key: Array
) -> tuple[Dynamics, dict[str, float]]:
    """Fit the ensemble on most worlds of `data` and measure it on the others.

    Args:
      position: indices of the world position among the features.

    Returns:
      (dynamics, figures); for the figures see `errors`. Raises `UserError` when there is too little to learn from.
    """
    worlds = data.valid.shape[0]
    kept = min(max(round(worlds * (1 - config.held_out)), 1), worlds - 1)  # one at least on either side
    train, test = (_rows(data, part) for part in (slice(0, kept), slice(kept, None)))
    if min(len(train[0]), len(test[0])) < 2:
        raise UserError("learned dynamics saw no whole macro step: raise total_steps, or lower controller.hold")
    seen = jnp.ones(train[0].shape[1])
    if not config.position:
        seen = seen.at[position].set(0.0)
    features, latents, after = map(jnp.asarray, train)
    size = features.shape[1] + latents.shape[1]
    inputs = normalize.update(normalize.init(size), jnp.concatenate([features, latents], 1))
    change = normalize.update(normalize.init(features.shape[1]), after - features)
    x = jax.vmap(normalized_inputs, in_axes=(None, None, 0, 0))(inputs, seen, features, latents)
    y = normalize.apply(change, after - features, clip=None)
    layers = _train(x, y, config, key)
    fitted = Dynamics(layers=layers, inputs=inputs, change=change, seen=seen)
    return fitted, errors(fitted, test, position)


def errors(dynamics: Dynamics, rows: Rows, position: np.ndarray) -> dict[str, float]:
    """Figures of the ensemble on `rows`; `position` as in `fit`.

    `error`: root mean square over features of the ensemble's error, each in standard deviations of that feature's
    change, so that 1 is what guessing the mean change gives; `position_error`: the same of the position alone;
    `position_error_m`: root mean square distance, m.
    """
    features, latents, after = rows
    off = np.asarray(jax.jit(jax.vmap(dynamics.predict))(features, latents)) - after
    unit = np.maximum((after - features).std(0), 1e-6)
    return {
        "error": float(np.sqrt(np.square(off / unit).mean())),
        "position_error": float(np.sqrt(np.square(off / unit)[:, position].mean())),
        "position_error_m": float(np.sqrt(np.square(off[:, position]).sum(1).mean())),
        "transitions": float(len(features)),
    }


def _rows(data: Transitions, worlds: slice) -> Rows:
    valid = np.asarray(data.valid)[worlds]
    features, latents, after = (np.asarray(x)[worlds][valid] for x in data[:3])
    return features, latents, after


def _train(x: Array, y: Array, config: DynamicsConfig, key: Array) -> tuple[tuple[Array, Array], ...]:
    """Layers [M, ...] of least mean squared error on inputs [N, I] and normalised changes [N, F]."""
    net = networks.mlp(x.shape[1], config.hidden, y.shape[1], ACTIVATION)
    optimiser = optax.adam(optax.cosine_decay_schedule(config.lr, config.updates))
    init_key, key = jax.random.split(key)
    params = jax.vmap(net.init)(jax.random.split(init_key, config.members))

    def loss(params: Params, rows: Array) -> Array:
        return jnp.square(net.apply(params, x[rows]) - y[rows]).mean()

    def update(carry: tuple[Params, Any], key: Array) -> tuple[tuple[Params, Any], None]:
        params, opt = carry
        rows = jax.random.randint(key, (config.members, config.batch), 0, len(x))
        grads = jax.vmap(jax.grad(loss))(params, rows)
        changes, opt = optimiser.update(grads, opt)
        return (optax.apply_updates(params, changes), opt), None

    @jax.jit
    def run(params: Params, key: Array) -> Params:
        carry = (params, optimiser.init(params))
        return jax.lax.scan(update, carry, jax.random.split(key, config.updates))[0][0]

    return tuple(networks.dense_layers(run(params, key)))
