"""What the arm's sensors and its controller make of reality under domain randomisation."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import mujoco

from repertoire.envs.randomization import Randomization
from repertoire.envs.types import Array, Slice
from repertoire.errors import UserError

_POSE, _AXES, _HAND = 0.005, 0.03, 0.002
#: Sensor noise under randomisation, half-widths in the slice's unit (m, rad, rad/s). Our choice, as no project is known
#: to declare any for this arm without a camera: joints and hand to what calibration leaves; objects and goals to what a
#: camera beside the table tells of a place (5 mm) and of a direction (2 degrees).
NOISE = {
    "joints": 0.002, "joint_rates": 0.05, "ee_position": _HAND, "opening": 0.0005, "lag": _HAND,
    "cube_position": _POSE, "cube_axes": _AXES, "cube_offset": _POSE, "goal": _POSE, "base_position": _POSE,
    "base_axes": _AXES, "other_position": _POSE, "other_axes": _AXES, "other_offset": _POSE, "other_goal": _POSE,
    "drawer": _POSE, "handle_offset": _POSE, "button_offset": _POSE,
}  # fmt: skip
#: Slices without a history: they can be commands to a skill, which are told anew in each step.
TOLD = "goal", "other_goal"
#: Terms of randomisation that mean nothing here, and why.
NO_TERMS = {
    "push": "which is bolted down",
    "push_spin": "which is bolted down",
    "joint_zero": "whose rewards are told from its encoders",
    "frictionloss": "whose joints have none to multiply",
}


def check_terms(env: str, ranges: Randomization) -> None:
    """`UserError` where `ranges` has a term that means nothing for the arm."""
    for term, reason in NO_TERMS.items():
        if getattr(ranges, term) is not None:
            raise UserError(f"env {env}: randomize.{term} is not for the arm, {reason}: leave it out")


def measured(s: Slice, noise: float, history: int) -> Slice:
    """`s` with its noise, by the factor `noise`, and its history."""
    past = 1 if s.name in TOLD else history
    return dataclasses.replace(s, noise=noise * NOISE.get(s.name, 0.0), history=past)


def compensation(model: mujoco.MjModel, overrides: dict[str, Array]) -> dict[str, Array]:
    """`body_gravcomp` under `overrides`: the controller bears the weights of `model`, whatever the arm's are now."""
    if "body_mass" not in overrides:
        return {}
    borne, mass = jnp.asarray(model.body_gravcomp * model.body_mass, jnp.float32), overrides["body_mass"]
    return {"body_gravcomp": borne / jnp.where(mass > 0, mass, 1.0)}
