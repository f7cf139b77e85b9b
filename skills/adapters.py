"""Policies of tasks in the library, and adapters: low-rank changes of one frozen policy (PSEC, ICLR 2025).

An adapter's entry holds its plain weights, which all that uses skills reads, and beside them what they are made of: the
kernels of its base (`base/kernel<i>`) and, for each, A [in, r] and B [r, out] (`adapter/a<i>`, `adapter/b<i>`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from repertoire.algos.adapter import Adapter
from repertoire.algos.inventory import Inventory
from repertoire.envs.task import TASK
from repertoire.envs.types import EnvSpec, ObsSpec
from repertoire.errors import UserError, at_least
from repertoire.skills.commands import commanded
from repertoire.skills.freezing import network, policy_arrays
from repertoire.skills.latent import CommandPrior
from repertoire.skills.skill import SCHEMA, Skill, contract


class Factors(NamedTuple):
    """One layer of an adapter: kernel [in, out] and bias [out] of its base, A [in, r], B [r, out] times the scale."""

    kernel: np.ndarray
    bias: np.ndarray
    a: np.ndarray
    b: np.ndarray


def adapt(
    skill: Skill, spec: EnvSpec, latent: Sequence[float] | None = None, rank: int = 8, scale: float = 2.0
) -> Adapter:
    """Adapter of `skill` for training in an env.

    Args:
      skill: a policy or a skill set. spec: of the env; its policy slices that the skill does not read can be learned.
      latent: of a skill set, held for good and projected on its prior; None: the projection of 0.
      rank: of the changes. scale: factor on them.
    Raises `UserError` for a skill that does not fit the env, or is a controller.
    """
    skill.fits(spec)
    if "controller" in skill.manifest:
        raise UserError(f"{skill.name} is a controller: an adapter needs the weights of a single policy")
    index, observed = spec.obs.index("policy", skill.slices), spec.obs.size("policy")
    z = _latent(skill, latent)
    (first, bias), *rest = ((np.asarray(k), np.asarray(b)) for k, b in skill.layers("policy"))
    kernel, mean, var = np.zeros((observed, len(bias)), np.float32), *np.zeros((2, observed), np.float32)
    kernel[index], mean[index], var[index] = first[: len(index)], skill.arrays["obs/mean"], skill.arrays["obs/var"]
    told = skill.manifest["network"]
    return Adapter(
        layers=((kernel, bias + np.asarray(skill.told(jnp.asarray(z))) @ first[len(index) :]), *rest),
        activation=told["activation"],
        squash=told.get("output", "none"),
        mean=mean,
        var=var,
        known=np.isin(np.arange(observed), index),
        origin={"base": reference(skill.manifest), "digest": skill.digest(), "latent": z.tolist()},
        rank=rank,
        scale=scale,
    )


def several(adapter: Adapter, spec: EnvSpec, count: int, matrix_lr: float) -> Inventory:
    """`count` adapters like `adapter`, which is one for env `spec`, with a matrix of what each task has of them.

    Raises `UserError` where the env has one task, and for a base that reads which task it is.
    """
    at_least("adapter.count", count, 1)
    if TASK not in (s.name for s in spec.obs.groups["policy"]):
        raise UserError(
            f"adapter.count={count} is for several tasks, and env {spec.name} has one: give it several, "
            "env.tasks={a: {...}, b: {...}}, or leave adapter.count=1"
        )
    task = spec.obs.index("policy", (TASK,))
    if adapter.known[task].any():
        raise UserError(
            f"{adapter.origin['base']} reads the slice {TASK!r} itself: take a base that does not, or adapter.count=1"
        )
    told = {f.name: getattr(adapter, f.name) for f in dataclasses.fields(Adapter)}
    told |= {"known": adapter.known.copy(), "var": adapter.var.copy()}
    told["known"][task], told["var"][task] = True, 1.0  # their mean is 0: normalised it is one-hot still
    return Inventory(**told, count=count, task=task, matrix_lr=matrix_lr)


def freeze_policy(
    name: str,
    learner: Any,
    state: Any,
    provenance: Mapping[str, Any],
    command: str | None = None,
    command_range: float = 1.0,
) -> Skill:
    """Library entry of a task's policy of one seed; an adapter where the learner has one.

    Args:
      provenance: stored as it is. command: policy slice that becomes its latent (`commands`); None: it has none.
      command_range: value of that slice, in its unit, for a latent of 1.
    """
    spec, adapter = learner.env.spec, learner.adapter
    arrays = policy_arrays(learner, state)
    manifest = {
        "schema": SCHEMA,
        "name": name,
        "env": spec.name,
        "contract": contract(spec, ()),
        "latent": CommandPrior(0).describe(),
        "objective": {"name": "task", "options": {}},
        "network": network(learner),
        "provenance": dict(provenance),
        "metrics": {},
    }
    if adapter is not None:
        manifest["adapter"] = {**adapter.origin, "rank": adapter.rank, "scale": adapter.scale}
        arrays |= _parts(adapter, state.params["policy"]["net"])
    made = Skill(manifest, arrays)
    return made if command is None else commanded(made, spec, command, command_range)


def freeze_one(name: str, learner: Any, state: Any, index: int, provenance: Mapping[str, Any]) -> Skill:
    """Library entry of adapter number `index` of the learner's inventory, of one seed; it reads no task."""
    inventory, policy, spec = learner.adapter, state.params["policy"], learner.env.spec
    seen = tuple(s for s in spec.obs.groups["policy"] if s.name != TASK)
    bare = dataclasses.replace(spec, obs=ObsSpec({**spec.obs.groups, "policy": seen}))
    alone = SimpleNamespace(
        env=SimpleNamespace(spec=bare),
        adapter=inventory.alone,
        nets=learner.nets._replace(policy=inventory.alone.network()),
        config=learner.config,
    )
    stats = state.obs_stats["policy"]
    own = SimpleNamespace(
        params={"policy": {**policy, "net": inventory.one(policy["net"], index)}},
        obs_stats={"policy": stats.replace(mean=stats.mean[inventory.others], var=stats.var[inventory.others])},
    )
    return freeze_policy(name, alone, own, provenance)


def factors(skill: Skill) -> list[Factors]:
    """The layers of an adapter, first to last. Raises `UserError` for an entry that is none."""
    if "adapter" not in skill.manifest:
        raise UserError(
            f"{skill.name} is no adapter: make one with `repertoire train env=TASK adapter.base=SKILL`, or use "
            "controller=blend for skills of any kind"
        )
    scale, arrays = skill.manifest["adapter"]["scale"], skill.arrays
    return [
        Factors(arrays[f"base/kernel{i}"], np.asarray(bias), arrays[f"adapter/a{i}"], scale * arrays[f"adapter/b{i}"])
        for i, (_, bias) in enumerate(skill.layers("policy"))
    ]


def one_base(skills: Sequence[Skill]) -> None:
    """Raise `UserError` unless all are adapters of the same base, held at the same latent."""
    for skill in skills:
        factors(skill)
        for what, shown in (("digest", "base"), ("latent", "latent")):
            mine, first = (s.manifest["adapter"] for s in (skill, skills[0]))
            if mine[what] != first[what]:
                raise UserError(
                    f"adapters must have one base at one latent: {skills[0].name} has {shown} {first[shown]}, "
                    f"{skill.name} has {mine[shown]}" + (" (another content hash)" if what == "digest" else "")
                )


def merge(skills: Sequence[Skill], coefficients: Sequence[float], name: str) -> Skill:
    """The plain skill W + sum of c_i scale_i A_i B_i, of adapters of one base and n coefficients.

    Raises `UserError` where they read different observations: only a controller can compose those.
    """
    one_base(skills)
    first, told = skills[0], ("obs/mean", "obs/var")
    for skill in skills[1:]:
        if skill.slices != first.slices or any((skill.arrays[k] != first.arrays[k]).any() for k in told):
            raise UserError(
                f"{first.name} and {skill.name} read different observations, or scale them differently: use "
                "controller=compose"
            )
    arrays = {k: v for k, v in first.arrays.items() if k.startswith(("policy/bias", "obs/"))}
    pairs = list(zip(coefficients, map(factors, skills), strict=True))
    for i, layer in enumerate(factors(first)):
        changes = (c * own[i].a @ own[i].b for c, own in pairs)
        arrays[f"policy/kernel{i}"] = sum(changes, start=layer.kernel).astype(np.float32)
    parts = ", ".join(f"{c:g} {reference(s.manifest)}" for c, s in zip(coefficients, skills))
    kept = {k: v for k, v in first.manifest.items() if k not in ("adapter", "version", "digest")}
    return Skill({**kept, "name": name, "provenance": {"merged": parts}, "metrics": {}}, arrays)


def reference(manifest: Mapping[str, Any]) -> str:
    """`name@version`, or the name of what is in no library yet."""
    return f"{manifest['name']}@{manifest['version']}" if "version" in manifest else str(manifest["name"])


def _latent(skill: Skill, latent: Sequence[float] | None) -> np.ndarray:
    size = skill.prior.size
    if latent is not None and len(latent) != size:
        raise UserError(f"adapter.latent must have the {size} entries of {skill.name}'s latent, got {len(latent)}")
    return np.asarray(skill.prior.project(jnp.zeros(size) if latent is None else jnp.asarray(latent, jnp.float32)))


def _parts(adapter: Adapter, params: Any) -> dict[str, np.ndarray]:
    arrays = {}
    for i, (kernel, _) in enumerate(adapter.layers):
        arrays[f"base/kernel{i}"] = kernel
        arrays |= {f"adapter/{k}{i}": np.asarray(params[f"Dense_{i}"][k]) for k in ("a", "b")}
    return arrays
