"""Deadlines that are put off again and again: one timer for all of them."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from lb.core.clock import Clock, Timer

Key = tuple[str, str]


class Deadlines:
    """Calls back with the key of each deadline that has passed. Putting one off costs no heap operation."""

    def __init__(self, clock: Clock, on_passed: Callable[[Key], object]) -> None:
        self._clock = clock
        self._on_passed = on_passed
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []  # at least one for each, at its deadline or before
        self._timer: Timer | None = None
        self._timed = float("inf")  # when the timer goes off

    def set(self, key: Key, seconds: float) -> None:
        """In so many seconds from now."""
        due = self._clock.time() + seconds
        before = self._due.get(key)
        self._due[key] = due
        if before is None or due < before:
            heappush(self._heap, (due, key))
            self._look_at(due)

    def drop(self, key: Key) -> None:
        self._due.pop(key, None)

    def __contains__(self, key: Key) -> bool:
        return key in self._due

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due.clear()
        self._heap.clear()

    def _look_at(self, due: float) -> None:
        if due < self._timed:
            if self._timer is not None:
                self._timer.cancel()
            self._timed = due
            self._timer = self._clock.call_later(max(0.0, due - self._clock.time()), self._look)

    def _look(self) -> None:
        self._timer, self._timed = None, float("inf")
        now = self._clock.time()
        passed = []
        while self._heap and self._heap[0][0] <= now:
            _, key = heappop(self._heap)
            due = self._due.get(key)
            if due is None:
                continue
            if due <= now:
                del self._due[key]
                passed.append(key)
            else:
                heappush(self._heap, (due, key))
        if self._heap:
            self._look_at(self._heap[0][0])
        for key in passed:
            self._on_passed(key)
