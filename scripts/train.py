"""`train` and what it shares with `train-controller`: learn a task, evaluate, draw."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from repertoire.algos import trainer
from repertoire.algos.inventory import Inventory
from repertoire.envs.task import Task
from repertoire.errors import UserError
from repertoire.experiment.files import write_json
from repertoire.experiment.run_dir import RunDir
from repertoire.scripts import build, config, inventory, session, stage_eval, task_draw, task_eval
from repertoire.skills.adapters import freeze_policy
from repertoire.skills.library import Library
from repertoire.skills.skill import Skill

#: (run, learner, state, evaluation) -> what the marker of the finished run says of it.
Keep = Callable[[RunDir, Any, Any, dict[str, Any]], dict[str, Any]]
#: (name, learner, state of one seed, provenance) -> a library entry.
Freeze = Callable[[str, Any, Any, dict[str, Any]], Skill]
#: Episodes of the final evaluation, per seed and rule.
EPISODES = 64


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("train", args, run)


def run(cfg: dict[str, Any]) -> RunDir:
    """Flat RL, from scratch or as an adapter of a frozen skill."""
    if cfg["adapter"]["base"] is None:
        return learn("train", cfg, f"train-{build.label(cfg)}", _keep)
    return learn("train", cfg, f"adapter-{cfg['name'] or build.label(cfg)}", _keep)  # several of one task need a name


def _keep(run_dir: RunDir, learner: Any, state: Any, found: dict[str, Any]) -> dict[str, list[str]]:
    """Library entries of all seeds, where asked for and of adapters; their base must not have moved meanwhile."""
    cfg, adapter = run_dir.config, learner.adapter
    if adapter is None and "name" not in cfg:
        return {}
    if adapter and Library(cfg["library"]).load(base := cfg["adapter"]["base"]).digest() != adapter.origin["digest"]:
        raise UserError(f"the frozen base {base} changed during training")
    default = f"{build.label(cfg)}-adapter"
    if isinstance(adapter, Inventory):
        return inventory.keep(run_dir, learner, state, found, default)
    told = {k: cfg[k] for k in ("command", "command_range") if k in cfg}
    return entries(run_dir, learner, state, found, functools.partial(freeze_policy, **told), default)


def entries(
    run_dir: RunDir, learner: Any, state: Any, found: dict[str, Any], freeze: Freeze, default: str
) -> dict[str, list[str]]:
    """Freeze every seed into the library with its figures; `default` is the name where the config has none."""
    cfg, references = run_dir.config, []
    for index, measured in enumerate(found["seeds"]):
        one = trainer.seed_state(state, index, int(cfg["num_seeds"]))
        origin = session.provenance(run_dir, learner, one, index)
        made = freeze(session.entry_name(cfg, default, index), learner, one, origin)
        references.append(session.store(cfg, made, measured))
    return {"skills": references}


def learn(kind: str, cfg: dict[str, Any], name: str, keep: Keep) -> RunDir:
    """Train a task policy or a controller, then evaluate and draw it; `keep` makes library entries of it."""
    build.check(cfg)
    learner = build.learner_of(kind, cfg)
    if kind != "imitate":
        _check_reward(learner.env)
    compiled = session.programs(cfg, learner)
    done = session.open_run(kind, cfg, name)
    try:
        state = session.train(done, learner, compiled, _evaluator(learner, cfg["num_seeds"]))
        found = finish(done, learner, state)
        done.mark_done(updates=learner.total_updates, **keep(done, learner, state, found))
    finally:
        done.close()
    return done


def _check_reward(env: Any) -> None:
    """`UserError` where all reward terms that the task knows have weight 0: nothing would be learned."""
    task = getattr(getattr(env, "env", env), "task", None)
    if not isinstance(task, Task) or task.tasks or any(task.weights.values()) or not task.known_terms():
        return
    terms = task.known_terms()
    raise UserError(
        f"env {task.name} pays nothing yet: give reward terms a weight, such as env.weights.{terms[0]}=1; it knows "
        f"{', '.join(terms)}"
    )


def finish(run_dir: RunDir, learner: Any, state: Any) -> dict[str, Any]:
    """Evaluation against baselines, plot and video of a trained task run."""
    found = measure(run_dir, learner, state)
    write_json(run_dir.path / "evaluation.json", found)
    task_draw.allocation_plot(run_dir, found.get("allocation"))
    draw(run_dir, learner, state)
    print(task_eval.told(found))
    return found


def measure(
    run_dir: RunDir, learner: Any, state: Any, count: int = EPISODES, seed: int = 1000, steps: int | None = None
) -> dict[str, Any]:
    """Returns of the trained policy of every seed and of the baselines, on the same starts.

    Over `count` episodes of `steps` steps of the env, None for its own length.
    """
    seeds, key = int(run_dir.config["num_seeds"]), jax.random.key(seed)
    rows = []
    for i in range(seeds):
        one = trainer.seed_state(state, i, seeds)
        found = task_eval.summary(task_eval.episodes(learner.env, task_eval.trained(learner, one), key, count, steps))
        rows.append({**found, **task_eval.parts(learner, one, key, count)})
    table = task_eval.table(learner.env, "trained", rows, task_eval.baselines(learner), key, count, steps)
    matrix = inventory.mean(inventory.matrices(run_dir, learner, state))
    return table | ({"allocation": matrix} if matrix else {})


def draw(
    run_dir: RunDir,
    learner: Any,
    state: Any,
    policy: str = "trained",
    count: int = 8,
    start: int = 2000,
    index: int = 0,
) -> None:
    """Path plot and, where the config asks for it, a video of seed number `index`; `start` draws the starts."""
    one = trainer.seed_state(state, index, int(run_dir.config["num_seeds"]))
    rules: dict[str, Callable[[Any], Any]] = {"zero": task_eval.zero, "random": task_eval.random}
    rules["expert"] = stage_eval.expert
    rule = task_eval.trained(learner, one) if policy == "trained" else rules[policy](learner)
    found = task_eval.episodes(learner.env, rule, jax.random.key(start), count)
    mark = session.mark(run_dir.config, index) if index else ""
    task_draw.draw(run_dir, learner.env, found, policy, mark + ("" if policy == "trained" else f"-{policy}"))


def _evaluator(learner: Any, seeds: int) -> session.Evaluate:
    def evaluate(update: int, state: Any) -> dict[str, float]:
        key, rows = jax.random.key(1000), []
        for i in range(seeds):
            rule = task_eval.trained(learner, trainer.seed_state(state, i, seeds))
            rows.append(task_eval.summary(task_eval.episodes(learner.env, rule, key, 16)))
        found = task_eval.mean(rows)
        return {k: found[k] for k in ("return", "success", *task_eval.per_task(found)) if k in found}

    return evaluate
