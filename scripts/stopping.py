"""Ctrl-C and SIGTERM ask a run to stop after the update at hand, so that its state can be saved; a second one kills."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Stopped(SystemExit):
    """A run was asked to stop and saved itself; the exit code is that of the signal (130 for Ctrl-C)."""


class StopRequest:
    """Context manager: `requested` holds the signal number once one came, else 0."""

    def __init__(self) -> None:
        self.requested = 0
        self._old: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # handlers can be set nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = number
        print("\nstopping after this update (press Ctrl-C again to stop at once)", flush=True)
