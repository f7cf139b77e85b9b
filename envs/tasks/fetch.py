"""Fetch of gymnasium-robotics: an arm whose hand follows a mocap body, and an object (Plappert et al. 2018)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from repertoire.envs import rotations
from repertoire.envs.task import Marker, NoMemory, Task
from repertoire.envs.tasks import farama, fetch_model
from repertoire.envs.tasks.fetch_model import DOWN, IDS, SCENES, Scene, Settled
from repertoire.envs.types import Array, Data, ObsSpec, Slice, Start, State
from repertoire.errors import UserError, unknown

MOVE = 0.05  # m that an action of 1 sets the hand's target ahead of it
TOLERANCE, AIR = 0.05, 0.45  # m: from the goal, of goals over the table
AWAY, CANDIDATES = 0.1, 128  # m: the first place drawn that is this far from the hand is the object's


@struct.dataclass
class GoalMemory:
    """Where the object (without one: the hand) should be."""

    goal: Array  # [3] m


@dataclass(frozen=True)
class Fetch(Task):
    """One of `IDS`, at 25 Hz over physics at 500 Hz; an action is the hand's way (5 cm at 1) and its opening.

    Attributes:
      id: the env's name in gymnasium-robotics.
      goal: with its goal and reward (terms `miss`, 1 while further than 5 cm, and `distance`, m; weight -1 for the one
        that the id means). Without, for skill discovery, there is neither.
    """

    id: str = ""
    goal: bool = False
    episode_length: int = 50

    name: ClassVar[str] = "fetch"
    doc: ClassVar[str] = "Fetch of gymnasium-robotics: id=FetchPush-v4; env.goal=true for its task"
    fields: ClassVar[tuple[str, ...]] = ("sensordata",)
    substeps: ClassVar[int] = 20
    affine_control: ClassVar[bool] = False
    mechanics: ClassVar[bool] = False
    camera: ClassVar[str] = "side"
    reward_terms: ClassVar[tuple[str, ...]] = ("miss", "distance")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.id:
            raise UserError(f"env fetch needs the name of one of its envs: id={IDS[2]}")
        if self.id not in IDS:
            raise unknown("env of gymnasium-robotics for env=fetch", self.id, IDS)
        if self.weights and not self.goal:
            raise UserError("env fetch has reward terms with env.goal=true only")
        self.check_weights()
        usual = {"miss": -float("Dense" not in self.id), "distance": -float("Dense" in self.id)}
        self._adopt("weights", dict(self.weights) or (usual if self.goal else {}))
        self._adopt("coverage_cells", {self.moved: 0.1})
        fingers = () if self.scene.grips else tuple((int(a), 0.0) for a in self._fingers[0])
        self._adopt("held", fingers)

    def _adopt(self, name: str, value: Any) -> None:
        """Set what other tasks fix in their class and this one learns from its id."""
        object.__setattr__(self, name, value)

    @property
    def scene(self) -> Scene:
        """The env's numbers."""
        return SCENES[self.id.partition("-")[0].removesuffix("Dense")]

    @property
    def moved(self) -> str:
        """The feature whose coverage counts: the object in the plane, with fingers in space; without one the hand."""
        if self.scene.object is None:
            return "grip_position"
        return "object_position" if self.scene.grips else "object_xy"

    # -- model ---------------------------------------------------------------------------------------------------

    def build(self) -> mujoco.MjModel:
        """The package's model, with sensors for what is seen and a camera."""
        return fetch_model.build(self.scene)

    @functools.cached_property
    def _fingers(self) -> tuple[np.ndarray, np.ndarray]:
        """Addresses of the fingers in qpos and qvel."""
        joints = [self.model.joint(name) for name in fetch_model.FINGERS]
        return np.concatenate([j.qposadr for j in joints]), np.concatenate([j.dofadr for j in joints])

    @functools.cached_property
    def _settled(self) -> Settled:
        return fetch_model.settle(self.model, self.scene, self.substeps)

    # -- start and control ---------------------------------------------------------------------------------------

    def start(self, key: Array) -> Start:
        """The hand at its start, the object somewhere around it, 10 cm away or more."""
        qpos, qvel, hand, _ = self._settled
        place = jnp.asarray(qpos, jnp.float32)
        if self.scene.object is not None:
            near, first = self.scene.near, int(self.model.joint("object0:joint").qposadr[0])
            offsets = jax.random.uniform(key, (CANDIDATES, 2), minval=-near, maxval=near)
            offset = offsets[jnp.argmax(jnp.linalg.norm(offsets, axis=1) >= AWAY)]
            place = place.at[first : first + 2].set(jnp.asarray(hand[:2], jnp.float32) + offset)
        return Start(qpos=place, qvel=jnp.asarray(qvel, jnp.float32))

    def remember(self, key: Array, data: Data) -> Any:
        """Draw the goal, if there is to be one."""
        if not self.goal:
            return NoMemory()
        scene, settled = self.scene, self._settled
        spot_key, air_key, height_key = jax.random.split(key, 3)
        spot = jax.random.uniform(spot_key, (3,), minval=-scene.goals, maxval=scene.goals)
        goal = jnp.asarray(settled.hand, jnp.float32).at[0].add(scene.ahead) + spot
        if scene.object is not None:
            high = jax.random.bernoulli(air_key) & scene.grips
            goal = goal.at[2].set(settled.height + high * jax.random.uniform(height_key, maxval=AIR))
        return GoalMemory(goal)

    def control(self, action: Array, data: Data, memory: Any) -> Array:
        """Targets of the fingers, m: where they are and the action."""
        return data.qpos[self._fingers[0][::-1]] + action[3] if self.model.nu else jnp.zeros(0)

    def mocap(self, action: Array, data: Data, memory: Any) -> Array:
        """Where the hand is and the action's way, and turned towards `DOWN`."""
        quat = farama.sensor(self.model, data, "hand_quat") + jnp.asarray(DOWN)
        place = farama.sensor(self.model, data, "hand") + MOVE * action[:3]
        return jnp.concatenate([place, quat / jnp.linalg.norm(quat)])[None]

    def action_limits(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """m, of the hand and of each finger."""
        high = (MOVE, MOVE, MOVE, 1.0)
        return tuple(-x for x in high), high

    def action_names(self) -> tuple[str, ...]:
        """What each entry of the action moves."""
        return ("x", "y", "z", "gripper")

    # -- observation and reward ----------------------------------------------------------------------------------

    def obs_spec(self) -> ObsSpec:
        """policy: the 25 numbers of the original (10 without object); features: object and hand."""
        dt = self.substeps * float(self.model.opt.timestep)
        grip, fingers = Slice("grip_position", 3, "m"), Slice("fingers", 2, "m")
        last = (Slice("grip_velocity", 3, "m/s", scale=dt), Slice("finger_velocity", 2, "m/s", scale=dt))
        policy: tuple[Slice, ...] = (grip, fingers, *last)
        features: tuple[Slice, ...] = (grip,)
        if self.scene.object is not None:
            place, offset = Slice("object_position", 3, "m"), Slice("object_offset", 3, "m")
            turned = Slice("object_rotation", 3, "rad")
            moving = Slice("object_velocity", 3, "m/s", scale=dt), Slice("object_spin", 3, "rad/s", scale=dt)
            policy = (grip, place, offset, fingers, turned, *moving, *last)
            features = (place, grip, fingers) if self.scene.grips else (Slice("object_xy", 2, "m"), grip)
        if self.goal:
            policy = (*policy, Slice("goal", 3, "m"))
        return ObsSpec({"policy": policy, "critic": policy, "features": features})

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Values of all slices; `goal` lies from the object (without one: from the hand)."""
        see = functools.partial(farama.sensor, self.model, data)
        grip, fingers, rates = see("grip_position"), data.qpos[self._fingers[0]], data.qvel[self._fingers[1]]
        values = {"grip_position": grip, "fingers": fingers, "finger_velocity": rates}
        values["grip_velocity"] = see("grip_velocity")
        if self.scene.object is not None:
            place = see("object_position")
            values |= {
                "object_position": place,
                "object_xy": place[:2],
                "object_offset": place - grip,
                "object_rotation": rotations.euler(see("object_quat")),
                "object_velocity": see("object_velocity") - see("grip_velocity"),
                "object_spin": see("object_spin"),
            }
        return {**values, "goal": self.missing(data, memory)} if self.goal else values

    def missing(self, data: Data, memory: Any) -> Array:
        """Way [3] from where the object (without one: the hand) is to the goal, m."""
        what = "grip_position" if self.scene.object is None else "object_position"
        return memory.goal - farama.sensor(self.model, data, what)

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """`miss` and `distance`."""
        if not self.goal:
            return {}
        distance = jnp.linalg.norm(self.missing(data, memory))
        return {"miss": (distance > TOLERANCE).astype(jnp.float32), "distance": distance}

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """`success`."""
        if not self.goal:
            return {}
        return {"success": (jnp.linalg.norm(self.missing(data, memory)) < TOLERANCE).astype(jnp.float32)}

    def markers(self, state: State) -> list[Marker]:
        """The goal."""
        if not self.goal:
            return []
        x, y, z = (float(v) for v in state.memory.goal)
        return [((x, y, z), TOLERANCE, (0.1, 0.8, 0.2, 0.5))]
