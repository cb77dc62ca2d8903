"""Least time and peak EWMA: on virtual time, with open-loop traffic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from lb.core.backend import Backend
from lb.core.failure import CONNECT_FAILED, Failure
from lb.core.pool import Pool
from tests.balance.chance import SIGMAS
from tests.core.clock import VirtualClock
from tests.core.fleet import made_pool, numbered, picked, specs

both = pytest.mark.parametrize("policy", ["least_time", "peak_ewma"])

Behaviour = Callable[[Backend, float], tuple[float, Failure | None, int]]
"""What becomes of an attempt that begins now: how long it takes, its failure, its status."""


def traffic(pool: Pool, per_second: float, seconds: float, behaviour: Behaviour) -> list[tuple[str, float]]:
    """Requests at even distances; who served each, and how long it took."""
    assert isinstance(pool.clock, VirtualClock)
    served = []
    for _ in range(round(per_second * seconds)):
        pool.clock.advance(1 / per_second)
        backend = picked(pool)
        pool.start(backend)
        took, failure, status = behaviour(backend, pool.clock.time() - 1000)
        pool.clock.call_later(took, pool.end, backend, pool.clock.time(), failure, status)
        served.append((backend.id, took))
    return served


@both
def test_the_slow_one_gets_little_and_is_tried_again_when_it_is_well(policy: str) -> None:
    """Of five, one takes 1 s instead of 20 ms until t = 20 s.

    It costs 50 times as much, so it is taken only when it has faded, which with a decay of 10 s takes
    10 ln(50) = 39 s at most. From t = 60 s on all are alike again.
    """

    def behaviour(backend: Backend, now: float) -> tuple[float, Failure | None, int]:
        return (1.0 if backend.id == "b0" and now < 20 else 0.02), None, 200

    served = [name for name, _ in traffic(made_pool(numbered([1] * 5), policy), 100, 90, behaviour)]
    slow, well = Counter(served[:2000]), Counter(served[-2500:])
    assert slow["b0"] < 0.02 * 2000
    assert well["b0"] > 0.1 * 2500


@both
@pytest.mark.parametrize(("failure", "status"), [(CONNECT_FAILED, 0), (None, 503)])
def test_who_fails_fast_is_not_fed(policy: str, failure: Failure | None, status: int) -> None:
    """A black hole answers in 1 ms, the others in 50. By latency alone it would get every request that draws
    it, 2 of 5; by what it has in flight as well. It may fail while it is new, and then when its penalty of
    1 s has faded to what others cost, 50 ms times 2 in flight at 100 a second: after 10 ln(10) = 23 s.
    """

    def behaviour(backend: Backend, now: float) -> tuple[float, Failure | None, int]:
        return (0.001, failure, status) if backend.id == "b0" else (0.05, None, 200)

    pool = made_pool(numbered([1] * 5), policy)
    counts = Counter(name for name, _ in traffic(pool, 100, 60, behaviour))
    assert 1 <= counts["b0"] <= 0.02 * 6000
    least_request = Counter(
        name for name, _ in traffic(made_pool(numbered([1] * 5), "p2c"), 100, 60, behaviour)
    )
    assert least_request["b0"] > 0.25 * 6000, "p2c feeds it"


@both
def test_latency_divides_what_two_get(policy: str) -> None:
    """The quick one of two gets all while nothing queues: it is always drawn."""

    def behaviour(backend: Backend, now: float) -> tuple[float, Failure | None, int]:
        return (0.05 if backend.id == "a" else 0.01), None, 200

    counts = Counter(name for name, _ in traffic(made_pool(specs(a=1, b=1), policy), 50, 20, behaviour))
    assert counts["b"] > 0.95 * 1000


@both
def test_it_says_what_it_compared(policy: str) -> None:
    pool = made_pool(numbered([1] * 20), policy)
    for _ in range(50):
        backend = picked(pool)
        _, _, looked, reason, *_ = pool.seen()
        assert backend is looked[0]
        assert len(set(looked)) == 2
        assert reason.endswith("latency times requests in flight, of two drawn")


@pytest.mark.parametrize(
    ("policy", "success"),
    [("round_robin", 0.9545), ("least_request", 0.9956), ("p2c", 0.9950), ("peak_ewma", 0.9994)],
)
def test_beyond_round_robin(policy: str, success: float) -> None:
    """linkerd's "Beyond Round Robin" (2016): 11 servers, 1,000 requests a second for a minute, 167 ms (sd 5).
    One takes 2 s from t = 15 to 45 s; a success takes less than 1 s. Published: about 95, 99 and 99.9 %, and
    these numbers by an implementation that has nothing to do with ours.

    Round robin: 1/11 of the requests of half of the time fail, 4.545 %. Least busy: the slow one has as many
    in flight as the others, 15 to 20, of 2 s each: 30 / 2 times as many fail, some 0.45 %. Peak EWMA: those
    of before the first slow answer, and hardly any later. As many as fail may stray by five times their root.
    """
    rng = Random(4)

    def behaviour(backend: Backend, now: float) -> tuple[float, Failure | None, int]:
        return (2.0 if backend.id == "b0" and 15 <= now < 45 else rng.gauss(0.167, 0.005)), None, 200

    served = traffic(made_pool(numbered([1] * 11), policy), 1000, 60, behaviour)
    failed = sum(took >= 1 for _, took in served)
    expected = (1 - success) * len(served)
    assert abs(failed - expected) <= SIGMAS * expected**0.5
