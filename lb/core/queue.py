"""Who waits until a backend is free, in the order they came."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from lb.core.backend import Backend
from lb.core.clock import Clock, Timer

LOOK_AGAIN = 0.02
"""Seconds between two looks, while requests wait, at what other worker processes have freed."""


class Waiter(Protocol):
    """An exchange that there is no free backend for yet."""

    def on_turn(self) -> None:
        """A backend is free, or none is left to wait for: pick now. It waits no longer."""


class Waiting:
    """At most so many waiters, first come, first served. Joining, leaving and being next are O(1).

    `has_room` says whether one more may go to this backend, or (None) to any; and that it may where there is
    nothing left to wait for.
    """

    __slots__ = ("_clock", "_has_room", "_looking", "_waking", "_woken_within", "most", "waiters")

    def __init__(self, most: int, clock: Clock, has_room: Callable[[Backend | None], bool]) -> None:
        self.most = most
        # An ordered dict, since finding the first key of a plain one costs more with each that was taken out.
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()
        self._clock = clock
        self._has_room = has_room
        self._waking = False
        self._woken_within = False
        self._looking: Timer | None = None

    def __len__(self) -> int:
        return len(self.waiters)

    def join(self, waiter: Waiter, first: bool = False) -> bool:
        """Waits behind all others; false if there is no place left. Who waits already keeps its place.

        Who had its turn in vain waits on as the `first`, and always finds a place.
        """
        waiters = self.waiters
        if waiter in waiters:
            return True
        if len(waiters) >= self.most and not first:
            return False
        waiters[waiter] = None
        if first:
            waiters.move_to_end(waiter, last=False)
        return True

    def leave(self, waiter: Waiter) -> None:
        """Waits no longer. Nothing happens if it didn't."""
        self.waiters.pop(waiter, None)

    def next(self) -> Waiter:
        """Takes the first one out. Raises KeyError where nobody waits."""
        return self.waiters.popitem(last=False)[0]

    def wake(self, freed: Backend | None) -> None:
        """Calls the first ones while there is room: at this backend, or (None) wherever.

        One free place is one call, since who is called takes it before the next one is. If it doesn't, being
        gone, the next one gets its chance. What ends or changes meanwhile is seen to here, and not by a
        call within a call within a call.
        """
        if self._waking:
            self._woken_within = True
            return
        self._waking, self._woken_within = True, False
        try:
            while self.waiters and self._has_room(freed):
                self.next().on_turn()
                if self._woken_within:
                    freed = None
        finally:
            self._waking = False

    def keep_looking(self) -> None:
        """Looks from time to time, while anyone waits: other worker processes don't tell us when they are
        done with a backend."""
        if self._looking is None:
            self._looking = self._clock.call_later(LOOK_AGAIN, self._look)

    def _look(self) -> None:
        self._looking = None
        if self.waiters:
            self.keep_looking()
            self.wake(None)

    def close(self) -> None:
        """Looks no more."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
