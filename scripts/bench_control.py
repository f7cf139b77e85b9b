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
from repertoire.high_level.blend import ALL, Blend, BlendConfig
from repertoire.high_level.composer import Composer
from repertoire.scripts.bench_ours import CHUNK, Contestant, stepped, steps_caller
from repertoire.skills.skill import SCHEMA, Skill, contract

#: How a row is named of so many skills, and the settings of its controller: all skills act, the top two, or one.
ROWS = {
    "+ blend of {} skills": BlendConfig(),
    "+ blend of {} skills, top=2": BlendConfig(top=2),
    "+ switch of {} skills": BlendConfig(combine="switch", groups=ALL),
}


def blends(env_name: str, worlds: int, counts: Sequence[int], hidden: Sequence[int]) -> list[Contestant]:
    """Random commands to blends and switches of as many skills as `counts` says, a new one at every step."""

    def make(count: int, config: BlendConfig) -> tuple[Callable[[], Any], Callable[[], Any]]:
        env = registry.make(env_name, "native")
        skills = [drawn_skill(env.spec, hidden, seed) for seed in range(count)]
        return beside_caller(env, Blend(skills, env.spec, config), worlds, CHUNK)

    note = f"random commands, skills of {'x'.join(map(str, hidden))}, beside random actions"
    chosen = [(n, name, config) for n in counts for name, config in ROWS.items() if (config.top or 0) < n]
    return [Contestant(name.format(n), worlds, CHUNK, functools.partial(make, n, config), note)
            for n, name, config in chosen]  # fmt: skip


def beside_caller(env: Env, composer: Composer, worlds: int, steps: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """`composer` looks on and acts at every step, while random actions move the env, auto-reset as in a rollout.

    So the physics is that of the env without a controller: what untrained skills do costs a humanoid a third more.
    Commands are drawn beforehand, as a draw costs what skills cost: 0.3 million numbers for 1024 worlds and 32 skills.
    """
    commands = jax.random.uniform(jax.random.key(3), (steps, worlds, composer.size), minval=-1.0, maxval=1.0)

    def step(state: Any, key: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        action = jax.random.uniform(key, (worlds, env.spec.action_size), minval=-1.0, maxval=1.0)
        command = commands[jax.random.randint(jax.random.fold_in(key, 0), (), 0, steps)]
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
