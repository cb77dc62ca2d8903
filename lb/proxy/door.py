"""How many clients are let in at a time.

Each takes a file descriptor, and where there is none left for it, the event loop can only accept a connection
to close it at once. So the door closes before: who waits outside waits in the kernel's queue, and is served
later rather than refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from heapq import nsmallest
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lb.proxy.listener import Listener
    from lb.proxy.plane import Plane

log = logging.getLogger("lb.proxy")

LOOK = 0.1  # seconds between two looks, while it is full, at who may go
QUIET = 0.25  # seconds: who has asked for nothing so long is hardly just about to
AT_ONCE = 64  # such a part of all is sent away at once, so that nobody is looked for at each new one
CALM = 0.9  # it is full no more when there are only so many of those that there may be


class Door:
    """Lets clients in while there is room. When there is none, those go that ask for nothing, the quietest
    first; where all of them ask for something, nobody is let in until one has gone."""

    def __init__(self, plane: Plane) -> None:
        self.last = 1 << 62  # with so many there, the next one gets the last place
        self.listeners: Sequence[Listener] = ()
        self._plane = plane
        self._closed = False
        self._called = False
        self._opening: asyncio.Task[None] | None = None
        self._full_since = 0.0  # 0: it isn't
        self._sent_away = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def room(self) -> int:
        """How many there may be."""
        return self.last + 1

    def set_room(self, room: int) -> None:
        self.last = room - 1
        if self._closed:
            self._on_gone()

    async def admit(self, listeners: Sequence[Listener]) -> None:
        """These are the listeners from now on. Raises OSError where one can't accept."""
        self.listeners = listeners
        for listener in listeners:
            if not self._closed:
                await listener.start()

    def on_full(self) -> None:
        """The last place is being taken. Told within an accept: nothing can be done before that is over."""
        if not self._called:
            self._called = True
            self._plane.loop.call_soon(self._make_room)

    def shut(self) -> None:
        """The balancer goes: there is nobody to let in any more."""
        self.listeners = ()
        if self._timer is not None:
            self._timer.cancel()

    def _make_room(self) -> None:
        self._called = False
        plane = self._plane
        if len(plane.connections) < self.last:  # somebody has gone in the meantime
            return
        if not self._full_since:
            self._begin()
        now = monotonic()
        quiet = [each for each in plane.connections if each.quiet_since < now - QUIET]
        for connection in nsmallest(max(1, self.room // AT_ONCE), quiet, key=attrgetter("quiet_since")):
            connection.leave()
            self._sent_away += 1
        if not quiet and not self._closed:
            self._closed = True
            plane.on_gone = self._on_gone
            for listener in self.listeners:
                listener.pause()

    def _on_gone(self) -> None:
        """A connection has ended, while nobody is let in."""
        if len(self._plane.connections) <= self.last and self._opening is None:
            self._opening = self._plane.loop.create_task(self._open())

    async def _open(self) -> None:
        try:
            for listener in self.listeners:
                await listener.open()
        except OSError as error:
            log.debug("still no descriptor to listen with: %s", error)  # `_look` tries again
            for listener in self.listeners:
                listener.pause()
        else:
            self._closed = False
            if self._plane.on_gone == self._on_gone:
                self._plane.on_gone = None
            await self.admit(self.listeners)
        finally:
            self._opening = None

    # --- while it is full ---

    def _begin(self) -> None:
        self._full_since = monotonic()
        self._sent_away = 0
        self._timer = self._plane.loop.call_later(LOOK, self._look)
        log.warning(
            "there are %d connections of clients, and there is room for no more: those that ask for nothing "
            "are closed, and new ones may have to wait",
            self.room,
        )

    def _look(self) -> None:
        self._timer = self._plane.loop.call_later(LOOK, self._look)
        if self._closed:
            self._make_room()
            self._on_gone()
        elif len(self._plane.connections) <= self.room * CALM:
            self._timer.cancel()
            log.warning(
                "there is room again for connections of clients, after %.1f s; %d were closed that asked for "
                "nothing",
                monotonic() - self._full_since,
                self._sent_away,
            )
            self._full_since = 0.0
