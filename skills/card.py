"""The card of a library entry: one Markdown page a person reads before using the skill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def card(manifest: Mapping[str, Any], thumbnail: bool) -> str:
    """Markdown card of a manifest."""
    contract = manifest["contract"]
    lines = [
        f"# {manifest['name']}@{manifest['version']}",
        "",
        *(["![trajectories of the skills](thumbnail.png)", ""] if thumbnail else []),
        _origin(manifest),
        "",
        f"- latent: {_latent(manifest)}",
        f"- control step: {contract['dt']:g} s over physics at {contract['physics_dt']:g} s",
        *([f"- model: {m['file']}, sha256 `{m['sha256']}`"] if (m := contract.get("model")) else []),
        f"- policy reads: {_slices(contract['policy'])}",
        *([f"- objective saw: {_slices(contract['features'])}"] if contract["features"] else []),
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


def _origin(manifest: Mapping[str, Any]) -> str:
    name, env = manifest["objective"]["name"], manifest["env"]
    if "adapter" in manifest:
        adapter = manifest["adapter"]
        latent = f" at latent {[round(x, 3) for x in adapter['latent']]}" if adapter["latent"] else ""
        size = f"rank {adapter['rank']}, scale {adapter['scale']:g}"
        return f"Adapter ({size}) of {adapter['base']}{latent}, trained on **{env}**."
    if "controller" not in manifest:
        if "command" in manifest or not manifest["latent"]["size"]:
            return f"Policy trained on **{env}**."
        return f"Skills discovered by **{name}** on **{env}**."
    controller = manifest["controller"]
    below = ", ".join(f"{s['name']}@{s['version']}" if "version" in s else s["name"] for s in controller["skills"])
    ends = controller["composer"].get("ends")
    held = f"for {ends['every']} to {ends['longest']}" if ends else str(controller["hold"])
    return f"Controller ({name}, held {held} steps) over {below}, trained on **{env}**."


def _latent(manifest: Mapping[str, Any]) -> str:
    latent = manifest["latent"]
    if "controller" in manifest:
        command = manifest["controller"]["command"]
        return f"its command `{command}`, size {latent['size']}" if command else "none: it only does its task"
    if "command" in manifest:
        told = manifest["command"]
        return f"its command `{told['slice']}`, size {latent['size']}, {told['range']:g} of its unit at a latent of 1"
    if not latent["size"]:
        return "none: it only does its task"
    hold = f"redrawn every {latent['hold']} steps" if latent["hold"] else "held for an episode"
    return f"{latent['kind']}, size {latent['size']}, {hold}"


def _slices(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{r['name']} ({r['size']}, {r['unit']})" for r in rows)


def _table(values: Mapping[str, Any]) -> list[str]:
    if not values:
        return ["Nothing recorded."]
    shown = [f"| {k} | {v:.4g} |" if isinstance(v, float) else f"| {k} | {v} |" for k, v in values.items()]
    return ["| what | value |", "|---|---|", *shown]
