"""The one exception that every room may raise: bad input, answered in one line that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The command line prints the message alone, in one line, and exits with code 2."""


def unknown(kind: str, name: object, known: Iterable[str]) -> UserError:
    """`UserError` for a name that does not exist: suggests the nearest, else lists what there is."""
    names = sorted(str(k) for k in known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(names)}"
    return UserError(f"unknown {kind} {str(name)!r}: {hint}")


def at_least_one(config: object, prefix: str, *names: str) -> None:
    """`UserError` for the first of the attributes `names` of `config` below 1; they are `prefix`.name to the user."""
    for name in names:
        if not getattr(config, name) >= 1:  # NaN too
            raise UserError(f"{prefix}.{name} must be at least 1, got {getattr(config, name)}")


def positive(config: object, prefix: str, *names: str) -> None:
    """The same for those that are not above 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise UserError(f"{prefix}.{name} must be positive, got {getattr(config, name)}")
