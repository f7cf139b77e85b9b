"""Follow a commanded velocity: the joystick task of legged_gym (Rudin et al. 2022), for any legged robot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from repertoire.envs import rotations, symmetry
from repertoire.envs.symmetry import Mirror
from repertoire.envs.task import at_least, interval
from repertoire.envs.tasks.pd_robot import PDMemory
from repertoire.envs.types import Array, Data, Slice
from repertoire.errors import UserError

if TYPE_CHECKING:
    from repertoire.envs.tasks.legged import Legged as _Legged
else:
    _Legged = object  # a mix-in: the robot comes with the subclass

#: Per second. Most terms and weights are those of the vendor's own training (unitree_rl_lab, Go2). Ours are `alive` (a
#: beginner's costs exceed what tracking pays, and it must not be better off falling), `diagonal`, steps that pay from
#: 0.2 s on instead of 0.5, and a lower weight on `action_rate`, which costs exploration before there is a gait.
VELOCITY = {
    "alive": 1.0,
    "tracking_linear": 1.5,
    "tracking_yaw": 0.75,
    "vertical": -2.0,
    "spin": -0.05,
    "orientation": -2.5,
    "torque": -2e-4,
    "joint_velocity": -1e-3,
    "joint_acceleration": -2.5e-7,
    "action_rate": -0.05,
    "energy": -2e-5,
    "joint_limits": -10.0,
    "default_pose": -0.7,
    "air_time": 0.1,
    "stride_variance": -1.0,
    "diagonal": 0.5,
    "slip": -0.1,
    "contacts": -1.0,
}
#: Longest step that counts, s. Standing still, the default pose matters this much more.
LONG_STEP, STANDING = 0.5, 5.0


#: What `VelocityMemory` times, and the critic sees.
CLOCKS = ("air", "down", "last_air", "last_down")


@struct.dataclass
class VelocityMemory(PDMemory):
    """The command, and how long each foot has been in the air or down, now and the last time."""

    command: Array  # [3] m/s forward, m/s left, rad/s
    air: Array  # [F] s
    down: Array  # [F] s
    last_air: Array  # [F] s
    last_down: Array  # [F] s


@dataclass(frozen=True)
class Velocity(_Legged):
    """Mix-in for a `Legged` robot: walk as commanded; a fall ends the episode.

    Attributes:
      vx, vy: ranges of the command, m/s forward and left. yaw_rate: rad/s.
      stand: fraction of commands that ask for standing still.
      hold: control steps that a command stays.
      sigma: width of the tracking terms exp(-error^2 / sigma), (m/s)^2 and (rad/s)^2.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: dict(VELOCITY))
    terminate: bool = True
    vx: tuple[float, float] = (-1.0, 1.5)
    vy: tuple[float, float] = (-0.5, 0.5)
    yaw_rate: tuple[float, float] = (-1.0, 1.0)
    stand: float = 0.1
    hold: int = 250
    sigma: float = 0.25

    fields: ClassVar[tuple[str, ...]] = ("sensordata", "actuator_force", "site_xpos")
    any_heading: ClassVar[bool] = True
    reward_terms: ClassVar[tuple[str, ...]] = (
        "tracking_linear", "tracking_yaw", "vertical", "spin", "energy", "default_pose", "air_time", "stride_variance",
        "diagonal", "slip",
    )  # fmt: skip
    short_step: ClassVar[float] = 0.2  # s: `air_time` pays for what a step is longer
    pairs: ClassVar[tuple[tuple[int, int], ...]] = ()  # of feet that a trot puts down together

    def __post_init__(self) -> None:
        super().__post_init__()
        interval(self.name, vx=self.vx, vy=self.vy, yaw_rate=self.yaw_rate)
        at_least(self.name, 1, hold=self.hold)
        at_least(self.name, 1e-3, sigma=self.sigma)
        if not 0.0 <= self.stand <= 1.0:
            raise UserError(f"env {self.name}: stand is a fraction of the commands, 0 to 1, got {self.stand}")

    def commands(self) -> dict[str, tuple[list[list[float]], int]]:
        """`command`: its ranges, with standing still where that is asked for, and for how long it holds."""
        ranges = [list(bounds) for bounds in (self.vx, self.vy, self.yaw_rate)]
        if self.stand:
            ranges = [[min(low, 0.0), max(high, 0.0)] for low, high in ranges]
        return {**super().commands(), "command": (ranges, self.hold)}

    def draw_command(self, key: Array) -> Array:
        """A command [3]."""
        value_key, stand_key = jax.random.split(key)
        low, high = jnp.asarray([self.vx, self.vy, self.yaw_rate], jnp.float32).T
        still = jax.random.uniform(stand_key) < self.stand
        return jnp.where(still, 0.0, jax.random.uniform(value_key, (3,), minval=low, maxval=high))

    def _sensed(self) -> tuple[Slice, ...]:
        """No `heading`: a command is in the robot's frame, and the yaw of an IMU drifts."""
        return tuple(s for s in super()._sensed() if s.name != "heading")

    def extra_slices(self) -> tuple[Slice, ...]:
        """Adds `command`."""
        return (*super().extra_slices(), Slice("command", 3, "m/s, rad/s"))

    def _privileged(self) -> tuple[Slice, ...]:
        """Adds the feet's clocks, which terms look at."""
        return (*super()._privileged(), *(Slice(name, len(self.feet), "s") for name in CLOCKS))

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """The robot's values, `command` and the feet's clocks."""
        clocks = {name: getattr(memory, name) for name in CLOCKS}
        return {**super().observe(data, memory), "command": memory.command, **clocks}

    def sources(self) -> dict[str, str]:
        """The operator commands."""
        return {**super().sources(), "command": "command.command"}

    def mirror(self) -> Mirror | None:
        """The robot's, and of the command; ranges should be as wide to the left as to the right."""
        base = super().mirror()
        if base is None:
            return None
        own = {"command": symmetry.signs(1, -1, -1), **dict.fromkeys(CLOCKS, base.slices["feet"])}
        return dataclasses.replace(base, slices={**base.slices, **own})

    def remember(self, key: Array, data: Data) -> VelocityMemory:
        """First command; all feet are down."""
        key, command_key = jax.random.split(key)
        base, clocks = super().remember(key, data), dict.fromkeys(CLOCKS, jnp.zeros(len(self.feet)))
        return VelocityMemory(**vars(base), command=self.draw_command(command_key), **clocks)

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> Any:
        """Replace a command that has held long enough; time the feet."""
        key, command_key = jax.random.split(key)
        memory, down = super().advance(key, before, data, action, memory, t), self.feet_down(data)
        return memory.replace(
            command=jnp.where(t % self.hold == 0, self.draw_command(command_key), memory.command),
            air=jnp.where(down, 0.0, memory.air + self.dt),
            down=jnp.where(down, memory.down + self.dt, 0.0),
            last_air=jnp.where(down & (memory.air > 0), memory.air, memory.last_air),
            last_down=jnp.where(~down & (memory.down > 0), memory.down, memory.last_down),
        )

    def rates(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Callable[[], Array]]:
        """Adds tracking, terms against bouncing and rolling, and terms on the gait."""
        assert data.actuator_force is not None
        torque = data.actuator_force
        linear, yaw = self._errors(data, memory.command)
        velocity, spin = rotations.unrotate(data.qpos[3:7], data.qvel[:3]), data.qvel[3:6]
        moving = jnp.linalg.norm(memory.command) > 0.1
        return {
            **super().rates(before, data, action, memory),
            **self._gait(before, data, memory, moving),
            "tracking_linear": lambda: jnp.exp(-jnp.square(linear) / self.sigma),
            "tracking_yaw": lambda: jnp.exp(-jnp.square(yaw) / self.sigma),
            "vertical": lambda: jnp.square(velocity[2]),
            "spin": lambda: jnp.sum(jnp.square(spin[:2])),
            "energy": lambda: jnp.sum(jnp.abs(torque * self.speeds(data))),
            "default_pose": lambda: jnp.linalg.norm(self.angles(data) - self.joints) * jnp.where(moving, 1.0, STANDING),
        }

    def _gait(self, before: Data, data: Data, memory: Any, moving: Array) -> dict[str, Callable[[], Array]]:
        """Long steps (paid for the one control step in which the foot comes down), even strides, a trot, no slipping.

        `stride_variance` is that of the feet's last times in the air, s^2, plus that of their last times down;
        `diagonal` the share of pairs whose feet do the same while those of the next pair do the opposite.
        """
        assert data.site_xpos is not None and before.site_xpos is not None
        down, low = self.feet_down(data), self.short_step
        step = jnp.clip(memory.air + self.dt, low, LONG_STEP) - low
        last = jnp.minimum(jnp.stack([memory.last_air, memory.last_down]), LONG_STEP)
        one, other = (down[np.array([pair[i] for pair in self.pairs], int)] for i in (0, 1))
        trot = (one == other) & (one != jnp.roll(one, 1)) & (other != jnp.roll(other, 1))
        sliding = jnp.sum(jnp.square((data.site_xpos - before.site_xpos)[self.foot_sites, :2] / self.dt), axis=-1)
        return {
            "air_time": lambda: jnp.sum(step * (down & (memory.air > 0))) * moving,
            "stride_variance": lambda: jnp.var(last, axis=1).sum() * moving,
            "diagonal": lambda: jnp.sum(trot) / max(len(self.pairs), 1) * moving,
            "slip": lambda: jnp.sum(sliding * down),
        }

    def judged(self, before: Any, memory: Any) -> Any:
        """The command that was to be followed."""
        return super().judged(before, memory).replace(command=before.command)

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds the absolute errors `tracking_error`, m/s, and `yaw_error`, rad/s."""
        linear, yaw = self._errors(data, memory.command)
        return {**super().measure(data, memory), "tracking_error": linear, "yaw_error": jnp.abs(yaw)}

    def _errors(self, data: Data, command: Array) -> tuple[Array, Array]:
        """Distance of the planar velocity from the command, and the error of the yaw rate."""
        q = data.qpos[3:7]
        velocity = rotations.unrotate(q, data.qvel[:3])
        return jnp.linalg.norm(velocity[:2] - command[:2]), data.qvel[5] - command[2]
