"""Action distributions of policies. Unbatched; batch with `vmap` or broadcasting over leading axes."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array, Params

#: Bounds of log standard deviations: a policy can neither freeze nor explode (D3 uses [e^-5, e^2]).
LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


class Distribution(Protocol):
    """What a head of PPO must offer; `logits` is the network's output, `extra` head parameters outside the network.

    `outputs` is the length of `logits`. The mode reads the first `mode_outputs` of them, through `squash` (`none` or
    `tanh`): all that a frozen policy keeps.
    """

    outputs: int
    mode_outputs: int
    squash: str

    def extra(self) -> Params:
        """Initial head parameters."""
        ...

    def sample(self, key: Array, logits: Array, extra: Params) -> Array:
        """Action drawn."""
        ...

    def mode(self, logits: Array) -> Array:
        """Most likely action."""
        ...

    def log_prob(self, action: Array, logits: Array, extra: Params) -> Array:
        """Log density or mass of `action`, []."""
        ...

    def entropy(self, logits: Array, extra: Params) -> Array:
        """Entropy, []."""
        ...


class Gaussian:
    """Diagonal Gaussian with a learned, state-independent log standard deviation; the env clips actions."""

    def __init__(self, size: int, init_log_std: float) -> None:
        self.outputs, self._init = size, init_log_std
        self.mode_outputs, self.squash = size, "none"

    def extra(self) -> Params:
        """log std [size]."""
        return {"log_std": jnp.full(self.outputs, self._init)}

    def sample(self, key: Array, logits: Array, extra: Params) -> Array:
        """mean + std * noise, [size]."""
        return logits + jnp.exp(_log_std(extra)) * jax.random.normal(key, logits.shape)

    def mode(self, logits: Array) -> Array:
        """The mean, [size]."""
        return logits

    def log_prob(self, action: Array, logits: Array, extra: Params) -> Array:
        """Sum over dimensions."""
        return jnp.sum(_normal_log_prob(action, logits, _log_std(extra)), axis=-1)

    def entropy(self, logits: Array, extra: Params) -> Array:
        """Independent of the state."""
        total = jnp.sum(_log_std(extra) + 0.5 * np.log(2 * np.pi * np.e))
        return jnp.broadcast_to(total, logits.shape[:-1])


class Categorical:
    """One of `size` choices; actions are int32."""

    def __init__(self, size: int) -> None:
        self.outputs = self.mode_outputs = size
        self.squash = "none"

    def extra(self) -> Params:
        """None."""
        return {}

    def sample(self, key: Array, logits: Array, extra: Params) -> Array:
        """Index, []."""
        return jax.random.categorical(key, logits).astype(jnp.int32)

    def mode(self, logits: Array) -> Array:
        """Arg max, []."""
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Array, logits: Array, extra: Params) -> Array:
        """Log mass of the index."""
        log_p = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(log_p, action[..., None], axis=-1)[..., 0]

    def entropy(self, logits: Array, extra: Params) -> Array:
        """-sum p log p."""
        log_p = jax.nn.log_softmax(logits)
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


class TanhGaussian:
    """tanh of a diagonal Gaussian; mean and log standard deviation are the network's output (SAC, arXiv 1812.05905)."""

    def __init__(self, size: int) -> None:
        self.outputs, self.mode_outputs, self.squash = 2 * size, size, "tanh"

    def sample(self, key: Array, logits: Array) -> tuple[Array, Array]:
        """(action [size] in [-1, 1], its log density [])."""
        mean, log_std = self._split(logits)
        raw = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        return jnp.tanh(raw), self.log_prob(raw, logits)

    def mode(self, logits: Array) -> Array:
        """tanh of the mean, [size]."""
        return jnp.tanh(self._split(logits)[0])

    def log_prob(self, raw: Array, logits: Array) -> Array:
        """Log density [] of the action tanh(`raw`); exact where tanh rounds to 1: log(1 - tanh^2) by softplus."""
        log_slope = 2 * (np.log(2) - raw - jax.nn.softplus(-2 * raw))
        return jnp.sum(_normal_log_prob(raw, *self._split(logits)) - log_slope, axis=-1)

    def std(self, logits: Array) -> Array:
        """Standard deviation before tanh, [size]."""
        return jnp.exp(self._split(logits)[1])

    def _split(self, logits: Array) -> tuple[Array, Array]:
        mean, log_std = jnp.split(logits, 2, axis=-1)
        return mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)


def _normal_log_prob(x: Array, mean: Array, log_std: Array) -> Array:
    return -0.5 * jnp.square((x - mean) * jnp.exp(-log_std)) - log_std - 0.5 * np.log(2 * np.pi)


def _log_std(extra: Params) -> Array:
    return jnp.clip(extra["log_std"], LOG_STD_MIN, LOG_STD_MAX)
