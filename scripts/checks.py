"""Settings that every run has, checked before anything is made or compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repertoire.errors import UserError, at_least, typed, unknown
from repertoire.experiment import trackers
from repertoire.skills.library import Library, check_name

#: Whole numbers and the least that each may be.
LEAST = {"seed": 0, "num_seeds": 1, "checkpoint_every": 0, "eval_every": 0}
PRECISIONS = ("default", "high", "highest")


def _held(library: Library) -> str:
    names = library.names()
    return f"{library.root} holds {', '.join(names)}" if names else f"{library.root} is empty: run `train-skills`"


def settings(config: Mapping[str, Any]) -> None:
    """Raise `UserError` for the first number of `config` that cannot be; settings that it lacks are passed."""
    for name, least in LEAST.items():
        if name in config:
            at_least(name, typed(name, config[name], int), least)
    steps = config.get("total_steps", 1)
    if isinstance(steps, bool) or not isinstance(steps, int | float) or steps != int(steps):
        raise UserError(f"total_steps must be a whole number, got {steps!r}")
    if (precision := str(config.get("matmul_precision", "highest"))) not in PRECISIONS:
        raise unknown("matmul_precision", precision, PRECISIONS)


def run(config: Mapping[str, Any]) -> None:
    """`settings`, and what only matters to a run that is to be trained: names, places, trackers, whether skills."""
    settings(config)
    if "video" in config:
        typed("video", config["video"], bool)
    if config.get("name") is not None:
        check_name(typed("name", config["name"], str))
    if config.get("library") is not None:
        Library(typed("library", config["library"], str)).check_place()
    if "controller" in config and not config["skills"]:
        raise UserError(f"a controller needs skills: give skills=[...]; {_held(Library(config['library']))}")
    if "logging" in config:
        typed("logging.quiet", config["logging"]["quiet"], bool)
        trackers.check(config["logging"]["trackers"])
