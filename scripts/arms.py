"""The runs of a comparison: arms x envs, each with all its seeds, and controllers over the skills of the arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from repertoire.envs import registry as envs
from repertoire.errors import UserError, at_least, typed, unknown, words
from repertoire.experiment.files import read_json
from repertoire.experiment.run_dir import RunDir, first_difference, untrained
from repertoire.scripts import checks, config, pinning
from repertoire.skills.skill import Skill, contract

#: Verbs whose runs can be compared.
VERBS = ("train", "train-skills", "train-controller")
#: Settings that change nothing in a table, and those that are compared on their own.
UNSEEN = ("run_dir", "name", "logging", "video", "checkpoint_every", "total_steps")
#: Settings that are lists of words, and those that are such a list for each env.
LISTS, OF_ENVS = ("envs", "overrides", "downstream_overrides", "metrics", "curves"), ("settings", "skills")


class Job(NamedTuple):
    """One run of the comparison: all seeds of an arm on an env; or a controller over the skills of one of them."""

    env: str
    arm: str
    path: Path
    verb: str
    steps: int
    args: tuple[str, ...]
    config: Mapping[str, Any]


class Arm(NamedTuple):
    """What an arm of the config says: `[setting, ...]`, or these fields by name.

    Attributes:
      verb: that trains it; by default that of the comparison. settings: of its runs.
      skills: how many of the env's skills a controller uses, from the first, or references of its own; None: all.
      envs: where it is run; None: on all.
    """

    verb: str
    settings: tuple[str, ...]
    skills: int | tuple[str, ...] | None
    envs: tuple[str, ...] | None


def listed(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """`cfg` with the arms of `only`, and lists where one word stands for a list of one.

    Raises `UserError` for what is neither, and for an arm that is not there.
    """
    only = words("only", cfg["only"] or ())
    for name in only:
        if name not in cfg["arms"]:
            raise unknown("arm", name, cfg["arms"])
    chosen = {name: told for name, told in cfg["arms"].items() if not only or name in only}
    by_env = {k: {env: words(f"{k}.{env}", told) for env, told in cfg[k].items()} for k in OF_ENVS}
    return {**cfg, **{k: words(k, cfg[k]) for k in LISTS}, **by_env, "arms": chosen}


def plan(cfg: Mapping[str, Any]) -> list[Job]:
    """The runs, with every config composed once so that a wrong name fails before anything is trained."""
    if not cfg["arms"] or not cfg["envs"]:
        raise UserError("a comparison needs at least one arm and one env")
    at_least("seeds", typed("seeds", cfg["seeds"], int), 1)
    _check_downstream(cfg)
    arms, known = {name: _arm(cfg, name, told) for name, told in cfg["arms"].items()}, config.options("env")
    for env in [*cfg["settings"], *cfg["skills"], *(e for arm in arms.values() for e in arm.envs or ())]:
        if env not in known:
            raise unknown("env of the comparison", env, known)
    pairs = [(env, name) for env in cfg["envs"] for name, arm in arms.items() if arm.envs is None or env in arm.envs]
    jobs = [_job(cfg, env, name, arms[name]) for env, name in pairs]
    for job in jobs:
        checks.run(job.config)
        if job.verb == "train-skills" and job.env in cfg["downstream"]:
            _check_fit(cfg, job)
    return jobs


def _check_fit(cfg: Mapping[str, Any], job: Job) -> None:
    """`UserError` where skills of `job` will not fit their downstream task, such as that of another robot."""
    args = _controller_args(cfg, task := cfg["downstream"][job.env], "skills", 0)
    spec, target = (_spec(c["env"]) for c in (job.config, config.compose("train_controller", args)))
    try:
        Skill({"name": f"{job.env}-{job.arm}", "contract": contract(spec)}, {}).fits(target)
    except UserError as error:
        raise UserError(f"downstream.{job.env}={task}: {error}") from None


def _spec(env: Mapping[str, Any]) -> Any:
    return envs.make_spec(env["name"], **{k: v for k, v in env.items() if k != "name"})


def _arm(cfg: Mapping[str, Any], name: str, told: Any) -> Arm:
    """`told` of the config. Raises `UserError` for what is no arm."""
    row = dict(told) if isinstance(told, Mapping) else {"settings": told}
    for key in row:
        if key not in Arm._fields:
            raise unknown(f"setting of arm {name}", key, Arm._fields)
    verb = row.get("verb", cfg["verb"])
    if verb not in VERBS:
        raise unknown("verb to compare", verb, VERBS)
    settings, envs = words(f"arms.{name}.settings", row.get("settings") or ()), row.get("envs")
    return Arm(verb, settings, _used(name, row.get("skills")), envs and words(f"arms.{name}.envs", envs))


def _used(arm: str, told: Any) -> int | tuple[str, ...] | None:
    """`skills` of an arm. Raises `UserError` for what is neither a number of skills nor a list of them."""
    if told is None or (isinstance(told, int) and not isinstance(told, bool) and told > 0):
        return told
    if isinstance(told, str | list) and told:
        return words(f"arms.{arm}.skills", told)
    raise UserError(
        f"arm {arm}: skills must be how many of the env's (1 or more) or a list of references, got {told!r}"
    )


def _job(cfg: Mapping[str, Any], env: str, name: str, arm: Arm) -> Job:
    """The run of an arm on an env: settings of all runs, of the env, of the arm, in this order."""
    path = Path(cfg["out"]) / "runs" / f"{env}-{name}"
    args = [f"env={env}", *cfg["overrides"], *cfg["settings"].get(env, ())]
    if arm.verb == "train-controller" and (skills := _skills(cfg, env, arm)) is not None:
        args.append(f"skills=[{','.join(skills)}]")
    args += [*arm.settings, f"total_steps={cfg['total_steps']}", f"seed={cfg['seed']}", f"num_seeds={cfg['seeds']}"]
    args += [f"run_dir={path}", f"library={_library(cfg)}"]
    args += [f"name={env}-{name}"] if arm.verb != "train" else []
    resolved = config.compose(arm.verb.replace("-", "_"), args)
    return Job(env, name, path, arm.verb, int(cfg["total_steps"]), tuple(args), resolved)


def _skills(cfg: Mapping[str, Any], env: str, arm: Arm) -> Sequence[str] | None:
    """References of the library entries that a controller of this arm uses on `env`; None: nothing says."""
    if isinstance(arm.skills, tuple):
        return arm.skills
    return cfg["skills"][env][: arm.skills] if env in cfg["skills"] else None


def plan_downstream(cfg: Mapping[str, Any], jobs: Sequence[Job]) -> list[Job]:
    """One controller for each seed of each finished skill run whose env has a downstream task.

    Its run is named after the skill's version, so that skills which were trained on get a controller of their own.
    """
    found = []
    for job in (j for j in jobs if j.verb == "train-skills" and j.env in cfg["downstream"] and finished(j)):
        task = cfg["downstream"][job.env]
        for i, reference in enumerate(read_json(job.path / "done.json")["skills"]):
            path = job.path.parent / f"{task}-{reference.replace('@', '-v')}"
            args = [*_controller_args(cfg, task, reference, int(cfg["seed"]) + i), f"run_dir={path}"]
            resolved = config.compose("train_controller", args)
            steps = int(cfg["downstream_steps"])
            found.append(Job(job.env, job.arm, path, "train-controller", steps, tuple(args), resolved))
    return found


def _check_downstream(cfg: Mapping[str, Any]) -> None:
    """A wrong task or setting fails before anything is trained, although the skills are not there yet."""
    if cfg["downstream"] and cfg["verb"] != "train-skills":
        raise UserError(f"downstream needs skills: verb=train-skills, not {cfg['verb']}")
    for env, task in cfg["downstream"].items():
        if env not in cfg["envs"]:
            raise unknown("env with a downstream task", env, cfg["envs"])
        config.compose("train_controller", _controller_args(cfg, task, "skills", 0))


def _controller_args(cfg: Mapping[str, Any], task: str, reference: str, seed: int) -> list[str]:
    args = [f"env={task}", *cfg["downstream_overrides"], f"skills=[{reference}]", f"seed={seed}"]
    return [*args, f"total_steps={cfg['downstream_steps']}", f"library={_library(cfg)}", "video=false"]


def _library(cfg: Mapping[str, Any]) -> str:
    return str(cfg["library"] or Path(cfg["out"]) / "library")


def finished(job: Job) -> bool:
    """Whether the run is there, evaluated and as long as asked for. Raises `UserError` for a run of other settings."""
    if not (job.path / "manifest.json").exists() or untrained(job.path):
        return False
    made = RunDir.open(job.path).config
    difference = first_difference(made, pinning.pinned(job.config, job.verb), UNSEEN)
    if int(made["total_steps"]) > job.steps:
        difference = ("total_steps", made["total_steps"], job.steps)
    if difference:
        key, was, now = difference
        raise UserError(f"{job.path} was made with {key}={was}, now {key}={now}: use another out= or remove it")
    ended = (job.path / "done.json").exists() and (job.path / "evaluation.json").exists()
    return ended and int(made["total_steps"]) == job.steps
