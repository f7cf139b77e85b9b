"""The figures of a skill set from its rollouts, for any env and objective; docs/evaluation.md says what each means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from repertoire.envs.types import EnvSpec
from repertoire.skills import disentanglement, diversity, feasibility, held_out, metrics
from repertoire.skills.evaluate import Rollouts, values_of
from repertoire.skills.latent import Prior, Product

#: Share of an episode before a skill is judged by its features: at a fresh start all skills look the same
#: (DUSDi leaves out 10 of 50 steps after a switch).
SETTLE = 0.1
#: Share of an episode, its last part, in which a skill should be where its latent sends it (braxlines: 500 of 1000).
LAST = 0.5
#: Longest descriptor: histograms and goals need few dimensions.
DESCRIPTOR = 3
#: Suffix of the key -> order of the Vendi score.
ORDERS = {"": 1.0, "_q2": 2.0, "_qinf": np.inf}

#: How keys end that say under what a figure was taken, not what it is.
PROTOCOL = ("rollouts", "_cell", "_bandwidth", "_bins", "_samples", "_ceiling")

#: Name -> (indices into the features that the objective sees, indices into the latent) of each factor of an objective.
Factors = Mapping[str, tuple[np.ndarray, np.ndarray]]


def figures(
    env: Any, rolled: Rollouts, random: Rollouts, prior: Prior, seen: np.ndarray, rollouts: int = metrics.ROLLOUTS
) -> dict[str, float]:
    """Everything that needs nothing but rollouts.

    Args:
      random: rollouts of random actions, which set the scale of diversity. seen: indices of the features that the
        objective sees. rollouts: how many count for coverage and diversity, so that sets whose discriminator figures
        need more rollouts compare with sets whose do not.
    """
    return {
        "rollouts": len(rolled.z),
        "diverged": float(rolled.diverged.sum()),
        **ground(env, rolled, random, rollouts),
        **told_apart(env.spec, rolled, prior, seen),
        **feasible(env, rolled),
        **{f"term_{name}": float(total.mean()) for name, total in rolled.terms.items()},
        **{f"mean_{name}": float(value.mean()) for name, value in rolled.measured.items()},
    }


def results(found: Mapping[str, float]) -> dict[str, float]:
    """Figures without those that say under what the others were taken."""
    return {k: v for k, v in found.items() if not k.endswith(PROTOCOL)}


def ground(env: Any, rolled: Rollouts, random: Rollouts, rollouts: int = metrics.ROLLOUTS) -> dict[str, float]:
    """Coverage and Vendi scores of every declared slice, reach and path length, of the first `rollouts` rollouts."""
    names = {s.name for s in env.spec.obs.groups["features"]}
    out: dict[str, float] = {"coverage_rollouts": len(rolled.z[:rollouts])}
    for name, cell in env.task.coverage_cells.items():
        if name in names:
            paths = values_of(env.spec, rolled.features[:rollouts], name)
            bandwidth = diversity.noise_bandwidth(values_of(env.spec, random.features, name), cell)
            prefix = "coverage" if name == "position" else f"coverage_{name}"
            out |= {f"{prefix}_cells": metrics.coverage(paths[:, 1:], cell), f"{prefix}_cell": cell}
            out |= {f"vendi_{name}{k}": v for k, v in _vendi(paths, bandwidth).items()}
            ceiling = env.task.ceiling_m.get(env.task.episode_length)
            if name == "position" and ceiling is not None:
                out["coverage_fraction"] = metrics.coverage_fraction(paths[:, 1:], ceiling, cell)
    paths = rolled.positions[:rollouts]
    if not paths.shape[-1]:
        return out
    length = np.linalg.norm(np.diff(paths, axis=1), axis=-1).sum(1)
    return {**out, "reach_m": metrics.reach(paths), "path_m": float(length.mean())}


def _vendi(paths: np.ndarray, bandwidth: float) -> dict[str, float]:
    kernel = diversity.gaussian_kernel(diversity.trajectory_distances(paths), bandwidth)
    return {"_bandwidth": bandwidth, **{suffix: diversity.vendi(kernel, q) for suffix, q in ORDERS.items()}}


def told_apart(spec: EnvSpec, rolled: Rollouts, prior: Prior, seen: np.ndarray) -> dict[str, float]:
    """Held-out accuracy (discrete) or cosine (continuous) of a fresh model, and binned mutual information."""
    settled = rolled.features[:, 1 + int(SETTLE * rolled.alive.shape[1]) :][..., seen]
    out = _read_from(settled, rolled.z, prior)
    names = descriptor(spec, seen)
    if names:
        out |= _mutual_information(last(values_of(spec, rolled.features, *names)), labels_of(rolled.z, prior))
    return out


def _read_from(features: np.ndarray, z: np.ndarray, prior: Prior) -> dict[str, float]:
    """What a fresh model reads of latents [K, D] from features [K, T, F].

    Of a product each part by itself, and the mean over parts of a kind: the whole of one, whose one-hots and weights
    are never negative, has a cosine of 0.6 with anything.
    """
    if isinstance(prior, Product):
        latents = prior.split(jnp.asarray(z))[0]
        found = [_read_from(features, np.asarray(x), p) for x, p in zip(latents, prior.parts, strict=True)]
        keys = dict.fromkeys(k for row in found for k in row)
        return {k: float(np.mean([row[k] for row in found if k in row])) for k in keys}
    if prior.discrete:
        return held_out.held_out_accuracy(features, z.argmax(1), prior.size)
    return held_out.held_out_cosine(features, z)


def _mutual_information(values: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Binned MI of descriptor values [K, T, d] with what it rests on: bins, samples, bias; and the labels' entropy."""
    rows, bins = values.reshape(-1, values.shape[-1]), metrics.axis_bins(values.shape[-1])
    information, bias = metrics.binned_mi(rows, np.repeat(labels, values.shape[1]), bins)
    share = np.unique(labels, return_counts=True)[1] / len(labels)
    return {
        "binned_mi": information,
        "binned_mi_bias": bias,
        "binned_mi_ceiling": float(-(share * np.log(share)).sum()),
        "binned_mi_bins": bins ** values.shape[-1],
        "binned_mi_samples": len(rows),
    }


def feasible(env: Any, rolled: Rollouts) -> dict[str, float]:
    """What the skills would ask of a real robot; of an env whose mechanics are not known, how jerky they are."""
    if not env.task.mechanics:
        return {"action_rate": feasibility.action_rate(rolled.action, rolled.alive)}
    model, alive = env.physics.model, rolled.alive
    found = feasibility.traces(model, rolled.qpos[:, :-1][alive], rolled.qvel[:, :-1][alive], rolled.ctrl[alive])
    path = float(np.linalg.norm(np.diff(rolled.positions, axis=1), axis=-1).sum())
    return {
        **feasibility.effort(model, found, env.spec.dt, path),
        **feasibility.falls(model, found, alive, env.task.fall_tilt_deg, env.task.fall_height_m),
        "action_rate": feasibility.action_rate(rolled.action, alive),
    }


def factored(rolled: Rollouts, seen: np.ndarray, factors: Factors) -> dict[str, float]:
    """DCI of a factored skill set: its latent parts against the mean features of the last part of each rollout."""
    what = last(rolled.features[..., seen]).mean(1)
    return disentanglement.dci(rolled.z, what, [z for _, z in factors.values()], [f for f, _ in factors.values()])


def last(values: np.ndarray) -> np.ndarray:
    """The last part of values [K, T, ...]."""
    return values[:, -max(round(LAST * values.shape[1]), 1) :]


def descriptor(spec: EnvSpec, seen: np.ndarray) -> tuple[str, ...]:
    """Slices that say what a skill does: all that the objective sees, the position among them, or none.

    `seen` are the indices of the features that the objective sees; more than `DESCRIPTOR` of them are too many.
    """
    names = [s.name for s in spec.obs.groups["features"]]
    whole = tuple(n for n in names if np.isin(spec.obs.index("features", (n,)), seen).all())
    if 0 < len(spec.obs.index("features", whole)) <= DESCRIPTOR:
        return whole
    return ("position",) if "position" in whole else ()


def labels_of(z: np.ndarray, prior: Prior) -> np.ndarray:
    """Skill index of latents [K, D]; the nearest of the 2 D signed axes where they are continuous.

    Mutual information with a function of the latent is a lower bound on that with the latent.
    """
    if prior.discrete:
        return z.argmax(1)
    axis = np.abs(z).argmax(1)
    return 2 * axis + (z[np.arange(len(z)), axis] < 0)
