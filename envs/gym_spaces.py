"""Spaces of the Gymnasium envs, values in their layout, and the checks of what callers hand in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from repertoire.envs.types import EnvSpec
from repertoire.errors import UserError, unknown

#: What `obs` may be: the vector that runs on the robot, or all groups.
OBS_MODES = ("policy", "dict")
_MODES = {mode.value: mode for mode in AutoresetMode}


def observation_space(spec: EnvSpec, obs: str) -> spaces.Space:
    """Boxes over all finite float32: observations have no tighter bound that always holds."""
    bound = float(np.finfo(np.float32).max)
    sizes = {name: spec.obs.size(name) for name in spec.obs.groups}
    boxes: dict[str, spaces.Space] = {
        name: spaces.Box(-bound, bound, (size,), np.float32) for name, size in sizes.items() if size
    }
    return boxes["policy"] if obs == "policy" else spaces.Dict(boxes)


def action_space(spec: EnvSpec) -> spaces.Box:
    """All actions of one world: [-1, 1]^A."""
    return spaces.Box(-1.0, 1.0, (spec.action_size,), np.float32)


def groups(obs: dict[str, np.ndarray], mode: str) -> Any:
    """Observations [N, ...] in the layout of `observation_space`: empty groups are left out."""
    return obs["policy"] if mode == "policy" else {name: v for name, v in obs.items() if v.shape[-1]}


def world(obs: Any, i: Any) -> Any:
    """Observation of world `i`, as the caller's own."""
    return jax.tree.map(lambda x: x[i].copy(), obs)


def checked_obs(obs: str) -> str:
    """`obs`, if it is one of `OBS_MODES`."""
    if obs not in OBS_MODES:
        raise unknown("obs", obs, OBS_MODES)
    return obs


def checked_autoreset(mode: str | AutoresetMode) -> AutoresetMode:
    """Gymnasium's mode, from itself or from its name."""
    if isinstance(mode, AutoresetMode):
        return mode
    if mode not in _MODES:
        raise unknown("autoreset mode", mode, _MODES)
    return _MODES[mode]


def check_options(options: Mapping[str, Any] | None, known: Sequence[str]) -> None:
    """Raise `UserError` for an option of `reset` that is not `known`."""
    for name in options or {}:
        if name not in known:
            raise (unknown("reset option", name, known) if known else UserError(f"reset takes no option {name!r}"))


def checked_seed(seed: Any) -> int:
    """`seed`, if it is a non-negative integer."""
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UserError(f"a seed is a non-negative integer, got {seed!r}")
    return int(seed)


def checked_seeds(seed: Any, n: int) -> list[int | None]:
    """One seed per world [n]: `seed + i` from an integer; not yet checked one by one."""
    if seed is None:
        return [None] * n
    if isinstance(seed, (int, np.integer)):
        return [int(seed) + i for i in range(n)]
    if len(seed) != n:
        raise UserError(f"a list of seeds needs one per env: {n}, got {len(seed)}")
    return list(seed)


def checked_mask(mask: Any, n: int) -> np.ndarray:
    """`options["reset_mask"]`, a mask [n]; all worlds without one."""
    if mask is None:
        return np.ones(n, bool)
    if not isinstance(mask, np.ndarray) or mask.shape != (n,) or mask.dtype != bool or not mask.any():
        raise UserError(f"options['reset_mask'] must be a boolean numpy array [{n}] with at least one True")
    return mask
