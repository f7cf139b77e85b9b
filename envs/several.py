"""Several tasks in one env: what they may be called, and the rewards of the one that an episode is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from repertoire.envs.types import Array
from repertoire.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check(env: str, tasks: Mapping[str, Any]) -> None:
    """`UserError` unless `tasks` are two or more, with names that files and figures can have."""
    if len(tasks) < 2:
        raise UserError(f"env {env}: {next(iter(tasks))} is one task alone: give its weights as env.weights")
    for name in tasks:
        if not _NAME.fullmatch(str(name)):
            raise UserError(f"env {env}: a task cannot be called {name!r}: use letters, digits, '-', '_' and '.'")
        if name in ("low", "high"):
            raise UserError(f"env {env}: a task cannot be called {name!r}: return_{name} is the end of an interval")


def weighted(terms: Mapping[str, Array], tasks: Mapping[str, Mapping[str, float]], which: Array) -> dict[str, Array]:
    """`terms` [] times their weights in the task that `which` [K] of the K `tasks` says, one-hot."""
    of_tasks = {k: jnp.asarray([row.get(k, 0.0) for row in tasks.values()]) for k in terms}
    return {k: (which * of_tasks[k]).sum() * v for k, v in terms.items()}
