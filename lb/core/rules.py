"""The rules of a pool: what it does when backends fail, are new, or are too few. All off unless said."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

BAD_STATUSES = frozenset((502, 503, 504))
"""Answers that say the backend, or what stands behind it, can't serve now: RFC 9110, section 15.6."""


@dataclass(frozen=True, slots=True)
class OutlierRules:
    """When a backend is ejected for what it does to real requests, and for how long. Times in seconds.

    `consecutive_failures` in a row eject it (0: never), and so does a share of `failure_rate` or more (None:
    never) among at least `minimum_requests` attempts within an `interval`. What counts is a failure by the
    backend's fault and an answer of one of these `statuses`. It is out for `ejection`, twice as long with
    each further time, `max_ejection` at most, and no more than `max_ejected` of the pool are out at once.
    Without `enforce`, ejections are counted and nothing else happens.
    """

    consecutive_failures: int = 5
    failure_rate: float | None = None
    minimum_requests: int = 20
    interval: float = 10.0
    ejection: float = 10.0
    max_ejection: float = 300.0
    max_ejected: float = 0.5
    enforce: bool = True
    statuses: frozenset[int] = BAD_STATUSES


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How often a failed attempt may be hidden by another one.

    `attempts` are those beyond the first one, per exchange. All of them together are at most `share` of the
    pool's exchanges, but `least` a second are always allowed. A request of more than `body` bytes is not kept
    for another attempt. `statuses` are answers that are tried again elsewhere, like a failure.
    """

    attempts: int = 1
    share: float = 0.2
    least: int = 3
    body: int = 65536
    statuses: frozenset[int] = BAD_STATUSES


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long backends may take, in seconds: to connect, to begin an answer, between two pieces of a body;
    the exchange as a whole, with the time in a queue and all of its attempts; and without a byte through a
    tunnel, such as a WebSocket."""

    connect: float = 2.0
    response_header: float = 30.0
    idle: float = 60.0
    total: float = inf
    tunnel: float = 3600.0


@dataclass(frozen=True, slots=True)
class ZoneRules:
    """Backends of the balancer's own `zone` come first, while at least so many as `least` of them are well.

    `traffic` is the zone's part of all traffic, from 0 to 1; 0 where each zone has as much as any other.
    """

    zone: str
    traffic: float = 0.0
    least: int = 1


@dataclass(frozen=True, slots=True)
class StickyRules:
    """The cookie that brings a client back to its backend. `attributes` are what follows its value."""

    cookie: str
    attributes: str = "; Path=/; HttpOnly; SameSite=Lax"
    secret: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class PoolRules:
    """All rules of a pool. What is 0 or None is off.

    `slow_start` is how many seconds a new or recovered backend takes from a tenth of its weight to all of it.
    Where less than `panic_threshold` (a share) of the backends can be used, all of them are. `requests` and
    `connections` are how many may be under way at once, in this process; `…_per_backend`, in all worker
    processes together as far as they tell each other. So many as `queue` may wait for a free backend, each
    for `queue_timeout` seconds at most.
    """

    slow_start: float = 0.0
    panic_threshold: float = 0.0
    requests: int = 0
    requests_per_backend: int = 0
    connections: int = 0
    connections_per_backend: int = 0
    queue: int = 0
    queue_timeout: float = 1.0
    outliers: OutlierRules | None = None
    retries: RetryRules | None = None
    zones: ZoneRules | None = None
    sticky: StickyRules | None = None
