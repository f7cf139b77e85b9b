"""Episodes that begin in recorded states: where another policy left off, or any others that the task would not draw."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.types import Array, Start
from repertoire.errors import UserError


class BankedEnv(MujocoEnv):
    """`env`, whose episodes begin with probability `share` in a state of a bank.

    Of that state the world position of the root (`task.root` leading entries of qpos) is left out: the episode begins
    where the task says. Everything else that a start has (randomised model fields, what the task remembers) is drawn
    by the task too: of an arm that held an object, the gripper's target is not in the bank, so the object falls.

    Args:
      env: the env. qpos, qvel: the bank, [B, nq] and [B, nv]. share: in (0, 1].
    """

    def __init__(self, env: MujocoEnv, qpos: np.ndarray, qvel: np.ndarray, share: float) -> None:
        super().__init__(env.task, env.physics)
        model, found = env.task.model, (np.shape(qpos), np.shape(qvel))
        if not 0 < share <= 1:
            raise UserError(f"the share of recorded starts must lie above 0 and at most at 1, got {share}")
        if not len(qpos) or found != ((len(qpos), model.nq), (len(qpos), model.nv)):
            wanted = f"[B, {model.nq}] and [B, {model.nv}]"
            raise UserError(f"a bank of starts for env {env.spec.name} holds {wanted}, got {found[0]} and {found[1]}")
        self.share, self._qpos, self._qvel = share, np.asarray(qpos, np.float32), np.asarray(qvel, np.float32)

    def start(self, key: Array) -> Start:
        """From the task, or from the bank."""
        key, share_key, row_key = jax.random.split(key, 3)
        own, root = super().start(key), int(getattr(self.task, "root", 0))
        row = jax.random.randint(row_key, (), 0, len(self._qpos))
        qpos, qvel = jnp.asarray(self._qpos)[row], jnp.asarray(self._qvel)[row]
        recorded = jax.random.bernoulli(share_key, self.share)
        qpos = qpos.at[:root].set(own.qpos[:root])
        return own.replace(qpos=jnp.where(recorded, qpos, own.qpos), qvel=jnp.where(recorded, qvel, own.qvel))
