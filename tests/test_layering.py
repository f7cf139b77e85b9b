"""Data flows one way through the rooms: walk every import and fail on an arrow that points back."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("envs", "algos", "skills", "high_level", "deploy", "experiment", "configs", "scripts")

#: Room -> what it may import of ours, beside itself and SHARED.
ALLOWED: dict[str, tuple[str, ...]] = {
    "envs": (),
    "algos": ("envs",),
    "skills": ("algos", "envs"),
    "high_level": ("skills", "algos", "envs"),
    "deploy": ("high_level", "skills", "envs"),
    "experiment": ("algos.types",),
    "configs": (),
    "scripts": ROOMS,
}
SHARED = ("errors", "__version__")

#: What -> the only paths (files or rooms) that may use it.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "hydra": ("scripts",),
    "omegaconf": ("scripts",),
    "flax.linen": ("algos/networks.py",),
    "pickle": (),
    "cloudpickle": (),
    "dill": (),
    "shelve": (),
    "jax.pmap": (),
    "torch": (),
}
#: File that must run on a robot computer -> all that it may import.
CLOSED = {"deploy/runner.py": frozenset(sys.stdlib_module_names) | {"numpy", "onnxruntime", "mujoco"}}


def _within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(f"{p}.") for p in prefixes)


def _package(path: str) -> list[str]:
    """`algos/ppo.py` -> ["repertoire", "algos"], the package that a relative import starts from."""
    parts = path.split("/")[:-1]
    return parts if parts[:1] == ["repertoire"] else ["repertoire", *parts]


def _imports(tree: ast.AST, path: str) -> Iterator[tuple[int, str, str, str]]:
    """(line, dotted name, local name, what the local name stands for) of each import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                top = a.name.split(".", 1)[0]
                yield node.lineno, a.name, a.asname or top, a.name if a.asname else top
        elif isinstance(node, ast.ImportFrom):
            package = _package(path)
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for a in node.names:
                name = module if a.name == "*" else f"{module}.{a.name}"
                yield node.lineno, name, a.asname or a.name, name
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            name = getattr(node.args[0], "value", None) if node.args else None
            if isinstance(name, str):
                yield node.lineno, name, "", ""


def _attributes(tree: ast.AST, bound: dict[str, str]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each longest chain on an imported name, such as `jax.pmap`; no aliases."""
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    inner = {id(n.value) for n in nodes}
    for node in nodes:
        root = ast.unparse(node).split(".", 1)[0]
        if id(node) not in inner and root in bound and _is_chain(node):
            yield node.lineno, bound[root] + ast.unparse(node).removeprefix(root)


def _is_chain(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_chain(node.value))


def _wrong_import(path: str, name: str) -> str | None:
    """Why `path` may not import `name`, or None."""
    room, top = path.split("/", 1)[0], name.split(".", 1)[0]
    if path in CLOSED and top not in CLOSED[path]:
        return f"may import only the standard library, numpy, onnxruntime and mujoco, not {name}"
    if top in ROOMS:
        return f"import {name} as repertoire.{name}"
    if not name.startswith("repertoire.") or room not in ALLOWED:
        return None
    fine = _within(name.removeprefix("repertoire."), (room, *ALLOWED[room], *SHARED))
    return None if fine else f"{room} may not import {name}"


def _wrong_use(path: str, name: str) -> str | None:
    """Why `path` may not use `name`, or None."""
    for what, where in ONLY_IN.items():
        if _within(name, (what,)) and not any(path == w or path.startswith(f"{w}/") for w in where):
            return f"uses {what}, allowed {'only in ' + ', '.join(where) if where else 'nowhere'}"
    return None


def violations(source: str, path: str) -> list[str]:
    """One line for each forbidden import or use in `source`, the text of `path` (relative to the root)."""

    def why(name: str) -> str | None:
        return _wrong_import(path, name) or _wrong_use(path, name)

    tree = ast.parse(source)
    imports = list(_imports(tree, path))
    bound = {local: target for _, _, local, target in imports if local and not why(target)}
    names = [(line, name) for line, name, _, _ in imports] + list(_attributes(tree, bound))
    return [f"{path}:{line}: {why(name)}" for line, name in sorted(set(names)) if why(name)]


def sources() -> list[Path]:
    """Every Python file of the rooms and of `repertoire/`."""
    return [f for room in ("repertoire", *ROOMS) for f in sorted((ROOT / room).rglob("*.py"))]


def test_imports_point_one_way() -> None:
    files = sources()
    assert len(files) > len(ROOMS)
    wrong = [v for f in files for v in violations(f.read_text(), f.relative_to(ROOT).as_posix())]
    assert not wrong, "\n" + "\n".join(wrong)


BAD = [
    ("envs/a.py", "from repertoire.algos import ppo", "envs may not import repertoire.algos.ppo"),
    ("envs/a.py", "from repertoire import algos", "envs may not import repertoire.algos"),
    ("envs/a.py", "def f():\n    import repertoire.skills.library", "envs may not import"),
    ("envs/a.py", "import repertoire\nrepertoire.algos.ppo.update()", "a.py:2: envs may not import"),
    ("envs/tasks/a.py", "from ...algos import ppo", "envs may not import repertoire.algos.ppo"),
    ("envs/a.py", "import importlib\nimportlib.import_module('repertoire.deploy')", "envs may not import"),
    ("algos/a.py", "from repertoire.skills import library", "algos may not import"),
    ("skills/a.py", "from repertoire.high_level import macro_env", "skills may not import"),
    ("deploy/a.py", "from repertoire.algos.networks import mlp", "deploy may not import"),
    ("experiment/a.py", "from repertoire.algos.trainer import train", "experiment may not import"),
    ("experiment/a.py", "from repertoire.algos import trainer", "experiment may not import"),
    ("configs/a.py", "import repertoire.envs.types", "configs may not import"),
    ("algos/a.py", "from repertoire import make_env", "algos may not import repertoire.make_env"),
    ("algos/a.py", "from envs import types", "import envs.types as repertoire.envs.types"),
    ("configs/schema.py", "from hydra.core import config_store", "uses hydra, allowed only in scripts"),
    ("experiment/a.py", "import omegaconf", "uses omegaconf"),
    ("algos/ppo.py", "from flax import linen as nn", "uses flax.linen, allowed only in algos/networks.py"),
    ("algos/ppo.py", "import flax\nflax.linen.Dense(3)", "uses flax.linen"),
    ("skills/a.py", "import pickle", "uses pickle, allowed nowhere"),
    ("algos/a.py", "import jax as j\nj.pmap(f)", "a.py:2: uses jax.pmap"),
    ("algos/a.py", "from jax import pmap", "uses jax.pmap"),
    ("deploy/runner.py", "def f():\n    import jax", "runner.py:2: may import only"),
    ("deploy/runner.py", "from repertoire.deploy import contract", "may import only"),
]


@pytest.mark.parametrize(("path", "source", "message"), BAD)
def test_the_check_sees_what_is_wrong(path: str, source: str, message: str) -> None:
    found = violations(source, path)
    assert len(found) == 1 and message in found[0], found


GOOD = [
    ("envs/a.py", "from repertoire.envs.types import Env\nfrom repertoire.errors import UserError"),
    ("envs/a.py", "from .types import Env\nfrom . import types"),
    ("skills/a.py", "from repertoire.algos import ppo\nfrom repertoire.envs import types"),
    ("experiment/a.py", "from repertoire.algos.types import Event\nfrom repertoire import __version__"),
    ("experiment/a.py", "import repertoire\nprint(repertoire.__version__)"),
    ("scripts/a.py", "import hydra\nfrom repertoire.deploy import runner"),
    ("algos/networks.py", "from flax import linen as nn\nnn.Dense(3)"),
    ("algos/a.py", "import jax\njax.vmap(f)\nself.pickle.load()\nstate.envs.reset()\nconfigs.load()"),
    ("deploy/runner.py", "import json\nimport numpy as np\nimport onnxruntime\nimport mujoco"),
]


@pytest.mark.parametrize(("path", "source"), GOOD)
def test_the_check_lets_the_rest_through(path: str, source: str) -> None:
    assert violations(source, path) == []
