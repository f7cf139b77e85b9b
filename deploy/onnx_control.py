"""Controllers in ONNX: every composer and, within it, controllers that were frozen as skills.

A command is a list of tensors [B, size], one for each field of the composer; "" stands for fields of size 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repertoire.deploy import onnx_blend, onnx_maps, onnx_plan, onnx_rules
from repertoire.deploy.graph import Graph, encoded_as
from repertoire.deploy.onnx_graph import (
    Writer,
    composed,
    cut,
    largest,
    network,
    project,
    projected,
    read,
    rows,
    skill_action,
)
from repertoire.errors import UserError
from repertoire.high_level.blend import Blend
from repertoire.high_level.compose import Compose
from repertoire.high_level.composer import Composer
from repertoire.high_level.frozen import FrozenController
from repertoire.high_level.goals import ZeroShot
from repertoire.high_level.navigate import Navigator
from repertoire.high_level.options import Option
from repertoire.high_level.plan import Planner
from repertoire.high_level.script import Machine
from repertoire.high_level.sequence import Choice, Latent, Parameterized
from repertoire.high_level.types import Field

Command = list[str]


def controller(write: Writer, graph: Graph) -> tuple[str, str]:
    """(action before clipping, z_next)."""
    assert graph.composer is not None
    own = graph.spec.obs.size("policy")
    obs = write.columns("obs", np.arange(own)) if graph.features else "obs"
    fresh = _decided(write, graph, obs, _split(write, "z", graph.fields))
    decide = write.node("Greater", "decide", write.constant(0.5))
    held = _split(write, write.select(decide, _joined(write, fresh), "z"), graph.fields)
    count = len(graph.memory)
    action, command = _act(write, graph.composer, obs, held[count:])
    return action, _joined(write, [*held[:count], *command])


def _decided(write: Writer, graph: Graph, obs: str, held: Command) -> Command:
    """What is held from now on: the memory of a rule, and the command."""
    composer = graph.composer
    assert composer is not None
    own = graph.spec.obs.size("policy")
    if isinstance(graph.rule, ZeroShot):
        z = onnx_rules.zero_shot(write, graph.rule, "obs", own)
        return [z, *_begun(write, composer, z)]
    if isinstance(graph.rule, Machine):
        return list(onnx_rules.script(write, composer, graph.rule.stages, obs, held))
    if isinstance(graph.rule, Navigator):
        here = write.columns("obs", np.arange(own, own + 2)) if graph.features else ""
        option, last = onnx_maps.navigator(write, graph.rule, here, read(write, graph.rule.goal, obs), held[0])
        return [last, option, *_begun(write, composer, option)]
    if isinstance(graph.rule, Planner):
        return _planned(write, composer, graph.rule, own, held[0])
    assert graph.policy is not None
    return _renew(write, composer, network(write, graph.policy, _seen(write, composer, obs, held)), held)


def _planned(write: Writer, composer: Composer, rule: Planner, own: int, plan: str) -> Command:
    """The rest of the plan, and its first command; nothing is searched where no row decides."""
    prior = encoded_as(composer)
    any_decides = write.node("Greater", write.node("ReduceMax", "decide", keepdims=0), write.constant(0.5))
    first, rest = write.when(
        any_decides,
        lambda: onnx_plan.planner(write, rule, prior, own, plan),
        lambda: (write.columns(plan, np.arange(rule.shape[1])), plan),
    )
    return [rest, *_resolve(write, composer, first)]


def _begun(write: Writer, composer: Composer, like: str) -> Command:
    """Memory of the skills as they are called upon: `composer.bank.start()`."""
    return [rows(write, np.zeros(f.size), like) for f in composer.bank.fields]


def _seen(write: Writer, composer: Composer, obs: str, held: Command) -> str:
    """`obs` and what the controller sees of the command `held`: `composer.view`."""
    if not isinstance(composer, Option):
        return obs
    age, *own = held
    seen = [write.node("Div", age, write.constant(composer.longest))]
    for field, x in zip(composer.inner.fields, own, strict=True):
        if field.choices:
            same = write.node("Equal", write.cast(x, "INT64"), write.constant(np.arange(field.choices)[None], np.int64))
            x = write.cast(same, "FLOAT")
        seen.append(x)
    anything = write.cast(write.node("Greater", age, write.constant(0.5)), "FLOAT")
    return write.node("Concat", obs, write.node("Mul", _joined(write, seen), anything), axis=1)


def _renew(write: Writer, composer: Composer, logits: str, held: Command) -> Command:
    """`composer.renew` of the mode of the head."""
    if not isinstance(composer, Option):
        return _resolve(write, composer, logits)
    choices, width = composer.discrete, composer.head.mode_outputs
    best = largest(write, write.columns(logits, np.arange(choices)))
    keep = write.node("Greater", best, write.constant(choices - 1.5))
    own = np.arange(choices - 1) if composer.inner.discrete else np.zeros(0, int)
    raw = write.columns(logits, np.concatenate([own, np.arange(choices, width)]))
    fresh = _resolve(write, composer.inner, write.select(keep, write.constant(0), raw))
    some = write.node("Greater", held[0], write.constant(0.5))
    young = write.node("Less", held[0], write.constant(composer.longest - 0.5))
    on = write.node("And", keep, write.node("And", some, young))
    fresh = [rows(write, np.zeros(1), logits), *fresh]
    return [write.select(on, old, new) if old else "" for old, new in zip(held, fresh, strict=True)]


def _resolve(write: Writer, composer: Composer, logits: str) -> Command:
    """`composer.resolve` of the mode of the head."""
    if isinstance(composer, Latent):
        own = [project(write, composer.skills[0].prior, logits)]
    elif isinstance(composer, Choice):
        own = [largest(write, logits)]
    elif isinstance(composer, Parameterized):
        choice, *latents = cut(write, logits, [composer.discrete, *composer.parameters])
        own = [largest(write, choice), *projected(write, composer.skills, latents)]
    elif isinstance(composer, Blend):
        own = onnx_blend.resolve(write, composer, logits)
    elif isinstance(composer, Compose):
        own = [onnx_blend.bounded(write, composer.config, logits)]
    else:
        raise UserError(f"a controller of kind {composer.mode} cannot be exported yet")
    return [*own, *_begun(write, composer, logits)]


def _act(write: Writer, composer: Composer, obs: str, command: Command) -> tuple[str, Command]:
    """`composer.act`."""
    if isinstance(composer, Option):
        action, held = _act(write, composer.inner, obs, command[1:])
        return action, [write.node("Add", command[0], write.constant(1)), *held]
    if isinstance(composer, Compose):
        return composed(write, composer, obs, command[0]), command
    count = len(composer.fields) - len(composer.bank.fields)
    own, memory = command[:count], command[count:]
    if isinstance(composer, Choice):
        index = write.cast(write.node("Squeeze", own[0], write.constant([1], np.int64)), "INT64")
        latents = [write.node("Gather", write.constant(t), index, axis=0) for t in composer.latents()]
    else:
        latents = own[1:] if isinstance(composer, Parameterized) else own
    actions, memory = _bank(write, composer, obs, latents, memory)
    if isinstance(composer, Blend):
        action = onnx_blend.combined(write, composer, actions, *own[-2:])
    elif isinstance(composer, Choice):
        action = _chosen(write, write.node("Gather", write.constant(composer.owners[:, None]), index, axis=0), actions)
    else:
        action = _chosen(write, own[0], actions)
    return action, [*own, *memory]


def _bank(
    write: Writer, composer: Composer, obs: str, latents: Sequence[str], memory: Command
) -> tuple[list[str], Command]:
    """`Bank.act`: the action of every skill."""
    actions, kept, rest = [], [], list(memory)
    for skill, z in zip(composer.skills, latents[: len(composer.skills)], strict=True):
        own = write.columns(obs, composer.env.obs.index("policy", skill.slices))
        if isinstance(skill, FrozenController):
            mine, rest = rest[: len(skill.fields)], rest[len(skill.fields) :]
            action, new = _step(write, skill, own, z, mine)
            actions.append(action)
            kept += new
        else:
            actions.append(skill_action(write, skill, own, z))
    return actions, kept


def _step(write: Writer, skill: FrozenController, own: str, z: str, memory: Command) -> tuple[str, Command]:
    """`FrozenController.step`."""
    clock, *command = memory
    told = write.node("Concat", own, write.node("Mul", z, write.constant(skill.command_scale)), axis=1) if z else own
    full = write.columns(told, skill.order)
    logits = skill_action(write, skill, _seen(write, skill.composer, full, command), "")
    fresh = _renew(write, skill.composer, logits, command)
    now = write.node("Less", clock, write.constant(0.5))
    command = [write.select(now, new, old) if old else "" for new, old in zip(fresh, command, strict=True)]
    action, command = _act(write, skill.composer, full, command)
    later = write.node("Add", clock, write.constant(1))
    over = write.node("Greater", later, write.constant(skill.hold - 0.5))
    return action, [write.select(over, write.constant(0), later), *command]


def _chosen(write: Writer, index: str, actions: Sequence[str]) -> str:
    """The action whose place is `index` [B, 1]."""
    found = actions[0]
    for i, action in enumerate(actions[1:], start=1):
        found = write.select(write.node("Greater", index, write.constant(i - 0.5)), action, found)
    return found


def _split(write: Writer, z: str, fields: Sequence[Field]) -> Command:
    return cut(write, z, [f.size for f in fields])


def _joined(write: Writer, command: Command) -> str:
    return write.node("Concat", *filter(None, command), axis=1)
