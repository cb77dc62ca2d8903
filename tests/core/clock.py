"""Time that only moves when it is told to."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class VirtualTimer:
    """A call that is due; `cancel()` takes it back."""

    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualClock:
    """A clock (see lb.core.clock) driven by hand, in seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._due: list[tuple[float, int, VirtualTimer]] = []
        self._order = count()  # what is due at the same time is called in the order it was asked for

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: object) -> VirtualTimer:
        timer = VirtualTimer(callback, args)
        heappush(self._due, (self._now + delay, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Moves on, and calls what falls due on the way, each at its own time."""
        end = self._now + seconds
        while self._due and self._due[0][0] <= end:
            self._now, _, timer = heappop(self._due)
            if not timer.cancelled:
                timer.callback(*timer.args)
        self._now = end
