"""Pools that are driven by hand through whatever may happen to them, to see what a policy does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from lb.balance import Balancer
from lb.core.backend import ACTIVE, DISABLED, DRAINING, Backend, BackendSpec
from lb.core.failure import AT_LIMIT, RESET, Failure
from lb.core.message import Request
from lb.core.pool import ALL_OFF, Pool
from lb.core.rules import OutlierRules, PoolRules
from lb.simulate.clock import VirtualClock
from lb.simulate.keys import keyed_request

Make = Callable[[VirtualClock, Random], Balancer]
"""Makes a policy, with the options that it is to have."""


class Broken(Exception):
    """The contract isn't kept: what was found."""


def ensure(holds: object, words: str) -> None:
    if not holds:
        raise Broken(words)


ALL_ON = PoolRules(
    slow_start=5.0,
    panic_threshold=0.3,
    requests_per_backend=3,
    requests=8,
    outliers=OutlierRules(consecutive_failures=2, ejection=1.0, failure_rate=0.5, minimum_requests=3),
)
"""All rules of a pool at once, and narrow ones."""


# --- driving a pool ---


def specs(**weights: int) -> list[BackendSpec]:
    """Backends by name and weight, each at an address of its own."""
    return [BackendSpec(name, f"{name}.test", 9000, weight) for name, weight in weights.items()]


def numbered(weights: Sequence[int]) -> list[BackendSpec]:
    """Backends b0, b1, … of these weights."""
    return specs(**{f"b{number}": weight for number, weight in enumerate(weights)})


def pool_of(
    make: Make, backends: Sequence[BackendSpec], seed: int = 1, rules: PoolRules = ALL_OFF
) -> tuple[Pool, VirtualClock]:
    clock = VirtualClock()
    clock.now = 1000.0
    pool = Pool("contract", make(clock, Random(seed)), clock, rules=rules, rng=Random(seed))
    if backends:
        pool.update(backends)
    return pool, clock


def picked(pool: Pool, tried: Sequence[Backend] = (), request: Request | None = None) -> Backend:
    backend = pool.pick(request, tried)
    if not isinstance(backend, Backend):
        raise Broken(f"of {len(pool.eligible)} eligible backends none was picked: {backend.name}")
    return backend


def served(pool: Pool, count: int) -> list[str]:
    """The IDs of those who serve so many requests, one after the other."""
    names = []
    for _ in range(count):
        backend = picked(pool)
        pool.start(backend)
        pool.end(backend, pool.clock.time(), None, 200)
        names.append(backend.id)
    return names


class Traffic:
    """Attempts on virtual time, each ending by itself; everyone who ever served is remembered."""

    def __init__(self, pool: Pool, clock: VirtualClock) -> None:
        self.pool = pool
        self.clock = clock
        self.seen: set[Backend] = set()

    def request(
        self, length: float, failure: Failure | None = None, request: Request | None = None
    ) -> Backend:
        backend = picked(self.pool, request=request)
        self.seen.add(backend)
        self.pool.start(backend)
        status = 0 if failure else 200
        self.clock.call_later(length, self.pool.end, backend, self.clock.time(), failure, status)
        return backend

    def passes(self, seconds: float) -> None:
        self.clock.run(self.clock.now + seconds)


@dataclass(frozen=True)
class Step:
    """Something that happens to a pool under traffic."""

    what: str
    which: str = "a"
    weight: int = 1
    length: float = 0.1
    members: str = "abc"

    def happen(self, traffic: Traffic) -> None:
        pool = traffic.pool
        backend = pool.backends.get(self.which)
        if self.what == "members":
            pool.update([BackendSpec(name, f"{name}.test", 1, self.weight) for name in self.members])
        elif self.what == "time":
            traffic.passes(self.length)
        elif self.what in REQUESTS:
            if pool.eligible:
                failure = RESET if self.what == "reset" else None
                request = keyed_request(self.which.encode()) if self.what == "keyed" else None
                traffic.request(self.length, failure, request)
            else:
                ensure(isinstance(pool.pick(None), Failure), "a pool without eligible backends had one")
        elif backend is None:
            return
        elif self.what == "weight":
            pool.set_weight(backend, self.weight)
        elif self.what in ("up", "down"):
            pool.set_health(backend, self.what == "up")
        else:
            pool.set_state(backend, self.what)


REQUESTS = ("request", "reset", "keyed")
HAPPENINGS = (*REQUESTS, "time", "members", "weight", "up", "down", ACTIVE, DRAINING, DISABLED)
NAMES = "abcde"
LENGTHS = (0.0, 0.05, 0.3, 2.0)


def random_steps(rng: Random) -> Iterator[Step]:
    for _ in range(60):
        members = "".join(rng.sample(NAMES, rng.randint(0, len(NAMES))))
        what = "request" if rng.random() < 0.4 else rng.choice(HAPPENINGS)
        yield Step(what, rng.choice(NAMES), rng.randint(0, 5), rng.choice(LENGTHS), members)


def walk(make: Make, steps: Iterable[Step]) -> None:
    """Whatever happens, only the eligible serve, and nothing stays in flight."""
    pool, clock = pool_of(make, specs(a=1, b=2, c=1))
    traffic = Traffic(pool, clock)
    for step in steps:
        step.happen(traffic)
        if pool.eligible:
            backend = picked(pool)
            ensure(
                backend in pool.eligible and not backend.excluded, f"it picked {backend.id}, which may not"
            )
    _settled(traffic)


def narrow_walk(make: Make, steps: Iterable[Step], tiers: Sequence[int]) -> None:
    """The same with all rules of a pool on, and tiers."""
    made = [BackendSpec(name, f"{name}.test", 1, 2, tier) for name, tier in zip(NAMES, tiers, strict=True)]
    pool, clock = pool_of(make, made, rules=ALL_ON)
    traffic = Traffic(pool, clock)
    for step in steps:
        if step.what not in REQUESTS or pool.pick(None) is not AT_LIMIT:
            step.happen(traffic)
        chosen = pool.pick(None)
        if isinstance(chosen, Backend):
            ensure(
                chosen in pool.eligible and chosen.state == ACTIVE, f"it picked {chosen.id}, which may not"
            )
            ensure(chosen.in_flight < 3 and pool.in_flight < 8, "a limit was exceeded")
        ensure(all(each.weight >= 1 and each.share <= 1.0 for each in pool.eligible), "a weight was changed")
        ensure(not pool.eligible or max(each.share for each in pool.eligible) == 1.0, "a share was changed")
    _settled(traffic)


def _settled(traffic: Traffic) -> None:
    traffic.passes(10.0)
    left = [backend.id for backend in traffic.seen if backend.in_flight]
    ensure(not left and not traffic.pool.in_flight, f"requests stayed in flight at {left}")
