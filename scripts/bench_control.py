"""Contestants of the speed table: what a controller over n frozen skills adds to the env."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from repertoire.envs import registry
from repertoire.envs.types import Env, EnvSpec
from repertoire.high_level.blend import Blend
from repertoire.high_level.composer import Composer
from repertoire.scripts.bench_ours import CHUNK, Contestant, stepped, steps_caller
from repertoire.skills.skill import SCHEMA, Skill, contract


def blends(env_name: str, worlds: int, counts: Sequence[int], hidden: Sequence[int]) -> list[Contestant]:
    """Random commands to blends of as many skills as `counts` says, a new one at every step: all skills act always."""

    def make(count: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
        env = registry.make(env_name, "native")
        skills = [drawn_skill(env.spec, hidden, seed) for seed in range(count)]
        return beside_caller(env, Blend(skills, env.spec), worlds, CHUNK)

    note = f"random commands, skills of {'x'.join(map(str, hidden))}, beside random actions"
    return [Contestant(f"+ blend of {n} skills", worlds, CHUNK, functools.partial(make, n), note) for n in counts]


def beside_caller(env: Env, composer: Composer, worlds: int, steps: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """`composer` looks on and acts at every step, while random actions move the env, auto-reset as in a rollout.

    So the physics is that of the env without a controller: what untrained skills do costs a humanoid a third more.
    """

    def step(state: Any, key: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        keys = jax.random.split(key)
        command, action = (
            jax.random.uniform(k, (worlds, n), minval=-1.0, maxval=1.0)
            for k, n in zip(keys, (composer.size, env.spec.action_size), strict=True)
        )
        acts = jax.vmap(lambda obs, c: composer.act(obs, composer.resolve(c))[0])(state.obs["policy"], command)
        state, reward = stepped(env, state, action)
        return state, (reward, acts.mean())

    return steps_caller(env, step, worlds, steps)


def drawn_skill(spec: EnvSpec, hidden: Sequence[int], seed: int) -> Skill:
    """A skill that was never trained: weights drawn by `seed`, a latent of two entries."""
    rng, obs = np.random.default_rng(seed), spec.obs.size("policy")
    arrays = {"obs/mean": np.zeros(obs, np.float32), "obs/var": np.ones(obs, np.float32)}
    for i, (a, b) in enumerate(itertools.pairwise((obs + 2, *hidden, spec.action_size))):
        arrays[f"policy/kernel{i}"] = (rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32)
        arrays[f"policy/bias{i}"] = np.zeros(b, np.float32)
    manifest = {
        "schema": SCHEMA,
        "name": f"drawn{seed}",
        "env": spec.name,
        "contract": contract(spec),
        "latent": {"kind": "sphere", "size": 2, "hold": 0},
        "network": {"hidden": list(hidden), "activation": "swish"},
    }
    return Skill(manifest, arrays)
