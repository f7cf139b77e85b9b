"""`benchmark`: physics only, env, + inference, + learning, and rivals; overhead of objectives; all envs; agreement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from repertoire.algos import trainer
from repertoire.errors import UserError, unknown, words
from repertoire.experiment.files import write_json
from repertoire.scripts import (
    bench_agreement,
    bench_control,
    bench_envs,
    bench_objectives,
    bench_physics,
    build,
    config,
)
from repertoire.scripts.bench_ours import Contestant

#: Groups of rows -> columns of their table: key, heading, format.
THROUGHPUT = (("name", "", "{}"), ("worlds", "worlds", "{}"), ("steps_per_s", "env steps/s", "{:,.0f}"),
           ("ratio_to_bare", "to bare physics", "{:.3f}"), ("compile_s", "compile s", "{:.1f}"),
           ("peak_rss_mib", "memory MiB", "{:.0f}"))  # fmt: skip
OBJECTIVES = (("name", "objective", "{}"), ("objective_ms", "objective ms", "{:.1f}"),
              ("physics_ms", "physics ms", "{:.0f}"), ("ratio_to_physics", "to physics", "{:.3f}"),
              ("compile_s", "compile s", "{:.1f}"))  # fmt: skip
ENVS = (("name", "env", "{}"), ("worlds", "worlds", "{}"), ("bare_per_s", "bare physics/s", "{:,.0f}"),
        ("steps_per_s", "env steps/s", "{:,.0f}"), ("ratio_to_bare", "to bare physics", "{:.3f}"),
        ("ratio_to_mjx", "to MJX", "{:.0f}"), ("ratio_to_playground", "to Playground, sim. time", "{:.1f}"),
        ("compile_s", "compile s", "{:.1f}"), ("peak_rss_mib", "memory MiB", "{:.0f}"))  # fmt: skip
AGREEMENT = (("name", "env", "{}"), ("backend", "native and", "{}"), ("seconds", "s", "{:.2g}"),
             ("position_m", "m apart", "{:.1e}"), ("angle_rad", "rad apart", "{:.1e}"),
             ("tolerance", "tolerance", "{:.0e}"), ("agrees", "agrees", "{}"), ("holds_s", "until s", "{:.2g}"),
             ("compile_s", "compile s", "{:.1f}"))  # fmt: skip
GROUPS = {"throughput": THROUGHPUT, "objectives": OBJECTIVES, "envs": ENVS, "agreement": AGREEMENT}


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("benchmark", args, run)


def run(cfg: dict[str, Any]) -> dict[str, Any]:
    """Measure the chosen groups of rows, print their tables and write them as JSON (a single group: as it is)."""
    groups = list(dict.fromkeys(words("rows", cfg["rows"])))
    if not groups:
        raise UserError(f"rows needs at least one of {', '.join(GROUPS)}")
    for group in groups:
        if group not in GROUPS:
            raise unknown("group of rows", group, GROUPS)
    build.prepare({})
    results = {group: measure(group, cfg) for group in groups}
    for group, result in results.items():
        show(result, GROUPS[group])
    written = results[groups[0]] if len(groups) == 1 else results
    write_json(Path(cfg["out"]), written)
    print(f"written: {cfg['out']}")
    return written


def measure(group: str, cfg: dict[str, Any]) -> dict[str, Any]:
    """{"env", "machine", "rows"} of one group of rows."""
    env, rounds = cfg["env_name"], cfg["rounds"]
    if group == "objectives":
        return bench_objectives.measure(env, rounds)
    names = words("envs", cfg["envs"])
    if group == "agreement":
        return bench_agreement.measure(names, cfg["env_options"], cfg["seconds"], cfg["rival_limit"])
    if group == "envs":
        rivals = [rival for rival in bench_envs.RIVALS if cfg[rival]]
        return bench_envs.measure(names, cfg["worlds"], rounds, rivals=rivals, limit_s=cfg["rival_limit"])
    extra = [learning(env, cfg["worlds"], cfg["objective_name"])]
    extra += bench_control.blends(env, cfg["worlds"], cfg["skills"], cfg["skill_hidden"])
    return bench_physics.measure(env, cfg["worlds"], rounds, rivals=cfg["rivals"], extra=extra)


def learning(env_name: str, worlds: int, objective: str) -> Contestant:
    """Contestant: the whole training iteration (rollout, rewards, PPO and objective updates)."""
    rollout = 16

    def make() -> tuple[Callable[[], Any], Callable[[], Any]]:
        overrides = [f"env={env_name}", f"objective={objective}", f"algo.envs={worlds}", f"algo.rollout={rollout}"]
        learner = build.learner_of("train-skills", config.compose("train_skills", overrides))
        compiled = trainer.programs(learner)
        held = [compiled.init(trainer.seed_keys(0))]

        def call() -> None:
            state, batch, _ = compiled.collect(held[0])
            held[0], metrics = compiled.update(state, batch)
            jax.block_until_ready(metrics)

        return call, held.clear

    return Contestant(f"+ learning ({objective})", worlds, rollout, make, "rollout, PPO and objective")


def show(result: dict[str, Any], columns: tuple[tuple[str, str, str], ...]) -> None:
    """Print a group's table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*(c[1] for c in columns), "note", box=None, header_style="bold")
    for row in result["rows"]:
        cells = ["-" if row.get(k) is None else f.format(row[k]) for k, _, f in columns]
        table.add_row(*cells, row.get("note") or "")
    Console(width=150).print(table)
