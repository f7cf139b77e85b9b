"""Kinds of controller by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from repertoire.envs.types import EnvSpec
from repertoire.errors import unknown
from repertoire.high_level.blend import Blend, BlendConfig
from repertoire.high_level.compose import Compose, ComposeConfig
from repertoire.high_level.composer import Composer
from repertoire.high_level.options import Option
from repertoire.high_level.sequence import Parameterized, ParameterizedConfig, SequenceConfig, sequence
from repertoire.skills.skill import Skill


class Kind(NamedTuple):
    """A kind of controller.

    Attributes:
      config: settings of its composer. make: (skills, env spec, settings) -> composer.
      trained: whether a policy is trained; where none is, a rule decides (`scripts.deciders`).
    """

    config: type
    make: Callable[[Sequence[Skill], EnvSpec, Any], Composer]
    trained: bool = True


_BLEND, _SEQUENCE = Kind(BlendConfig, Blend), Kind(SequenceConfig, sequence)
_COMPOSE = Kind(ComposeConfig, Compose)
_RULE = _SEQUENCE._replace(trained=False)
#: `controller.kind` -> kind; several differ by their settings alone.
KINDS: dict[str, Kind] = {
    "sequence": _SEQUENCE,
    "parameterized": Kind(ParameterizedConfig, Parameterized),
    "blend": _BLEND,
    "switch": _BLEND,
    "multiply": _BLEND,
    "residual": _BLEND,
    "compose": _COMPOSE,
    "allocate": _COMPOSE,
    "plan": _RULE,
    "graph": _RULE,
    "script": _RULE,
    "zero_shot": _RULE,
    "route": _RULE,
    "random": _RULE,
}


def kind_of(name: str) -> Kind:
    """Kind by name. Raises `UserError` for an unknown one."""
    if name not in KINDS:
        raise unknown("controller", name, KINDS)
    return KINDS[name]


def make(described: Mapping[str, Any], skills: Sequence[Skill], env: EnvSpec) -> Composer:
    """The composer that `Composer.describe` described, over `skills`.

    Groups of a blend may be a mapping, as in library entries that were written before they were a list.
    """
    settings = dict(described)
    if isinstance(groups := settings.get("groups"), list):
        settings["groups"] = dict(groups)
    kind, ends = kind_of(settings.pop("kind")), settings.pop("ends", None)
    made = kind.make(skills, env, kind.config(**settings))
    return made if ends is None else Option(made, **ends)
