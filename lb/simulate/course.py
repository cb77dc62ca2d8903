"""What holds in the course of time: how fast a server works, and whatever else begins and ends."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")

Span = tuple[float, float, float]
"""From when to when in seconds, and how many times as long everything takes (infinitely: it stands still)."""


class Course:
    """The speed as steps. Spans that overlap are multiplied."""

    def __init__(self, spans: Iterable[Span]) -> None:
        edges: list[tuple[float, int, float]] = []
        for start, end, times in spans:
            edges += [(start, 1, times), (end, -1, times)]
        edges.sort()
        self.starts, self.speeds = [0.0], [1.0]
        open_spans: list[float] = []
        for at, change, times in edges:
            if at == inf:
                break
            if change > 0:
                open_spans.append(times)
            else:
                open_spans.remove(times)
            speed = 1.0
            for each in sorted(open_spans):
                speed /= each
            if at <= self.starts[-1]:
                self.speeds[-1] = speed
            else:
                self.starts.append(at)
                self.speeds.append(speed)
        self._step = 0  # that of the last question, and until when it lasts: the next one is mostly the same
        self._until = self.starts[1] if len(self.starts) > 1 else inf

    def finish(self, start: float, work: float) -> float:
        """When so many seconds of work are done that begin then. Infinity where they never are."""
        starts, speeds, step = self.starts, self.speeds, self._step
        if not starts[step] <= start < self._until:
            step = self._step = max(0, bisect_right(starts, start) - 1)
            self._until = starts[step + 1] if step + 1 < len(starts) else inf
        if speeds[step] and start + work / speeds[step] <= self._until:
            return start + work / speeds[step]
        for following in range(step + 1, len(starts)):
            speed, end = speeds[following - 1], starts[following]
            done = (end - start) * speed
            if done >= work and speed:
                return start + work / speed
            work -= done
            start = end
        return start + work / speeds[-1] if speeds[-1] else inf


class Steps(Generic[T]):
    """What holds at a time, of things that each begin and end, in the order in which they are given."""

    def __init__(self, spans: Iterable[tuple[float, float, T]]) -> None:
        kept = list(spans)
        edges = sorted({edge for start, end, _ in kept for edge in (start, end)})
        begun = sorted(range(len(kept)), key=lambda each: kept[each][0], reverse=True)
        self._starts = edges
        self._held: list[tuple[T, ...]] = [()]
        now: list[int] = []
        for edge in edges:
            now = [each for each in now if kept[each][1] > edge]
            while begun and kept[begun[-1]][0] <= edge:
                now.append(begun.pop())
            self._held.append(tuple(kept[each][2] for each in sorted(now)))

    def at(self, now: float) -> tuple[T, ...]:
        return self._held[bisect_right(self._starts, now)]
