"""Per-world model fields (domain randomisation): which names and shapes a backend accepts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import mujoco
import numpy as np

from repertoire.errors import UserError, unknown


def check(model: mujoco.MjModel, overrides: Mapping[str, Any], known: Iterable[str], backend: str) -> None:
    """`UserError` unless every name is a field that `backend` can vary and every value has the field's shape.

    Values may be tracers: only shapes are read. Option fields are named `opt.<field>`.
    """
    known = frozenset(known)
    for name, value in overrides.items():
        if name not in known:
            raise unknown(f"model field for physics={backend}", name, known)
        shape = np.shape(getattr(model.opt, name[4:]) if name.startswith("opt.") else getattr(model, name))
        if np.shape(value) != shape:
            raise UserError(f"override of {name} has shape {np.shape(value)}, the model has {shape}")
