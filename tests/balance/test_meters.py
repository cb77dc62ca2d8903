"""What a request costs at a backend. Every number is worked out by hand."""

from __future__ import annotations

from math import exp

import pytest

from lb.balance.meters import LEAST, Latency, Peak, busy, errors
from lb.core.backend import Backend
from lb.core.failure import CLIENT_GONE, EXCHANGE_TIMEOUT, RESET, RESPONSE_TIMEOUT, Failure
from tests.core.clock import VirtualClock
from tests.core.fleet import specs

both = pytest.mark.parametrize("kind", [Latency, Peak])
E = exp(-1)


class Metered:
    """A meter with a decay of 10 s and a penalty of 1 s, and one backend."""

    def __init__(self, kind: type[Latency]) -> None:
        self.clock = VirtualClock()
        self.meter = kind(self.clock, 10.0, 1.0)
        self.backend = Backend(specs(a=1)[0])
        self.meter.keep([self.backend])

    def took(self, seconds: float, failure: Failure | None = None, status: int = 200) -> None:
        """An attempt that ends now and began so long ago."""
        self.backend.requests[status] = self.backend.requests.get(status, 0) + 1
        self.meter.ended(self.backend, self.clock.time() - seconds, failure)

    def cost(self, in_flight: int = 0) -> float:
        self.backend.own = in_flight
        return self.meter.cost(self.backend)


def test_busy_is_in_flight_and_one() -> None:
    backend = Backend(specs(a=1)[0])
    assert busy(backend) == 1
    backend.own = 3
    assert busy(backend) == 4


@both
def test_a_new_one_gets_one_request_and_then_none_before_its_answer(kind: type[Latency]) -> None:
    metered = Metered(kind)
    assert [metered.cost(count) for count in (0, 1, 2)] == [0, 2, 3]
    metered.took(0.2)
    assert [metered.cost(count) for count in (0, 1, 2)] == pytest.approx([0.2, 0.4, 0.6])


@both
def test_the_mean_of_an_idle_one_fades_and_that_of_a_busy_one_stays(kind: type[Latency]) -> None:
    metered = Metered(kind)
    metered.took(2.0)
    metered.clock.advance(10)
    assert metered.cost() == pytest.approx(2 * E)
    assert metered.cost(1) == pytest.approx(4)


@both
def test_the_mean_comes_down_by_time(kind: type[Latency]) -> None:
    metered = Metered(kind)
    metered.took(1.0)
    metered.clock.advance(10)
    metered.took(0.5)
    assert metered.cost() == pytest.approx(0.5 + 0.5 * E)


@pytest.mark.parametrize(("kind", "cost"), [(Latency, 2.0 - 1.9 * E), (Peak, 2.0)])
def test_a_peak_rises_at_once(kind: type[Latency], cost: float) -> None:
    metered = Metered(kind)
    metered.took(0.1)
    metered.clock.advance(10)
    metered.took(2.0)
    assert metered.cost() == pytest.approx(cost)


def test_many_at_a_time_count_as_one() -> None:
    """A burst of answers in one moment says no more than one: the mean goes by time."""
    metered = Metered(Latency)
    metered.took(1.0)
    for _ in range(100):
        metered.took(0.1)
    assert metered.cost() == pytest.approx(1.0)


@both
@pytest.mark.parametrize("failure", [RESET, RESPONSE_TIMEOUT])
def test_failing_fast_is_not_good(kind: type[Latency], failure: Failure) -> None:
    metered = Metered(kind)
    metered.took(0.001, failure, 0)
    assert metered.cost() == 1.0
    metered.clock.advance(10)
    metered.took(5.0, failure, 0)
    assert metered.cost() > 3


@both
def test_nor_is_an_answer_of_500(kind: type[Latency]) -> None:
    metered = Metered(kind)
    metered.took(0.001, status=503)
    assert metered.cost() == 1.0
    metered.clock.advance(10)
    metered.took(0.001, status=404)
    assert metered.cost() == pytest.approx(E, abs=0.001)
    assert errors(metered.backend) == 1


@both
@pytest.mark.parametrize("failure", [CLIENT_GONE, EXCHANGE_TIMEOUT])
def test_who_gives_up_early_says_nothing_and_who_waited_long_does(
    kind: type[Latency], failure: Failure
) -> None:
    metered = Metered(kind)
    metered.took(0.2)
    metered.clock.advance(10)
    metered.took(0.1, failure)
    assert metered.cost() == pytest.approx(0.2 * E)
    metered.took(3.0, failure)
    assert metered.cost() > 1


@both
def test_one_that_never_answers_is_known_by_how_long_clients_waited(kind: type[Latency]) -> None:
    metered = Metered(kind)
    metered.took(3.0, CLIENT_GONE)
    assert metered.cost() == pytest.approx(3)


@both
def test_no_time_at_all_is_a_little(kind: type[Latency]) -> None:
    metered = Metered(kind)
    metered.took(0.0)
    assert [metered.cost(count) for count in (0, 1)] == [LEAST, 2 * LEAST]


@both
def test_who_leaves_is_forgotten_and_comes_back_as_new(kind: type[Latency]) -> None:
    metered = Metered(kind)
    metered.took(0.5)
    metered.meter.keep([])
    metered.took(0.7, status=500)
    metered.meter.keep([metered.backend])
    assert metered.cost() == 0
    metered.took(0.3)
    assert metered.cost() == pytest.approx(0.3), "the 500 was before"
