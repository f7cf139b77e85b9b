"""Small files, written whole or not at all, and write errors that say what to do."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from repertoire.errors import UserError

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL_TEXT = ("no space left", "disk quota exceeded")
_DENIED_TEXT = ("permission denied", "read-only file system")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException) -> str | None:
    """What stopped a write, in words, or None when it was not the file system."""
    for e in _chain(error):
        code, text = getattr(e, "errno", None), str(e).lower()
        if code in _FULL or any(t in text for t in _FULL_TEXT):
            return "the disk is full: free some space, then run the same command again to continue"
        if code in _DENIED or any(t in text for t in _DENIED_TEXT):
            return "no permission to write there: choose another run_dir= or change the permissions"
        if code in (errno.ENOTDIR, errno.EEXIST):
            return "a file is in the way: choose another run_dir="
    if isinstance(error, FileNotFoundError):  # itself, not a cause: libraries look for files that need not be
        return "no folder is or can be made there: choose another run_dir="
    return None


@contextmanager
def guard_writes(target: str | os.PathLike[str]) -> Iterator[None]:
    """Turn a full disk, a read-only place or a missing permission into one line.

    Also looks through the causes of library exceptions, because orbax wraps such errors in its own.

    Raises:
      UserError: the write to `target` failed for one of those reasons. Other exceptions pass unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise UserError(f"cannot write {target}: {reason}") from error


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` (UTF-8) to `path` atomically: readers see the old file or the new one, never a part.

    Raises:
      UserError: disk full, read-only or no permission.
    """
    path = Path(path)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with guard_writes(path):
        try:
            with open(tmp, "w", encoding="utf-8") as f:
                f.write(text)
                f.flush()
                os.fsync(f.fileno())
            os.replace(tmp, path)
        except BaseException:
            with suppress(OSError):
                tmp.unlink()
            raise
    return path


def plain(value: Any) -> Any:
    """`value` as strict JSON types: arrays become lists, numpy scalars Python numbers, NaN and infinities None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # numpy and jax arrays and scalars
        return plain(value.tolist())
    return str(value)


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write `value` as strict JSON, atomically. Raises `UserError` as `write_text` does."""
    return write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Parse a JSON file.

    Raises:
      UserError: the file is missing or is not valid JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it from a copy or use another run_dir=") from None
