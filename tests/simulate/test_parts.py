"""The parts of the world: clock, latencies, speeds, machines, arrivals."""

from __future__ import annotations

from math import inf
from random import Random
from statistics import fmean

import pytest

from lb.core.failure import CONNECT_FAILED, RESET
from lb.simulate.arrivals import gaps
from lb.simulate.clock import VirtualClock
from lb.simulate.course import Course
from lb.simulate.latency import Constant, Exponential, Latency, LogNormal, Mix, Normal, Pareto, Sum
from lb.simulate.machine import REFUSED, Machine
from lb.simulate.scenario import Crash, Failing, Other, Pauses, Poisson, Server, Slow

N = 40_000


def test_the_clock_calls_in_order_and_not_what_was_cancelled() -> None:
    clock, called = VirtualClock(), list[tuple[str, float]]()
    for delay, name in [(2.0, "b"), (1.0, "a"), (2.0, "c"), (3.0, "later")]:
        clock.call_later(delay, lambda name=name: called.append((name, clock.time())))
    clock.call_later(1.5, called.append, ("never", 0.0)).cancel()
    clock.run(2.5)
    assert called == [("a", 1.0), ("b", 2.0), ("c", 2.0)]
    assert clock.time() == 2.5


@pytest.mark.parametrize(
    ("latency", "mean", "deviation"),
    [
        (Constant(0.02), 0.02, 0.0),
        (Exponential(0.02), 0.02, 0.02),
        (Normal(0.167, 0.005), 0.167, 0.005),
        (Pareto(0.01, 5.0), 0.0125, 0.01 * (5 / (16 * 3)) ** 0.5),
        (Sum((Constant(0.01), Exponential(0.02))), 0.03, 0.02),
        (Mix((9.0, 1.0), (Constant(0.0), Constant(1.0))), 0.1, 0.3),
    ],
)
def test_the_mean_of_a_latency(latency: Latency, mean: float, deviation: float) -> None:
    draw = latency.draw_from(Random(1))
    assert fmean(draw() for _ in range(N)) == pytest.approx(mean, abs=5 * deviation / N**0.5 + 1e-12)


def test_the_quantiles_of_a_lognormal_latency() -> None:
    draw = LogNormal(0.02, 0.08).draw_from(Random(1))
    drawn = [draw() for _ in range(N)]
    for bound, share in ((0.02, 0.5), (0.08, 0.99)):
        assert sum(each <= bound for each in drawn) == pytest.approx(
            share * N, abs=5 * (N * share * (1 - share)) ** 0.5
        )


def test_a_course_is_slowed_down_and_stands_still() -> None:
    course = Course([(10.0, 20.0, 2.0), (12.0, 14.0, inf)])
    assert course.finish(0.0, 5.0) == 5.0
    assert course.finish(9.0, 1.5) == 11.0
    assert course.finish(10.0, 1.0) == 12.0
    assert course.finish(11.0, 1.0) == 15.0
    assert course.finish(13.0, 1.0) == 16.0
    assert course.finish(19.0, 1.5) == 21.0
    assert Course([(1.0, inf, inf)]).finish(0.0, 2.0) == inf


def machine(server: Server) -> Machine:
    return Machine(server, "1", 100.0)


def test_slots_and_queue() -> None:
    one = machine(Server("a", Constant(1.0), slots=2, queue=1))
    assert [one.take(0.0)[0] for _ in range(3)] == [1.0, 1.0, 2.0]
    assert one.take(0.5) == (0.5 + REFUSED, None, 503)
    assert one.take(1.0) == (2.0, None, 200)
    assert one.take(1.5)[0] == 3.0


def test_a_crash_loses_what_is_at_work_and_refuses_what_comes() -> None:
    one = machine(Server("a", Constant(1.0), slots=1, crashes=(Crash(5.0, 5.0),)))
    assert one.take(3.9) == (4.9, None, 200)
    assert one.take(4.5) == (5.0, RESET, 0)
    assert one.take(7.0) == (7.0 + REFUSED, CONNECT_FAILED, 0)
    assert one.take(10.0) == (11.0, None, 200)
    assert [one.answers(now, 1.0) for now in (4.9, 5.0, 9.9, 10.0)] == [True, False, False, True]


def test_what_befalls_a_machine() -> None:
    one = machine(
        Server(
            "a",
            Constant(1.0),
            slow=(Slow(10.0, 10.0, 3.0),),
            other=(Other(30.0, 10.0, Constant(5.0)),),
            failing=(Failing(50.0, 10.0, 1.0, Constant(0.1)), Failing(70.0, 10.0, 1.0, Constant(0.1), "503")),
        )
    )
    assert one.take(11.0)[0] == 14.0
    assert one.take(30.0)[0] == 35.0
    assert one.take(50.0) == (50.1, RESET, 0)
    assert one.take(70.0) == (70.1, None, 503)
    assert one.take(90.0) == (91.0, None, 200)


def test_pauses_take_their_share_of_the_time() -> None:
    """0.1 s each second, on average after 0.9 s of work: a tenth of all, give or take."""
    one = Machine(Server("a", Constant(0.001), pauses=Pauses(0.9, Constant(0.1))), "1", 10_000.0)
    asked = [n * 0.1 for n in range(1, 50_000)]
    still = sum(one.take(now)[0] - now > 0.0011 for now in asked)
    assert still / len(asked) == pytest.approx(0.1, abs=0.01)


def test_cold_after_a_crash_and_after_joining() -> None:
    crash = (Crash(20.0, 5.0),)
    one = machine(
        Server("a", Constant(1.0), presence=((10.0, inf),), crashes=crash, cold=5.0, cold_times=2.0)
    )
    assert [one.take(now)[0] - now for now in (11.0, 16.0, 25.0, 40.0)] == [2.0, 1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("arrivals", "windows"),
    [
        (Poisson(1000.0), {(0.0, 20.0): 1.0}),
        (Poisson(500.0, 5.0, 1.0, 4.0), {(0.0, 5.0): 1.0, (5.0, 6.0): 4.0, (6.0, 10.0): 1.0}),
        (Poisson(500.0, period=20.0, swing=0.5), {(0.0, 20.0): 1.0, (0.0, 10.0): 1 + 1 / 3.14159}),
    ],
)
def test_requests_come_at_the_rate(arrivals: Poisson, windows: dict[tuple[float, float], float]) -> None:
    """Counts of a Poisson process, within five standard deviations. Half a sine has a mean of 2 / pi."""
    gap, now, times = gaps(arrivals, Random(1)), 0.0, list[float]()
    while now < 20.0:
        now += gap(now)
        times.append(now)
    for (start, end), rate in windows.items():
        expected = arrivals.rate * rate * (end - start)
        assert abs(sum(start <= at < end for at in times) - expected) < 5 * expected**0.5
