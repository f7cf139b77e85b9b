"""The one exception that every room may raise: bad input, answered in one line that says what to do."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

#: Plain types of settings: what values of them may be, and that in words.
_PLAIN: dict[Any, tuple[Any, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "true or false"),
    str: (str, "a word"),
}


class UserError(ValueError):
    """Bad input. The command line prints the message alone, in one line, and exits with code 2."""


def unknown(kind: str, name: object, known: Iterable[str]) -> UserError:
    """`UserError` for a name that does not exist: suggests the nearest, else lists what there is."""
    names = sorted(str(k) for k in known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(names)}" if names else "there is none"
    return UserError(f"unknown {kind} {str(name)!r}: {hint}")


def at_least(name: str, value: float, least: float) -> None:
    """`UserError` where setting `name` is below `least`."""
    if not value >= least:  # NaN too
        raise UserError(f"{name} must be at least {least}, got {value}")


def finite(name: str, value: float) -> float:
    """`value` as a float; `UserError` where setting `name` is infinite or no number."""
    if not float("-inf") < value < float("inf"):
        raise UserError(f"{name} must be finite, got {value}")
    return float(value)


def at_least_one(config: object, prefix: str, *names: str) -> None:
    """`UserError` for the first of the attributes `names` of `config` below 1; they are `prefix`.name to the user.

    Of a tuple every entry counts.
    """
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, tuple):
            at_least(f"{prefix}.{name}", value, 1)
        for i, entry in enumerate(value if isinstance(value, tuple) else ()):
            at_least(f"{prefix}.{name}[{i}]", entry, 1)


def positive(config: object, prefix: str, *names: str) -> None:
    """The same for those that are not above 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise UserError(f"{prefix}.{name} must be positive, got {getattr(config, name)}")


def typed(name: str, value: Any, hint: Any) -> Any:
    """`value` of setting `name` as type `hint`; lists become tuples, whole numbers floats where floats are due.

    Raises `UserError` for another type, or another length of a tuple. Types that no setting is written in pass.
    """
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return _one_of(name, value, typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return _listed(name, value, typing.get_args(hint))
    if typing.get_origin(hint) is Mapping:
        if not isinstance(value, Mapping):
            raise UserError(f"{name} must be {_words(hint)}, got {value!r}")
        return {k: typed(f"{name}.{k}", v, typing.get_args(hint)[1]) for k, v in value.items()}
    if hint in _PLAIN:
        fits = isinstance(value, _PLAIN[hint][0]) and (hint is bool or not isinstance(value, bool))
        if not fits:
            raise UserError(f"{name} must be {_words(hint)}, got {value!r}")
        return hint(value)
    return tuple(value) if isinstance(value, list) else value


def words(name: str, value: Any) -> tuple[str, ...]:
    """`value` of setting `name` as words: a list of them, or one alone. Raises `UserError` for anything else."""
    return tuple(typed(name, value, tuple[str, ...]))


def _listed(name: str, value: Any, hints: tuple[Any, ...]) -> tuple[Any, ...]:
    """`value` as a tuple of `hints`, of which the last may be an ellipsis; a lone word is a list of one word."""
    if isinstance(value, str) and hints == (str, ...):
        return (value,)
    if not isinstance(value, list | tuple):
        raise UserError(f"{name} must be a list, got {value!r}")
    wanted = (hints[0],) * len(value) if hints[-1] is ... else hints
    if len(value) != len(wanted):
        raise UserError(f"{name} must be a list of {len(wanted)}, got {len(value)}: {list(value)}")
    return tuple(typed(f"{name}[{i}]", v, h) for i, (v, h) in enumerate(zip(value, wanted, strict=True)))


def _one_of(name: str, value: Any, hints: tuple[Any, ...]) -> Any:
    """`value` as the first of `hints` that it fits."""
    if value is None and types.NoneType in hints:
        return None
    hints = tuple(h for h in hints if h is not types.NoneType)
    if len(hints) == 1:
        return typed(name, value, hints[0])
    for hint in hints:
        try:
            return typed(name, value, hint)
        except UserError:
            continue
    raise UserError(f"{name} must be {' or '.join(map(_words, hints))}, got {value!r}")


def _words(hint: Any) -> str:
    if hint in _PLAIN:
        return _PLAIN[hint][1]
    named = {tuple: "a list", Mapping: "settings by name"}
    return named.get(typing.get_origin(hint), str(hint))
