"""The card of a library entry: one Markdown page a person reads before using the skill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def card(manifest: Mapping[str, Any], thumbnail: bool) -> str:
    """Markdown card of a manifest."""
    contract, latent, objective = manifest["contract"], manifest["latent"], manifest["objective"]
    hold = f"redrawn every {latent['hold']} steps" if latent["hold"] else "held for an episode"
    lines = [
        f"# {manifest['name']}@{manifest['version']}",
        "",
        *(["![trajectories of the skills](thumbnail.png)", ""] if thumbnail else []),
        f"Skills discovered by **{objective['name']}** on **{manifest['env']}**.",
        "",
        f"- latent: {latent['kind']}, size {latent['size']}, {hold}",
        f"- control step: {contract['dt']:g} s over physics at {contract['physics_dt']:g} s",
        *([f"- model: {m['file']}, sha256 `{m['sha256']}`"] if (m := contract.get("model")) else []),
        f"- policy reads: {_slices(contract['policy'])}",
        f"- objective saw: {_slices(contract['features'])}",
        f"- drives: {', '.join(contract['action_names'])}",
        f"- network: {manifest['network']['hidden']}, {manifest['network']['activation']}",
        f"- content hash: `{manifest['digest']}`",
        "",
        "## Measured",
        "",
        *_table(manifest["metrics"]),
        "",
        "## Provenance",
        "",
        *_table(manifest["provenance"]),
        "",
    ]
    return "\n".join(lines)


def _slices(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{r['name']} ({r['size']}, {r['unit']})" for r in rows)


def _table(values: Mapping[str, Any]) -> list[str]:
    if not values:
        return ["Nothing recorded."]
    shown = [f"| {k} | {v:.4g} |" if isinstance(v, float) else f"| {k} | {v} |" for k, v in values.items()]
    return ["| what | value |", "|---|---|", *shown]
