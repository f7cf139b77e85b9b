"""A frozen skill set: policy, normaliser, contract, latent prior and goal rule, in one self-describing value.

It needs no learner: an env's observation and a latent go in, an action comes out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from repertoire.algos import networks, normalize
from repertoire.algos.types import Array, Params, Stats
from repertoire.envs.task import TASK
from repertoire.envs.types import EnvSpec
from repertoire.errors import UserError
from repertoire.skills.latent import Prior, make_prior
from repertoire.skills.objectives import registry

SCHEMA = 1
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Skill:
    """One frozen skill set (all latents of one training run).

    Attributes:
      manifest: JSON-able: schema, name, env, contract (observation slices, actions, dt), latent, objective, network,
        provenance, metrics. arrays: flat name -> array: policy layers, normaliser, encoder, feature statistics.
    """

    manifest: Mapping[str, Any]
    arrays: Arrays

    @property
    def name(self) -> str:
        """Name in the library."""
        return str(self.manifest["name"])

    @property
    def prior(self) -> Prior:
        """Latent prior."""
        return make_prior(**self.manifest["latent"])

    @property
    def slices(self) -> tuple[str, ...]:
        """Names of the policy slices that the skill reads, in order."""
        return tuple(s["name"] for s in self.manifest["contract"]["policy"])

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the feature slices that the objective saw, in order."""
        return tuple(s["name"] for s in self.manifest["contract"]["features"])

    @property
    def position(self) -> np.ndarray:
        """Indices of the world position in the skill's own feature vector; empty without that slice."""
        start = 0
        for s in self.manifest["contract"]["features"]:
            if s["name"] == "position":
                return np.arange(start, start + s["size"])
            start += s["size"] * s.get("history", 1)
        return np.zeros(0, int)

    def digest(self) -> str:
        """SHA-256 over arrays and everything in the manifest that decides behaviour (not metrics, not version)."""
        kept = {k: v for k, v in self.manifest.items() if k not in ("metrics", "version", "digest", "created")}
        h = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
        for key in sorted(self.arrays):
            value = np.ascontiguousarray(self.arrays[key])
            h.update(f"{key}{value.dtype}{value.shape}".encode())
            h.update(value.tobytes())
        return h.hexdigest()

    def act(self, obs: Array, z: Array) -> Array:
        """Deterministic action [A] for the skill's own slices of the policy group [P] and a latent [D]."""
        stats = Stats(self._array("obs/mean"), self._array("obs/var"), jnp.ones(()))
        x = jnp.concatenate([normalize.apply(stats, obs), self.told(z)])
        network = self.manifest["network"]
        return networks.apply_layers(self.layers("policy"), x, network["activation"], network.get("output", "none"))

    def told(self, z: Array) -> Array:
        """What the network reads of a latent [D]: itself, or normalised as the slice that it commands (`commands`)."""
        if "command/scale" not in self.arrays:
            return z
        stats = Stats(self._array("command/mean"), self._array("command/var"), jnp.ones(()))
        return normalize.apply(stats, z * self._array("command/scale"))

    @property
    def has_goal_rule(self) -> bool:
        """Whether its objective turns goals into latents."""
        return hasattr(self.objective(), "goal_latent")

    def goal_latent(self, features: Array, goal_features: Array) -> Array:
        """Zero-shot goal rule (if it has one) on raw features [F] of the skill's own feature slices: latent [D]."""
        stats = Stats(self._array("features/mean"), self._array("features/var"), jnp.ones(()))
        objective = self.objective()
        s, g = (normalize.apply(stats, x, clip=None) for x in (features, goal_features))
        return objective.goal_latent(self.objective_params(), s, g)

    def objective(self) -> Any:
        """The objective it was discovered with."""
        described = self.manifest["objective"]
        latent = self.manifest["latent"]
        wanted = {"prior": latent["kind"], "skills": latent["size"], "hold": latent["hold"]}
        return registry.make(described["name"], **wanted, **described["options"])

    def objective_params(self) -> Params:
        """Parameters of the objective (encoder or discriminator)."""
        tree: dict[str, Any] = {}
        for key, value in self.arrays.items():
            if key.startswith("objective/"):
                _insert(tree, key.split("/")[1:], jnp.asarray(value))
        return tree

    def layers(self, prefix: str) -> list[tuple[Array, Array]]:
        """(kernel [in, out], bias [out]) of the network stored under `prefix`, first to last."""
        count = sum(k.startswith(f"{prefix}/kernel") for k in self.arrays)
        return [(self._array(f"{prefix}/kernel{i}"), self._array(f"{prefix}/bias{i}")) for i in range(count)]

    @property
    def std(self) -> np.ndarray | None:
        """Standard deviation [A] that it explored with at the end of training; None where that was not one vector."""
        return self.arrays.get("policy/std")

    def fits(self, spec: EnvSpec) -> None:
        """Raise `UserError` unless env `spec` offers this skill's observation slices and actions."""
        contract = self.manifest["contract"]
        have = {s.name: s for s in spec.obs.groups["policy"]}
        for s in contract["policy"]:
            mine = have.get(s["name"])
            wanted = (s["size"], s["scale"], s.get("history", 1))
            if mine is None or (mine.size, mine.scale, mine.history) != wanted:
                reads = "size {}, scale {}, history {}"
                found = reads.format(mine.size, mine.scale, mine.history) if mine else "nothing of that name"
                raise UserError(
                    f"skill {self.name} does not fit env {spec.name}: it reads policy slice {s['name']!r} of "
                    f"{reads.format(*wanted)}; the env has {found}"
                )
            if s["name"] == TASK and s["unit"] != mine.unit:
                raise UserError(
                    f"skill {self.name} does not fit env {spec.name}: its slice {TASK!r} is {s['unit']}, the env's "
                    f"{mine.unit}: give env.tasks the same names in the same order"
                )
        if list(spec.action_names) != list(contract["action_names"]):
            raise UserError(
                f"skill {self.name} does not fit env {spec.name}: it drives {len(contract['action_names'])} actuators "
                f"({', '.join(contract['action_names'])}), the env has {', '.join(spec.action_names)}"
            )
        ours, theirs = ((c["action_low"], c["action_high"]) for c in (contract, vars(spec)))
        if not np.allclose(ours, theirs, atol=1e-5):
            raise UserError(
                f"skill {self.name} does not fit env {spec.name}: an action of 1 is another control there; give it "
                "the options that the skill was trained with (control_mode, action_scale)"
            )
        for name, mine in contract.get("gains", {}).items():
            its = spec.gains.get(name, mine)  # actuators of the scene may be others
            if not np.allclose(mine, its, rtol=1e-5):
                reads = "gain {:g}, kp {:g}, kd {:g}"
                raise UserError(
                    f"skill {self.name} does not fit env {spec.name}: it was trained with {reads.format(*mine)} of "
                    f"actuator {name}, the env has {reads.format(*its)}; give it the gains that the skill was trained "
                    "with (env.kp, env.kd)"
                )
        model = contract.get("model")
        if model is not None and spec.model_sha256 and model["sha256"] != spec.model_sha256:
            raise UserError(
                f"skill {self.name} was trained on {model['file']} (sha256 {model['sha256'][:12]}), env {spec.name} "
                f"has {spec.model} ({spec.model_sha256[:12]}): take that file, or train the skill again on this one"
            )
        if abs(spec.dt - contract["dt"]) > 1e-9:
            raise UserError(f"skill {self.name} runs every {contract['dt']} s, env {spec.name} steps every {spec.dt} s")

    def _array(self, key: str) -> Array:
        return jnp.asarray(self.arrays[key])


def contract(spec: EnvSpec, features: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Observation and action contract of an env: what must match wherever the skill runs."""

    def rows(group: str, names: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
        have = {s.name: s for s in spec.obs.groups[group]}
        chosen = [have[n] for n in (have if names is None else names)]  # in the order that the objective sees
        histories = [{"history": s.history} if s.history > 1 else {} for s in chosen]
        return [
            {"name": s.name, "size": s.size, "unit": s.unit, "scale": s.scale, **history}
            for s, history in zip(chosen, histories)
        ]

    return {
        "policy": rows("policy"),
        "features": rows("features", features),
        "action_names": list(spec.action_names),
        "action_low": list(spec.action_low),
        "action_high": list(spec.action_high),
        "dt": spec.dt,
        "physics_dt": spec.physics_dt,
        **({"gains": {name: list(row) for name, row in spec.gains.items()}} if spec.gains else {}),
        **({"model": {"file": spec.model, "sha256": spec.model_sha256}} if spec.model_sha256 else {}),
    }


def _insert(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value
