"""How fast a server works in the course of time: slowed down, cold, or standing still."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from math import inf

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
