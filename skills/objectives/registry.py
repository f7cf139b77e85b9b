"""Names of all objectives, and how to make one."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from repertoire.errors import unknown
from repertoire.skills.latent import make_prior
from repertoire.skills.objectives.diayn import Diayn
from repertoire.skills.objectives.metric import Csd, Lsd, Metra

#: Objective name -> class; the defaults of its fields are its settings.
OBJECTIVES: dict[str, Any] = {cls.name: cls for cls in (Diayn, Metra, Lsd, Csd)}


def make(name: str, *, prior: str | None = None, skills: int | None = None, hold: int = 0, **options: Any) -> Any:
    """Objective by name.

    Args:
      name: key of `OBJECTIVES`. prior: latent prior (`sphere`, `gaussian`, `one_hot`); the objective's own if None.
      skills: latent size (number of skills where discrete). hold: steps until a latent is redrawn, 0 per episode.
      **options: fields of the objective's dataclass.
    """
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    cls = OBJECTIVES[name]
    fields = {f.name for f in dataclasses.fields(cls)} - {"prior"}
    for key in options:
        if key not in fields:
            raise unknown(f"option of objective {name}", key, {*fields, "prior", "skills", "hold"})
    default = cls().prior
    latent = make_prior(prior or default.kind, default.size if skills is None else skills, hold)
    return cls(prior=latent, **options)


def describe() -> list[dict[str, Any]]:
    """One row per objective: name, first docstring line, options with defaults."""
    rows = []
    for name, cls in OBJECTIVES.items():
        prior = cls().prior
        options = {f.name: getattr(cls(), f.name) for f in dataclasses.fields(cls) if f.name != "prior"}
        options |= {"prior": prior.kind, "skills": prior.size, "hold": prior.hold}
        doc = (sys.modules[cls.__module__].__doc__ or "").splitlines()[0]
        rows.append({"name": name, "doc": doc, "options": options})
    return rows
