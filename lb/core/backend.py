"""A backend: one instance that answers requests, and what is known of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from math import fsum
from typing import Any

ACTIVE, DRAINING, DISABLED = "active", "draining", "disabled"
STATES = (ACTIVE, DRAINING, DISABLED)

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds of the duration histograms: half a millisecond (a neighbour) to a minute."""


class Histogram:
    """Counts of durations in seconds by upper bound.

    `observe` only appends to a list. `fold` sorts it and counts it all at once, which costs a third of
    counting one at a time; reading does it too.
    """

    __slots__ = ("_counts", "_fresh", "_total", "observe")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0
        self._fresh: list[float] = []
        self.observe: Callable[[float], None] = self._fresh.append

    def fold(self) -> None:
        """Counts what has been observed since. To be called now and then, or the list grows."""
        fresh = self._fresh
        if not fresh:
            return
        fresh.sort()
        self._total += fsum(fresh)
        below = 0
        for place, bound in enumerate(BOUNDS):
            upto = bisect_right(fresh, bound, below)
            self._counts[place] += upto - below
            below = upto
        self._counts[-1] += len(fresh) - below
        fresh.clear()

    @property
    def counts(self) -> list[int]:
        """How many there were by upper bound; the last one is for all above."""
        self.fold()
        return self._counts

    @property
    def total(self) -> float:
        """The sum of all durations."""
        self.fold()
        return self._total

    def cumulative(self) -> list[tuple[str, int]]:
        """Pairs of (upper bound, how many were no larger), the last one `+Inf`: Prometheus' buckets."""
        so_far, pairs = 0, []
        for bound, count in zip((*map(repr, BOUNDS), "+Inf"), self.counts, strict=True):
            so_far += count
            pairs.append((bound, so_far))
        return pairs


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """What a source says of a backend. `weight` is its share of the traffic beside the others'; 0 is none."""

    id: str
    host: str
    port: int
    weight: int = 1

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Backend:
    """A backend in a pool: its spec, its state, and its counters, which only the pool writes.

    `in_flight` is the number of attempts that have started and not ended. `upstream` belongs to the
    data plane, which keeps its connections there; nobody else looks at it.
    """

    __slots__ = (
        "candidate_of",
        "checks",
        "connect",
        "duration",
        "failures",
        "first_byte",
        "healthy",
        "id",
        "in_flight",
        "received",
        "requests",
        "sent",
        "spec",
        "state",
        "upstream",
        "weight",
    )

    def __init__(self, spec: BackendSpec, healthy: bool = True) -> None:
        self.id = spec.id
        self.spec = spec
        self.weight = spec.weight
        self.state = ACTIVE
        self.healthy = healthy
        self.in_flight = 0
        self.requests: dict[int, int] = {}  # by status
        self.failures: dict[str, int] = {}  # by name
        self.checks: dict[str, int] = {"success": 0, "failure": 0}
        self.duration = Histogram()
        self.first_byte = Histogram()
        self.connect = Histogram()
        self.sent = 0  # bytes of request bodies
        self.received = 0  # bytes of response bodies
        self.upstream: Any = None
        self.candidate_of: object = None  # the pool that may pick it now

    def __repr__(self) -> str:
        return f"<Backend {self.id}>"

    def fold(self) -> None:
        """Counts the durations that have been gathered."""
        self.duration.fold()
        self.first_byte.fold()
        self.connect.fold()

    @property
    def excluded(self) -> str:
        """Why this backend gets no new request, or nothing."""
        if self.state != ACTIVE:
            return self.state
        if not self.healthy:
            return "unhealthy"
        return "" if self.weight else "weight 0"
