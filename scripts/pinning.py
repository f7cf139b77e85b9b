"""What a run keeps of its config: references with versions, model files with content, older words for the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from repertoire.envs import menagerie
from repertoire.envs import registry as envs
from repertoire.errors import words
from repertoire.high_level import blend, options
from repertoire.skills.library import Library

Config = Mapping[str, Any]


def pinned(config: Config, kind: str) -> dict[str, Any]:
    """Config with library references pinned to versions and model files to content: nothing later changes a run.

    What says nothing is left out, so that runs from before there were adapters, several at once, commands, starts or
    learned ends go on.
    """
    config, store = {**config, "env": _pinned_model(config["env"])}, Library(config["library"])
    if (adapter := config.pop("adapter", None)) and adapter["base"]:
        several = adapter.get("count", 1) != 1
        told = {k: v for k, v in adapter.items() if several or k not in ("count", "matrix_lr")}
        config["adapter"] = {**told, "base": _pinned(store, adapter["base"])}
    elif kind == "train" and config.get("name") is None:
        config.pop("name", None)
    if kind == "train" and config.get("command") is None:
        config = {k: v for k, v in config.items() if k not in ("command", "command_range")}
    if (starts := config.pop("starts", None)) and starts["skills"]:
        config["starts"] = {**starts, "skills": [_pinned(store, r) for r in words("starts.skills", starts["skills"])]}
    if "controller" in config and config["controller"].get("termination") == "fixed":
        inert = {f.name for f in dataclasses.fields(options.TerminationConfig)}
        config["controller"] = {k: v for k, v in config["controller"].items() if k not in inert}
    if "controller" in config and not config["controller"].get("reads"):
        config["controller"] = {k: v for k, v in config["controller"].items() if k != "reads"}
    if kind == "train-controller":
        config["controller"] = _as_stored(scaled(config)["controller"])
        config["skills"] = [_pinned(store, r) for r in references(config)]
    return config


def scaled(config: Config) -> dict[str, Any]:
    """Config whose `controller.bounded` is said: under SAC actions lie in [-1, 1] already.

    It is part of a run's config, so that runs and entries from before it was said stay what they were.
    """
    told = dict(config["controller"])
    if "bounded" in told and told["bounded"] is None:
        told["bounded"] = config["algo"]["name"] == "sac"
    return {**config, "controller": told}


def references(config: Config) -> list[str]:
    """Library references of a controller config."""
    return list(words("skills", config["skills"]))


def _as_stored(controller: Config) -> dict[str, Any]:
    """Settings of a controller as runs have them that were made before there were other words for the same."""
    told = {k: v for k, v in controller.items() if k not in ("bounded", "top") or v}
    return {**told, "groups": {blend.ALL: ["*"]}} if told.get("groups") == blend.ALL else told


def _pinned(store: Library, reference: str) -> str:
    return "{}@{}".format(*store.resolve(reference))


def _pinned_model(env: Config) -> dict[str, Any]:
    if not env.get("file"):
        return dict(env)
    options = {k: v for k, v in env.items() if k not in ("name", "sha256")}
    file, sha256 = str(env["file"]), envs.make_spec(env["name"], **options).model_sha256
    return {
        **env,
        "file": file if file.startswith(menagerie.PREFIX) else str(menagerie.resolve(file)),
        "sha256": sha256,
    }
