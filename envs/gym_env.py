"""Our envs as Gymnasium envs: `GymEnv` for one world, `GymVectorEnv` for one batched simulation of many.

Both run the same jitted programs over a batch, so a world of the vector env is bit for bit the single env that was
given the same seed and actions (native physics on a CPU).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from repertoire.envs import registry
from repertoire.envs.gym_picture import Picture, Window, no_display
from repertoire.envs.mujoco_env import MujocoEnv, tree_where
from repertoire.envs.types import Array, EnvSpec, State
from repertoire.errors import UserError, unknown
