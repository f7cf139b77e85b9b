"""Action distributions of PPO policies. Unbatched; batch with `vmap` or broadcasting over leading axes."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array, Params

#: Bounds of log standard deviations: a policy can neither freeze nor explode (D3 uses [e^-5, e^2]).
LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


class Distribution(Protocol):
    """What a policy head must offer; `logits` is the network's output, `extra` head parameters outside the network."""

    outputs: int

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
        log_std = _log_std(extra)
        z = (action - logits) * jnp.exp(-log_std)
        return jnp.sum(-0.5 * jnp.square(z) - log_std - 0.5 * np.log(2 * np.pi), axis=-1)

    def entropy(self, logits: Array, extra: Params) -> Array:
        """Independent of the state."""
        total = jnp.sum(_log_std(extra) + 0.5 * np.log(2 * np.pi * np.e))
        return jnp.broadcast_to(total, logits.shape[:-1])


class Categorical:
    """One of `size` choices; actions are int32."""

    def __init__(self, size: int) -> None:
        self.outputs = size

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


def _log_std(extra: Params) -> Array:
    return jnp.clip(extra["log_std"], LOG_STD_MIN, LOG_STD_MAX)
