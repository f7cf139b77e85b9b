"""Controllers without a policy as graphs: scripts, goal rules (with way points too), skill graphs, learned planners.

What such a controller decides is the rule itself, as evaluation runs it; tables and dynamics become constants. Two do
not export: a planner that needs the simulator, which no robot carries, and random skills, which are nothing to deploy.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.deploy.graph import Graph, actuate, check_hold, encoded_as, outputs, pack, unpack
from repertoire.deploy.replay import CLOSE
from repertoire.envs.types import Array
from repertoire.errors import UserError
from repertoire.high_level.composer import Composer
from repertoire.high_level.goals import ZeroShot
from repertoire.high_level.navigate import Navigator
from repertoire.high_level.plan import Imagined, Planner
from repertoire.high_level.route import WayPoint
from repertoire.high_level.rules import Decider, stateful
from repertoire.high_level.script import Machine
from repertoire.high_level.search import Tried
from repertoire.high_level.sequence import Choice, Latent
from repertoire.high_level.types import Field
from repertoire.skills.objectives.base import Directed

#: (state, memory, draws or nothing) -> macro action, memory, and what only the check reads.
Chooser = Callable[..., tuple[Array, Any, dict[str, Array]]]


class Reads(NamedTuple):
    """What a rule reads and keeps: its memory, the feature slices, the number of draws."""

    memory: tuple[Field, ...] = ()
    features: tuple[str, ...] = ()
    noise: int = 0


def rule_graph(composer: Composer, decider: Decider, hold: int) -> Graph:
    """`obs`, `z`, `decide` -> `action`, `ctrl`, `z_next` of what decides without a policy.

    `obs` ends with the features that the rule reads, `z` begins with what it remembers. A planner has one input more,
    `noise`: its draws, standard normal. Raises `UserError` for a rule that cannot be exported.
    """
    check_hold(hold)
    reads, choose = _reads(composer, decider), _chooser(composer, decider)
    spec, finish = composer.env, actuate(composer.env)
    # 32 bits: JAX takes 64-bit constants for either, which fails where a check switches precisions
    seen = spec.obs.index("features", reads.features).astype(np.int32)
    own, size = spec.obs.size("policy"), spec.obs.size("features")
    width = sum(f.size for f in (*reads.memory, *composer.fields))

    def row(obs: Array, z: Array, decide: Array, *noise: Array) -> dict[str, Array]:
        state: Any = SimpleNamespace(
            obs={"policy": obs[:own], "features": jnp.zeros(size, obs.dtype).at[seen].set(obs[own:])}
        )

        def started() -> Any:
            return stateful(decider).start(jax.random.key(0), state), composer.resolve(composer.zero())

        form = jax.eval_shape(started)
        memory, _ = unpack(z, form)
        action, memory, told = choose(state, memory, *noise)
        fresh = (memory, composer.resolve(action))
        memory, command = unpack(jnp.where(decide > 0.5, pack(fresh, obs), z), form)
        low, command = composer.act(state.obs["policy"], command)
        return {**finish(low), "z_next": pack((memory, command), obs), **told}

    return Graph(
        kind="controller",
        spec=spec,
        inputs={"obs": own + len(seen), "z": width, "decide": 1, **({"noise": reads.noise} if reads.noise else {})},
        outputs={**outputs(spec), "z_next": width},
        row=row,
        slices=tuple(s.name for s in spec.obs.groups["policy"]),
        skills=composer.skills,
        composer=composer,
        hold=hold,
        rule=decider,
        memory=reads.memory,
        features=reads.features,
    )


def _reads(composer: Composer, decider: Decider) -> Reads:
    """Raises `UserError` for what cannot be exported."""
    if isinstance(decider, Machine):
        longest = max(s.steps for s in decider.stages)
        return Reads((Field("stage", 1, len(decider.stages)), Field("count", 1, 2 + longest)))
    if isinstance(decider, ZeroShot):
        return Reads(features=_encoded(decider))
    if isinstance(decider, Navigator):
        position = ("position",) if decider.field.absolute else ()
        return Reads((Field("last", 1, 1 + decider.graph.start),), position)
    if isinstance(decider, Planner):
        return _planned(composer, decider)
    raise UserError(
        "controller=random cannot be exported: it draws its skills at random, which is nothing to deploy; "
        "controller=script goes through a list of them"
    )


def _encoded(rule: ZeroShot) -> tuple[str, ...]:
    """Features of a goal rule. Raises `UserError` for one that is no difference of encodings (DIAYN, DADS and such)."""
    objective = rule.skill.objective()
    if not isinstance(objective, Directed):
        raise UserError(
            f"the goal rule of {rule.skill.name} cannot be exported: that of {objective.name} is no difference of "
            "encodings; train a controller=sequence on it and export that"
        )
    return rule.skill.features


def _planned(composer: Composer, rule: Planner) -> Reads:
    """Of a planner. Raises `UserError` where its model is the simulator."""
    if not isinstance(rule.model, Imagined):
        raise UserError(
            "controller=plan with controller.model=simulator cannot be exported: it needs the simulator on the robot, "
            "at every decision; controller.model=learned exports"
        )
    if not isinstance(composer, Latent | Choice):
        raise UserError(f"a plan over a {composer.mode} controller cannot be exported; over latents or choices it can")
    steps, size = rule.shape
    features = tuple(s.name for s in composer.env.obs.groups["features"])
    draws = rule.config.iterations * rule.config.candidates * steps * size
    return Reads((Field("plan", steps * size),), features, draws)


def _chooser(composer: Composer, decider: Decider) -> Chooser:
    """How a rule chooses. `margin` [1]: by how much one of places, goals or candidates was chosen, see `check`."""
    if isinstance(decider, Planner):
        return lambda state, memory, noise: _search(decider, encoded_as(composer).discrete, state, memory, noise)
    rule = stateful(decider)

    def choose(state: Any, memory: Any) -> tuple[Array, Any, dict[str, Array]]:
        action, after = rule.step(jax.random.key(0), state, memory)
        return action, after, _told(decider, state, memory)

    return choose


def _told(decider: Decider, state: Any, memory: Any) -> dict[str, Array]:
    """`margin` [1] of a rule that looks up places in cells, in the table of the nearest goal."""
    if isinstance(decider, Navigator):
        margin = _from_change(decider, state, memory)
        if decider.field.absolute:
            here = state.obs["features"][decider.position]
            margin = jnp.minimum(margin, _from_other_goal(decider.field.goals, here, decider.goal(state)))
        return {"margin": margin}
    if isinstance(decider, ZeroShot) and isinstance(decider.ahead, WayPoint):
        way, here = decider.ahead, state.obs["features"][decider.ahead.position]
        other = _from_other_goal(way.guide.goals, here, way.goal(state))
        return {"margin": jnp.minimum(_from_border(way, here), other)}
    return {}


def _from_other_goal(goals: np.ndarray, here: Array, ahead: Array) -> Array:
    """By how much [1] of `goals` [G, 2] the nearest to what lies `ahead` is nearer than the next, infinite for one.

    In units of the coordinates that it is found from.
    """
    if len(goals) == 1:
        return jnp.full(1, jnp.inf)
    off = jnp.sort(jnp.linalg.norm(jnp.asarray(goals) - here - ahead, axis=-1))
    size = 1 + jnp.linalg.norm(here) + jnp.linalg.norm(ahead) + np.abs(goals).max()
    return (off[1:2] - off[:1]) / size


def _from_border(way: WayPoint, here: Array) -> Array:
    """Distance [1] to the nearest border between cells, in units of the place's own coordinates."""
    cells = way.guide.cells
    place = (here - jnp.asarray(cells.low)) / cells.cell
    size = 1 + jnp.abs(place) + np.abs(cells.low) / cells.cell
    return jnp.min((0.5 - jnp.abs(place - jnp.rint(place))) / size, keepdims=True)


def _from_change(rule: Navigator, state: Any, last: Array) -> Array:
    """[1]: 0 where the option is another one as far beside the robot as rounding moves places, infinite elsewhere.

    The ways of all options cross many cells, so some border is often near; few of them decide.
    """
    place, cells = rule.place(state), rule.field.cells
    size = cells.cell + jnp.abs(place) + jnp.abs(jnp.asarray(cells.low)) + np.abs(rule.ways).max()
    corners = CLOSE * size * jnp.asarray([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    there = jax.vmap(rule.option, (None, None, 0))(state, last, corners)
    return jnp.where((there == rule.option(state, last, jnp.zeros(2))).all(keepdims=True), jnp.inf, 0.0)


def _search(rule: Planner, options: bool, state: Any, mean: Array, noise: Array) -> tuple[Array, Any, dict[str, Array]]:
    """`Planner.step` with given draws; `options`: whether what is searched are scores, of which the greatest counts."""
    shape = (rule.config.iterations, rule.config.candidates, *rule.shape)
    cost = rule.model(jax.random.key(0), state)
    action, rest, tried = rule.decide(cost, mean, noise.reshape(shape))
    size = jnp.abs(state.obs["features"]).max()
    apart = jnp.diff(jnp.sort(tried.sequences, axis=-1)[..., -2:]).min(initial=jnp.inf) if options else jnp.inf
    return action, rest, {"margin": jnp.minimum(_from_tie(rule, tried, size), apart)[None]}


def _from_tie(rule: Planner, tried: Tried, size: Array) -> Array:
    """How far [] the search is from another choice of the best or of the elites, in units of `size` and the costs.

    Of equal costs, those of the same options, the first counts: they are no close call.
    """
    costs, few = jnp.sort(tried.costs, axis=1), rule.config.elites
    gaps = [costs.ravel() - costs.min()]
    if rule.config.method == "cem" and few < rule.config.candidates:
        gaps.append(costs[:, few] - costs[:, few - 1])
    gap = jnp.concatenate(gaps)
    return jnp.where(gap > 0, gap, jnp.inf).min() / (1 + size + costs[:, 0].max())
