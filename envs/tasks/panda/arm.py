"""The Panda alone: its model, control, observation and safety; all tabletop tasks extend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from repertoire.envs.task import at_least
from repertoire.envs.tasks.panda import control, kinematics, sensing
from repertoire.envs.tasks.panda.control import Targets
from repertoire.envs.tasks.sim_to_real import Sent, SimToReal, delayed, filed
from repertoire.envs.types import Array, Data, ObsSpec, Slice, Start
from repertoire.errors import unknown

#: Safety: a joint this near to its limit (rad), a tool centre point this far out of the workspace (m).
JOINT_MARGIN, SPACE_MARGIN = 0.02, 0.02
VIOLATIONS = ("table", "joint", "speed", "workspace")


@struct.dataclass
class ArmMemory:
    """What every task on the arm remembers."""

    targets: Targets
    sent: Sent | None  # under latency


@dataclass(frozen=True)
class Panda(SimToReal):
    """A Franka Panda that looks down on a table. 20 Hz control over 500 Hz physics.

    Tasks append slices (`extra_slices`), reward terms and scenery (`furnish`).

    Attributes:
      control_mode: what an action is (see `control.MODES`): a change of the hand's position and opening (`ee_delta`),
        of its pose and opening (`ee_pose`), or of the joints and the opening (`joint`).
      reset_noise: half-width of the uniform noise on the joint angles at the start, rad.
      history: values that the policy sees of each slice but goals, oldest first; 1 for the present alone.
    """

    control_mode: str = "ee_delta"
    reset_noise: float = 0.05
    history: int = 1

    preset: ClassVar[str] = "panda"
    trunk: ClassVar[str] = "hand"
    fields: ClassVar[tuple[str, ...]] = ("sensordata",)
    substeps: ClassVar[int] = 25
    affine_control: ClassVar[bool] = False
    camera: ClassVar[str] = "table"
    opening: ClassVar[float] = control.OPEN  # m per finger at the start
    dense: ClassVar[Mapping[str, float]] = {}  # default weights of the reward terms

    def __post_init__(self) -> None:
        if not self.weights:
            object.__setattr__(self, "weights", self.default_weights())
        sensing.check_terms(self.name, self.ranges)
        super().__post_init__()
        if self.control_mode not in control.MODES:
            raise unknown("control_mode", self.control_mode, control.MODES)
        at_least(self.name, 0.0, reset_noise=self.reset_noise)
        at_least(self.name, 1, history=self.history)

    def default_weights(self) -> dict[str, float]:
        """Reward weights where none are given."""
        return dict(self.dense)

    # -- model ---------------------------------------------------------------------------------------------------

    def spec_mjcf(self) -> mujoco.MjSpec:
        """The editable model: arm, table and what the task puts on it."""
        spec = mujoco.MjSpec.from_string(resources.files("repertoire.envs.assets").joinpath("panda.xml").read_text())
        self.furnish(spec)
        return spec

    def furnish(self, spec: mujoco.MjSpec) -> None:
        """Add the task's objects to `spec`; their joints come after the arm's."""

    def build(self) -> mujoco.MjModel:
        """Compile."""
        return self.spec_mjcf().compile()

    def sensed(self, data: Data, name: str) -> Array:
        """Whether contact sensor `name` found a contact, []."""
        assert data.sensordata is not None
        return data.sensordata[int(self.model.sensor(name).adr[0])] > 0

    def joint(self, values: Array, name: str) -> Array:
        """Entry of qpos or qvel that belongs to the one-dimensional joint `name`, []."""
        joint = self.model.joint(name)
        return values[int((joint.qposadr if values.shape[-1] == self.model.nq else joint.dofadr)[0])]

    # -- start and control ---------------------------------------------------------------------------------------

    def start(self, key: Array) -> Start:
        """Hand above the middle of the table, objects where `place` puts them."""
        key, noise_key = jax.random.split(key)
        noise = jax.random.uniform(noise_key, (7,), minval=-self.reset_noise, maxval=self.reset_noise)
        arm = jnp.concatenate([control.HOME + noise, jnp.full(2, self.opening)])
        qpos = jnp.asarray(self.model.qpos0, jnp.float32).at[:9].set(arm)
        model_key = jax.random.fold_in(key, 0)  # the start is the same with and without
        start = Start(qpos=qpos, qvel=jnp.zeros(self.model.nv), overrides=self.overrides(model_key))
        return self.place(key, start)

    def overrides(self, key: Array) -> dict[str, Array]:
        """The robot's controller compensates the weights it knows, those of the model before randomisation."""
        found = super().overrides(key)
        return found | sensing.compensation(self.model, found)

    def place(self, key: Array, start: Start) -> Start:
        """Put the objects somewhere, and vary them."""
        return start

    def remember(self, key: Array, data: Data) -> Any:
        """The arm's targets: where it is."""
        return ArmMemory(targets=self.first_targets(data), sent=self.first_sent(key))

    def first_sent(self, key: Array) -> Sent | None:
        """No action so far, and the latency of the episode; None without latency."""
        if self.ranges.latency is None:
            return None
        return self.nothing_sent(jax.random.fold_in(key, 0), len(self.action_names()))

    def first_targets(self, data: Data) -> Targets:
        """Targets at the start of an episode."""
        return control.start(data.qpos[:7], jnp.float32(self.opening))

    def control(self, action: Array, data: Data, memory: Any) -> Array:
        """Joint and gripper servo targets, and the task's `switches`."""
        targets = self.follow(action, data, memory)
        return jnp.concatenate([targets.joints, targets.opening[None], self.switches(memory)])

    def follow(self, action: Array, data: Data, memory: Any) -> Targets:
        """Targets after `action`, or the one that comes now under latency."""
        if memory.sent is not None:
            action = delayed(action, memory.sent.actions, memory.sent.latency)
        return control.follow(self.control_mode, memory.targets, action, data.qpos[:7])

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> Any:
        """Keep the targets that the step was made with, and file the action."""
        sent = memory.sent and memory.sent.replace(actions=filed(action, memory.sent.actions))
        return memory.replace(targets=self.follow(action, before, memory), sent=sent)

    def drive(self) -> dict[str, Any]:
        """Inverse kinematics and leashes of the control mode."""
        return control.describe(self.control_mode, self.opening)

    def default_pose(self) -> np.ndarray:
        """Hand above the middle of the table."""
        return np.concatenate([control.HOME, np.full(2, self.opening), self.model.qpos0[9:]])

    def action_limits(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Change of the targets per step at action -1 and +1: m, rad."""
        steps = control.MODES[self.control_mode].steps
        return tuple(-s for s in steps), steps

    def action_names(self) -> tuple[str, ...]:
        """What each entry of the action changes."""
        return control.MODES[self.control_mode].names

    # -- observation ---------------------------------------------------------------------------------------------

    def extra_slices(self) -> tuple[Slice, ...]:
        """Slices that a task appends to what policy and critic see."""
        return ()

    def extra_features(self) -> tuple[Slice, ...]:
        """Slices that a task appends to what objectives see."""
        return ()

    def extra_critic(self) -> tuple[Slice, ...]:
        """Slices that only the critic sees."""
        return ()

    def obs_spec(self) -> ObsSpec:
        """policy: joints, rates, hand and how far it is behind its targets; features: hand and what the task adds."""
        hand, opening = Slice("ee_position", 3, "m"), Slice("opening", 1, "m", scale=1 / control.OPEN)
        lag = Slice("lag", len(self.action_names()), "m, rad", scale=10.0)
        arm = (Slice("joints", 7, "rad"), Slice("joint_rates", 7, "rad/s"), hand, opening, lag)
        seen = (*arm, *self.extra_slices())
        features = (hand, *self.extra_features(), opening)
        policy = tuple(sensing.measured(s, self.ranges.noise, self.history) for s in seen)
        return ObsSpec({"policy": policy, "critic": (*seen, *self.extra_critic()), "features": features})

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Values of the arm's slices."""
        opening = self.hand_opening(data)
        return {
            "joints": data.qpos[:7],
            "joint_rates": data.qvel[:7],
            "ee_position": self.hand(data),
            "opening": opening,
            "lag": control.lag(self.control_mode, memory.targets, data.qpos[:7], opening),
        }

    def sources(self) -> dict[str, str]:
        """All are made of the joints."""
        return {
            **super().sources(),
            "joints": "qpos[0:7]",
            "joint_rates": "qvel[0:7]",
            "ee_position": "hand",
            "opening": "mean(qpos[7:9])",
            "lag": "lag",
        }

    def hand(self, data: Data) -> Array:
        """Tool centre point [3], m."""
        return kinematics.forward(data.qpos[:7]).position

    def hand_opening(self, data: Data) -> Array:
        """Mean distance of a finger from the middle, [] m."""
        return 0.5 * (data.qpos[7] + data.qpos[8])

    # -- safety --------------------------------------------------------------------------------------------------

    def violations(self, data: Data) -> dict[str, Array]:
        """Which of `VIOLATIONS` hold, [] bool each: hand on the table, joint at its limit or too fast, hand outside."""
        q, hand = data.qpos[:7], self.hand(data)
        table = [self.sensed(data, f"touch_{part}") for part in ("hand", "left", "right")]
        low, high = kinematics.JOINT_LOW + JOINT_MARGIN, kinematics.JOINT_HIGH - JOINT_MARGIN
        space = [w + s * SPACE_MARGIN for w, s in zip(control.WORKSPACE, (-1, 1))]
        found = (
            jnp.stack(table).any(),
            ((q < low) | (q > high)).any(),
            (jnp.abs(data.qvel[:7]) > kinematics.JOINT_SPEED).any(),
            ((hand < space[0]) | (hand > space[1])).any(),
        )
        return dict(zip(VIOLATIONS, found))

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """`violation_<kind>` for each of `VIOLATIONS`."""
        return {f"violation_{k}": v.astype(jnp.float32) for k, v in self.violations(data).items()}


def near(distance: Array, scale: float = 0.2) -> Array:
    """1 at distance 0, falling to 0.24 at `scale` and to 0 far away (the field's 1 - tanh shape)."""
    return 1.0 - jnp.tanh(distance / scale)


def distance(a: Array, b: Array) -> Array:
    """|a - b| of vectors [n], []."""
    return jnp.linalg.norm(a - b)


def uniform(key: Array, low: Any, high: Any) -> Array:
    """Uniform between `low` and `high` (arrays of one shape)."""
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return jax.random.uniform(key, low.shape, minval=low, maxval=high)
