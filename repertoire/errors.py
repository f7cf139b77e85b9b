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
