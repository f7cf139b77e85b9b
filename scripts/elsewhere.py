"""A measurement in a process of its own: what does not compile, or takes too long, is a note and not the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from repertoire.errors import UserError
from repertoire.scripts import plugins


def ask(module: str, asked: list[Any], limit_s: float, platform: str = "cpu") -> dict[str, Any] | str:
    """What `module`, run as a program, `answer`s to `asked` within `limit_s`; else the reason why there is nothing."""
    command = [sys.executable, "-P", "-m", module, json.dumps(asked)]
    env = {**os.environ, "JAX_PLATFORMS": platform}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return f"not done after {limit_s:g} s"
    last = ((done.stderr if done.returncode else done.stdout).strip().splitlines() or ["no output"])[-1]
    return last[:200] if done.returncode else dict(json.loads(last))


def answer(function: Callable[..., dict[str, Any]]) -> None:
    """The other side of `ask`: print `function` of what was asked as JSON, or leave with the error's one line."""
    try:
        plugins.load()
        print(json.dumps(function(*json.loads(sys.argv[1]))))
    except UserError as error:
        sys.exit(str(error))
