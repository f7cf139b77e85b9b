"""The wheel holds the tree, under one import name, and importing it is cheap."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("envs", "algos", "skills", "high_level", "deploy", "experiment", "configs", "scripts")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "MUJOCO_LOG.TXT")


def _python(code: str, **env: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd="/", env={**os.environ, **env}
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged, so that a build leaves nothing in the checkout and finds nothing stale."""
    copy = tmp_path_factory.mktemp("source")
    for room in ("repertoire", *ROOMS):
        shutil.copytree(ROOT / room, copy / room, ignore=IGNORED)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built offline with the setuptools of this environment."""
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    run = subprocess.run([*command, "-w", str(out), str(source)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (built,) = out.glob("*.whl")
    return zipfile.ZipFile(built)


def _metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = [n for n in wheel.namelist() if n.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def test_wheel_holds_exactly_the_tree(source: Path, wheel: zipfile.ZipFile) -> None:
    files = [f.relative_to(source) for room in ("repertoire", *ROOMS) for f in (source / room).rglob("*")]
    tree = [f for f in files if (source / f).is_file() and f.suffix != ".md"]
    expected = {(f if f.parts[0] == "repertoire" else "repertoire" / f).as_posix() for f in tree}
    packed = {n for n in wheel.namelist() if ".dist-info/" not in n and not n.endswith("/")}
    assert expected - packed == set(), "missing from the wheel; list it in pyproject.toml's packages or package-data"
    assert packed - expected == set(), "in the wheel but not in the tree"
    assert {"repertoire/py.typed", "repertoire/__init__.py"} <= packed


def test_wheel_claims_one_import_name(wheel: zipfile.ZipFile) -> None:
    tops = {n.split("/", 1)[0] for n in wheel.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"repertoire"}


def test_wheel_metadata(wheel: zipfile.ZipFile) -> None:
    from repertoire import __version__

    entry = configparser.ConfigParser()
    entry.read_string(_metadata(wheel, "entry_points.txt"))
    assert dict(entry["console_scripts"]) == {"repertoire": "repertoire.scripts.cli:main"}
    metadata = _metadata(wheel, "METADATA")
    assert re.search(r"^Name: repertoire-rl$", metadata, re.M)
    assert re.search(rf"^Version: {re.escape(__version__)}$", metadata, re.M)
    assert re.search(r"^License-Expression: Apache-2.0$", metadata, re.M)


def test_wheel_imports_away_from_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = "import repertoire; print(repertoire.__file__, repertoire.configs.__file__)"
    found = _python(code, PYTHONPATH=str(tmp_path)).split()
    assert found == [str(tmp_path / "repertoire" / p) for p in ("__init__.py", "configs/__init__.py")]


def test_import_is_cheap() -> None:
    heavy = ["jax", "flax", "mujoco", "brax", "hydra", "matplotlib", "orbax", "onnxruntime", "scipy"]
    assert _python(f"import sys, repertoire; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_public_names_are_listed_and_unknown_ones_refused() -> None:
    import repertoire

    assert {"make_env", "Skill", "Library", *ROOMS} <= set(dir(repertoire))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        repertoire.nonsense  # noqa: B018


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    """Canonical name -> version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [p for p in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", p)] == []
    return {canonicalize_name(name): version for name, version in (p.split("==") for p in pins)}


def test_constraints_satisfy_the_declared_ranges(constraints: dict[str, str]) -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + extras["export"] + extras["slurm"] + extras["dev"]
    for requirement in map(Requirement, wanted):
        version = constraints.get(canonicalize_name(requirement.name))
        assert version and requirement.specifier.contains(version), f"{requirement}, constraints: {version}"


def test_no_second_tensor_library(constraints: dict[str, str]) -> None:
    assert not {"torch", "tensorflow", "tensorflow-cpu", "keras"} & set(constraints)
