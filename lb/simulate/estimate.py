"""What a log tells of the backends: how long they work on a request, on how many at a time, how they fail.

An attempt in the log took its time in a queue at the backend, perhaps, and at work. How much was the queue
shows in how the times go with the number of requests that were there already: where a backend works on
c at a time, first come, first served, who finds k waits for k - c + 1 of them to end, and so takes
1 + (k - c + 1) / c times as long on average. The c that explains the times best is taken, if one explains
them better than chance would; with it, the time of each at work follows from when those before it ended.

All of this is done for spans of time, so that a backend that was slow for a while is slow then, and isn't
taken for a busy one.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random

from lb.simulate.latency import Constant, Latency, Sampled
from lb.simulate.scenario import ANSWERS_503, RESETS, Failing, Other, Server
from lb.simulate.trace import Came, Trace

SPANS = 100
"""Into so many spans the time of a log is divided at most."""

QUEUE_SPANS = 20
"""The same where it is about queues, since these last, and who waits is to be compared with who doesn't."""

ENOUGH = 30
"""Requests of one backend in one span on average, or there are fewer spans. Who has less than half of that in
a span works as in the one before."""

SAMPLES = 1_000_000
"""So many times are kept in all, drawn at random of all there are: 32 MB."""

MOST_THERE = 1000
"""Requests at a backend at a time, of which the number is looked at."""

CERTAIN = 40.0
"""How much better than without a queue the times must be explained, in units of what is left to chance: six
standard deviations."""

OVERTAKING = 0.02
"""In a queue, first come, first served, nobody is done before its turn comes. Where more than this share of
those who waited are, there is none."""

ROUNDED = 0.002
"""Seconds: logs have milliseconds."""

LEAST = 1e-6
"""Seconds of work that each takes at least."""


@dataclass(slots=True)
class _Sample:
    """So many values drawn of all that come (Vitter's reservoir, 1985)."""

    most: int
    values: list[float] = field(default_factory=list)
    seen: int = 0

    def add(self, value: float, rng: Random) -> None:
        self.seen += 1
        if len(self.values) < self.most:
            self.values.append(value)
        else:
            place = int(rng.random() * self.seen)
            if place < self.most:
                self.values[place] = value


@dataclass(slots=True)
class _Span:
    """What a backend did in a span of time."""

    work: _Sample = field(default_factory=lambda: _Sample(0))
    failed: _Sample = field(default_factory=lambda: _Sample(0))
    without_answer: int = 0
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A backend as the log shows it."""

    server: Server
    slots: int  # 0: no queue can be seen
    attempts: int
    median: float  # seconds of work


class _Backend:
    """One backend's requests, in the order in which they came."""

    def __init__(self, spans: int, most: int) -> None:
        self.spans = [_Span(work=_Sample(most), failed=_Sample(most)) for _ in range(spans)]
        # How long requests took by how many they found there: count, sum, sum of squares.
        self.there: list[dict[int, list[float]]] = [{} for _ in range(min(QUEUE_SPANS, spans))]
        self.slots = 0
        self._ends: list[float] = []  # of those that are there, ascending

    def restart(self) -> None:
        self._ends.clear()

    def found(self, begun: float, end: float) -> int:
        """How many are there already when one comes."""
        ends = self._ends
        del ends[: bisect_right(ends, begun)]
        there = len(ends)
        insort(ends, end)
        return there

    def work(self, begun: float, end: float, slots: int, there: int) -> float:
        """For how long one is worked on that has just come and found so many there. Below 0, it was done
        before its turn had come: that is no such queue."""
        if slots and there >= slots:
            before = self._ends[there - slots]  # when enough of the others have ended
            begun = before if before < end else self._ends[there - slots + 1]
        return end - begun


def estimated(trace: Trace, slots: int | None = None, copies: int = 0, seed: int = 1) -> list[Estimate]:
    """The backends of a log. `slots` says on how many requests each works at a time, 0 that there is no
    queue; None leaves it to the log. Where the log names no backend, so many `copies` stand for it.
    """
    count = len(trace.backends)
    spans = max(1, min(SPANS, trace.requests // (ENOUGH * count)))
    width = max(trace.seconds, 1e-9) / spans
    most = max(50, SAMPLES // (2 * count * spans))
    backends = [_Backend(spans, most) for _ in range(count)]
    if copies:
        slots = 0  # nobody knows how many were at each
    if slots is None:
        _look_at_queues(trace, backends)
        for each in backends:
            each.slots = _slots(each.there)
            each.restart()
        _look_at_work(trace, backends)
        for each in backends:
            each.restart()
    else:
        for each in backends:
            each.slots = slots
    rng = Random(f"{seed}/estimate")
    for came in trace:
        if came.took >= 0:
            _add(came, backends[came.backend], trace, rng)
    if copies:
        return [_as_server(f"backend-{n + 1}", backends[0], width, trace) for n in range(copies)]
    by_name = sorted(zip(trace.backends, backends, strict=True), key=lambda pair: pair[0])
    return [_as_server(name, backend, width, trace) for name, backend in by_name if name]


def _place(at: float, trace: Trace, spans: Sequence[object]) -> int:
    """In which of the spans a time is."""
    return min(len(spans) - 1, int(at / trace.seconds * len(spans))) if trace.seconds else 0


def _look_at_queues(trace: Trace, backends: Sequence[_Backend]) -> None:
    for came in trace:
        if came.took < 0:
            continue
        backend = backends[came.backend]
        begun = came.at + came.waited
        there = backend.found(begun, begun + came.took)
        if came.failed:
            continue
        spans = backend.there
        sums = spans[_place(begun, trace, spans)].setdefault(min(there, MOST_THERE), [0, 0.0, 0.0])
        sums[0] += 1
        sums[1] += came.took
        sums[2] += came.took * came.took


def _look_at_work(trace: Trace, backends: Sequence[_Backend]) -> None:
    """Corrects the slots. With too many, those who waited seem to take longer at work than others; with too
    few, less long. With the right number, it makes no difference."""
    tried = {each: _near(each.slots) for each in backends if each.slots}
    sums = {each: [_Halves(len(slots)) for _ in each.there] for each, slots in tried.items()}
    for came in trace:
        backend = backends[came.backend]
        if came.took < 0 or backend not in tried:
            continue
        begun = came.at + came.waited
        end = begun + came.took
        there = backend.found(begun, end)
        if not came.failed:
            place = _place(begun, trace, backend.there)
            work = [backend.work(begun, end, slots, there) for slots in tried[backend]]
            sums[backend][place].add(there >= backend.slots, work)
    for each, slots in tried.items():
        waited = sum(half.counts[1] for half in sums[each])
        possible = [
            (abs(sum(half.difference(n) for half in sums[each])), number)
            for n, number in enumerate(slots)
            if sum(half.too_soon[n] for half in sums[each]) <= OVERTAKING * waited
        ]
        each.slots = min(possible)[1] if possible else 0


def _near(slots: int) -> list[int]:
    return [*range(max(1, int(0.75 * slots)), int(1.3 * slots) + 2)]


class _Halves:
    """Times at work of those who waited and of those who didn't, with several numbers of slots."""

    def __init__(self, count: int) -> None:
        self.counts = [0, 0]
        self.too_soon = [0] * count  # who was done before its turn had come
        self._sums = [[0.0] * count, [0.0] * count]

    def add(self, waited: bool, work: Sequence[float]) -> None:
        self.counts[waited] += 1
        sums = self._sums[waited]
        for place, each in enumerate(work):
            sums[place] += each
            if each < -ROUNDED:
                self.too_soon[place] += 1

    def difference(self, place: int) -> float:
        """By how much who waited took longer, for what is known of it."""
        fewer, more = self.counts
        if not fewer or not more:
            return 0.0
        return (self._sums[1][place] / more - self._sums[0][place] / fewer) * fewer * more / (fewer + more)


def _slots(spans: Sequence[dict[int, list[float]]]) -> int:
    """On how many requests a backend works at a time; 0 where nothing speaks for a queue."""
    most = max((there for span in spans for there in span), default=0)
    count = sum(sums[0] for span in spans for sums in span.values())
    without = _unexplained(spans, inf)
    best, least = 0, without
    tried = sorted({*range(1, min(most, 32) + 1), *(int(1.1**power) for power in range(36, 73))})
    for slots in (each for each in tried if each <= most):
        left = _unexplained(spans, slots)
        if left < least:
            best, least = slots, left
    noise = max(least, 1e-12 * without) / max(1, count)
    return best if without - least > CERTAIN * noise else 0


def _unexplained(spans: Sequence[dict[int, list[float]]], slots: float) -> float:
    """The sum of squares that is left when each span's times go with the length of the queue."""
    left = 0.0
    for span in spans:
        squares = products = lengths = 0.0
        for there, (count, total, total_of_squares) in span.items():
            length = 1.0 + max(0.0, there - slots + 1) / slots
            squares += total_of_squares
            products += length * total
            lengths += count * length * length
        if lengths:
            left += squares - products * products / lengths
    return left


def _add(came: Came, backend: _Backend, trace: Trace, rng: Random) -> None:
    begun = came.at + came.waited
    end = begun + came.took
    span = backend.spans[_place(begun, trace, backend.spans)]
    if not came.failed:
        work = backend.work(begun, end, backend.slots, backend.found(begun, end))
        span.work.add(max(LEAST, work), rng)
        span.attempts += 1
        return
    backend.found(begun, end)
    if came.status != _CLIENT_GONE:
        span.failed.add(came.took, rng)
        span.without_answer += not came.status
        span.attempts += 1


_CLIENT_GONE = 499


def _as_server(name: str, backend: _Backend, width: float, trace: Trace) -> Estimate:
    others, failing = list[Other](), list[Failing]()
    before: Latency | None = None
    every = [value for span in backend.spans for value in span.work.values]
    for number, span in enumerate(backend.spans):
        if span.work.seen >= ENOUGH // 2:
            before = Sampled(tuple(span.work.values))
        if before is not None:
            others.append(Other(number * width, width, before))
        if span.failed.seen:
            share = span.failed.seen / span.attempts
            kind = RESETS if span.without_answer * 2 > span.failed.seen else ANSWERS_503
            failing.append(Failing(number * width, width, share, Sampled(tuple(span.failed.values)), kind))
    used = [number for number, span in enumerate(backend.spans) if span.attempts]
    there = (used[0] * width, (used[-1] + 1) * width) if used else (0.0, 0.0)
    whole = len(backend.spans)
    presence = (there[0], inf if not used or used[-1] == whole - 1 else there[1])
    latency = Sampled(tuple(every)) if every else Constant(LEAST)
    server = Server(
        name, latency, slots=backend.slots, presence=(presence,), other=tuple(others), failing=tuple(failing)
    )
    median = sorted(every)[len(every) // 2] if every else 0.0
    return Estimate(server, backend.slots, sum(span.attempts for span in backend.spans), median)
