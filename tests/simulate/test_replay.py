"""A log of a world that is known, replayed: what it would have been with another policy is known as well."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from lb.balance import policy_class
from lb.simulate import replay
from lb.simulate.contestant import Contestant
from lb.simulate.estimate import estimated
from lb.simulate.latency import Constant, Exponential, LogNormal, Normal
from lb.simulate.run import Result, result_of
from lb.simulate.scenario import Failing, Other, Poisson, Scenario, Server
from lb.simulate.trace import HELD, Trace
from lb.simulate.world import World
from tests.simulate.logs import line, log_of, trace_of
from tests.simulate.worlds import named, servers

SLOW = Server("slow", LogNormal(0.1, 0.4), slots=16)
QUEUES = Scenario("queues", Poisson(500.0), (*servers(3, LogNormal(0.02, 0.08), slots=8), SLOW), 60.0)
OFTEN_SLOW = Server("often-slow", Normal(0.1, 0.01), other=(Other(15.0, 30.0, Constant(2.0)),))
SLOW_FOR_A_WHILE = Scenario("while", Poisson(500.0), (*servers(5, Normal(0.1, 0.01)), OFTEN_SLOW), 60.0)
HOLE = Server("hole", Exponential(0.02), failing=(Failing(20.0, 20.0, 1.0, Constant(0.001)),))
FAILS = Scenario("fails", Poisson(300.0), (*servers(4, Exponential(0.02)), HOLE), 60.0)


def replayed(trace: Trace, policy: Contestant, **options: int | None) -> Result:
    estimates = estimated(trace, **options)
    world = World(replay.replayed(trace, estimates, "log"), policy)
    world.run()
    return result_of(world)


def truth(scenario: Scenario, policy: str) -> Result:
    world = World(scenario, named(policy), seed=2)
    world.run()
    return result_of(world)


ALL = {"mean": 0.08, "p50": 0.08, "p90": 0.1, "p99": 0.15}
MOST = {"p50": 0.08, "p90": 0.15}
"""Where a backend is nearly full, as with those who don't look at load, the longest times are those of the
few queues that chance made, and in the replay it makes others."""


def assert_alike(found: Result, wanted: Result, tolerances: dict[str, float] = ALL) -> None:
    """Both are chance, and stray by some percent."""
    for name, tolerance in tolerances.items():
        assert found.latency[name] == pytest.approx(wanted.latency[name], rel=tolerance), name
    assert found.fairness == pytest.approx(wanted.fairness, abs=0.03)
    assert abs(found.failed - wanted.failed) < 0.1 * wanted.failed + 1


@pytest.mark.parametrize("scenario", [QUEUES, SLOW_FOR_A_WHILE, FAILS], ids=lambda each: each.name)
@pytest.mark.parametrize("logged", ["round_robin", "random"])
def test_another_policy_does_as_it_would_have_done(scenario: Scenario, logged: str) -> None:
    lines, was = log_of(scenario, logged)
    trace, told = trace_of(lines)
    assert (told.malformed, trace.late, trace.requests) == (0, 0, was.requests)
    assert replay.logged(trace, estimated(trace)).latency == pytest.approx(was.latency, rel=1e-5)
    assert_alike(replayed(trace, replay.as_logged()), was, MOST)
    for other in ("least_request", "p2c"):
        assert_alike(replayed(trace, named(other)), truth(scenario, other))


def test_a_queue_shows_in_the_log() -> None:
    lines, _ = log_of(QUEUES, "random")
    estimates = {each.server.id: each for each in estimated(trace_of(lines)[0])}
    assert 14 <= estimates["slow"].slots <= 18
    assert estimates["slow"].median == pytest.approx(0.1, rel=0.05)
    assert all(each.slots == 0 for name, each in estimates.items() if name != "slow")  # they had none


def test_who_is_slow_for_a_while_is_not_taken_for_a_busy_one() -> None:
    """While it is slow it has twenty times as many requests, as a queue would bring about."""
    lines, _ = log_of(SLOW_FOR_A_WHILE, "round_robin")
    assert [each.slots for each in estimated(trace_of(lines)[0])] == [0] * 6


def test_regular_ends_are_no_queue_if_requests_overtake_each_other() -> None:
    """Ends in lockstep look like those of a busy worker, but who comes later is often done earlier."""
    rng = Random(1)
    lines = []
    for number in range(20_000):
        took = rng.expovariate(1 / 0.02)
        lines.append(line(number / 1000 - took, backend=f"b{number % 8}", attempt_ms=took * 1e3))
    assert [each.slots for each in estimated(trace_of(lines)[0])] == [0] * 8


def test_slots_can_be_said() -> None:
    lines, was = log_of(QUEUES, "round_robin")
    trace, _ = trace_of(lines)
    assert {each.slots for each in estimated(trace, slots=16)} == {16}
    assert_alike(replayed(trace, replay.as_logged(), slots=16), was, MOST)


def test_the_order_of_arrival_is_that_of_the_trace_though_lines_are_in_that_of_ends() -> None:
    rng = Random(1)
    came = sorted(rng.uniform(0, 100) for _ in range(3000))
    took = [rng.expovariate(1 / 5) for _ in came]
    lines = [
        line(at, duration_ms=seconds * 1e3, attempt_ms=seconds * 1e3)
        for _, at, seconds in sorted(
            (at + seconds, at, seconds) for at, seconds in zip(came, took, strict=True)
        )
    ]
    trace, _ = trace_of(lines)
    found = [each.at for each in trace]
    assert found == pytest.approx([at - came[0] for at in came], abs=1.1e-3)
    assert found == [each.at for each in trace], "it can be read again"
    assert trace.late == 0


def test_what_is_out_of_order_by_too_much_comes_late_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lb.simulate.trace.HELD", 10)
    assert HELD > 10
    trace, _ = trace_of([line(float(at)) for at in [*range(50, 100), *range(50)]])
    found = [each.at for each in trace]
    assert found == sorted(found)
    assert len(found) == 100
    assert trace.late > 0


def test_keys_are_those_of_the_log() -> None:
    lines, _ = log_of(QUEUES, "round_robin")  # of forty clients
    trace, _ = trace_of(lines)
    keyed = replayed(trace, named("rendezvous")).keys
    assert keyed is not None
    assert (keyed.again, keyed.moved) == (40, 0)
    by_cookie = Contestant("cookie", policy_class("rendezvous"), {"key": "cookie:a"})
    without = replayed(trace, by_cookie).keys  # which the log doesn't have
    assert without is not None
    assert without.again == 0
    assert replayed(trace, named("p2c")).keys is None


def test_a_log_without_backends_needs_their_number() -> None:
    lines = [line(at / 100, backend="") for at in range(2000)]
    trace, _ = trace_of(lines)
    estimates = estimated(trace, copies=3)
    assert [each.server.id for each in estimates] == ["backend-1", "backend-2", "backend-3"]
    result = replayed(trace, named("round_robin"), copies=3)
    assert (result.requests, result.fairness) == (2000, pytest.approx(1.0, abs=1e-6))


def test_a_log_of_one_request() -> None:
    trace, _ = trace_of([line(0.0)])
    result = replayed(trace, named("p2c"))
    assert (result.requests, result.failed) == (1, 0)
    assert result.latency["max"] == pytest.approx(0.01)


def test_who_joins_and_leaves_does_so_in_the_replay() -> None:
    lines = [line(at / 50, backend="early" if at < 3000 else "late") for at in range(6000)]
    lines += [line(at / 50, backend="always") for at in range(6000)]
    trace, _ = trace_of(sorted(lines))
    spans = {each.server.id: each.server.presence[0] for each in estimated(trace)}
    assert spans["always"] == (0.0, inf)
    assert spans["early"] == (0.0, pytest.approx(60.0, abs=1.3))
    assert spans["late"] == (pytest.approx(60.0, abs=1.3), inf)


def test_many_requests_are_not_kept_in_memory() -> None:
    trace, _ = trace_of(line(at / 100) for at in range(20_000))
    kept = [len(value) for value in vars(trace).values() if isinstance(value, list | dict)]
    assert sum(kept) < 20_100  # the latencies, which are folded at a million
