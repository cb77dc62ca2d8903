"""What a running balancer does now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from operator import attrgetter

from lb.build import own_files
from lb.running.parts import Running


class Chore:
    """Something to be done every so many seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, do: Callable[[], object]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._do = do
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Does it, and again from then on."""
        self._timer = self._loop.call_later(self._seconds, self.start)
        self._do()

    def stop(self) -> None:
        """Leaves it from now on."""
        if self._timer is not None:
            self._timer.cancel()


def fold(app: Running) -> None:
    """Counts the durations that were gathered since the last time."""
    for pool in app.pools.values():
        for backend in pool.backends.values():
            backend.fold()
    for stats in app.clients.listeners.values():
        stats.duration.fold()


def leave_descriptors(app: Running) -> None:
    """Closes unused connections to backends, where all together they take what is meant for clients."""
    upstreams = [
        backend.upstream
        for pool in app.pools.values()
        for backend in pool.backends.values()
        if backend.upstream is not None
    ]
    too_many = sum(each.connections for each in upstreams) - (
        app.files - own_files(app.config) - app.door.room
    )
    while too_many > 0:
        idle = [each.idle[0] for each in upstreams if each.idle]
        if not idle:
            break
        min(idle, key=attrgetter("deadline")).retire()
        too_many -= 1
