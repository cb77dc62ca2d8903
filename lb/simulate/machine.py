"""A machine: a server of the scenario at work.

What becomes of a request is known as soon as it comes, since the scenario says all that is going to happen:
so it is one event, and nothing has to be taken back. Whoever balances knows nothing of that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from heapq import heapify, heapreplace
from math import inf
from random import Random

from lb.core.failure import CONNECT_FAILED, RESET, Failure
from lb.simulate.course import Course, Span, Steps
from lb.simulate.latency import Draw
from lb.simulate.scenario import ANSWERS_503, Crash, Server

REFUSED = 0.0005
"""Seconds until it is clear that nobody listens there: a way to a neighbour and back."""

End = tuple[float, Failure | None, int]
"""When a request ends, its failure, and its status (0: there is none)."""


class Machine:
    """Worker slots and a queue, with a latency, and all that befalls it."""

    def __init__(self, server: Server, seed: str, horizon: float) -> None:
        self.server = server
        self.id = server.id
        self.taken = 0  # attempts that have been given to it since the counting began
        rng = Random(f"{seed}/{server.id}")
        self._draw: Draw = server.latency.draw_from(rng)
        self._random = rng.random
        self._others = Steps(
            (each.start, each.start + each.seconds, each.latency.draw_from(rng)) for each in server.other
        )
        self._failing = Steps(
            (each.start, each.start + each.seconds, (each, each.latency.draw_from(rng)))
            for each in server.failing
        )
        self._outages = sorted(server.crashes, key=lambda crash: crash.start)
        self._paused = _pauses(server, Random(f"{seed}/{server.id}/pauses"), horizon)
        spans = [(each.start, each.start + each.seconds, each.times) for each in server.slow]
        spans += self._paused + _cold(server)
        self._course = Course(spans) if spans else None
        self._careful = bool(spans or server.other or server.failing or self._outages)
        self._free = [0.0] * server.slots  # when each slot is; a heap
        self._waiting: deque[float] = deque()  # when those who wait will begin
        self._limited = server.queue is not None
        self._most_waiting = server.queue or 0
        self._restarts = 0  # outages that are over

    def take(self, now: float) -> End:
        """A request comes: what becomes of it."""
        self.taken += 1
        if self._careful:
            return self._take_carefully(now)
        free = self._free
        if not free:
            return now + self._draw(), None, 200
        begun = free[0]
        if begun <= now:
            end = now + self._draw()
        elif self._limited and self._full(now, begun):
            return now + REFUSED, None, 503
        else:
            end = begun + self._draw()
        heapreplace(free, end)
        return end, None, 200

    def _full(self, now: float, begun: float) -> bool:
        """Whether there is no room to wait; else it waits, and begins then."""
        waiting = self._waiting
        while waiting and waiting[0] <= now:
            waiting.popleft()
        if len(waiting) >= self._most_waiting:
            return True
        waiting.append(begun)
        return False

    def _take_carefully(self, now: float) -> End:
        following = self._outage_after(now) if self._outages else None
        if following is not None and following.start <= now:
            return now + REFUSED, CONNECT_FAILED, 0
        for failing, draw in self._failing.at(now):
            if self._random() < failing.share:
                soon = now + draw()
                return (soon, None, 503) if failing.kind == ANSWERS_503 else (soon, RESET, 0)
        begun = now
        if self._free:
            begun = max(now, self._free[0])
            if begun > now and self._limited and self._full(now, begun):
                return now + REFUSED, None, 503
        end = self._finish(begun)
        if self._free:
            heapreplace(self._free, end)
        if following is not None and end > following.start:
            return following.start, RESET, 0
        return end, None, 200

    def _finish(self, begun: float) -> float:
        others = self._others.at(begun)
        work = others[-1]() if others else self._draw()
        return begun + work if self._course is None else self._course.finish(begun, work)

    def _outage_after(self, now: float) -> Crash | None:
        """The outage that is, or the next one. After one, the machine has forgotten what it had."""
        outages = self._outages
        while self._restarts < len(outages):
            outage = outages[self._restarts]
            back = outage.start + outage.seconds
            if now < back:
                return outage
            self._restarts += 1
            self._free = [back] * len(self._free)
            heapify(self._free)
            self._waiting.clear()
        return None

    def answers(self, now: float, timeout: float) -> bool:
        """Whether a health probe gets an answer now: it does unless the machine is down, or stands still."""
        for outage in self._outages:
            if outage.start <= now < outage.start + outage.seconds:
                return False
        place = bisect_right(self._paused, (now, inf, inf)) - 1
        return place < 0 or self._paused[place][1] - now <= timeout


def _pauses(server: Server, rng: Random, horizon: float) -> list[Span]:
    if server.pauses is None:
        return []
    found, now = list[Span](), 0.0
    length = server.pauses.length.draw_from(rng)
    while True:
        now += rng.expovariate(1.0 / server.pauses.every)
        if now >= horizon:
            return found
        end = now + length()
        found.append((now, end, inf))
        now = end


def _cold(server: Server) -> list[Span]:
    if not server.cold:
        return []
    warm_at_first = server.presence[0][0] <= 0.0
    starts = [start for start, _ in server.presence[warm_at_first:]]
    starts += [crash.start + crash.seconds for crash in server.crashes]
    return [(start, start + server.cold, server.cold_times) for start in starts]
