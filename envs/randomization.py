"""Domain randomisation: what differs between a simulation and a robot, declared as named terms with ranges.

A task draws all terms anew for each episode, in every world its own. Terms on the model become `Start.overrides`, which
all backends take; pushes, latency and noise are the task's own business (see `tasks.sim_to_real`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import mujoco

from repertoire.envs.types import Array
from repertoire.errors import UserError, typed, unknown

Range = tuple[float, float]


@dataclass(frozen=True)
class Randomization:
    """Uniform ranges (low, high); None leaves the term alone.

    Attributes:
      friction: sliding friction of every contact, absolute.
      link_mass: factor on mass and inertia of each body. base_mass: kg on top of the trunk's.
      com: m, added to the trunk's centre of mass along each axis.
      kp, kd: factors on the gains of each actuator. strength: factor on the torque of each actuator, limit and all.
      armature, frictionloss, damping: factors on each joint's. joint_zero: rad, by which each encoder is off.
      push: m/s, a kick of the trunk in a random horizontal direction. push_spin: rad/s about each axis, with the kick.
      push_interval: s between kicks. latency: control steps from observation to action, fractions allowed.
      noise: factor on the sensor noise that the task's observations declare; 0 for none.
    """

    friction: Range | None = None
    link_mass: Range | None = None
    base_mass: Range | None = None
    com: Range | None = None
    kp: Range | None = None
    kd: Range | None = None
    strength: Range | None = None
    armature: Range | None = None
    frictionloss: Range | None = None
    damping: Range | None = None
    joint_zero: Range | None = None
    push: Range | None = None
    push_spin: Range | None = None
    push_interval: Range = (5.0, 10.0)
    latency: Range | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        """`UserError` unless every range is ordered, and factors, speeds and times are not negative."""
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            bounds = (0.0, value) if f.name == "noise" else value
            if bounds is not None:
                _check(f.name, bounds, signed=f.name in _SIGNED)


_SIGNED = ("base_mass", "com", "joint_zero", "push_spin")

#: What a term does: (field of the model as drawn so far, uniform draw of a shape, body id of the trunk) -> new fields.
Term = Callable[[Callable[[str], Array], Callable[..., Array], int], dict[str, Array]]


def _friction(field: Callable[[str], Array], draw: Callable[..., Array], trunk: int) -> dict[str, Array]:
    return {"geom_friction": field("geom_friction").at[:, 0].set(draw())}


def _link_mass(field: Callable[[str], Array], draw: Callable[..., Array], trunk: int) -> dict[str, Array]:
    mass = field("body_mass")
    factor = draw(len(mass))
    return {"body_mass": mass * factor, "body_inertia": field("body_inertia") * factor[:, None]}


def _base_mass(field: Callable[[str], Array], draw: Callable[..., Array], trunk: int) -> dict[str, Array]:
    mass, inertia = field("body_mass"), field("body_inertia")
    factor = 1.0 + draw() / mass[trunk]
    return {
        "body_mass": mass.at[trunk].multiply(factor),
        "body_inertia": inertia.at[trunk].multiply(factor),
    }


def _com(field: Callable[[str], Array], draw: Callable[..., Array], trunk: int) -> dict[str, Array]:
    return {"body_ipos": field("body_ipos").at[trunk].add(draw(3))}


def _kp(field: Callable[[str], Array], draw: Callable[..., Array], trunk: int) -> dict[str, Array]:
    gain, bias = field("actuator_gainprm"), field("actuator_biasprm")
    factor = draw(len(gain))
    return {
        "actuator_gainprm": gain.at[:, 0].multiply(factor),
        "actuator_biasprm": bias.at[:, 1].multiply(factor),
    }


def _kd(field: Callable[[str], Array], draw: Callable[..., Array], trunk: int) -> dict[str, Array]:
    bias = field("actuator_biasprm")
    return {"actuator_biasprm": bias.at[:, 2].multiply(draw(len(bias)))}


def _strength(field: Callable[[str], Array], draw: Callable[..., Array], trunk: int) -> dict[str, Array]:
    names = ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange")
    factor = draw(len(field(names[0])))[:, None]
    return {name: field(name) * factor for name in names}


def _of_joints(name: str) -> Term:
    return lambda field, draw, trunk: {name: field(name) * draw(len(field(name)))}


def _joint_zero(field: Callable[[str], Array], draw: Callable[..., Array], trunk: int) -> dict[str, Array]:
    motors = len(field("actuator_gainprm"))  # joints of objects have no encoder
    return {"qpos0": field("qpos0").at[7 : 7 + motors].add(draw(motors))}


#: Terms on the model, in the order in which they apply.
MODEL_TERMS: dict[str, Term] = {
    "friction": _friction,
    "link_mass": _link_mass,
    "base_mass": _base_mass,
    "com": _com,
    "kp": _kp,
    "kd": _kd,
    "strength": _strength,
    "armature": _of_joints("dof_armature"),
    "frictionloss": _of_joints("dof_frictionloss"),
    "joint_zero": _joint_zero,
    "damping": _of_joints("dof_damping"),  # last: draws are told apart by their place
}


def draw_overrides(model: mujoco.MjModel, ranges: Randomization, trunk: int, key: Array) -> dict[str, Array]:
    """Model fields of one episode: only those that a term in `ranges` touches, float32.

    Args:
      model: a robot on a free joint, its first. trunk: id of the body that `base_mass` and `com` are about.
    """
    found: dict[str, Array] = {}

    def field(name: str) -> Array:
        return found.get(name, jnp.asarray(getattr(model, name), jnp.float32))

    for i, (name, term) in enumerate(MODEL_TERMS.items()):
        bounds = getattr(ranges, name)
        if bounds is not None:
            found |= term(field, _uniform(jax.random.fold_in(key, i), bounds), trunk)
    return found


def _uniform(key: Array, bounds: Range) -> Callable[..., Array]:
    return lambda *shape: jax.random.uniform(key, shape, minval=bounds[0], maxval=bounds[1])


def resolve(env: str, value: bool | str | Mapping[str, object], own: str) -> Randomization:
    """What the option `randomize` stands for: nothing, the robot's `own` preset, a preset by name, or its terms."""
    if isinstance(value, Mapping):
        known = {f.name for f in dataclasses.fields(Randomization)}
        for name in value:
            if name not in known:
                raise unknown(f"randomize term of env {env}", name, known)
        terms: dict[str, Any] = {k: _term(k, v) for k, v in value.items()}
        return Randomization(**terms)
    if isinstance(value, bool):
        return PRESETS[own] if value else Randomization()
    if value not in PRESETS:
        raise unknown(f"randomize of env {env}", str(value), PRESETS)
    return PRESETS[value]


def check_load(env: str, ranges: Randomization, trunk: float) -> None:
    """`UserError` where a trunk of `trunk` kg could be left with no mass, or less."""
    lightest = trunk * (ranges.link_mass or (1.0, 1.0))[0] + (ranges.base_mass or (0.0, 0.0))[0]
    if not lightest > 0:
        raise UserError(
            f"env {env}: randomize.base_mass and link_mass may leave {lightest:.3g} kg of the trunk's {trunk:.3g} kg: "
            "it must keep some"
        )


def _term(name: str, value: object) -> Any:
    """`value` of term `name`: a factor for `noise`, else a range; None for a term that is left alone."""
    if name == "noise":
        return typed("randomize.noise", value, float)
    if value is None and name != "push_interval":
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise UserError(f"randomize.{name} is a range [low, high], got {value!r}")
    return typed(f"randomize.{name}", value, tuple[float, float])


def _check(name: str, bounds: Range, signed: bool) -> None:
    low, high = bounds
    if not (float("-inf") if signed else 0.0) <= low <= high < float("inf"):
        raise UserError(f"randomize.{name} must have {'' if signed else '0 <= '}low <= high, got {list(bounds)}")


_PLAYGROUND = Randomization(
    friction=(0.4, 1.0), link_mass=(0.9, 1.1), base_mass=(-1.0, 1.0), armature=(1.0, 1.05), joint_zero=(-0.05, 0.05),
    noise=1.0,
)  # fmt: skip

#: By name. The robots' own are mixtures; the others are what the named project's code says, as far as there is a term
#: here: Playground pushes Go1 by a force over a while, here it is the speed that it gives; SkillBlender draws its delay
#: for each step, here it holds for an episode, and its noise on actions has no term; nor has ASAP's on torques.
PRESETS: dict[str, Randomization] = {
    # Playground's Go1 with the vendor's load and pushes, gains and latency from the usual 10 % and one control step.
    "go2": Randomization(
        friction=(0.4, 1.0), link_mass=(0.9, 1.1), base_mass=(-1.0, 3.0), com=(-0.05, 0.05), kp=(0.9, 1.1),
        kd=(0.9, 1.1), strength=(0.9, 1.1), armature=(1.0, 1.05), frictionloss=(0.9, 1.1), joint_zero=(-0.05, 0.05),
        push=(0.0, 1.0), latency=(0.0, 1.0), noise=1.0,
    ),
    # Playground's G1 with ASAP's pushes; gains and latency as above.
    "g1": Randomization(
        friction=(0.4, 1.0), link_mass=(0.9, 1.1), base_mass=(-1.0, 1.0), com=(-0.05, 0.05), kp=(0.9, 1.1),
        kd=(0.9, 1.1), strength=(0.9, 1.1), armature=(1.0, 1.05), frictionloss=(0.5, 2.0), joint_zero=(-0.05, 0.05),
        push=(0.0, 1.0), latency=(0.0, 1.0), noise=1.0,
    ),
    # SkillBlender's loads, turns and latency, a narrower friction, harder pushes; gains and armature as above.
    "h1": Randomization(
        friction=(0.4, 1.25), base_mass=(-5.0, 5.0), kp=(0.9, 1.1), kd=(0.9, 1.1), strength=(0.9, 1.1),
        armature=(1.0, 1.05), push=(0.0, 0.5), push_spin=(-0.4, 0.4), push_interval=(4.0, 4.0), latency=(0.0, 1.0),
        noise=1.0,
    ),
    # Playground's masses, latency as above. All else is our choice, as no project is known to randomise this arm's
    # dynamics: 20 % of gains (ASAP has 25), 10 % of armature, damping within a factor of 2 as G1's friction, a camera
    # with its mount on the hand; torques have no reserve. Cubes differ by the tasks' `vary_*`.
    "panda": Randomization(
        link_mass=(0.9, 1.1), base_mass=(0.0, 0.2), com=(-0.01, 0.01), kp=(0.8, 1.2), kd=(0.8, 1.2),
        strength=(0.9, 1.0), armature=(0.9, 1.1), damping=(0.5, 2.0), latency=(0.0, 1.0), noise=1.0,
    ),
    "playground_go1": dataclasses.replace(
        _PLAYGROUND, com=(-0.05, 0.05), frictionloss=(0.9, 1.1), push=(0.0, 0.95), push_interval=(1.0, 3.0)
    ),
    "playground_g1": dataclasses.replace(_PLAYGROUND, frictionloss=(0.5, 2.0), push=(0.1, 2.0)),
    "unitree_rl_lab": Randomization(
        friction=(0.3, 1.0), base_mass=(-1.0, 3.0), push=(0.0, 0.5), push_interval=(5.0, 5.0), noise=1.0
    ),
    "asap_g1": Randomization(
        friction=(0.5, 1.25), link_mass=(0.8, 1.2), com=(-0.1, 0.1), kp=(0.75, 1.25), kd=(0.75, 1.25), push=(0.0, 1.0),
        latency=(0.0, 2.0), noise=1.0,
    ),
    "skillblender": Randomization(
        friction=(0.1, 2.0), base_mass=(-5.0, 5.0), push=(0.0, 0.2), push_spin=(-0.4, 0.4), push_interval=(4.0, 4.0),
        latency=(0.0, 1.0), noise=0.6,
    ),
}  # fmt: skip
