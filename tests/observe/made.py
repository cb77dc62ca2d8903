"""Exchanges made by hand."""

import random
from collections.abc import Sequence

from lb.balance import policy_class
from lb.core.backend import BackendSpec
from lb.core.failure import Failure
from lb.core.pool import Pool
from lb.core.record import AttemptRecord, ExchangeRecord

EPOCH = 1_700_000_000.0  # 2023-11-14T22:13:20Z


class StoodClock:
    """Stands until it is moved."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: object, *args: object) -> object:
        raise NotImplementedError


def made_pool(count: int = 3, name: str = "greeter", policy: str = "p2c", seed: int = 7) -> Pool:
    """Backends `greeter-1`, `greeter-2`, …, all healthy."""
    clock = StoodClock()
    pool = Pool(name, policy_class(policy)(clock, random.Random(seed)), clock)  # type: ignore[arg-type]
    pool.update(BackendSpec(f"{name}-{number}", f"10.0.0.{number}", 9000) for number in range(1, count + 1))
    return pool


def made_attempt(pool: Pool, at: float = 100.001, failure: Failure | None = None) -> AttemptRecord:
    """An attempt at a backend that the pool picks: 1 ms to connect, 9 ms to the head, 2 ms to the end."""
    backend = pool.pick(None)
    assert not isinstance(backend, Failure)
    attempt = AttemptRecord(backend, at)
    attempt.seen = pool.seen()
    attempt.failure = failure
    if failure is None:
        attempt.connected, attempt.head_at, attempt.ended = at + 0.001, at + 0.01, at + 0.012
        attempt.status, attempt.received = 200, 14
    else:
        attempt.ended = at + 0.003
    return attempt


def made_exchange(
    number: int = 1,
    attempts: Sequence[AttemptRecord] = (),
    failure: Failure | None = None,
    status: int = 200,
    duration: float = 0.015,
    started: float = 100.0,
) -> ExchangeRecord:
    exchange = ExchangeRecord(started, "0.0.0.0:8080", "10.1.2.3")
    exchange.id = b"018bcfe5-0000-7000-8000-%012d" % number
    exchange.method, exchange.host, exchange.target = b"GET", b"api.example.com", b"/v1/hello?to=world"
    exchange.route, exchange.pool = "/v1", "greeter"
    exchange.received_at = started + 0.0005
    exchange.ended = started + duration
    exchange.status, exchange.failure, exchange.bytes_out = status, failure, 14
    exchange.attempts = tuple(attempts)
    return exchange
