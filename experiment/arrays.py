"""Named arrays in one safetensors file: frozen parameters, recorded motion."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from repertoire.errors import UserError
from repertoire.experiment.files import guard_writes


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> Path:
    """Write named arrays to one safetensors file, atomically. Raises `UserError` on a full or read-only disk."""
    from safetensors.numpy import save as to_bytes

    path = Path(path)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with guard_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp.write_bytes(to_bytes({k: np.ascontiguousarray(v).reshape(np.shape(v)) for k, v in arrays.items()}))
        os.replace(tmp, path)
    return path


def load_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a safetensors file. Raises `UserError` when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not Path(path).exists():
        raise UserError(f"{path} does not exist")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
