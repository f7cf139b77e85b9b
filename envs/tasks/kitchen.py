"""Franka Kitchen of gymnasium-robotics: seven elements to bring where they belong, in any order (Gupta et al. 2019)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from xml.etree import ElementTree

import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from repertoire.envs.task import Task, at_least
from repertoire.envs.tasks import farama, mjcf_model
from repertoire.envs.types import Array, Data, ObsSpec, Slice, Start
from repertoire.errors import UserError, unknown, words

#: Element -> (its first address in qpos, where it belongs: rad, m; the kettle's is m and a quaternion).
ELEMENTS: Mapping[str, tuple[int, tuple[float, ...]]] = {
    "bottom_burner": (11, (-0.88, -0.01)),
    "top_burner": (15, (-0.92, -0.01)),
    "light_switch": (17, (-0.69, -0.05)),
    "slide_cabinet": (19, (0.37,)),
    "hinge_cabinet": (20, (0.0, 1.45)),
    "microwave": (22, (-0.75,)),
    "kettle": (23, (-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06)),
}
TOLERANCE = 0.3  # of the distance of an element's entries from where they belong
ARM = 9  # joints of arm and fingers: the first entries of qpos and qvel
SPEED = 2.0  # rad/s, m/s at action 1
#: Where arm (rad, m) and kettle (m, quaternion) start; the other elements are shut and off.
START = (0.1484, -1.7685, 1.8439, -2.4769, 0.2603, 0.7125, 1.5952, 0.0479, 0.0371)
KETTLE = (-0.2694, 0.3504, 1.6194, 1.0, 0.0, 0.0, 0.0)
#: Half-widths of the original's noise: of arm and elements, in their units.
ARM_NOISE, ELEMENT_NOISE = 1e-3, 2.5e-6


@struct.dataclass
class Done:
    """Which of the task's elements have been where they belong in this episode."""

    done: Array  # [K] bool


@dataclass(frozen=True)
class Kitchen(Task):
    """The kitchen at 12.5 Hz over physics at 500 Hz; an action asks for joint velocities, as position targets.

    Attributes:
      elements: those that count; D4RL's mixed task is microwave, kettle, light_switch, slide_cabinet.
      terminate: end the episode when all have been done.
      noise: factor on the original's observation noise. Controls start from true joints, there from noisy ones.
    """

    episode_length: int = 280
    elements: tuple[str, ...] = tuple(ELEMENTS)
    terminate: bool = True
    noise: float = 1.0
    weights: Mapping[str, float] = field(default_factory=lambda: {"done": 1.0})

    name: ClassVar[str] = "kitchen"
    doc: ClassVar[str] = "Franka Kitchen of gymnasium-robotics: elements to bring where they belong, in any order"
    fields: ClassVar[tuple[str, ...]] = ("sensordata",)
    substeps: ClassVar[int] = 40
    affine_control: ClassVar[bool] = False
    camera: ClassVar[str] = "kitchen"
    coverage_cells: ClassVar[Mapping[str, float]] = {"kettle_position": 0.1}
    reward_terms: ClassVar[tuple[str, ...]] = ("done",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", words("env.elements", self.elements))
        super().__post_init__()
        at_least(self.name, 0.0, noise=self.noise)
        if not self.elements or len(set(self.elements)) < len(self.elements):
            raise UserError(f"env.elements wants one or more of {', '.join(ELEMENTS)}, each once")
        for element in self.elements:
            if element not in ELEMENTS:
                raise unknown("element of the kitchen", element, ELEMENTS)

    # -- model, start, control -----------------------------------------------------------------------------------

    def build(self) -> mujoco.MjModel:
        """The package's model, with a sensor for the hand and a camera."""
        file = farama.asset(self.name, "kitchen_franka/kitchen_assets/kitchen_env_model.xml")
        spec = mjcf_model.load(file)
        kind, of = mujoco.mjtSensor.mjSENS_FRAMEPOS, mujoco.mjtObj.mjOBJ_SITE
        spec.add_sensor(name="ee_position", type=kind, objtype=of, objname="end_effector")
        watch = mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY
        spec.worldbody.add_camera(name="kitchen", pos=[1.2, -1.4, 2.9], mode=watch, targetbody="kettle")
        return mjcf_model.compiled(file, spec)

    @functools.cached_property
    def _limits(self) -> np.ndarray:
        """[2, 9]: between which values the targets of the joints are kept, rad and m."""
        root = ElementTree.parse(farama.asset(self.name, "kitchen_franka/franka_assets/franka_config.xml")).getroot()
        bounds = [root.find(f"qpos{i}").attrib["pos_bound"].split() for i in range(ARM)]  # type: ignore[union-attr]
        return np.asarray(bounds, np.float32).T

    def default_pose(self) -> np.ndarray:
        """qpos at the start."""
        return np.concatenate([START, np.zeros(ELEMENTS["kettle"][0] - ARM), KETTLE])

    def start(self, key: Array) -> Start:
        """Always the same."""
        return Start(qpos=jnp.asarray(self.default_pose(), jnp.float32), qvel=jnp.zeros(self.model.nv))

    def remember(self, key: Array, data: Data) -> Done:
        """Nothing is done."""
        return Done(jnp.zeros(len(self.elements), bool))

    def control(self, action: Array, data: Data, memory: Any) -> Array:
        """Targets [9] of the joints after one control step at the speeds asked for, rad and m."""
        ahead = SPEED * self.substeps * float(self.model.opt.timestep)
        return jnp.clip(data.qpos[:ARM] + ahead * action, *self._limits)

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> Done:
        """Note what is done."""
        return Done(memory.done | self.reached(data))

    def action_limits(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """rad/s, m/s."""
        return (-SPEED,) * ARM, (SPEED,) * ARM

    # -- observation and reward ----------------------------------------------------------------------------------

    def obs_spec(self) -> ObsSpec:
        """policy: the 59 numbers of the original; critic: also what is done; features: kettle, elements and hand."""
        arm, elements = self.noise * ARM_NOISE, self.noise * ELEMENT_NOISE
        policy = (
            Slice("joints", ARM, "rad, m", noise=arm),
            Slice("joint_rates", ARM, "rad/s, m/s", noise=arm),
            Slice("elements", self.model.nq - ARM, "rad, m, quaternion", noise=elements),
            Slice("element_rates", self.model.nv - ARM, "rad/s, m/s", noise=elements),
        )
        single = tuple(Slice(name, len(goal), "rad, m") for name, (_, goal) in ELEMENTS.items() if name != "kettle")
        features = (Slice("kettle_position", 3, "m"), *single, Slice("ee_position", 3, "m"))
        return ObsSpec({"policy": policy, "critic": (*policy, Slice("done", len(self.elements))), "features": features})

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Values of all slices."""
        parts = {name: data.qpos[first : first + len(goal)] for name, (first, goal) in ELEMENTS.items()}
        return {
            **parts,
            "joints": data.qpos[:ARM],
            "joint_rates": data.qvel[:ARM],
            "elements": data.qpos[ARM:],
            "element_rates": data.qvel[ARM:],
            "kettle_position": parts["kettle"][:3],
            "ee_position": farama.sensor(self.model, data, "ee_position"),
            "done": memory.done.astype(jnp.float32),
        }

    def sources(self) -> dict[str, str]:
        """All are entries of the state."""
        nq, nv = self.model.nq, self.model.nv
        arm = {"joints": f"qpos[0:{ARM}]", "joint_rates": f"qvel[0:{ARM}]"}
        return {**arm, "elements": f"qpos[{ARM}:{nq}]", "element_rates": f"qvel[{ARM}:{nv}]"}

    def reached(self, data: Data) -> Array:
        """Which of the task's elements are where they belong now, [K] bool."""
        found = []
        for name in self.elements:
            first, goal = ELEMENTS[name]
            found.append(jnp.linalg.norm(data.qpos[first : first + len(goal)] - jnp.asarray(goal)) < TOLERANCE)
        return jnp.stack(found)

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """`done`: how many elements came where they belong in this step, each once in an episode."""
        return {"done": (self.reached(data) & ~memory.done).sum().astype(jnp.float32)}

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """`elements`, how many have been done, `done_<element>`, and `success`: all."""
        done = memory.done.astype(jnp.float32)
        single = {f"done_{name}": done[i] for i, name in enumerate(self.elements)}
        return {**single, "elements": done.sum(), "success": memory.done.all().astype(jnp.float32)}

    def terminated(self, data: Data, memory: Any) -> Array:
        """All have been done, where that ends the episode."""
        return memory.done.all() & self.terminate
