"""Names of all objectives, and how to make one."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from repertoire.errors import unknown
from repertoire.skills.latent import make_prior
from repertoire.skills.objectives.contrastive import Becl, Cic, Csf
from repertoire.skills.objectives.diayn import Diayn
from repertoire.skills.objectives.dynamics import Dads, Lpe
from repertoire.skills.objectives.entropy import Aps, Knn
from repertoire.skills.objectives.factored import Factored
from repertoire.skills.objectives.gate import Smerl
from repertoire.skills.objectives.metric import Csd, Lsd, Metra
from repertoire.skills.objectives.novelty import Rnd

_PLAIN = (Diayn, Dads, Lpe, Metra, Lsd, Csd, Csf, Cic, Becl, Aps, Rnd, Knn)
#: Objective name -> class; the defaults of its fields are its settings.
OBJECTIVES: dict[str, Any] = {cls.name: cls for cls in (*_PLAIN, Smerl, Factored)}


def make(name: str, *, prior: str | None = None, skills: int | None = None, hold: int = 0, **options: Any) -> Any:
    """Objective by name.

    Args:
      name: key of `OBJECTIVES`. prior: latent prior (`sphere`, `gaussian`, `one_hot`); the objective's own if None.
      skills: latent size (number of skills where discrete). hold: steps until a latent is redrawn, 0 per episode.
      **options: fields of the objective's dataclass; lists become tuples.
    """
    known = fields(name)
    for key in options:
        if key not in known:
            raise unknown(f"option of objective {name}", key, {*known, "skills", "hold"})
    cls = OBJECTIVES[name]
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    wanted = cls(**options).prior.describe() | {"hold": hold}
    wanted |= {k: v for k, v in (("kind", prior), ("size", skills)) if v is not None}
    return cls(prior=make_prior(**wanted), **options)


def fields(name: str) -> set[str]:
    """Settings of an objective: the fields of its class. Raises `UserError` for an unknown name."""
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return {f.name for f in dataclasses.fields(OBJECTIVES[name])}


def hints(name: str) -> dict[str, Any]:
    """Types of the settings of an objective but its prior."""
    known = typing.get_type_hints(OBJECTIVES[name])
    return {k: known[k] for k in fields(name) - {"prior"}}


def describe() -> list[dict[str, Any]]:
    """One row per objective: name, first docstring line, options with defaults."""
    rows = []
    for name, cls in OBJECTIVES.items():
        prior = cls().prior
        options = {f.name: getattr(cls(), f.name) for f in dataclasses.fields(cls) if f.name != "prior"}
        options |= {"prior": prior.kind, "skills": prior.size, "hold": prior.hold}
        rows.append({"name": name, "doc": (cls.__doc__ or "").splitlines()[0], "options": options})
    return rows
