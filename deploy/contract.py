"""`contract.json`: all that a runner must know beside the network. The runner checks it field by field.

Vectors (qpos, qvel, controls) are in the order of the model that the policy was trained in; `joints` and `actuators`
name them, so that a robot or another model may have any order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from repertoire.deploy import contract_rules, contract_terms, runner
from repertoire.deploy.graph import Graph
from repertoire.deploy.onnx_model import OPSET
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.task import Task
from repertoire.errors import UserError
from repertoire.high_level.frozen import FrozenController
from repertoire.high_level.options import Option
from repertoire.high_level.sequence import Choice

_SIZES = {"free": (7, 6), "ball": (4, 3), "slide": (1, 1), "hinge": (1, 1)}  # entries of qpos and qvel
_PACKAGES = ("repertoire-rl", "jax", "onnx", "onnxruntime", "mujoco", "numpy")
NORMALISER = "inside the graph: (x - mean) / std, clipped; give observations as the terms say, not normalised"
ACTION = "`ctrl` = offset + scale * `action`, and `action` is clipped; both are outputs of the graph"


def load_contract(folder: str | Path) -> dict[str, Any]:
    """Contract of an export, every field and hash checked. Raises `UserError`."""
    with user_errors():
        return runner.load_contract(folder)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """The runner's errors as `UserError`: its file may not import ours."""
    try:
        yield
    except runner.ExportError as e:
        raise UserError(str(e)) from e


def build_contract(
    env: MujocoEnv, graph: Graph, files: Mapping[str, Any], provenance: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The contract of `graph` on `env`.

    Args:
      files: `onnx`, `xml` (or None) and `mjb`, each {"file": name, "sha256": digest}.
      provenance: run id, git state, config: stored as it is, beside that of the skills (`skills`) and `exported_with`.
    """
    task, spec, model = env.task, env.spec, env.task.model
    terms = contract_terms.terms(task, spec, graph)
    drive = task.drive()
    driven = dict(enumerate(spec.action_names))
    if drive is not None:
        driven = {model.actuator(name).id: name for name in drive["actuators"]}
    low, high = np.asarray(spec.action_low), np.asarray(spec.action_high)
    return {
        "schema": runner.SCHEMA,
        "kind": graph.kind,
        "env": spec.name,
        "onnx": {**files["onnx"], "opset": OPSET, "inputs": dict(graph.inputs), "outputs": dict(graph.outputs)},
        "model": {"mujoco": mujoco.__version__, "xml": files["xml"], "mjb": files["mjb"]},
        "timing": {
            "control_dt": spec.dt,
            "physics_dt": spec.physics_dt,
            "substeps": task.substeps,
            "episode_length": spec.episode_length,
        },
        "joints": joints(model, task.default_pose()),
        "default_pose": task.default_pose().tolist(),
        "root": int(getattr(task, "root", 0)),
        "actuators": [_actuator(model, i, name) for i, name in driven.items()],
        "action": {
            "names": list(spec.action_names),
            "clip": [-1.0, 1.0],
            "scale": ((high - low) / 2).tolist(),
            "offset": ((high + low) / 2).tolist(),
            "note": ACTION,
        },
        "drive": drive,
        "observation": {"terms": terms, "normaliser": NORMALISER},
        "commands": contract_terms.commands(task, terms),
        "latent": _latent(graph),
        "hierarchy": _hierarchy(graph, task),
        "provenance": {
            **(provenance or {}),
            "skills": {s.name: dict(s.manifest["provenance"]) for s in graph.skills},
            "exported_with": {p: _version(p) for p in _PACKAGES},
        },
    }


def joints(model: mujoco.MjModel, default: np.ndarray) -> list[dict[str, Any]]:
    """Every joint in order: name, type, (address, size) in qpos and qvel, default, range. Each must have a name."""
    rows = []
    for i in range(model.njnt):
        kind = mujoco.mjtJoint(model.jnt_type[i]).name.removeprefix("mjJNT_").lower()
        name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, i)
        if not name:
            raise UserError(f"joint {i} ({kind}) of the model has no name, and exports go by name: name it in the MJCF")
        (nq, nv), q = _SIZES[kind], int(model.jnt_qposadr[i])
        rows.append(
            {
                "name": name,
                "type": kind,
                "qpos": [q, nq],
                "qvel": [int(model.jnt_dofadr[i]), nv],
                "default": default[q : q + nq].tolist(),
                "range": model.jnt_range[i].tolist() if model.jnt_limited[i] else None,
            }
        )
    return rows


def _actuator(model: mujoco.MjModel, i: int, name: str) -> dict[str, Any]:
    """Type and gains of one actuator. kp and kd are null where the actuator is no position servo."""
    kind, kp, kd, note = _servo(model.actuator_gainprm[i], model.actuator_biasprm[i], int(model.actuator_biastype[i]))
    joint = None
    if int(model.actuator_trntype[i]) in (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT):
        joint = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, int(model.actuator_trnid[i, 0]))
    return {
        "name": name,
        "joint": joint,
        "type": kind,
        "gear": model.actuator_gear[i].tolist(),
        "ctrl_range": model.actuator_ctrlrange[i].tolist() if model.actuator_ctrllimited[i] else None,
        "force_range": model.actuator_forcerange[i].tolist() if model.actuator_forcelimited[i] else None,
        "kp": kp,
        "kd": kd,
        "note": note,
    }


def _servo(gain: np.ndarray, bias: np.ndarray, bias_type: int) -> tuple[str, float | None, float | None, str]:
    if bias_type == mujoco.mjtBias.mjBIAS_NONE:
        return "motor", None, None, f"force = {float(gain[0]):g} * ctrl, before the gear: no gains"
    if bias_type == mujoco.mjtBias.mjBIAS_AFFINE and gain[0] and bias[1] == -gain[0]:
        return "position", float(gain[0]), float(-bias[2]), "force = kp * (ctrl - position) - kd * velocity"
    if bias_type == mujoco.mjtBias.mjBIAS_AFFINE and gain[0] and bias[1] == 0 and bias[2] == -gain[0]:
        return "velocity", None, float(gain[0]), "force = kd * (ctrl - velocity)"
    return "other", None, None, "see the model file"


def _latent(graph: Graph) -> dict[str, Any] | None:
    if graph.kind != "skill":
        return None
    prior = graph.skills[0].prior
    note = "input z; the graph projects it on the prior. hold: control steps between draws in training, 0 for never"
    return {"kind": prior.kind, "size": prior.size, "hold": prior.hold, "note": note}


def _hierarchy(graph: Graph, task: Task) -> dict[str, Any] | None:
    if graph.kind == "policy":
        return None
    skills, composer = graph.skills, graph.composer
    inner = composer.inner if isinstance(composer, Option) else composer
    table = inner.table if isinstance(inner, Choice) else ()
    return {
        "mode": _mode(graph),
        "hold": max(graph.hold, 1),
        "macro_dt": max(graph.hold, 1) * graph.spec.dt,
        "state": graph.inputs["z"],
        "fields": [field._asdict() for field in graph.fields],
        "outputs": list(composer.names) if composer and graph.rule is None else [],
        "rule": contract_rules.describe(graph, task),
        "options": [{"skill": skills[i].name, "latent": z.tolist()} for i, z in table],
        "skills": [
            {
                "name": s.name,
                "version": None if s.manifest.get("version") is None else str(s.manifest["version"]),
                "digest": s.digest(),
                "slices": list(s.slices),
                "latent": s.prior.kind,
                "size": s.prior.size,
                "hold": s.hold if isinstance(s, FrozenController) else 1,
                "over": [b.name for b in s.composer.skills] if isinstance(s, FrozenController) else [],
            }
            for s in skills
        ],
    }


def _mode(graph: Graph) -> str:
    """How a controller decides, in a word or two."""
    if graph.composer is None:
        return "fixed"
    rule = "" if graph.rule is None else f"{contract_rules.kind_of(graph.rule)}, "
    return rule + graph.composer.mode


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
