"""Action distributions of policies. Unbatched; batch with `vmap` or broadcasting over leading axes."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.networks import SQUASHES
from repertoire.algos.types import Array, Params
from repertoire.envs.types import EnvSpec

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
    """Diagonal Gaussian with a learned, state-independent log standard deviation; the env clips actions.

    Its mean is the network's output, or with `squash="tanh"` the tanh of it, as in policies of SAC.
    """

    def __init__(self, size: int, init_log_std: float, squash: str = "none") -> None:
        self.outputs, self._init = size, init_log_std
        self.mode_outputs, self.squash = size, squash

    def extra(self) -> Params:
        """log std [size]."""
        return {"log_std": jnp.full(self.outputs, self._init)}

    def sample(self, key: Array, logits: Array, extra: Params) -> Array:
        """mean + std * noise, [size]."""
        return self.mode(logits) + jnp.exp(_log_std(extra)) * jax.random.normal(key, logits.shape)

    def mode(self, logits: Array) -> Array:
        """The mean, [size]."""
        return SQUASHES[self.squash](logits)

    def log_prob(self, action: Array, logits: Array, extra: Params) -> Array:
        """Sum over dimensions."""
        return jnp.sum(_normal_log_prob(action, self.mode(logits), _log_std(extra)), axis=-1)

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


class Hybrid:
    """One of n choices and a Gaussian parameter vector for each: parameterized actions (Masson et al. 2016).

    Actions are [1 + sum of sizes]: the index as a float, then the parameters of every choice in order. Only those of
    the chosen one count in the log probability: the others learn nothing from a step that they had no part in.
    """

    def __init__(self, sizes: tuple[int, ...], init_log_std: float) -> None:
        self._choice, self._gaussian = Categorical(len(sizes)), Gaussian(sum(sizes), init_log_std)
        self.outputs = self.mode_outputs = len(sizes) + sum(sizes)
        self.squash = "none"
        self._owner = np.repeat(np.arange(len(sizes)), sizes)

    def extra(self) -> Params:
        """log std [sum of sizes]."""
        return self._gaussian.extra()

    def sample(self, key: Array, logits: Array, extra: Params) -> Array:
        """Index and parameters, [1 + sum of sizes]."""
        index_key, key = jax.random.split(key)
        choice, mean = self._split(logits)
        index = self._choice.sample(index_key, choice, {})
        return _joined(index, self._gaussian.sample(key, mean, extra))

    def mode(self, logits: Array) -> Array:
        """The likeliest choice, and the means of all parameters."""
        choice, mean = self._split(logits)
        return _joined(self._choice.mode(choice), mean)

    def log_prob(self, action: Array, logits: Array, extra: Params) -> Array:
        """Log mass of the index and log density of the chosen one's parameters."""
        choice, mean = self._split(logits)
        index, mine = action[..., 0].astype(jnp.int32), self._owner == action[..., :1]
        density = _normal_log_prob(action[..., 1:], mean, _log_std(extra))
        return self._choice.log_prob(index, choice, {}) + jnp.sum(jnp.where(mine, density, 0.0), axis=-1)

    def entropy(self, logits: Array, extra: Params) -> Array:
        """H(choice) + sum over choices of p H(parameters | choice)."""
        choice, _ = self._split(logits)
        p = jax.nn.softmax(choice)[..., self._owner]
        each = _log_std(extra) + 0.5 * np.log(2 * np.pi * np.e)
        return self._choice.entropy(choice, {}) + jnp.sum(p * each, axis=-1)

    def _split(self, logits: Array) -> tuple[Array, Array]:
        return logits[..., : self._choice.outputs], logits[..., self._choice.outputs :]


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


def for_spec(spec: EnvSpec, init_log_std: float) -> Distribution:
    """The head for an env's actions; `init_log_std` of its Gaussian part."""
    if spec.parameters:
        return Hybrid(spec.parameters, init_log_std)
    return Categorical(spec.discrete) if spec.discrete else Gaussian(spec.action_size, init_log_std)


def _joined(index: Array, parameters: Array) -> Array:
    return jnp.concatenate([index[..., None].astype(parameters.dtype), parameters], axis=-1)


def _normal_log_prob(x: Array, mean: Array, log_std: Array) -> Array:
    return -0.5 * jnp.square((x - mean) * jnp.exp(-log_std)) - log_std - 0.5 * np.log(2 * np.pi)


def _log_std(extra: Params) -> Array:
    return jnp.clip(extra["log_std"], LOG_STD_MIN, LOG_STD_MAX)
