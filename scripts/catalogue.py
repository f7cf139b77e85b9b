"""`envs`, `objectives`, `skills`: what there is, as tables or JSON."""

from __future__ import annotations

import json
from typing import Any

from repertoire.errors import UserError
from repertoire.scripts import plugins


def main(verb: str, args: list[str]) -> None:
    """Entry of the three verbs."""
    as_json = "--json" in args
    words = [a for a in args if a != "--json"]
    if any(a in ("-h", "--help") for a in words):
        print(
            f"repertoire {verb} [NAME] [--json]" + ("   (skills: list | show NAME, library=DIR)" * (verb == "skills"))
        )
        return
    plugins.load()
    rows = {"envs": _envs, "objectives": _objectives, "skills": _skills}[verb](words)
    if as_json:
        print(json.dumps(rows, indent=2, default=str))
    elif isinstance(rows, str):
        print(rows)
    else:
        _table(verb, rows)


def _envs(words: list[str]) -> list[dict[str, Any]]:
    from repertoire.envs import registry

    return registry.describe(words[0] if words else None)


def _objectives(words: list[str]) -> list[dict[str, Any]]:
    from repertoire.errors import unknown
    from repertoire.skills.objectives import registry

    rows = registry.describe()
    if words and words[0] not in {r["name"] for r in rows}:
        raise unknown("objective", words[0], [r["name"] for r in rows])
    return [r for r in rows if not words or r["name"] == words[0]]


def _skills(words: list[str]) -> Any:
    from repertoire.skills.library import Library

    root = next((w.split("=", 1)[1] for w in words if w.startswith("library=")), "library")
    store, rest = Library(root), [w for w in words if not w.startswith("library=") and w != "list"]
    if not rest:
        return [dict(m) for m in store]
    if rest[0] == "show" and len(rest) < 2:
        raise UserError("skills show needs a name: repertoire skills show NAME[@VERSION]")
    return (store.path(rest[1] if rest[0] == "show" else rest[0]) / "card.md").read_text()


def _table(verb: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        print("the library is empty: `repertoire train-skills` fills it")
        return
    columns = {
        "envs": ("name", "doc", "actions", "dt", "episode_length"),
        "objectives": ("name", "doc", "options"),
        "skills": ("name", "version", "env", "latent", "metrics"),
    }[verb]
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(c, row[c]) for c in columns))
    Console().print(table)


def _cell(column: str, value: Any) -> str:
    if value is None or value == []:
        return "-"
    if column == "actions":
        return str(len(value))
    if isinstance(value, dict):
        shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in value.items()}
        return ", ".join(f"{k}={v}" for k, v in list(shown.items())[:12])
    return f"{value:g}" if isinstance(value, float) else str(value)
