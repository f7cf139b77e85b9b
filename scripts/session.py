"""One training session: plan, loop, consumers. The same for flat RL, skills and controllers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from repertoire.algos import networks, trainer
from repertoire.algos.imitation import Imitator
from repertoire.algos.types import AnyLearner
from repertoire.errors import UserError, typed
from repertoire.experiment import checkpoints, console
from repertoire.experiment.files import guard_writes
from repertoire.experiment.run_dir import RunDir
from repertoire.experiment.trackers import Tracker, make_trackers
from repertoire.scripts import pinning
from repertoire.scripts.stopping import Stopped, StopRequest
from repertoire.skills.library import Library
from repertoire.skills.skill import Skill

#: (update, state) -> extra metrics to log at an evaluation.
Evaluate = Callable[[int, Any], Mapping[str, Any]]

#: What the live table shows, where present.
SHOWN = (
    "env/reward",
    "eval/coverage_cells",
    "eval/reach_m",
    "eval/return",
    "eval/success",
    "policy/kl",
    "policy/alpha",
)


def open_run(kind: str, config: Mapping[str, Any], default_name: str) -> RunDir:
    """The run directory of a config: made, or resumed by the same command."""
    path = config["run_dir"] or f"runs/{default_name}-s{config['seed']}"
    return RunDir.create_or_resume(path, kind=kind, config={**pinning.pinned(config, kind), "run_dir": str(path)})


def programs(config: Mapping[str, Any], learner: AnyLearner) -> trainer.Programs:
    """Programs of all seeds of a run that is not made yet.

    The first state is traced, so that settings which only the env or the networks can judge are refused here.
    """
    compiled = trainer.programs(learner, int(config["num_seeds"]))
    jax.eval_shape(compiled.init, _keys(config))
    return compiled


def train(run: RunDir, learner: AnyLearner, compiled: trainer.Programs, evaluate: Evaluate | None = None) -> Any:
    """Train `run` to the end (resuming where it stands) with its `programs` and return the final state.

    Ctrl-C saves; a non-finite loss or a full disk leave the last good checkpoint; each says how to go on.
    """
    _plan(run, learner)
    start, state = _start(run, compiled)
    if start >= learner.total_updates:
        return state
    run.clear_done()
    trackers = make_trackers(run.config["logging"]["trackers"], run, after=start)
    try:
        return _loop(run, learner, compiled, state, start, evaluate, trackers)
    except FloatingPointError as error:
        raise UserError(
            f"training stopped: {error}; the newest checkpoint in {run.path} is intact. From there the same command "
            "comes to the same end: start a run with other settings, such as a smaller algo.lr or objective.lr"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"training stopped: {str(error).splitlines()[0]}; the newest checkpoint in {run.path} is intact, the same "
            "command goes on from there"
        ) from error
    finally:
        for tracker in trackers:
            tracker.close()


def entry_name(config: Mapping[str, Any], default: str, index: int, part: str = "") -> str:
    """Name of the library entry of seed number `index` of a run; `part`: of what there are several a seed."""
    return "-".join(filter(None, (config["name"] or default, part))) + mark(config, index)


def mark(config: Mapping[str, Any], index: int) -> str:
    """What tells files and entries of seed number `index` of a run from those of its other seeds."""
    return "" if config["num_seeds"] == 1 else f"-s{config['seed'] + index}"


def check_place(config: Mapping[str, Any], index: int) -> None:
    """`UserError` where a run has no seed number `index`."""
    if not 0 <= typed("seed", index, int) < (seeds := int(config["num_seeds"])):
        raise UserError(f"seed must lie in 0 .. {seeds - 1} (its place in the batch), got {index}")


def store(
    config: Mapping[str, Any], made: Skill, figures: Mapping[str, Any], shown: str = "", picture: Any = None
) -> str:
    """Put a frozen skill with its figures into the run's library, and say so; returns its reference."""
    final = Skill({**made.manifest, "metrics": dict(figures)}, made.arrays)
    reference = Library(config["library"]).add(final, picture)
    print(f"frozen: {reference}{shown}")
    return reference


def provenance(run: RunDir, learner: Any, state: Any, index: int) -> dict[str, Any]:
    """Where the entry of seed number `index` comes from."""
    return {
        "run": run.name,
        "seed": run.config["seed"] + index,
        "env_steps": int(state.update) * learner.steps_per_update * learner.hold,
        "repertoire": run.manifest.get("repertoire"),
        "git": (run.manifest.get("git") or {}).get("commit"),
        "env_options": str(run.config["env"]),
    }


def _loop(
    run: RunDir,
    learner: AnyLearner,
    compiled: trainer.Programs,
    state: Any,
    start: int,
    evaluate: Evaluate | None,
    trackers: Sequence[Tracker],
) -> Any:
    """Consume the training events: evaluate, log, show, save."""
    config, total = run.config, learner.total_updates
    names = (*SHOWN, *(f"reward/{c}" for c in learner.channels), *(f"done/{s}" for s in stages_of(learner)))
    shown = console.Progress(total, metrics=names, start_update=start, quiet=config["logging"]["quiet"])
    with StopRequest() as stop, shown:
        shown.compiling("rollout and update")
        for event in trainer.train(compiled, state, total, learner.hold):
            state, last = event.state, event.update == total
            metrics = dict(event.metrics)
            if evaluate and (last or _every(event.update, config["eval_every"])):
                metrics |= {f"eval/{k}": v for k, v in evaluate(event.update, state).items()}
            for tracker in trackers:
                tracker.log(event.update, event.env_steps, metrics)
            shown.update(event.update, event.env_steps * int(config["num_seeds"]), metrics)
            if last or stop.requested or _every(event.update, config["checkpoint_every"]):
                _save(run, event.update, state)
            if stop.requested and not last:
                shown.note(f"stopped at update {event.update} of {total}; the same command goes on from there")
                raise Stopped(128 + stop.requested)
    return state


def _keys(config: Mapping[str, Any]) -> jax.Array:
    return trainer.seed_keys(config["seed"], int(config["num_seeds"]))


def _start(run: RunDir, compiled: trainer.Programs) -> tuple[int, Any]:
    keys = _keys(run.config)
    template = jax.eval_shape(compiled.init, keys)
    found = checkpoints.restore_latest(run.checkpoints, template, warn=lambda line: print(f"warning: {line}"))
    if found is None:
        return 0, compiled.init(keys)
    return found


def _save(run: RunDir, update: int, state: Any) -> None:
    with guard_writes(run.checkpoints):
        checkpoints.save(run.checkpoints, update, state)


def _every(update: int, period: int) -> bool:
    return bool(period) and update % period == 0


def _plan(run: RunDir, learner: AnyLearner) -> None:
    """What is about to happen, before anything is compiled."""
    start = max(checkpoints.steps(run.checkpoints), default=0)
    config, cfg = run.config, learner.config
    params = jax.eval_shape(learner.nets.init, jax.random.key(0))
    hold, stages = learner.hold, stages_of(learner)
    parts = f"stages {', '.join(stages)}" if stages else f"channels {', '.join(learner.channels)}"
    per_update = learner.steps_per_update * hold
    rows = {
        "env": f"{learner.env.spec.name} on {physics_name(learner.env)}, {cfg.envs} worlds x {cfg.rollout} steps",
        "learner": f"{cfg.label}, {parts}, {networks.count(params):,} parameters",
        "seeds": f"{config['seed']} .. {config['seed'] + config['num_seeds'] - 1}",
        "updates": f"{learner.total_updates} ({per_update * learner.total_updates / 1e6:.3g} M env steps a seed)",
        "memory": f"about {_memory_mib(learner) * config['num_seeds']:.0f} MiB for rollouts and replay",
        "results": str(run.path) + (f" (resumed at update {start})" if start else ""),
    }
    if start >= learner.total_updates:
        rows["note"] = "already trained; raise total_steps to go on"
    console.plan(run.kind, rows, quiet=config["logging"]["quiet"])


def stages_of(learner: AnyLearner) -> tuple[str, ...]:
    """Stages of the expert that a learner imitates; none for those that learn from rewards."""
    return learner.stages if isinstance(learner, Imitator) else ()


def physics_name(env: Any) -> str:
    """Backend that steps a flat or a macro env."""
    return str(getattr(env, "env", env).physics.name)


def _memory_mib(learner: AnyLearner) -> float:
    """One rollout batch, several copies of which live during an update, and the replay."""
    spec = learner.env.spec
    floats = 2 * sum(spec.obs.size(g) for g in ("policy", "critic", "features")) + spec.action_size + 16
    return (3 * 4 * floats * learner.steps_per_update + learner.replay_bytes) / 2**20
