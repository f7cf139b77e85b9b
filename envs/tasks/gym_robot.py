"""The robots whose MJCF the installed gymnasium package ships: shared loading, starts and observations."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.envs.task import Task, at_least
from repertoire.envs.types import Array, Data, ObsSpec, Slice, Start
from repertoire.errors import UserError, unknown

DYNAMICS = ("fast", "reference")


def gym_xml(name: str) -> Path:
    """Path of an MJCF file in the installed gymnasium package (found without importing it)."""
    spec = importlib.util.find_spec("gymnasium")
    if spec is None or spec.origin is None:
        raise UserError("the robots' MJCF files come with gymnasium: pip install gymnasium")
    return Path(spec.origin).parent / "envs" / "mujoco" / "assets" / name


@dataclass(frozen=True)
class GymRobot(Task):
    """A Gymnasium robot.

    Attributes:
      dynamics: `fast` replaces Runge-Kutta by Euler with implicit joint damping, the cheapest integrator that is
        stable on these models (a third to a quarter of the cost); `reference` leaves the model exactly as Gymnasium
        steps it.
      reset_noise: scale of the uniform (qpos) and Gaussian or uniform (qvel) start noise.
    """

    dynamics: str = "fast"
    reset_noise: float = 0.1

    xml: ClassVar[str] = ""
    root: ClassVar[int] = 2  # leading qpos entries that are world position (x, y), kept out of `policy`
    gaussian_qvel: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dynamics not in DYNAMICS:
            raise unknown("dynamics", self.dynamics, DYNAMICS)
        at_least(self.name, 0.0, reset_noise=self.reset_noise)

    def spec_mjcf(self) -> mujoco.MjSpec:
        """The editable model; subclasses add bodies here."""
        return mujoco.MjSpec.from_file(str(gym_xml(self.xml)))

    def build(self) -> mujoco.MjModel:
        """Compile; `fast` selects the Euler integrator. `cfrc_ext` among the fields brings the sensor it needs."""
        spec = self.spec_mjcf()
        if "cfrc_ext" in self.fields:
            _ask_for_contact_wrenches(spec)
        if self.dynamics == "fast":
            spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
        return spec.compile()

    def start(self, key: Array) -> Start:
        """qpos0 plus uniform noise; qvel noise Gaussian or uniform as in Gymnasium."""
        key_q, key_v = jax.random.split(key)
        noise, model = self.reset_noise, self.model
        dq = jax.random.uniform(key_q, (model.nq,), minval=-noise, maxval=noise)
        if self.gaussian_qvel:
            dv = noise * jax.random.normal(key_v, (model.nv,))
        else:
            dv = jax.random.uniform(key_v, (model.nv,), minval=-noise, maxval=noise)
        return Start(qpos=jnp.asarray(model.qpos0, jnp.float32) + dq, qvel=dv)

    def obs_spec(self) -> ObsSpec:
        """policy: posture and all rates, no world position; features: position, velocity, posture, rates."""
        n, nq, nv = self.root, self.model.nq, self.model.nv
        posture, rates = Slice("posture", nq - n, "m, rad, quaternion"), Slice("rates", nv, "m/s, rad/s")
        features = (Slice("position", n, "m"), Slice("velocity", n, "m/s"), posture, Slice("joint_rates", nv - n))
        extra = self.extra_slices()
        return ObsSpec(
            {"policy": (posture, rates, *extra), "critic": (posture, rates, *extra), "features": features}
        )

    def extra_slices(self) -> tuple[Slice, ...]:
        """Slices a task adds to what policy and critic see."""
        return ()

    def observe(self, data: Data, memory: object) -> dict[str, Array]:
        """Values of all slices."""
        n = self.root
        return {
            "posture": data.qpos[n:],
            "rates": data.qvel,
            "position": data.qpos[:n],
            "velocity": data.qvel[:n],
            "joint_rates": data.qvel[n:],
        }

    def measure(self, data: Data, memory: object) -> dict[str, Array]:
        """Distance of the root from the origin, m."""
        return {"distance": jnp.linalg.norm(data.qpos[: self.root])}


def _ask_for_contact_wrenches(spec: mujoco.MjSpec) -> None:
    """Add an accelerometer: engines compute `cfrc_ext` only for models with an acceleration-type sensor."""
    site = spec.worldbody.first_body().add_site(name="contact_wrenches")
    spec.add_sensor(
        name="contact_wrenches",
        type=mujoco.mjtSensor.mjSENS_ACCELEROMETER,
        objtype=mujoco.mjtObj.mjOBJ_SITE,
        objname=site.name,
    )
