"""Any of our envs as a `brax.envs.Env`, for the learners of Brax and of what is built on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from brax import envs as brax_envs

from repertoire.envs.types import Env, State
from repertoire.errors import UserError


class BraxView(brax_envs.Env):
    """`env` with Brax's interface: unbatched, `policy` as the observation, no auto-reset of its own.

    `done` is termination (and divergence, which must restart the world); time limits are Brax's: give its trainer
    `episode_length=env.spec.episode_length`. Its auto-reset starts every episode of a world from one cached state.

    Args:
      env: with a vector of actions in [-1, 1]. observation: group that the learner sees.
    """

    def __init__(self, env: Env, observation: str = "policy") -> None:
        if env.spec.discrete:
            raise UserError(f"env {env.spec.name} has discrete actions: Brax's learners want a vector")
        self.env, self.group = env, observation

    def reset(self, rng: jax.Array) -> brax_envs.State:
        """Fresh episode; `rng` is a raw key [2] or a typed one []."""
        key = rng if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(rng)
        return self._view(self.env.reset(key), {}, {})

    def step(self, state: brax_envs.State, action: jax.Array) -> brax_envs.State:
        """One control step."""
        inner = state.pipeline_state
        inner = inner.replace(key=jax.random.wrap_key_data(inner.key))
        return self._view(self.env.step(inner, action), state.info, state.metrics)

    def _view(self, inner: State, info: dict[str, Any], metrics: dict[str, Any]) -> brax_envs.State:
        """`info` and `metrics` are those before, in which wrappers keep things of their own."""
        done = inner.terminated | (inner.metrics["diverged"] > 0)
        return brax_envs.State(
            pipeline_state=inner.replace(key=jax.random.key_data(inner.key)),  # their wrappers select on raw arrays
            obs=inner.obs[self.group],
            reward=inner.reward,
            done=done.astype(jnp.float32),
            metrics={**metrics, **inner.metrics},
            info=dict(info),
        )

    @property
    def observation_size(self) -> int:
        """Entries of the observation."""
        return self.env.spec.obs.size(self.group)

    @property
    def action_size(self) -> int:
        """Entries of the action."""
        return self.env.spec.action_size

    @property
    def backend(self) -> str:
        """Ours, in Brax's place for it."""
        return str(getattr(getattr(self.env, "physics", None), "name", "repertoire"))


@contextlib.contextmanager
def brax_trainers() -> Iterator[None]:
    """Within it the trainers of Brax 0.14.2 run on JAX 0.10, which removed a function that they call once.

    Brax's next release does not call it (its commit 303d89d).
    """
    if hasattr(jax, "device_put_replicated"):
        yield
        return
    setattr(jax, "device_put_replicated", _replicate)  # noqa: B010
    try:
        yield
    finally:
        delattr(jax, "device_put_replicated")


def _replicate(tree: Any, devices: Sequence[Any]) -> Any:
    """A copy of `tree` for each of `devices`, stacked in front."""
    mesh = jax.sharding.Mesh(devices, ("device",))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("device"))
    return jax.tree.map(lambda x: jax.device_put(jnp.stack([jnp.asarray(x)] * len(devices)), place), tree)
