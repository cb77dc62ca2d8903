"""Virtual time: a heap of what is going to happen, and a clock that jumps from one thing to the next."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

Event = tuple[Any, ...]
"""When in seconds, a number that orders what happens at the same time, a function that is called with the
whole tuple, and whatever it needs behind that. A tuple, since there is one for each request."""


class VirtualTimer:
    """A call that is due; `cancel()` takes it back."""

    __slots__ = ("args", "callback")

    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """A clock (see lb.core.clock) that moves when something happens, and only then. In seconds from 0."""

    __slots__ = ("heap", "next_number", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.heap: list[Event] = []
        self.next_number = count().__next__

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: object) -> VirtualTimer:
        timer = VirtualTimer(callback, args)
        self.at(self.now + max(0.0, delay), _fire, timer)
        return timer

    def at(self, when: float, call: Callable[[Event], object], *rest: object) -> None:
        """Calls it with the event, at that time."""
        heappush(self.heap, (when, self.next_number(), call, *rest))

    def run(self, until: float) -> None:
        """Lets happen what is due up to then, in order."""
        heap = self.heap
        while heap and heap[0][0] <= until:
            event = heappop(heap)
            self.now = event[0]
            event[2](event)
        self.now = max(self.now, until)

    def step(self) -> bool:
        """Lets the next thing happen; false where there is none."""
        if not self.heap:
            return False
        event = heappop(self.heap)
        self.now = event[0]
        event[2](event)
        return True


def _fire(event: Event) -> None:
    timer: VirtualTimer = event[3]
    if timer.callback is not None:
        timer.callback(*timer.args)
