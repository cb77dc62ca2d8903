"""Pools to drive by hand: backends named by letters, virtual time, chance from a seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from lb.balance import Balancer, policy_class
from lb.core.backend import Backend, BackendSpec
from lb.core.failure import Failure
from lb.core.pool import ALL_OFF, Pool
from lb.core.rules import PoolRules
from tests.core.clock import VirtualClock


def specs(**weights: int) -> list[BackendSpec]:
    """`specs(a=5, b=1)`: backends by name and weight, each at an address of its own."""
    return [BackendSpec(name, f"{name}.test", 9000, weight) for name, weight in weights.items()]


def numbered(weights: Sequence[int]) -> list[BackendSpec]:
    """Backends b0, b1, … of these weights."""
    return specs(**{f"b{number}": weight for number, weight in enumerate(weights)})


class FirstOfAll(Balancer):
    """A policy without an idea: always the first one. For tests of the pool itself."""

    reason = "the first"

    def pick(self, request: object, backends: Sequence[Backend]) -> Backend:
        return backends[0]


def made_pool(
    backends: Sequence[BackendSpec] = (),
    policy: str | type[Balancer] = FirstOfAll,
    seed: int = 1,
    starts_healthy: bool = True,
    rules: PoolRules = ALL_OFF,
) -> Pool:
    """A pool of these backends on a virtual clock."""
    clock = VirtualClock()
    chosen = policy_class(policy) if isinstance(policy, str) else policy
    pool = Pool("greeter", chosen(clock, Random(seed)), clock, starts_healthy, rules, Random(seed))
    if backends:
        pool.update(backends)
    return pool


def passes(pool: Pool, seconds: float) -> None:
    """Time passes, and what falls due happens."""
    assert isinstance(pool.clock, VirtualClock)
    pool.clock.advance(seconds)


def ids(backends: Iterable[Backend]) -> list[str]:
    return [backend.id for backend in backends]


def attempted(pool: Pool, name: str, failure: Failure | None = None, status: int = 0) -> None:
    """One attempt at this backend, whether it would be picked or not."""
    backend = pool.backends[name]
    started = pool.clock.time()
    pool.start(backend)
    pool.end(backend, started, failure, status or (200 if failure is None else 0))


def picked(pool: Pool, tried: Sequence[Backend] = ()) -> Backend:
    """The backend of one pick, which has to be there."""
    backend = pool.pick(None, tried)
    assert isinstance(backend, Backend)
    return backend


def serve(pool: Pool, failure: Failure | None = None) -> Backend:
    """One attempt that ends before the next one starts: idle traffic."""
    backend = picked(pool)
    pool.start(backend)
    pool.end(backend, pool.clock.time(), failure, 200 if failure is None else 0)
    return backend


def served(pool: Pool, count: int) -> list[str]:
    """The IDs of those who served so many requests one by one."""
    return [serve(pool).id for _ in range(count)]


def load(pool: Pool, **in_flight: int) -> None:
    """Starts attempts until each backend has so many in flight: `load(pool, a=2)`."""
    for name, wanted in in_flight.items():
        backend = pool.backends[name]
        while backend.in_flight < wanted:
            pool.start(backend)
