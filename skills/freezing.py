"""From a training state to a frozen skill."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from repertoire.algos import networks
from repertoire.algos.distributions import LOG_STD_MAX, LOG_STD_MIN
from repertoire.skills.skill import SCHEMA, Skill, contract


def freeze(name: str, learner: Any, state: Any, provenance: Mapping[str, Any], features: Any = None) -> Skill:
    """Skill from a finished (or running) training state of one seed; provenance is stored as it is."""
    spec, objective = learner.env.spec, learner.objective
    arrays = policy_arrays(learner, state)
    arrays |= {"features/mean": np.asarray(state.feature_stats.mean)}
    arrays |= {"features/var": np.asarray(state.feature_stats.var)}
    arrays |= _flatten(state.objective, "objective")
    manifest = {
        "schema": SCHEMA,
        "name": name,
        "env": spec.name,
        "contract": contract(spec, features),
        "latent": objective.prior.describe(),
        "objective": {"name": objective.name, "options": _options(objective)},
        "network": network(learner),
        "provenance": dict(provenance),
        "metrics": {},
    }
    return Skill(manifest=manifest, arrays=arrays)


def policy_arrays(learner: Any, state: Any) -> dict[str, np.ndarray]:
    """What the mode of a training state's policy reads and, where it explores with one, its standard deviation."""
    arrays: dict[str, np.ndarray] = {}
    policy, outputs = state.params["policy"], learner.nets.head.mode_outputs
    layers = learner.nets.policy.layers(policy["net"])
    for i, (kernel, bias) in enumerate(networks.first_outputs(layers, outputs)):
        arrays[f"policy/kernel{i}"], arrays[f"policy/bias{i}"] = np.asarray(kernel), np.asarray(bias)
    if "log_std" in policy.get("head", {}):
        arrays["policy/std"] = np.exp(np.clip(policy["head"]["log_std"], LOG_STD_MIN, LOG_STD_MAX))
    stats = state.obs_stats["policy"]
    return arrays | {"obs/mean": np.asarray(stats.mean), "obs/var": np.asarray(stats.var)}


def network(learner: Any) -> dict[str, Any]:
    """How the layers of a learner's policy are put together, as a manifest says it."""
    config = learner.config
    return {"hidden": list(config.hidden), "activation": config.activation, "output": learner.nets.head.squash}


def _options(objective: Any) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(objective) if f.name != "prior"]
    return {k: list(v) if isinstance(v := getattr(objective, k), tuple) else v for k in names}


def _flatten(tree: Any, prefix: str) -> dict[str, np.ndarray]:
    if isinstance(tree, Mapping):
        return {k: v for name, sub in tree.items() for k, v in _flatten(sub, f"{prefix}/{name}").items()}
    return {prefix: np.asarray(tree)}
