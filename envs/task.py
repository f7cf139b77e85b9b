"""A task as data and small pure functions: model, start, control, observation, reward terms, termination.

A task is a frozen dataclass; its fields are its options (`env.<option>=value` on the command line). It never steps
physics itself: `MujocoEnv` does, on any backend.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct

from repertoire.envs import several
from repertoire.envs.expert import Expert
from repertoire.envs.symmetry import Mirror
from repertoire.envs.types import Array, Data, Held, ObsSpec, Slice, Start, State
from repertoire.errors import UserError, unknown

#: Policy slice that tells which of several tasks an episode is about, one-hot.
TASK = "task"
#: (position [3] m, radius m, rgba) of a sphere drawn into videos.
Marker = tuple[tuple[float, float, float], float, tuple[float, float, float, float]]


@struct.dataclass
class NoMemory:
    """Memory of tasks that need none."""


@dataclass(frozen=True)
class Task:
    """Base of all tasks. Unbatched; arrays are JAX arrays.

    Attributes:
      episode_length: control steps until truncation.
      weights: reward term -> weight; terms with weight 0 are still reported.
      smooth: feature slice -> time constant, s, of a first-order low-pass: adds a slice `smooth_<slice>` to features
        and critic. The velocity of a gait swings within a stride; what a skill is known by is its mean.
      tasks: name -> weights of all reward terms, for several tasks in one env: each episode draws one, whose weights
        count instead of `weights` and which the last slice of policy and critic tells (`TASK`, one-hot).
      fields: derived `Data` fields the task reads.
      substeps: physics steps per control step (decimation).
      affine_control: whether controls are the action, scaled and shifted; where not, an export needs a `drive`.
      camera: how videos look at it: `follow`, or the name of a camera in the model.
      ceiling_m: length of an episode, control steps -> how far the robot can get from its start in it, m: measured
        where it can be (docs/evaluation.md); lengths that are not there are not known.
      coverage_cells: feature slice -> side of the cells in which its coverage is counted, in the slice's own unit;
        slices that the features do not have are passed over.
      fall_tilt_deg: tilt of the root body beyond which the robot has fallen.
      fall_height_m: height of its origin over the world's below which it has; None: tilt alone decides.
      mechanics: `control` gives what the actuators of `model` are commanded, so that figures of effort can be had.
      held: entries of qpos that every step leaves at a value, as `Physics.step` takes them.
      reward_terms: what `weights` may name beside its defaults; adds to those of the classes above.
    """

    episode_length: int = 200
    weights: Mapping[str, float] = field(default_factory=dict)
    smooth: Mapping[str, float] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    name: ClassVar[str] = ""
    doc: ClassVar[str] = ""
    fields: ClassVar[tuple[str, ...]] = ()
    substeps: ClassVar[int] = 1
    affine_control: ClassVar[bool] = True
    camera: ClassVar[str] = "follow"
    ceiling_m: ClassVar[Mapping[int, float]] = {}
    coverage_cells: ClassVar[Mapping[str, float]] = {"position": 1.0}
    fall_tilt_deg: ClassVar[float] = 90.0
    fall_height_m: ClassVar[float | None] = None
    mechanics: ClassVar[bool] = True
    held: ClassVar[Held] = ()
    reward_terms: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Reject impossible options with a `UserError`; subclasses add their own and call this one."""
        at_least(self.name, 1, episode_length=self.episode_length)
        at_least(self.name, 0.0, **{f"smooth.{k}": v for k, v in self.smooth.items()})
        if self.tasks:
            several.check(self.name, self.tasks)

    def build(self) -> mujoco.MjModel:
        """Compile the model. Called once."""
        raise NotImplementedError

    @functools.cached_property
    def model(self) -> mujoco.MjModel:
        """The compiled model."""
        return self.build()

    def obs_spec(self) -> ObsSpec:
        """Declared observation groups."""
        raise NotImplementedError

    def start(self, key: Array) -> Start:
        """Draw the start of an episode."""
        raise NotImplementedError

    def remember(self, key: Array, data: Data) -> Any:
        """Memory at the start of an episode (commands, clocks): a `flax.struct` dataclass."""
        return NoMemory()

    def control(self, action: Array, data: Data, memory: Any) -> Array:
        """Actuator controls [nu] for `action` in [-1, 1]; by default scaled to `actuator_ctrlrange`."""
        low, high = (jnp.asarray(self.model.actuator_ctrlrange[:, i], jnp.float32) for i in (0, 1))
        return low + (action + 1) * 0.5 * (high - low)

    def kick(self, data: Data, memory: Any) -> Array | None:
        """Velocity [nv] that something outside adds to qvel before the step; None for a task that knows no pushes."""
        return None

    @classmethod
    def known_terms(cls) -> list[str]:
        """The `reward_terms` of this class and those above it."""
        return list(dict.fromkeys(term for c in reversed(cls.__mro__) for term in vars(c).get("reward_terms", ())))

    def check_weights(self) -> None:
        """`UserError` for a weight of a term that is not among `known_terms`."""
        for term in self.weights:
            if term not in self.known_terms():
                raise unknown(f"reward term of env {self.name}", term, self.known_terms())

    def drive(self) -> dict[str, Any] | None:
        """What turns scaled actions into controls where `affine_control` is false, as data for runners of an export.

        None: nothing that a runner knows. Its fields are those of `drive` in `deploy.runner.CONTRACT`.
        """
        return None

    def switches(self, memory: Any) -> Array:
        """Controls of the last actuators, which the policy does not drive and no robot has (a lock), [n]."""
        return jnp.zeros(0)

    def mocap(self, action: Array, data: Data, memory: Any) -> Array | None:
        """Poses [nmocap, 7] (m, quaternion) that mocap bodies take for the step; None: they stay where they are."""
        return None

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> Any:
        """Memory after the step; `t` [] is the number of control steps since the episode began, after this one."""
        return memory

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """Raw value of every slice that `obs_spec` names."""
        raise NotImplementedError

    def sources(self) -> dict[str, str]:
        """Where the `policy` slices come from, for runners without this code: slice name -> source.

        A source is `A` or `A - B`, of `qpos[a:b]`, `qvel[a:b]` (addresses in `model`), `command.<name>` (what the
        operator asks for, or perception tells) and the others that `deploy.runner.ATOMS` lists. A slice without a
        source must be computed by whoever runs the export.
        """
        return {}

    def asked(self, data: Data, memory: Any) -> dict[str, Array]:
        """What an operator would ask for now, by command name, where it is no field of the memory of that name."""
        return {}

    def commands(self) -> dict[str, tuple[list[list[float]], int]]:
        """What an operator may ask for: command name -> (a range [low, high] per entry, control steps it holds)."""
        return {}

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """Unweighted reward terms of the step, [] each; `memory` is the one the action was chosen under."""
        return {}

    def task_slices(self) -> tuple[Slice, ...]:
        """The slice `TASK` where there are several tasks."""
        return (Slice(TASK, len(self.tasks), f"one-hot: {', '.join(self.tasks)}"),) if self.tasks else ()

    def draw_task(self, key: Array) -> dict[str, Array]:
        """Values of `task_slices` for a whole episode: any task, all alike."""
        count = len(self.tasks)
        return {TASK: jax.nn.one_hot(jax.random.randint(key, (), 0, count), count)} if count else {}

    def weighted(self, terms: Mapping[str, Array], drawn: Mapping[str, Array]) -> dict[str, Array]:
        """`terms` [] times their weights, those of the task that was `drawn` where there are several."""
        if not self.tasks:
            return {k: self.weights.get(k, 0.0) * v for k, v in terms.items()}
        return several.weighted(terms, self.tasks, drawn[TASK])

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Task metrics after the step, [] each; `memory` is what `judged` gives."""
        return {}

    def judged(self, before: Any, memory: Any) -> Any:
        """`memory` after a step, but with the goals of `before`, for which it was made: `measure` gets this."""
        return memory

    def terminated(self, data: Data, memory: Any) -> Array:
        """Whether the MDP ended."""
        return jnp.zeros((), bool)

    def markers(self, state: State) -> list[Marker]:
        """Spheres to draw over a frame (goals); `state` holds numpy arrays of one world. Host side."""
        return []

    def mirror(self) -> Mirror | None:
        """Left-right symmetry of robot and task (the reflection y -> -y); None: there is none, or none is declared."""
        return None

    def expert(self) -> Expert | None:
        """What solves the task by rule, in stages to imitate; None: nothing is known that does.

        Raises `UserError` where it does not drive what the options make of an action.
        """
        return None

    def default_pose(self) -> np.ndarray:
        """qpos [nq] at rest, which `sources` calls `default`."""
        return self.model.qpos0

    def source_model(self) -> tuple[str, str]:
        """(file, SHA-256) of the model, for tasks on a file of the user's."""
        return "", ""

    def action_limits(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Actuator units at action -1 and +1."""
        low, high = self.model.actuator_ctrlrange.T
        return tuple(map(float, low)), tuple(map(float, high))

    def action_names(self) -> tuple[str, ...]:
        """Actuator names, `actuator<i>` where the model gives none (then its joint's name)."""
        return tuple(actuator_name(self.model, i) for i in range(self.model.nu))


def at_least(env: str, low: float, **values: float) -> None:
    """`UserError` for the first of `values` (option name -> value) that is no number of at least `low`."""
    for option, value in values.items():
        if not isinstance(value, Real) or not low <= value < float("inf"):  # NaN compares false: refused too
            raise UserError(f"env {env}: env.{option} must be at least {low:g}, got {value}")


def interval(env: str, **values: tuple[float, float]) -> None:
    """`UserError` for the first of `values` (option name -> (low, high)) whose ends are not finite and in order."""
    for option, bounds in values.items():
        if len(bounds) != 2 or not float("-inf") < bounds[0] <= bounds[1] < float("inf"):
            raise UserError(f"env {env}: env.{option} must be low <= high, got {list(bounds)}")


def actuator_name(model: mujoco.MjModel, i: int) -> str:
    """Name of actuator `i`; its joint's where it has none."""
    name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_ACTUATOR, i)
    on_joint = int(model.actuator_trntype[i]) in (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT)
    joint = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, int(model.actuator_trnid[i, 0])) if on_joint else ""
    return name or joint or f"actuator{i}"
