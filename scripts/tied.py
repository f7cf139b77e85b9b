"""The console command, ended with the process that started it: what `compare` trains never outlives it unseen."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from repertoire.scripts import cli

_PDEATHSIG = 1  # PR_SET_PDEATHSIG of Linux's prctl


def tie(parent: int) -> None:
    """Ask for SIGTERM, at which training saves, when process `parent`, ours, ends. Only Linux can; else nothing."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before it could be asked
        sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    tie(int(sys.argv[1]))
    cli.main(sys.argv[2:])
