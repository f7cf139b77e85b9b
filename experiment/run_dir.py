"""The run directory: one folder per run, made once, resumed by the same command, opened by every later verb."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from repertoire.errors import UserError, unknown
from repertoire.experiment import manifest as _manifest
from repertoire.experiment.files import guard_writes, plain, read_json, write_json, write_text

KINDS = ("train", "train-skills", "train-controller", "imitate")
#: Dotted config names (and everything below them) that may differ when a run is resumed.
MUTABLE = ("run_dir", "total_steps", "updates", "logging")
#: Dotted names of settings by name whose order is meaning: of one-hot entries, slices, reward channels, weights.
ORDERED = ("env.tasks", "env.smooth", "channels", "controller.groups")
_OURS = {"config.json", "git.diff", ".lock"}  # what a start killed before its manifest may leave behind
_LOGS = {"checkpoints", "metrics.jsonl", "tensorboard"}  # say nothing before the first update


@dataclass
class RunDir:
    """A run on disk.

    Attributes:
      path: the folder. kind: one of `KINDS`. config: resolved config. manifest: see `manifest.make_manifest`.
      resumed: True when the folder existed before this process.
    """

    path: Path
    kind: str
    config: dict[str, Any]
    manifest: dict[str, Any]
    resumed: bool = False

    @classmethod
    def create_or_resume(
        cls, path: str | os.PathLike[str], *, kind: str, config: dict[str, Any], mutable: Sequence[str] = MUTABLE
    ) -> RunDir:
        """Make the run at `path`, or resume it when it exists with the same kind and config.

        Where it exists with others but was never trained, it starts over, which is printed.

        Args:
          path: folder of the run. kind: one of `KINDS`. config: resolved config, nested plain values.
          mutable: dotted names whose subtree may change on resume, such as total steps and logging.

        Raises:
          UserError: unknown kind, another kind or config on disk, damaged files, a folder that is no run,
            another process writing to it, read-only place, full disk.
        """
        if kind not in KINDS:
            raise unknown("run kind", kind, KINDS)
        path = Path(path)
        with guard_writes(path):
            path.mkdir(parents=True, exist_ok=True)
        _take_lock(path)
        try:
            make = _resume if (path / "manifest.json").exists() else _create
            return make(path, kind, plain(config), mutable)
        except BaseException:
            _free_lock(path)
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str], root: str | os.PathLike[str] = "runs") -> RunDir:
        """Open a run for reading; "latest" means the newest run under `root`.

        Raises:
          UserError: no such folder (names the nearest), not a run, or damaged files.
        """
        path = latest(root) if str(path) == "latest" else Path(path)
        if not path.is_dir():
            raise UserError(f"there is no run at {path}{_nearest(path)}")
        if not (path / "manifest.json").exists():
            raise UserError(f"{path} is not a run: it has no manifest.json")
        loaded = _read_manifest(path)
        return cls(path, loaded["kind"], read_json(path / "config.json"), loaded, resumed=True)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.resolve().name

    @property
    def checkpoints(self) -> Path:
        """Folder for `checkpoints.save`."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The `metrics.jsonl` file."""
        return self.path / "metrics.jsonl"

    @property
    def plots(self) -> Path:
        """Folder of PNG plots that the report picks up."""
        return self.path / "plots"

    @property
    def videos(self) -> Path:
        """Folder of mp4 videos that the report picks up."""
        return self.path / "videos"

    @property
    def is_done(self) -> bool:
        """True once `mark_done` was called and not cleared."""
        return (self.path / "done.json").exists()

    def mark_done(self, **info: Any) -> None:
        """Leave the marker of a finished run, with `info` (for instance update=, env_steps=) inside."""
        write_json(self.path / "done.json", info)

    def clear_done(self) -> None:
        """Remove the marker, for a finished run that is resumed for more steps."""
        with guard_writes(self.path):
            (self.path / "done.json").unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process write to the run."""
        _free_lock(self.path)


def _create(path: Path, kind: str, config: dict[str, Any], mutable: Sequence[str]) -> RunDir:
    del mutable
    foreign = [f.name for f in path.iterdir() if f.name not in _OURS and not f.name.endswith(".tmp")]
    if foreign:
        raise UserError(f"{path} exists and is not a run (it holds {sorted(foreign)[0]}): use another run_dir=")
    return _write(path, kind, config)


def _write(path: Path, kind: str, config: dict[str, Any]) -> RunDir:
    git, diff = _manifest.git_state()
    if diff:
        write_text(path / "git.diff", diff)
    write_json(path / "config.json", config)
    made = plain(_manifest.make_manifest(kind, git))
    write_json(path / "manifest.json", made)  # last: a folder without it is not a run yet
    return RunDir(path, kind, config, made)


def _resume(path: Path, kind: str, config: dict[str, Any], mutable: Sequence[str]) -> RunDir:
    loaded, old = _read_manifest(path), read_json(path / "config.json")
    difference = first_difference(old, config, mutable)
    if (difference or loaded["kind"] != kind) and untrained(path):
        return _start_over(path, kind, config)
    if loaded["kind"] != kind:
        raise UserError(f"{path} holds a {loaded['kind']!r} run, not {kind!r}: use another run_dir=")
    if difference:
        key, was, now = difference
        raise UserError(f"{path} was made with {key}={was}, now {key}={now}: use another run_dir= or the old value")
    if old != config:
        write_json(path / "config.json", config)
    loaded.setdefault("sessions", []).append(plain(_manifest.session(_manifest.git_state()[0])))
    write_json(path / "manifest.json", loaded)
    return RunDir(path, kind, config, loaded, resumed=True)


def untrained(path: str | os.PathLike[str]) -> bool:
    """Whether the run at `path` holds its settings alone: no checkpoint, no metrics, no result of any kind."""
    left = [f for f in Path(path).iterdir() if f.name not in (*_OURS, "manifest.json") and f.suffix != ".tmp"]
    metrics, saved = Path(path) / "metrics.jsonl", Path(path) / "checkpoints"
    if any(f.name not in _LOGS for f in left) or any(f.is_file() for f in saved.rglob("*")):
        return False
    return not metrics.exists() or not metrics.stat().st_size


def _start_over(path: Path, kind: str, config: dict[str, Any]) -> RunDir:
    print(f"note: {path} was never trained: it starts over with the settings of this command")
    with guard_writes(path):
        for name in ("manifest.json", "git.diff"):  # first the manifest: a folder without it is not a run
            (path / name).unlink(missing_ok=True)
    return _write(path, kind, config)


def _read_manifest(path: Path) -> dict[str, Any]:
    loaded = read_json(path / "manifest.json")
    if not isinstance(loaded, dict) or "kind" not in loaded:
        raise UserError(f"{path}/manifest.json is not a run manifest: use another run_dir=")
    if loaded.get("schema", 0) > _manifest.SCHEMA:
        raise UserError(f"{path} was written by a newer repertoire ({loaded.get('repertoire')}): upgrade to read it")
    return loaded


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every leaf of a nested dict, in order; an empty dict is a leaf below the top."""
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, config


def first_difference(old: Any, new: Any, mutable: Sequence[str] = ()) -> tuple[str, Any, Any] | None:
    """(dotted name, old value, new value) of the first leaf that differs outside `mutable`, else None.

    Where no leaf does, of the first of `ORDERED` whose entries come in another order; the values are their names.
    """

    def free(key: str) -> bool:
        return any(key == m or key.startswith(m + ".") for m in mutable)

    was, now = dict(flatten(old)), dict(flatten(new))
    for key in {**now, **was}:
        if not free(key) and was.get(key, "(unset)") != now.get(key, "(unset)"):
            return key, was.get(key, "(unset)"), now.get(key, "(unset)")
    orders = ((key, _order(old, key), _order(new, key)) for key in ORDERED if not free(key))
    return next(((key, a, b) for key, a, b in orders if a != b), None)


def _order(config: Any, name: str) -> list[str]:
    """Names of the entries of the setting `name`, in order; none where it holds no settings by name."""
    for part in name.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return list(config) if isinstance(config, dict) else []


_LOCKS: dict[Path, IO[str]] = {}  # held by this process, which may itself come back to a run


def _take_lock(path: Path) -> None:
    """Hold `path`/.lock until `_free_lock` or the end of the process. File systems without locks are let through."""
    if path.resolve() in _LOCKS:
        return
    with guard_writes(path):
        file = open(path / ".lock", "a")  # noqa: SIM115 - held on purpose
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"another process is writing to {path}: wait for it or use another run_dir=") from None
    except (ImportError, OSError):
        pass
    _LOCKS[path.resolve()] = file


def _free_lock(path: Path) -> None:
    file = _LOCKS.pop(path.resolve(), None)
    if file is not None:
        file.close()


def _nearest(path: Path) -> str:
    siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.5)
    return f": did you mean {path.parent / near[0]}?" if near else ""


def runs(root: str | os.PathLike[str] = "runs", kind: str | None = None) -> list[Path]:
    """Run folders up to three levels under `root` (multi-run layouts), oldest start first; of one `kind` if given."""
    found = []
    for depth in ("*", "*/*", "*/*/*"):
        for file in Path(root).glob(f"{depth}/manifest.json"):
            try:
                loaded = _read_manifest(file.parent)
            except UserError:
                continue
            if kind in (None, loaded["kind"]):
                found.append((file.stat().st_mtime_ns, file.parent))
    return [path for _, path in sorted(found)]


def latest(root: str | os.PathLike[str] = "runs", kind: str | None = None) -> Path:
    """Newest run under `root`. Raises `UserError` when there is none."""
    found = runs(root, kind)
    if not found:
        raise UserError(f"there is no {kind + ' ' if kind else ''}run under {root} yet: train one or give run=PATH")
    return found[-1]
