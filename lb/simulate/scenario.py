"""A scenario: what happens to whom and when, as plain values. Times in seconds from the start of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from lb.core.affinity import KeyReader
from lb.core.message import Request
from lb.core.rules import PoolRules
from lb.simulate.latency import Constant, Latency

_AT_ONCE = Constant(0.0)

RESETS, ANSWERS_503 = "reset", "503"


@dataclass(frozen=True, slots=True)
class Slow:
    """Takes `times` as long for a while. What it is working on is slowed down as well."""

    start: float
    seconds: float
    times: float


@dataclass(frozen=True, slots=True)
class Other:
    """Has another latency for a while: requests that it begins to work on then."""

    start: float
    seconds: float
    latency: Latency


@dataclass(frozen=True, slots=True)
class Pauses:
    """Stands still now and then, as for a collection of garbage. `every` is the mean time between two."""

    every: float
    length: Latency


@dataclass(frozen=True, slots=True)
class Crash:
    """Loses all that it has, and can't be reached for a while."""

    start: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Failing:
    """Fails a share of its requests for a while, at once and not as slowly as it would answer."""

    start: float
    seconds: float
    share: float
    latency: Latency
    kind: str = RESETS


@dataclass(frozen=True, slots=True)
class Server:
    """A backend as it really is, whatever the balancer knows of it.

    It works on `slots` requests at a time (0: on all), and keeps `queue` more waiting (None: all), first
    come, first served. `presence` are the spans in which it is in the pool. For `cold` seconds after it has
    come in the midst of the run, or back from a crash, it takes `cold_times` as long.
    """

    id: str
    latency: Latency
    weight: int = 1
    tier: int = 0
    zone: str = ""
    slots: int = 0
    queue: int | None = None
    presence: tuple[tuple[float, float], ...] = ((0.0, inf),)
    slow: tuple[Slow, ...] = ()
    other: tuple[Other, ...] = ()
    pauses: Pauses | None = None
    crashes: tuple[Crash, ...] = ()
    failing: tuple[Failing, ...] = ()
    cold: float = 0.0
    cold_times: float = 1.0


@dataclass(frozen=True, slots=True)
class Poisson:
    """Open: requests come whatever becomes of those before, `rate` a second on average.

    Every `burst_every` seconds there are `burst_times` as many for `burst_seconds`. The rate swings by a
    share of `swing` in each `period`, as between night and day.
    """

    rate: float
    burst_every: float = 0.0
    burst_seconds: float = 0.0
    burst_times: float = 1.0
    period: float = 0.0
    swing: float = 0.0


@dataclass(frozen=True, slots=True)
class Clients:
    """Closed: so many clients, each with one request at a time, who `think` between two."""

    count: int
    think: Latency = _AT_ONCE


class Logged(Protocol):
    """Requests as they came once; see lb.simulate.replay."""

    rate: float

    def play(self, reader: KeyReader | None) -> tuple[Callable[[float], float], Callable[[], Request]]:
        """From the beginning: a function of the present time that gives the seconds until the next one, and
        one that gives the request that has come then."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What requests have in common with others: a key each, by which some policies send them.

    Drawn from `names`, or from so many others; each equally often, or in proportion to `shares`, or to
    1 / rank to the power of `zipf`.
    """

    count: int = 0
    zipf: float = 0.0
    names: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Probes:
    """The health check: asks each backend, so often, and takes it out after `fall` failures in a row."""

    interval: float
    timeout: float
    rise: int
    fall: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """All of a run but the policy and the seed. What begins before `warm_up` isn't counted.

    `timeout` is how long an attempt may take. With several `workers`, each has a pool of its own, and knows
    of the others' requests only where they are `shared`. `zones` are those that the workers run in, in turn;
    the pool of a worker without a zone goes by none.
    """

    name: str
    arrivals: Poisson | Clients | Logged
    servers: tuple[Server, ...]
    duration: float
    warm_up: float = 0.0
    timeout: float = inf
    workers: int = 1
    shared: bool = False
    zones: tuple[str, ...] = ()
    rules: PoolRules = field(default_factory=PoolRules)
    probes: Probes | None = None
    keys: Keys | None = None
    about: str = ""
