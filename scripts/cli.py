"""The one console command: `repertoire VERB key=value ...`. Imports nothing heavy, so that --help is instant."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from repertoire.errors import UserError, unknown

#: Verb -> (module in repertoire.scripts, one-line help).
VERBS = {
    "demo": ("demo", "skills -> library -> controller -> videos -> checked export -> one report"),
    "doctor": ("doctor", "check versions, devices, GL and one physics step per backend"),
    "envs": ("catalogue", "list the environments [--json]"),
    "objectives": ("catalogue", "list the skill-discovery objectives [--json]"),
    "skills": ("catalogue", "list the library, or `skills show NAME` [--json]"),
    "train": ("train", "flat RL on a task's reward"),
    "train-skills": ("train_skills", "discover skills and freeze them into the library"),
    "imitate": ("imitate", "policies for the stages of a task's scripted expert, frozen as skills"),
    "train-controller": ("train_controller", "train a controller over frozen skills"),
    "evaluate": ("evaluate", "deterministic evaluation of a run"),
    "rollout": ("rollout", "videos and plots of a run"),
    "play": ("play", "drive frozen skills by hand in an interactive viewer"),
    "export": ("export", "ONNX + contract + runner of a run [--check]"),
    "benchmark": ("benchmark", "throughput: physics, env, + inference, + learning"),
    "compare": ("compare", "arms x envs x seeds: train what is unfinished, one table, one page"),
    "report": ("report", "one HTML page of one or several runs"),
}

HELP = """repertoire VERB [key=value ...]

{verbs}

  repertoire VERB --help      the verb's settings and their defaults
  repertoire VERB -m a=1,2    sweep (imitate, and all that train); launcher=slurm submits to a cluster
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a verb. Exit code 2 and one line for bad input."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {v:17s} {text}" for v, (_, text) in VERBS.items())), end="")
        return
    if args[0] in ("-V", "--version"):
        from repertoire import __version__

        print(__version__)
        return
    try:
        _run(args[0], args[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _run(verb: str, args: list[str]) -> None:
    if verb not in VERBS:
        raise unknown("verb", verb, VERBS)
    module = importlib.import_module(f"repertoire.scripts.{VERBS[verb][0]}")
    module.main(verb, args)


if __name__ == "__main__":
    main()
