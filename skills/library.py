"""The library of frozen skills: `name@version`, a manifest, tensors, a content hash and a card per entry.

Layout: `<root>/<name>/<version>/{manifest.json, arrays.safetensors, card.md, thumbnail.png}`. Entries are written
once and never changed; loading verifies the hash and never unpickles.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from repertoire.errors import UserError, unknown
from repertoire.skills.card import card
from repertoire.skills.skill import SCHEMA, Skill

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")


def check_name(name: str) -> None:
    """Raise `UserError` for what cannot be the name of a library entry."""
    if not _NAME.match(name):
        raise UserError(f"skill name {name!r}: use letters, digits, '-', '_' and '.' only, and a letter or digit first")


class _Taken(Exception):
    """Another process has stored an entry of this version."""


class Library:
    """Versioned store of frozen skills under one directory."""

    def __init__(self, root: str | os.PathLike[str] = "library") -> None:
        self.root = Path(root)

    def check_place(self) -> None:
        """Raise `UserError` where no folder is or can be made."""
        there = next(p for p in (self.root, *self.root.absolute().parents) if p.exists())
        if not there.is_dir():
            raise UserError(f"the library {self.root} cannot be: {there} is a file; set library=DIR")

    def add(self, skill: Skill, thumbnail: Path | None = None) -> str:
        """Store `skill` as the next version of its name and return `name@version`.

        The same content under the same name is not stored twice: its existing version is returned.
        """
        check_name(skill.name)
        digest, versions = skill.digest(), self.versions(skill.name)
        for version in versions:
            if self._manifest(skill.name, version)["digest"] == digest:
                return f"{skill.name}@{version}"
        for version in itertools.count((versions[-1] if versions else 0) + 1):
            manifest = {**skill.manifest, "version": version, "digest": digest}
            with contextlib.suppress(_Taken):  # by a run that ended at the same moment
                self._write(self.root / skill.name / str(version), manifest, skill, thumbnail)
                break
        return f"{skill.name}@{version}"

    def load(self, reference: str) -> Skill:
        """Skill by `name` (newest version) or `name@version`, verified against its hash."""
        name, version = self.resolve(reference)
        folder = self.root / name / str(version)
        try:
            arrays = load_file(folder / "arrays.safetensors")
        except (OSError, SafetensorError) as error:
            raise UserError(f"skill {name}@{version} cannot be read ({error}); freeze it again from its run") from error
        manifest = self._manifest(name, version)
        skill = Skill(manifest=manifest, arrays=arrays)
        if skill.digest() != manifest["digest"]:
            raise UserError(
                f"skill {name}@{version} was changed after it was frozen (content hash differs); freeze it again"
            )
        return skill

    def resolve(self, reference: str) -> tuple[str, int]:
        """(name, version) that a reference stands for. Raises `UserError` with the nearest name or the versions."""
        name, _, version = str(reference).partition("@")
        if name not in (names := self.names()):
            if not names:
                raise UserError(f"no skill {name!r}: the library {self.root} is empty; run `repertoire train-skills`")
            raise unknown("skill", name, names)
        versions = self.versions(name)
        if not version:
            return name, versions[-1]
        if not version.isdigit() or int(version) not in versions:
            raise UserError(f"skill {name} has no version {version!r}; it has {', '.join(map(str, versions))}")
        return name, int(version)

    def names(self) -> list[str]:
        """Names in the library, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if p.is_dir() and self.versions(p.name))

    def versions(self, name: str) -> list[int]:
        """Versions of a name, oldest first."""
        folder = self.root / name
        if not folder.is_dir():
            return []
        return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit() and (p / "manifest.json").exists())

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Manifests of all entries."""
        return (self._manifest(name, version) for name in self.names() for version in self.versions(name))

    def path(self, reference: str) -> Path:
        """Folder of an entry."""
        name, version = self.resolve(reference)
        return self.root / name / str(version)

    def _manifest(self, name: str, version: int) -> dict[str, Any]:
        path = self.root / name / str(version) / "manifest.json"
        try:
            manifest = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"manifest of skill {name}@{version} cannot be read; freeze it again") from error
        if manifest.get("schema") != SCHEMA:
            raise UserError(f"skill {name}@{version} has schema {manifest.get('schema')}, this version reads {SCHEMA}")
        return dict(manifest)

    def _write(self, folder: Path, manifest: dict[str, Any], skill: Skill, thumbnail: Path | None) -> None:
        """Write beside the place and rename: an entry is there whole or not at all."""
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        except OSError as error:
            raise UserError(f"cannot write to the library {self.root}: {error.strerror}; set library=DIR") from error
        try:
            (staging / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
            save_file({k: np.ascontiguousarray(v) for k, v in skill.arrays.items()}, staging / "arrays.safetensors")
            if thumbnail is not None:
                shutil.copyfile(thumbnail, staging / "thumbnail.png")
            (staging / "card.md").write_text(card(manifest, thumbnail is not None))
            staging.chmod(0o755)
            staging.rename(folder)
        except OSError as error:
            shutil.rmtree(staging, ignore_errors=True)
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise _Taken from error
            raise UserError(f"cannot write to the library {self.root}: {error.strerror or error}") from error
