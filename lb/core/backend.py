"""A backend: one instance that answers requests, and what is known of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, Protocol

from lb.core.clock import Timer

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

    def add(self, counts: Iterable[Sequence[int]], total: float) -> None:
        """Takes over what was observed elsewhere: pairs of place among the bounds and how many, their sum."""
        for place, count in counts:
            self._counts[place] += count
        self._total += total

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
    """What a source says of a backend. `weight` is its share of the traffic beside the others'; 0 is none.

    Those of `tier` 0 serve, those of a higher one where too few of the lower ones are well. With a `path` it
    is a unix socket, and has no host and no port. `zone` is where it runs, as in `eu-1a`; empty where nobody
    said.
    """

    id: str
    host: str
    port: int
    weight: int = 1
    tier: int = 0
    path: str = ""
    zone: str = ""

    def is_at(self, other: BackendSpec) -> bool:
        """Whether both are at the same address."""
        return self.port == other.port and self.host == other.host and self.path == other.path

    @property
    def address(self) -> str:
        """`host:port`, or `unix:` and the path."""
        if self.path:
            return "unix:" + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """What a Host field says where nobody else has said it. A unix socket has no name of its own."""
        return "localhost" if self.path else self.address


class SharedLoad(Protocol):
    """How many requests each worker process has in flight. A backend has one place in it, in all of them."""

    def others(self, place: int) -> int:
        """The sum of all the other processes."""

    def set(self, place: int, count: int) -> None:
        """What this process has."""


class Ejection:
    """A backend that is out for its failures, until one request has tried it again. Times are the clock's."""

    __slots__ = ("closed", "earlier", "opened", "reason", "timer", "trial", "until")

    def __init__(self, reason: str, until: float) -> None:
        self.reason = reason  # "ejected", and why and for how long in brackets
        self.until = until
        self.closed = True  # whether it is no candidate; when the time is over it is one for one request
        self.opened = 0.0  # when the time was over
        self.trial = False  # whether that request is under way
        self.earlier = 0  # attempts that were in flight before it, and say nothing of how things are now
        self.timer: Timer | None = None


class Backend:
    """A backend in a pool: its spec, its state, and its counters, which only the pool writes.

    `own` is the number of attempts of this process that have started and not ended, `in_flight` that of all
    worker processes. `weight` is what policies go by: `configured_weight`, scaled where backends of the pool
    get only a `share` of what their weight says. `upstream` belongs to the data plane, which keeps its
    connections there; nobody else looks at it.
    """

    __slots__ = (
        "candidate_of",
        "checks",
        "configured_weight",
        "connect",
        "duration",
        "ejection",
        "ejections",
        "failed_in_row",
        "failures",
        "first_byte",
        "healthy",
        "id",
        "judged",
        "own",
        "place",
        "received",
        "requests",
        "retries",
        "sent",
        "share",
        "shared",
        "spec",
        "standby",
        "state",
        "upstream",
        "weight",
    )

    def __init__(self, spec: BackendSpec, healthy: bool = True) -> None:
        # What a pick, a start and an end look at comes first: where this is compiled, attributes lie in
        # memory in this order, and of thousands of backends hardly one is in the processor's caches.
        self.own = 0
        self.shared: SharedLoad | None = None
        self.weight = spec.weight
        self.candidate_of: object = None  # the pool that may pick it now
        self.failed_in_row = 0  # only counted where outliers are ejected; never 0 while it is out
        self.place = 0  # in `shared`
        self.upstream: Any = None
        self.requests: dict[int, int] = {}  # by status
        self.duration = Histogram()
        self.first_byte = Histogram()
        self.sent = 0  # bytes of request bodies
        self.received = 0  # bytes of response bodies
        self.share = 1.0
        self.id = spec.id
        self.spec = spec
        self.configured_weight = spec.weight
        self.state = ACTIVE
        self.healthy = healthy
        self.judged = healthy  # whether anyone knows: false until the first probe where there are probes
        self.standby = ""  # why others do without it: of a higher tier, or of another zone
        self.ejection: Ejection | None = None
        self.failures: dict[str, int] = {}  # by name
        self.checks: dict[str, int] = {"success": 0, "failure": 0}
        self.ejections = 0
        self.retries = 0  # attempts that failed here and were made up for by another one
        self.connect = Histogram()

    def __repr__(self) -> str:
        return f"<Backend {self.id}>"

    @property
    def in_flight(self) -> int:
        """The requests that it is working on, those of other worker processes included."""
        shared = self.shared
        return self.own if shared is None else self.own + shared.others(self.place)

    def elsewhere(self) -> int:
        """Those of other worker processes alone."""
        shared = self.shared
        return 0 if shared is None else shared.others(self.place)

    def fold(self) -> None:
        """Counts the durations that have been gathered."""
        self.duration.fold()
        self.first_byte.fold()
        self.connect.fold()

    @property
    def active(self) -> bool:
        """Whether it is meant to serve: no one has taken it out, and its health is known."""
        return self.state == ACTIVE and self.configured_weight > 0 and self.judged

    @property
    def drains(self) -> bool:
        """Whether it ends what it has begun, and takes nothing new."""
        return self.state == DRAINING

    @property
    def excluded(self) -> str:
        """Why this backend gets no new request, or nothing. What is in front of a bracket is a fixed word."""
        if self.state != ACTIVE:
            return self.state
        if not self.healthy:
            return "unhealthy"
        ejection = self.ejection
        if ejection is not None and ejection.closed:
            return ejection.reason
        if not self.configured_weight:
            return "weight 0"
        return self.standby
