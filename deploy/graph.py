"""What can be exported - a flat policy, a skill set, a controller with its skills - and what it computes, in JAX.

The JAX side here acts through `Skill.act` and `Composer.resolve`, as training does; the ONNX graph is written apart
(`deploy.onnx_model`) and compared with it at every export (`deploy.check`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.envs.task import TASK
from repertoire.envs.types import Array, EnvSpec
from repertoire.errors import UserError, unknown
from repertoire.high_level.composer import Composer
from repertoire.high_level.rules import Decider
from repertoire.high_level.types import Field, StatefulSkill
from repertoire.skills.latent import OneHot, Prior
from repertoire.skills.skill import Skill

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "swish": jax.nn.swish, "relu": jax.nn.relu, "elu": jax.nn.elu, "tanh": jnp.tanh,
}  # fmt: skip
#: What may follow the last layer: nothing, or the tanh of a bounded policy (SAC).
OUTPUTS: dict[str, Callable[[Array], Array]] = {"none": lambda x: x, "tanh": jnp.tanh}


@dataclass(frozen=True)
class FrozenPolicy:
    """Normaliser and multi-layer perceptron of a trained policy: the mode of its action distribution.

    Attributes:
      kernels, biases: of each layer, [in, out] and [out]. mean, var: of the `policy` observation group, [P].
      activation: between layers. output: after the last. clip: bound on normalised observations.
    """

    kernels: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    mean: np.ndarray
    var: np.ndarray
    activation: str = "swish"
    output: str = "none"
    clip: float = 10.0

    def __post_init__(self) -> None:
        for kind, name, known in (("activation", self.activation, ACTIVATIONS), ("output", self.output, OUTPUTS)):
            if name not in known:
                raise unknown(kind, name, known)
        sizes = [self.mean.size + max(self.latent, 0), *(k.shape[1] for k in self.kernels)]
        expected = [(*pair, pair[1]) for pair in itertools.pairwise(sizes)]
        found = [(*k.shape, *b.shape) for k, b in zip(self.kernels, self.biases, strict=True)]
        if not self.kernels or found != expected or self.var.shape != self.mean.shape:
            raise UserError(f"a policy on {self.mean.size} observations cannot have the layers {found}")

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], activation: str, output: str = "none") -> FrozenPolicy:
        """From `policy/kernel<i>`, `policy/bias<i>`, `obs/mean` and `obs/var`, as `Skill.arrays` names them."""
        count = sum(k.startswith("policy/kernel") for k in arrays)
        missing = {"obs/mean", "obs/var", *(f"policy/bias{i}" for i in range(count))} - set(arrays)
        if not count or missing:
            raise UserError(f"a policy to export needs the array {min(missing, default='policy/kernel0')!r}")
        kernels, biases = ([np.asarray(arrays[f"policy/{n}{i}"]) for i in range(count)] for n in ("kernel", "bias"))
        mean, var = (np.asarray(arrays[f"obs/{n}"]) for n in ("mean", "var"))
        return cls(tuple(kernels), tuple(biases), mean, var, activation, output)

    @property
    def latent(self) -> int:
        """Length of the latent that follows the normalised observation at the input."""
        return int(self.kernels[0].shape[0]) - self.mean.size if self.kernels else 0

    @property
    def outputs(self) -> int:
        """Length of the output."""
        return int(self.kernels[-1].shape[1])

    def __call__(self, obs: Array) -> Array:
        """Output [..., A] for observations [..., P]: means of a Gaussian, logits of a choice."""
        x = jnp.clip((obs - self.mean) / np.sqrt(np.maximum(self.var, 1e-8)), -self.clip, self.clip)
        for kernel, bias in zip(self.kernels[:-1], self.biases[:-1], strict=True):
            x = ACTIVATIONS[self.activation](x @ kernel + bias)
        return OUTPUTS[self.output](x @ self.kernels[-1] + self.biases[-1])


@dataclass(frozen=True)
class Graph:
    """What is exported: a function with named inputs and outputs, all float32 [B, width].

    Attributes:
      kind: `policy`, `skill` or `controller`. spec: of the env. inputs, outputs: name -> width, in order.
      row: of one row: (inputs in order) -> outputs by name, and for checks `logits` of a choice, or `margin` [1]: how
        near, in units of the numbers that are compared, another choice is.
      slices: policy slices that `obs` consists of. policy: of a flat policy or a controller. skills: behind it.
      composer, hold: of a controller. rule: what decides in place of a policy.
      memory: what the rule remembers, at the head of `z`. features: feature slices that end `obs`, for a rule.
      rows: of a policy made of adapters, those that `composer` composes: what each of K tasks has of them, [K, n].
    """

    kind: str
    spec: EnvSpec
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    row: Callable[..., dict[str, Array]]
    slices: tuple[str, ...]
    policy: FrozenPolicy | None = None
    skills: tuple[Skill, ...] = ()
    composer: Composer | None = None
    hold: int = 0
    rule: Decider | None = None
    memory: tuple[Field, ...] = ()
    features: tuple[str, ...] = ()
    rows: np.ndarray | None = None

    @property
    def fields(self) -> tuple[Field, ...]:
        """What `z` of a controller consists of, in order."""
        return self.memory + (self.composer.fields if self.composer else ())

    def fn(self, *inputs: Array) -> dict[str, Array]:
        """`row`, batched."""
        return jax.vmap(self.row)(*inputs)


def policy_graph(spec: EnvSpec, policy: FrozenPolicy) -> Graph:
    """`obs` -> `action`, `ctrl` of a flat policy."""
    if spec.discrete:
        raise UserError(f"env {spec.name} has discrete actions: export the controller with its skills instead")
    _must_equal(policy.outputs, spec.action_size, f"actions of env {spec.name}")
    names = tuple(s.name for s in spec.obs.groups["policy"])
    _must_equal(policy.mean.size, spec.obs.size("policy"), f"policy observations of env {spec.name}")
    finish = actuate(spec)
    inputs = {"obs": policy.mean.size}
    return Graph("policy", spec, inputs, outputs(spec), lambda obs: finish(policy(obs)), names, policy)


def inventory_graph(composer: Composer, rows: np.ndarray) -> Graph:
    """`obs` -> `action`, `ctrl` of a policy that the task composes: of the shares `rows` [K, n] of n adapters."""
    spec, finish = composer.env, actuate(composer.env)
    _must_equal(rows.shape[1], composer.size, "adapters")
    task, inputs = spec.obs.index("policy", (TASK,)).astype(np.int32), {"obs": spec.obs.size("policy")}

    def row(obs: Array) -> dict[str, Array]:
        return finish(composer.act(obs, obs[task] @ rows)[0])

    names, skills = tuple(s.name for s in spec.obs.groups["policy"]), composer.skills
    return Graph("policy", spec, inputs, outputs(spec), row, names, skills=skills, composer=composer, rows=rows)


def skill_graph(spec: EnvSpec, skill: Skill) -> Graph:
    """`obs`, `z` -> `action`, `ctrl` of a skill set; `obs` holds its own slices, `z` is projected on its prior."""
    skill.fits(spec)
    if isinstance(skill, StatefulSkill):
        raise UserError(f"{skill.name} is a controller: export the run that trained it")
    finish, width = actuate(spec), len(spec.obs.index("policy", skill.slices))

    def row(obs: Array, z: Array) -> dict[str, Array]:
        return finish(skill.act(obs, skill.prior.project(z)))

    inputs = {"obs": width, "z": skill.prior.size}
    return Graph("skill", spec, inputs, outputs(spec), row, skill.slices, skills=(skill,))


def controller_graph(policy: FrozenPolicy, composer: Composer, hold: int) -> Graph:
    """`obs`, `z`, `decide` -> `action`, `ctrl`, `z_next`: the whole stack for one control step.

    `z` is what is held between decisions, the leaves of the command in the order of `composer.fields`; zeros at first.
    Where `decide` > 0.5, at every `hold`-th control step, the controller decides anew; else it goes on with `z`.
    """
    check_hold(hold)
    spec, finish = composer.env, actuate(composer.env)
    _must_equal(policy.outputs, composer.head.outputs, f"outputs of a {composer.mode} controller")
    sees = composer.spec().obs.size("policy")
    _must_equal(policy.mean.size, sees, f"policy observations of env {spec.name} and of what is held")
    state = sum(field.size for field in composer.fields)

    def row(obs: Array, z: Array, decide: Array) -> dict[str, Array]:
        form = jax.eval_shape(lambda: composer.resolve(composer.zero()))
        held = unpack(z, form)
        logits = policy(jnp.concatenate([obs, composer.view(held)]))
        fresh = composer.renew(composer.head.mode(logits), held)
        command = unpack(jnp.where(decide > 0.5, pack(fresh, obs), z), form)
        action, command = composer.act(obs, command)
        choice = {"logits": logits[: composer.discrete]} if composer.discrete else {}
        return {**finish(action), "z_next": pack(command, obs), **choice}

    return Graph(
        kind="controller",
        spec=spec,
        inputs={"obs": spec.obs.size("policy"), "z": state, "decide": 1},
        outputs={**outputs(spec), "z_next": state},
        row=row,
        slices=tuple(s.name for s in spec.obs.groups["policy"]),
        policy=policy,
        skills=composer.skills,
        composer=composer,
        hold=hold,
    )


def encoded_as(composer: Composer) -> Prior:
    """Prior whose projection turns what a planner searches into what its learned dynamics see (`space.Space`)."""
    return OneHot(composer.discrete) if composer.discrete else composer.skills[0].prior


def check_hold(hold: int) -> None:
    """`UserError` for what is no number of control steps."""
    if hold < 1:
        raise UserError(f"controller.hold must be at least 1, got {hold}")


def pack(command: Any, like: Array) -> Array:
    """The leaves of a command as one vector of `like`'s type."""
    return jnp.concatenate([jnp.ravel(x).astype(like.dtype) for x in jax.tree.leaves(command)])


def unpack(z: Array, like: Any) -> Any:
    """`pack` undone, in the shapes and types of `like`."""
    leaves, form = jax.tree.flatten(like)
    parts = jnp.split(z, np.cumsum([x.size for x in leaves])[:-1])
    return jax.tree.unflatten(form, [p.reshape(x.shape).astype(x.dtype) for p, x in zip(parts, leaves, strict=True)])


def actuate(spec: EnvSpec) -> Callable[[Array], dict[str, Array]]:
    """Clipped action and actuator units, as the env maps them."""
    low, high = jnp.asarray(spec.action_low, jnp.float32), jnp.asarray(spec.action_high, jnp.float32)

    def finish(action: Array) -> dict[str, Array]:
        action = jnp.clip(action, -1.0, 1.0)
        return {"action": action, "ctrl": low + (action + 1) * 0.5 * (high - low)}

    return finish


def outputs(spec: EnvSpec) -> dict[str, int]:
    """Outputs that every export has, and their widths."""
    return {"action": spec.action_size, "ctrl": spec.action_size}


def _must_equal(found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise UserError(f"the policy has {found} {what}, expected {wanted}: was it trained on another env or library?")
