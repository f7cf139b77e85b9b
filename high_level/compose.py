"""Controllers that compose skills in parameter space: adapters of one frozen policy, by state-dependent coefficients.

After PSEC (ICLR 2025): the policy acts with kernels W + sum of c_i scale_i A_i B_i, and only the coefficients c are
learned. PSEC learns them from data; here they are the controller's action, and the learner is that of all controllers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos import normalize
from repertoire.algos.networks import ACTIVATIONS, SQUASHES
from repertoire.algos.types import Array, Metrics, Stats
from repertoire.envs.types import EnvSpec
from repertoire.errors import positive, unknown
from repertoire.high_level.bank import labels
from repertoire.high_level.composer import SQUASH, Composer, bounded
from repertoire.high_level.types import Command, Field
from repertoire.skills import adapters
from repertoire.skills.adapters import Factors
from repertoire.skills.skill import Skill

#: `squash` to shares, and the least that their sum counts as.
SHARE, TINY = "share", 1e-6
LEAST = 1e-3  # of bounded shares before they are divided by their sum: all at their lowest are all alike


@dataclass(frozen=True)
class ComposeConfig:
    """How coefficients are bounded.

    Attributes:
      squash: of what is emitted, to +-`limit`: `tanh`, whose gradient never quite vanishes, or `clamp`, under which an
        emitted 1 is a coefficient of 1; or to shares that sum to 1, `share`: sigmoids divided by their sum, the mean of
        skills that are each there or not (Polytropon, Ponti et al. 2022). limit: of `tanh` and `clamp`.
      bounded: what is emitted lies in [-1, 1] already, as SAC's actions do: it is scaled to +-`limit` instead of
        squashed, and (1 + it) / 2 takes the place of the sigmoid.
    """

    squash: str = "tanh"
    limit: float = 2.0
    bounded: bool = False

    def __post_init__(self) -> None:
        if self.squash not in (*SQUASH, SHARE):
            raise unknown("controller.squash", self.squash, (*SQUASH, SHARE))
        positive(self, "controller", "limit")


class Inputs(NamedTuple):
    """What the network reads: entries [I] of the env's policy observation, and their normaliser, [I] each.

    An entry that adapters scale differently is there once for each way to scale it.
    """

    entries: np.ndarray
    mean: np.ndarray
    var: np.ndarray


class Compose(Composer):
    """Emits a coefficient for each adapter: 0 for all is their base, 1 for one and 0 for the rest is that one's skill.

    Attributes:
      inputs: of the network. clip: bound on them when they are normalised.
      layers: all adapters as one: their A side by side [in, R], their B one upon another [R, out].
      owner: adapter of each of the R columns of A, [R] for each layer.
    """

    mode = "compose"
    clip = normalize.CLIP

    def __init__(self, skills: Sequence[Skill], env: EnvSpec, config: ComposeConfig | None = None) -> None:
        super().__init__(skills, env)
        adapters.one_base(skills)
        self.config, self.labels = config or ComposeConfig(), labels(skills)
        self.names = tuple(f"{label}/coefficient" for label in self.labels)
        told = skills[0].manifest["network"]
        self.activation, self.squash = told["activation"], told.get("output", "none")
        self.inputs, places = _inputs(skills, env)
        self.layers, self.owner = _together([adapters.factors(s) for s in skills], places, len(self.inputs.entries))

    @property
    def fields(self) -> tuple[Field, ...]:
        """The coefficients."""
        return (Field("coefficients", self.size),)

    def resolve(self, action: Array) -> Command:
        """Bounded coefficients [n]."""
        squash, limit, already = self.config.squash, self.config.limit, self.config.bounded
        if squash == SHARE:
            own = (1.0 + LEAST + bounded(action, squash, 1.0, already)) / 2 if already else jax.nn.sigmoid(action)
            return shares(own)
        return bounded(action, squash, limit, already)

    def act(self, obs: Array, command: Command) -> tuple[Array, Command]:
        """The action of the composed policy."""
        entries, mean, var = self.inputs
        x = normalize.apply(Stats(jnp.asarray(mean), jnp.asarray(var), jnp.ones(())), obs[entries], self.clip)
        for i, (layer, owner) in enumerate(zip(self.layers, self.owner, strict=True)):
            x = x if i == 0 else ACTIVATIONS[self.activation](x)
            x = x @ layer.kernel + layer.bias + (command[owner] * (x @ layer.a)) @ layer.b
        return SQUASHES[self.squash](x), command

    @property
    def actors(self) -> tuple[str, ...]:
        """The base, and the adapters."""
        return ("base", *self.labels)

    def acting(self, command: Command) -> Array:
        """Shares of the sizes of the coefficients, where the base has 1."""
        sizes = jnp.concatenate([jnp.ones(1), jnp.abs(command)])
        return sizes / sizes.sum()

    def metrics(self, command: Command) -> Metrics:
        """Mean size of the coefficients; of shares their entropy, nats, as their mean is always the same."""
        if self.config.squash == SHARE:
            return {"share_entropy": -jnp.sum(command * jnp.log(jnp.maximum(command, 1e-12)))}
        return {"coefficient": jnp.abs(command).mean()}

    def sample(self, key: Array) -> Array:
        """Uniform in the unit cube."""
        return jax.random.uniform(key, (self.size,), minval=-1.0, maxval=1.0)

    def describe(self) -> dict[str, Any]:
        """All settings."""
        return {"kind": "compose", **dataclasses.asdict(self.config)}


def shares(allocation: Array) -> Array:
    """Rows [..., skills] >= 0 divided by their sums: the mean over a task's skills. A row of zeros stays zero."""
    return allocation / jnp.maximum(allocation.sum(-1, keepdims=True), TINY)


def _inputs(skills: Sequence[Skill], env: EnvSpec) -> tuple[Inputs, list[np.ndarray]]:
    """The inputs of all, and where each adapter finds its own among them."""
    rows: dict[tuple[int, float, float], int] = {}
    places = []
    for skill in skills:
        index = env.obs.index("policy", skill.slices).tolist()
        mine = zip(index, skill.arrays["obs/mean"].tolist(), skill.arrays["obs/var"].tolist(), strict=True)
        places.append(np.asarray([rows.setdefault(row, len(rows)) for row in mine]))
    entries, mean, var = zip(*rows, strict=True)
    return Inputs(np.asarray(entries, np.int32), np.asarray(mean, np.float32), np.asarray(var, np.float32)), places


def _together(
    several: Sequence[list[Factors]], places: Sequence[np.ndarray], inputs: int
) -> tuple[list[Factors], list[np.ndarray]]:
    """All adapters as one, and the owners of its columns; first layers are spread over the common inputs."""
    firsts = [_spread(own[0], place, inputs) for own, place in zip(several, places, strict=True)]
    layers, owners = [], []
    for same in zip(*([first, *own[1:]] for first, own in zip(firsts, several, strict=True)), strict=True):
        a, b = np.concatenate([f.a for f in same], axis=1), np.concatenate([f.b for f in same])
        layers.append(Factors(same[0].kernel, same[0].bias, a, b))
        owners.append(np.repeat(np.arange(len(same), dtype=np.int32), [f.a.shape[1] for f in same]))
    return layers, owners


def _spread(layer: Factors, place: np.ndarray, inputs: int) -> Factors:
    """A first layer with its rows where the common inputs have them."""
    kernel, a = (np.zeros((inputs, m.shape[1]), np.float32) for m in (layer.kernel, layer.a))
    kernel[place], a[place] = layer.kernel, layer.a
    return layer._replace(kernel=kernel, a=a)
