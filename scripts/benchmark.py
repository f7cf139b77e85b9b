"""`benchmark`: physics only, env, + inference, + learning, side by side in one process; and the rivals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from repertoire.algos import trainer
from repertoire.experiment.files import write_json
from repertoire.scripts import bench_physics, build, config
from repertoire.scripts.bench_ours import Contestant

#: Rows of the table: key, heading, format.
COLUMNS = (("name", "", "{}"), ("worlds", "worlds", "{}"), ("steps_per_s", "env steps/s", "{:,.0f}"),
           ("ratio_to_bare", "to bare physics", "{:.3f}"), ("compile_s", "compile s", "{:.1f}"),
           ("peak_rss_mib", "memory MiB", "{:.0f}"))  # fmt: skip


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("benchmark", args, run)


def run(cfg: dict[str, Any]) -> dict[str, Any]:
    """Measure, print the table and write it as JSON."""
    build.prepare({})
    extra = [learning(cfg["env"], cfg["worlds"], cfg["objective"])]
    result = bench_physics.measure(cfg["env"], cfg["worlds"], cfg["rounds"], rivals=cfg["rivals"], extra=extra)
    show(result)
    write_json(Path(cfg["out"]), result)
    print(f"written: {cfg['out']}")
    return result


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


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*(c[1] for c in COLUMNS), "note", box=None, header_style="bold")
    for row in result["rows"]:
        cells = ["-" if row.get(k) is None else f.format(row[k]) for k, _, f in COLUMNS]
        table.add_row(*cells, row.get("note") or "")
    Console(width=150).print(table)
