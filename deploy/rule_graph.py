"""Controllers without a policy that can be exported all the same: scripts, and the zero-shot goal rule.

Planners and skill graphs cannot: they search a simulator, an ensemble or a map at every decision, which is a program.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.deploy.graph import Graph, actuate, check_hold, outputs, pack, unpack
from repertoire.envs.types import Array
from repertoire.errors import UserError
from repertoire.high_level.composer import Composer
from repertoire.high_level.goals import ZeroShot
from repertoire.high_level.rules import StatefulRule, memoryless
from repertoire.high_level.script import Stage, machine
from repertoire.high_level.types import Field
from repertoire.skills.objectives.base import Directed


def script_graph(composer: Composer, stages: Sequence[Stage], hold: int) -> Graph:
    """`obs`, `z`, `decide` -> `action`, `ctrl`, `z_next` of a script; `z` begins with the stage and its macro steps."""
    memory = (Field("stage", 1, len(stages)), Field("count", 1, 2 + max((s.steps for s in stages), default=0)))
    return _rule_graph(composer, hold, machine(stages), rule=tuple(stages), memory=memory)


def zero_shot_graph(composer: Composer, rule: ZeroShot, hold: int) -> Graph:
    """`obs`, `z`, `decide` -> `action`, `ctrl`, `z_next` of the goal rule; `obs` ends with the skill's features.

    Raises `UserError` for a goal rule that is no difference of encodings (that of DIAYN, DADS and the like).
    """
    objective = rule.skill.objective()
    if not isinstance(objective, Directed):
        raise UserError(
            f"the goal rule of {rule.skill.name} cannot be exported: that of {objective.name} is no difference of "
            "encodings; train a controller=sequence on it and export that"
        )
    return _rule_graph(composer, hold, memoryless(rule), rule=rule, features=rule.skill.features)


def _rule_graph(composer: Composer, hold: int, decide_by: StatefulRule, **told: Any) -> Graph:
    """Graph of a stateful rule over `composer`; `told` are its fields `rule`, `memory`, `features`."""
    check_hold(hold)
    spec, finish = composer.env, actuate(composer.env)
    names = tuple(s.name for s in spec.obs.groups["policy"])
    # 32 bits: JAX takes 64-bit constants for either, which fails where a check switches precisions
    seen = spec.obs.index("features", told.get("features", ())).astype(np.int32)
    own, size = spec.obs.size("policy"), spec.obs.size("features")
    width = sum(f.size for f in (*told.get("memory", ()), *composer.fields))

    def row(obs: Array, z: Array, decide: Array) -> dict[str, Array]:
        state: Any = SimpleNamespace(
            obs={"policy": obs[:own], "features": jnp.zeros(size, obs.dtype).at[seen].set(obs[own:])}
        )

        def started() -> Any:
            return decide_by.start(jax.random.key(0), state), composer.resolve(composer.zero())

        form = jax.eval_shape(started)
        memory, _ = unpack(z, form)
        action, memory = decide_by.step(jax.random.key(0), state, memory)
        fresh = (memory, composer.resolve(action))
        memory, command = unpack(jnp.where(decide > 0.5, pack(fresh, obs), z), form)
        low, command = composer.act(state.obs["policy"], command)
        return {**finish(low), "z_next": pack((memory, command), obs)}

    return Graph(
        kind="controller",
        spec=spec,
        inputs={"obs": own + len(seen), "z": width, "decide": 1},
        outputs={**outputs(spec), "z_next": width},
        row=row,
        slices=names,
        skills=composer.skills,
        composer=composer,
        hold=hold,
        **told,
    )
