"""One factor of a factored objective: which features, which latent, which objective."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from repertoire.errors import UserError, unknown, words

#: A feature slice, or a range of its entries: `position`, `joint_rates[3:4]`.
RANGE = re.compile(r"(\w+)(?:\[(\d+):(\d+)\])?")


@dataclass(frozen=True)
class Factor:
    """One factor.

    Attributes:
      name: of its channel. objective: name of its objective. features: slices, or ranges of slices, that it sees; None
        for all. prior, skills: its latent; the objective's own if None. options: further settings of the objective.
    """

    name: str
    objective: str = "metra"
    features: tuple[str, ...] | None = None
    prior: str | None = None
    skills: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Factor:
        """From a config. Raises `UserError` for what it does not know."""
        for key in row:
            if key not in (known := [f.name for f in fields(cls)]):
                raise unknown("setting of a factor", key, known)
        if not re.fullmatch(r"\w+", str(row.get("name", ""))):
            raise UserError(f"each factor needs a name of letters, digits and _, got {row.get('name')!r}")
        if (seen := row.get("features")) is not None:
            row = {**row, "features": words(f"objective.factors: features of {row['name']}", seen)}
        return cls(**row)

    def index(self, layout: Sequence[tuple[str, int]], size: int) -> np.ndarray:
        """Its indices into feature vectors [size] made of the `layout`'s (slice, size) in order. Raises `UserError`."""
        if self.features is None:
            return np.arange(size)
        if sum(n for _, n in layout) != size:
            raise UserError(f"objective.layout must list all {size} features in order: [[slice, size], ...]")
        ends = np.cumsum([n for _, n in layout])
        slices = {name: np.arange(end - n, end) for (name, n), end in zip(layout, ends, strict=True)}
        return np.concatenate([_pick(self.name, text, slices) for text in self.features])


def _pick(factor: str, text: str, slices: Mapping[str, np.ndarray]) -> np.ndarray:
    """Indices of a slice or a range of it."""
    match = RANGE.fullmatch(text)
    if not match or match[1] not in slices:
        raise unknown(f"feature slice of factor {factor}", text, slices)
    whole = slices[match[1]]
    chosen = whole[int(match[2]) : int(match[3])] if match[2] else whole
    if not len(chosen):
        raise UserError(f"factor {factor}: {text} is empty, slice {match[1]} has {len(whole)} entries")
    return chosen
