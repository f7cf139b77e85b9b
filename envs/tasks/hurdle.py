"""HalfCheetahHurdle as METRA (Park et al. 2024) uses it; positions and sizes from the code of CSF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax.numpy as jnp
import mujoco
from flax import struct

from repertoire.envs.task import Marker
from repertoire.envs.tasks.robots import HalfCheetah
from repertoire.envs.types import Array, Data, Slice, State

#: x of the bars, m; centre height and half-sizes (thickness, width, height), m.
HURDLES = (-15.0, -13.0, -9.0, -5.0, -1.0, 3.0, 7.0, 11.0, 15.0, 19.0, 23.0, 27.0)
CENTRE_HEIGHT, HALF_SIZE = 0.20, (0.05, 1.0, 0.03)
#: MJX computes all pairs of a kind, 84 here, unless told to look at the nearest only; other engines ignore this.
MJX_PAIRS = 14
BEYOND = HURDLES[-1] + 4.0  # what "next" means after the last one


@struct.dataclass
class HurdleMemory:
    """Most rewarded hurdles that lay behind the back foot at once."""

    passed: Array  # [] float32


@dataclass(frozen=True)
class HalfCheetahHurdle(HalfCheetah):
    """+1 for each hurdle with x >= 0 that the back foot passes for the first time in the episode."""

    weights: Mapping[str, float] = field(default_factory=lambda: {"hurdle": 1.0})

    name: ClassVar[str] = "half_cheetah_hurdle"
    doc: ClassVar[str] = "HalfCheetah: jump over bars, +1 per bar behind the back foot"
    fields: ClassVar[tuple[str, ...]] = ("xpos",)

    def spec_mjcf(self) -> mujoco.MjSpec:
        """The cheetah's model and twelve bars."""
        spec = super().spec_mjcf()
        spec.add_numeric(name="max_geom_pairs", size=1, data=[MJX_PAIRS])
        for i, x in enumerate(HURDLES):
            spec.worldbody.add_geom(
                name=f"hurdle{i}",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=[x, 0.0, CENTRE_HEIGHT],
                size=HALF_SIZE,
                conaffinity=1,
                rgba=[0.9, 0.3, 0.2, 1.0],
            )
        return spec

    def extra_slices(self) -> tuple[Slice, ...]:
        """`next_hurdle`: distance from the root; `back_foot`: distance of the back foot to it."""
        return (
            *super().extra_slices(),
            Slice("next_hurdle", 1, "m", scale=0.25),
            Slice("back_foot", 1, "m", scale=0.25),
        )

    def observe(self, data: Data, memory: Any) -> dict[str, Array]:
        """The cheetah's values, `next_hurdle` and `back_foot`."""
        bars, foot = jnp.asarray((*HURDLES, BEYOND)), self._foot(data)
        ahead = bars[jnp.minimum(jnp.sum(bars < foot), len(HURDLES))]
        return {
            **super().observe(data, memory),
            "next_hurdle": ahead - data.qpos[0],
            "back_foot": ahead - foot,
        }

    def remember(self, key: Array, data: Data) -> HurdleMemory:
        """What lies behind at the start earns nothing."""
        return HurdleMemory(passed=self._behind(data))

    def advance(self, key: Array, before: Data, data: Data, action: Array, memory: Any, t: Array) -> HurdleMemory:
        """Keep the most that was passed: walking back and forth earns nothing."""
        return HurdleMemory(passed=jnp.maximum(memory.passed, self._behind(data)))

    def terms(self, before: Data, data: Data, action: Array, memory: Any) -> dict[str, Array]:
        """`hurdle`: hurdles newly passed."""
        return {"hurdle": jnp.maximum(self._behind(data) - memory.passed, 0.0)}

    def measure(self, data: Data, memory: Any) -> dict[str, Array]:
        """Adds `hurdles_passed` since the episode began."""
        return {**super().measure(data, memory), "hurdles_passed": memory.passed}

    def markers(self, state: State) -> list[Marker]:
        """A small sphere over the next rewarded hurdle."""
        rewarded = [x for x in HURDLES if x >= 0] + [BEYOND]
        x = rewarded[int(state.memory.passed)]
        return [((x, 0.0, 2 * CENTRE_HEIGHT), 0.1, (0.1, 0.8, 0.2, 1.0))]

    def _foot(self, data: Data) -> Array:
        assert data.xpos is not None
        return data.xpos[self.model.body("bfoot").id, 0]

    def _behind(self, data: Data) -> Array:
        rewarded = jnp.asarray([x for x in HURDLES if x >= 0])
        return jnp.sum(rewarded < self._foot(data)).astype(jnp.float32)
