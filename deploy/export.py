"""Write an export: `model.onnx`, `contract.json`, the simulation model (XML and binary) and a copy of the runner.

The folder is complete or absent: it is written beside its place and moved there.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from repertoire.deploy import runner
from repertoire.deploy.contract import build_contract
from repertoire.deploy.graph import FrozenPolicy, Graph, controller_graph, policy_graph, skill_graph
from repertoire.deploy.onnx_model import to_onnx
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.task import Task
from repertoire.errors import UserError
from repertoire.high_level.composer import Composer
from repertoire.skills.skill import Skill

Provenance = Mapping[str, Any] | None
#: Model fields that must survive the way through XML, to its six digits, for `model.xml` to be written.
_COMPARED = ("qpos0", "body_mass", "body_inertia", "dof_damping", "dof_armature", "jnt_stiffness", "geom_friction",
             "actuator_gainprm", "actuator_biasprm", "actuator_gear", "actuator_ctrlrange")  # fmt: skip


def export_policy(out_dir: str | Path, env: MujocoEnv, policy: FrozenPolicy, provenance: Provenance = None) -> Path:
    """Export a flat policy: `obs` -> `action`, `ctrl`. Returns the folder."""
    return write(out_dir, env, policy_graph(env.spec, policy), provenance)


def export_skill(out_dir: str | Path, env: MujocoEnv, skill: Skill, provenance: Provenance = None) -> Path:
    """Export a skill set: `obs`, `z` -> `action`, `ctrl`. Returns the folder."""
    return write(out_dir, env, skill_graph(env.spec, skill), provenance)


def export_controller(
    out_dir: str | Path,
    env: MujocoEnv,
    policy: FrozenPolicy,
    composer: Composer,
    hold: int,
    provenance: Provenance = None,
) -> Path:
    """Export a controller with its skills: `obs`, `z`, `decide` -> `action`, `ctrl`, `z_next`. Returns the folder.

    Args:
      env: the flat task env (not the `MacroEnv`). policy: the controller's. hold: control steps per decision.
    """
    return write(out_dir, env, controller_graph(policy, composer, hold), provenance)


def write(out_dir: str | Path, env: MujocoEnv, graph: Graph, provenance: Provenance = None) -> Path:
    """Write the export of `graph`; an older export in the same place is replaced, anything else is left alone."""
    if not env.task.affine_control and env.task.drive() is None:
        raise UserError(
            f"env {env.spec.name} computes its controls from the robot's state and declares no drive that a runner "
            "could do it with: look at it with `repertoire rollout` instead"
        )
    out = Path(out_dir).absolute()
    if out.exists() and not (out / "contract.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is no export: choose another folder or move it away")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        new = temporary / "new"
        new.mkdir()
        _fill(new, env, graph, provenance)
        if out.exists():
            out.replace(temporary / "old")
        new.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _fill(folder: Path, env: MujocoEnv, graph: Graph, provenance: Provenance) -> None:
    (folder / "model.onnx").write_bytes(to_onnx(graph))
    mujoco.mj_saveModel(env.task.model, str(folder / "model.mjb"))
    xml = model_xml(env.task)
    if xml is not None:
        (folder / "model.xml").write_text(xml)
    files = {"onnx": "model.onnx", "xml": "model.xml" if xml is not None else None, "mjb": "model.mjb"}
    entries = {k: name and {"file": name, "sha256": runner.sha256(folder / name)} for k, name in files.items()}
    contract = build_contract(env, graph, entries, provenance)
    contract = json.loads(json.dumps(contract, allow_nan=False, default=_plain))
    contract["digest"] = runner.digest(contract)
    (folder / "contract.json").write_text(json.dumps(contract, indent=1) + "\n")
    shutil.copyfile(runner.__file__, folder / "runner.py")
    runner.load_contract(folder)


def _plain(value: Any) -> Any:
    """numpy values in a provenance as JSON, anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def model_xml(task: Task) -> str | None:
    """MJCF of the task's model, or None where it cannot be said in one file (meshes) or comes out different.

    XML holds six digits; the binary beside it is exact but only for the MuJoCo that wrote it.
    """
    edit = getattr(task, "spec_mjcf", None)
    if edit is None:
        return None
    spec, model = edit(), task.model
    try:
        with warnings.catch_warnings():  # what MuJoCo has to say about the MJCF it said when the task was built
            warnings.simplefilter("ignore")
            spec.compile()
            _set_options(spec.option, model.opt)
            text = str(spec.to_xml())
            again = mujoco.MjModel.from_xml_string(text)
    except ValueError:
        return None
    same = (again.nq, again.nv, again.nu, again.nbody) == (model.nq, model.nv, model.nu, model.nbody)
    return text if same and all(_close(getattr(again, n), getattr(model, n)) for n in _COMPARED) else None


def _set_options(option: Any, wanted: Any) -> None:
    """What `Task.build` changed after `spec_mjcf`: timestep, integrator, solver and the like."""
    for name in dir(option):
        if not name.startswith("_") and hasattr(wanted, name) and not callable(getattr(option, name)):
            setattr(option, name, getattr(wanted, name))


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-6)
