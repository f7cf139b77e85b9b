"""Checkpoints of a whole pytree: bit-exact, atomic, checked by a digest; orbax stores the arrays, nothing is pickled.

`<directory>/step_<12 digits>/` holds `arrays/` (orbax, keyed by leaf number) and `index.json` (name, shape, dtype of
every leaf and a SHA-256 of all bytes). The folder gets its name only when complete.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from repertoire.errors import UserError
from repertoire.experiment.arrays import load_arrays, save_arrays
from repertoire.experiment.files import guard_writes, read_json, write_json

__all__ = ["load_arrays", "restore", "restore_latest", "save", "save_arrays", "steps"]

T = TypeVar("T")
_STEP = re.compile(r"step_(\d{12})")


@dataclass(frozen=True)
class _Leaf:
    """A leaf on its way to disk: `key` names the PRNG implementation of a typed key, else it is None."""

    name: str
    value: np.ndarray
    key: str | None

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "shape": list(self.value.shape), "dtype": str(self.value.dtype), "key": self.key}


def _is_key(leaf: Any) -> bool:
    import jax

    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def _named(tree: Any) -> list[tuple[str, Any]]:
    import jax

    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _to_host(name: str, leaf: Any) -> _Leaf:
    import jax

    key = str(jax.random.key_impl(leaf)) if _is_key(leaf) else None
    value = np.asarray(jax.device_get(jax.random.key_data(leaf) if key else leaf))
    if value.dtype.kind in "OUS":
        raise UserError(f"cannot checkpoint {name}: {type(leaf).__name__} is not an array; make it a static field")
    return _Leaf(name, np.ascontiguousarray(value).reshape(value.shape), key)


def _digest(values: list[np.ndarray]) -> str:
    sha = hashlib.sha256()
    for value in values:
        sha.update(f"{value.dtype}{value.shape}".encode())
        sha.update(value.tobytes())
    return sha.hexdigest()


def steps(directory: str | os.PathLike[str]) -> list[int]:
    """Steps of the complete checkpoints in `directory`, ascending; [] when there is none."""
    path = Path(directory)
    names = [_STEP.fullmatch(p.name) for p in path.iterdir()] if path.is_dir() else []
    return sorted(int(m[1]) for m in names if m)


def _folder(directory: Path, step: int) -> Path:
    return directory / f"step_{step:012d}"


def save(directory: str | os.PathLike[str], step: int, tree: Any, *, keep: int = 3) -> Path:
    """Write `tree` as the checkpoint of `step` and drop all but the newest `keep`.

    A kill at any moment leaves the earlier checkpoints and at most a hidden folder, removed by the next save.

    Args:
      step: non-negative, the update (or env step) that the state has reached; an existing one is replaced.
      tree: any pytree of arrays, numbers and typed PRNG keys.

    Raises:
      UserError: disk full, read-only, or a leaf that is no array.
    """
    directory = Path(directory).absolute()
    leaves = [_to_host(name, leaf) for name, leaf in _named(tree)]
    final, tmp = _folder(directory, step), directory / f".tmp_{step}_{os.getpid()}"
    with guard_writes(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for stale in directory.glob(".tmp_*"):
            shutil.rmtree(stale, ignore_errors=True)
        try:
            tmp.mkdir()
            _write(tmp, step, leaves)
            if final.exists():
                os.rename(final, directory / f".tmp_old_{step}")
            os.rename(tmp, final)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
    _prune(directory, step, keep)
    return final


def _write(folder: Path, step: int, leaves: list[_Leaf]) -> None:
    import orbax.checkpoint as ocp

    # Orbax refuses arrays without elements; the index alone describes those.
    arrays = {f"{i:06d}": leaf.value for i, leaf in enumerate(leaves) if leaf.value.size}
    if arrays:
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(folder / "arrays", arrays)
    digest = _digest([leaf.value for leaf in leaves])
    write_json(folder / "index.json", {"step": step, "sha256": digest, "leaves": [leaf.record() for leaf in leaves]})


def _prune(directory: Path, newest: int, keep: int) -> None:
    """Keep `keep` up to `newest`. Later ones belong to a history that was given up when an older one was resumed."""
    past = [s for s in steps(directory) if s <= newest][-max(keep, 1) :]
    for old in set(steps(directory)) - set(past):
        shutil.rmtree(_folder(directory, old), ignore_errors=True)
    for stale in directory.glob(".tmp_*"):
        shutil.rmtree(stale, ignore_errors=True)


def restore_latest(
    directory: str | os.PathLike[str], template: T, *, warn: Callable[[str], None] = warnings.warn
) -> tuple[int, T] | None:
    """Newest intact checkpoint as (step, tree), or None when there is none.

    Args:
      template: a pytree like the saved one (or its `jax.eval_shape`); gives structure, static fields and shardings.
      warn: called with one line for every damaged checkpoint that is passed over.

    Raises:
      UserError: the checkpoint does not fit `template` (names the leaf), or all checkpoints are damaged.
    """
    found = steps(directory)
    for step in reversed(found):
        try:
            saved = _read(_folder(Path(directory).absolute(), step))
        except Exception as error:  # whatever damage does to the reader
            warn(f"checkpoint {step} in {directory} is damaged ({_line(error)}): trying the one before")
            continue
        return step, _fit(saved, template, f"checkpoint {step} in {directory}")
    if found:
        raise UserError(f"every checkpoint in {directory} is damaged: use another run_dir= to start again")
    return None


def restore(directory: str | os.PathLike[str], step: int, template: T) -> T:
    """The checkpoint of exactly `step`. Raises `UserError` when it is missing, damaged or does not fit."""
    if step not in steps(directory):
        raise UserError(f"no checkpoint {step} in {directory}: there is {steps(directory) or 'none'}")
    try:
        saved = _read(_folder(Path(directory).absolute(), step))
    except Exception as error:
        raise UserError(f"checkpoint {step} in {directory} is damaged: {_line(error)}") from error
    return _fit(saved, template, f"checkpoint {step} in {directory}")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _read(folder: Path) -> list[_Leaf]:
    """Leaves of one checkpoint; any exception means damage."""
    import orbax.checkpoint as ocp

    index = read_json(folder / "index.json")
    full = [f"{i:06d}" for i, r in enumerate(index["leaves"]) if 0 not in r["shape"]]
    arrays: Mapping[str, np.ndarray] = {}
    if full:
        with ocp.PyTreeCheckpointer() as checkpointer:
            as_numpy = {k: ocp.RestoreArgs(restore_type=np.ndarray) for k in full}
            arrays = checkpointer.restore(folder / "arrays", restore_args=as_numpy)
    leaves = []
    for i, r in enumerate(index["leaves"]):
        value = arrays[f"{i:06d}"] if 0 not in r["shape"] else np.zeros(r["shape"], r["dtype"])
        leaves.append(_Leaf(r["name"], np.asarray(value), r["key"]))
    if _digest([leaf.value for leaf in leaves]) != index["sha256"]:
        raise ValueError("its content does not match its digest")
    return leaves


def _fit(saved: list[_Leaf], template: T, where: str) -> T:
    """`saved` in the structure, containers and placement of `template`; leaves of `LATER` may lack."""
    import jax

    from repertoire.algos.types import LATER

    wanted = _named(template)
    have = {leaf.name: leaf for leaf in saved}
    new = {n: np.zeros(like.shape, like.dtype) for n, like in wanted if n not in have and n.endswith(LATER)}
    have |= {name: _Leaf(name, zeros, None) for name, zeros in new.items()}
    missing = [name for name, _ in wanted if name not in have]
    extra = sorted(set(have) - {name for name, _ in wanted})
    hint = "the config or the code changed; use another run_dir="
    if missing or extra:
        text = f"lacks {missing[0]}" if missing else f"has {extra[0]}, which this run does not"
        raise UserError(f"{where} {text}: {hint}")
    values = [_place(have[name], like, where, hint) for name, like in wanted]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(template), values)


def _place(leaf: _Leaf, like: Any, where: str, hint: str) -> Any:
    import jax

    if isinstance(like, (bool, int, float)):
        return type(like)(leaf.value.item()) if leaf.value.ndim == 0 else _misfit(leaf, like, where, hint)
    value: Any = jax.random.wrap_key_data(jax.numpy.asarray(leaf.value), impl=leaf.key) if leaf.key else leaf.value
    if tuple(value.shape) != tuple(like.shape) or value.dtype != like.dtype:
        _misfit(leaf, like, where, hint)
    if isinstance(like, np.generic):
        return value[()]
    if isinstance(like, np.ndarray):
        return value
    committed = getattr(like, "committed", False) or isinstance(like, jax.ShapeDtypeStruct)
    return jax.device_put(value, like.sharding if committed else None)


def _misfit(leaf: _Leaf, like: Any, where: str, hint: str) -> None:
    shape, dtype = (tuple(like.shape), like.dtype) if hasattr(like, "shape") else ((), type(like).__name__)
    kind = f"key<{leaf.key}>" if leaf.key else leaf.value.dtype
    raise UserError(f"{where}: {leaf.name} is {kind}{list(leaf.value.shape)}, wanted {dtype}{list(shape)}: {hint}")
