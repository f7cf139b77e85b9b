"""`export`: ONNX, contract and runner of a run; with --check also parity and a closed-loop replay in C MuJoCo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from repertoire.algos import networks, trainer
from repertoire.algos.inventory import Inventory
from repertoire.errors import UserError
from repertoire.experiment.run_dir import RunDir
from repertoire.scripts import config, evaluate, inventory, planning, session, train_skills

#: Figures of the check that are printed; parity.json holds all.
SHOWN = ("outputs.recorded_error", "outputs.compared", "closed_loop.qpos_error_20", "closed_loop.clear_starts",
         "closed_loop.return.jax", "closed_loop.return.export", "closed_loop.reach_m.jax",
         "closed_loop.reach_m.export")  # fmt: skip


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("export", args, run)


def run(cfg: dict[str, Any]) -> Path:
    """Export `run=` and print where it went and what the check found."""
    _require_extra()
    opened = RunDir.open(cfg["run"])
    out, check = Path(cfg["out"] or opened.path / "export"), bool(cfg["check"])
    if opened.kind == "imitate":
        raise UserError(
            f"run {opened.name} is of several policies, which its expert chooses from: export a controller over its "
            "skills, as `repertoire train-controller` makes one"
        )
    session.check_place(opened.config, cfg["seed"])
    if planning.is_planned(opened.config):
        return write(opened, *ruled(opened, cfg["physics"], cfg["seed"]), 0, out, check)
    opened, learner, state = evaluate.load(cfg)
    one = trainer.seed_state(state, cfg["seed"], int(opened.config["num_seeds"]))
    graph = graph_of(opened, learner, one, cfg["seed"])
    return write(opened, learner.env, graph, int(one.update) * learner.steps_per_update * learner.hold, out, check)


def write(opened: RunDir, env: Any, graph: Any, env_steps: int, out: Path, check: bool) -> Path:
    """Export `graph`, which acts in `env` (or in the env within) and took `env_steps` to train, to `out`."""
    from repertoire.deploy import export
    from repertoire.deploy.check import check as compare
    from repertoire.envs.mujoco_env import MujocoEnv

    env = getattr(env, "env", env)
    if not isinstance(env, MujocoEnv):
        raise UserError(
            f"env {env.spec.name} cannot be exported: its joints and sensors are known to its project alone"
        )
    manifest = opened.manifest
    provenance = {
        "run": opened.name,
        "repertoire": manifest.get("repertoire"),
        "git": (manifest.get("git") or {}).get("commit"),
        "versions": manifest.get("versions"),
        "env_steps": env_steps,
    }
    folder = export.write(out, env, graph, provenance)
    print(f"exported: {folder}")
    if check:
        found = compare(folder, graph.fn, env=env)
        print("check passed: " + ", ".join(f"{k} {v:.3g}" for k, v in _flat(found) if k in SHOWN))
        if "skipped" in found.get("closed_loop", {}):
            print(f"no closed loop: {found['closed_loop']['skipped']}")
    return folder


def ruled(opened: RunDir, physics: str, seed: int) -> tuple[Any, Any]:
    """(macro env, graph) of a controller that decides by a rule. Raises `UserError` for one that cannot be exported."""
    from repertoire.deploy import rule_graph

    env, decider = planning.decider(opened, physics, seed)
    return env, rule_graph.rule_graph(env.composer, decider, env.hold)


def graph_of(opened: RunDir, learner: Any, state: Any, seed: int) -> Any:
    """What a run exports: a policy, a skill set, or a controller with its skills."""
    from repertoire.deploy import graph

    if opened.kind == "train-skills":
        return graph.skill_graph(learner.env.spec, train_skills.frozen(opened, learner, state, seed))
    if isinstance(learner.adapter, Inventory):
        return graph.inventory_graph(*inventory.composed(opened, learner, state, seed))
    head = learner.nets.head
    layers = networks.first_outputs(learner.nets.policy.layers(state.params["policy"]["net"]), head.mode_outputs)
    stats = state.obs_stats["policy"]
    policy = graph.FrozenPolicy(
        tuple(np.asarray(k) for k, _ in layers),
        tuple(np.asarray(b) for _, b in layers),
        np.asarray(stats.mean),
        np.asarray(stats.var),
        learner.config.activation,
        head.squash,
    )
    if opened.kind == "train-controller":
        return graph.controller_graph(policy, learner.env.composer, learner.env.hold)
    return graph.policy_graph(learner.env.spec, policy)


def _flat(found: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(found, dict):
        return [row for k, v in found.items() for row in _flat(v, f"{prefix}{k}.")]
    return [(prefix.rstrip("."), found)]


def _require_extra() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        raise UserError("export needs the extra packages: pip install 'repertoire-rl[export]'") from None
