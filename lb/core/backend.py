"""A backend: one instance that answers requests, and what is known of it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

ACTIVE, DRAINING, DISABLED = "active", "draining", "disabled"
STATES = (ACTIVE, DRAINING, DISABLED)

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds of the duration histograms: half a millisecond (a neighbour) to a minute."""


class Histogram:
    """Counts of durations by upper bound, as plain ints."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

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

    def __repr__(self) -> str:
        return f"<Backend {self.id}>"

    @property
    def excluded(self) -> str:
        """Why this backend gets no new request, or nothing."""
        if self.state != ACTIVE:
            return self.state
        if not self.healthy:
            return "unhealthy"
        return "" if self.weight else "weight 0"
