"""Deadlines, swept by one coarse timer.

A timer per request would cost a microsecond each time, and nearly all of them are cancelled. So whoever can
time out keeps a `deadline`, moves it by plain assignment, and is looked at four times a second.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Final, Protocol

log = logging.getLogger("lb.proxy")

TICK: Final = 0.25  # seconds: how late a timeout may be noticed
NEVER: Final = float("inf")


class Deadlined(Protocol):
    """Something that times out: `deadline` is by the monotonic clock, `NEVER` while nothing is awaited."""

    deadline: float

    def on_deadline(self, now: float) -> None: ...


class Sweeper:
    """Calls `on_deadline` of those whose deadline has passed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: set[Deadlined] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.watch = self._watched.add
        self.unwatch = self._watched.discard

    def start(self) -> None:
        self._timer = self._loop.call_later(TICK, self._sweep)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        self.start()
        now = monotonic()
        for late in [watched for watched in self._watched if watched.deadline <= now]:
            if late.deadline > now:  # what came of another one's end has moved it
                continue
            late.deadline = NEVER
            try:
                late.on_deadline(now)
            except Exception:
                log.exception("a timeout could not be handled")
