"""The robots whose MJCF the installed gymnasium package ships: shared loading, starts and observations."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco

from repertoire.envs import symmetry
from repertoire.envs.symmetry import Mirror
from repertoire.envs.task import at_least
from repertoire.envs.tasks.robot import Robot
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
class GymRobot(Robot):
    """A Gymnasium robot.

    Attributes:
      dynamics: `fast` replaces Runge-Kutta by Euler with implicit joint damping, the cheapest integrator that is
        stable on these models (a third to a quarter of the cost), and the humanoid's PGS solver by Newton, which
        every backend has; `reference` leaves the model exactly as Gymnasium steps it.
      reset_noise: scale of the uniform (qpos) and Gaussian or uniform (qvel) start noise.
      terminate: end the episode on a fall (`fall_tilt_deg`, `fall_height_m`), after which there is nothing to earn.
    """

    dynamics: str = "fast"
    reset_noise: float = 0.1
    terminate: bool = False

    xml: ClassVar[str] = ""
    objects: ClassVar[int] = 0  # sliding joints of objects, last in qpos and qvel: no part of the robot's own slices
    gaussian_qvel: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dynamics not in DYNAMICS:
            raise unknown("dynamics", self.dynamics, DYNAMICS)
        at_least(self.name, 0.0, reset_noise=self.reset_noise)

    def spec_mjcf(self) -> mujoco.MjSpec:
        """Gymnasium's model, as it is."""
        return mujoco.MjSpec.from_file(str(gym_xml(self.xml)))

    def build(self) -> mujoco.MjModel:
        """Compile; `fast` selects Euler and Newton. `cfrc_ext` among the fields brings the sensor it needs."""
        spec = self.spec_mjcf()
        if "cfrc_ext" in self.fields:
            _ask_for_contact_wrenches(spec)
        if self.dynamics == "fast":
            spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
            spec.option.solver = mujoco.mjtSolver.mjSOL_NEWTON
        with warnings.catch_warnings():  # half_cheetah.xml uses an attribute that MuJoCo is about to drop
            warnings.filterwarnings("ignore", message=".*settotalmass.*")
            return spec.compile()

    def start(self, key: Array) -> Start:
        """qpos0 plus uniform noise, quaternion normalised; qvel noise Gaussian or uniform as in Gymnasium."""
        key_q, key_v = jax.random.split(key)
        noise, model = self.reset_noise, self.model
        dq = jax.random.uniform(key_q, (model.nq,), minval=-noise, maxval=noise)
        if self.gaussian_qvel:
            dv = noise * jax.random.normal(key_v, (model.nv,))
        else:
            dv = jax.random.uniform(key_v, (model.nv,), minval=-noise, maxval=noise)
        qpos = jnp.asarray(model.qpos0, jnp.float32) + dq
        if self.root == 2:  # a free joint: all backends see the same numbers only if the quaternion has unit length
            qpos = qpos.at[3:7].divide(jnp.linalg.norm(qpos[3:7]))
        return Start(qpos=qpos, qvel=dv)

    def obs_spec(self) -> ObsSpec:
        """policy: posture and all rates, no world position; features: position, velocity, posture, rates."""
        n, nq, nv = self.root, *self._own
        posture = Slice("posture", nq - n, "m, quaternion, rad" if n == 2 else "m, rad")
        rates, joint_rates = Slice("rates", nv, "m/s, rad/s"), Slice("joint_rates", nv - n, "m/s, rad/s")
        features = (Slice("position", n, "m"), Slice("velocity", n, "m/s"), posture, joint_rates)
        extra = self.extra_slices()
        return ObsSpec({"policy": (posture, rates, *extra), "critic": (posture, rates, *extra), "features": features})

    def observe(self, data: Data, memory: object) -> dict[str, Array]:
        """Values of all slices."""
        n, nq, nv = self.root, *self._own
        return {
            "posture": data.qpos[n:nq],
            "rates": data.qvel[:nv],
            "position": data.qpos[:n],
            "velocity": data.qvel[:n],
            "joint_rates": data.qvel[n:nv],
        }

    def terminated(self, data: Data, memory: Any) -> Array:
        """A fall, where that ends the episode."""
        return self.fallen(data) & self.terminate

    def mirror(self) -> Mirror | None:
        """Left and right, where the robot has both: planar robots have not."""
        n = self.root
        if n != 2:
            return None
        q, v, actuators = symmetry.model_flips(self.model, self.model.qpos0)
        slices = {"position": q.part(0, n), "velocity": v.part(0, n), "rates": v}
        slices |= {"posture": q.part(n), "joint_rates": v.part(n)}
        return Mirror(q, v, actuators, slices)

    def sources(self) -> dict[str, str]:
        """All of the robot's own slices are parts of qpos and qvel."""
        n, nq, nv = self.root, *self._own
        return {
            **super().sources(),
            "posture": f"qpos[{n}:{nq}]",
            "rates": f"qvel[0:{nv}]",
            "position": f"qpos[0:{n}]",
            "velocity": f"qvel[0:{n}]",
            "joint_rates": f"qvel[{n}:{nv}]",
        }

    @property
    def _own(self) -> tuple[int, int]:
        """How many entries of qpos and qvel are the robot's."""
        return self.model.nq - self.objects, self.model.nv - self.objects


def _ask_for_contact_wrenches(spec: mujoco.MjSpec) -> None:
    """Add an accelerometer: engines compute `cfrc_ext` only for models with an acceleration-type sensor."""
    site = spec.worldbody.first_body().add_site(name="contact_wrenches")
    spec.add_sensor(
        name="contact_wrenches",
        type=mujoco.mjtSensor.mjSENS_ACCELEROMETER,
        objtype=mujoco.mjtObj.mjOBJ_SITE,
        objname=site.name,
    )
