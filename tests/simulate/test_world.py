"""A run: the same again, nobody lost, limits and timeouts kept, members come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lb.core.rules import PoolRules, RetryRules
from lb.simulate.latency import Constant, Exponential
from lb.simulate.run import fairness, result_of
from lb.simulate.scenario import Clients, Crash, Failing, Probes, Scenario, Server
from lb.simulate.world import World
from tests.simulate.worlds import named, ran, scenario, servers


@pytest.mark.parametrize("policy", ["p2c", "least_request", "random", "round_robin"])
def test_the_same_seed_gives_the_same_and_another_one_does_not(policy: str) -> None:
    world = scenario(*servers(5, Exponential(0.05), slots=2), workers=3, shared=True)
    first, again, other = (result_of(ran(world, policy, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_constant_latency_without_queues_is_what_comes_out() -> None:
    result = result_of(ran(scenario(*servers(3, Constant(0.02)))))
    assert result.latency == pytest.approx(dict.fromkeys(result.latency, 0.02))
    assert abs(result.requests - 2000) < 5 * 2000**0.5


def test_what_begins_in_the_warm_up_is_not_counted() -> None:
    world = scenario(warm_up=10.0)
    result = result_of(ran(world))
    assert sum(each.attempts for each in result.backends) == result.requests
    assert abs(result.requests - 1000) < 5 * 1000**0.5


def test_a_timeout_ends_an_attempt() -> None:
    world = ran(scenario(*servers(2, Constant(3.0)), timeout=1.0))
    assert (world.latencies, set(world.failures)) == ([], {"response_timeout"})


def test_closed_clients_have_one_request_each() -> None:
    """Three clients, each asks every 0.2 s: answer and thought take 0.1 s each."""
    world = World(
        Scenario("closed", Clients(3, Constant(0.1)), servers(3, Constant(0.1)), 10.0), named("p2c")
    )
    most = 0
    while world.clock.now < 10.0 and world.step():
        most = max(most, world.pools[0].in_flight)
    assert most == 3
    assert len(world.latencies) == pytest.approx(3 * 10 / 0.2, abs=6)


def test_who_leaves_gets_nothing_more_and_who_joins_does() -> None:
    leaving = Server("leaving", Constant(0.01), presence=((0.0, 5.0),))
    joining = Server("joining", Constant(0.01), presence=((15.0, 20.0),))
    world = World(scenario(Server("staying", Constant(0.01)), leaving, joining), named("round_robin"))
    shares = {}
    for until in (5.0, 15.0, 20.0):
        world.advance(until)
        shares[until] = [machine.taken for machine in world.machines]
    staying, left, joined = (list(each) for each in zip(*shares.values(), strict=True))
    assert joined[:2] == [0, 0]
    assert left[0] == left[1] == left[2]
    assert abs(left[0] - staying[0]) <= 1
    assert abs(joined[2] - (staying[2] - staying[1])) <= 1
    assert fairness(world) > 0.9


def test_a_retry_hides_a_failure_where_the_rules_allow_it() -> None:
    failing = Server("failing", Constant(0.01), failing=(Failing(0.0, 99.0, 1.0, Constant(0.001)),))
    world = scenario(failing, *servers(3, Constant(0.01)))
    alone = ran(world, "round_robin")
    assert alone.failures["reset"] == pytest.approx(len(alone.latencies) / 3, abs=2)
    hidden = ran(replace(world, rules=PoolRules(retries=RetryRules(share=1.0))), "round_robin")
    assert hidden.failures == {}
    assert result_of(hidden).retries == hidden.machines[0].taken


def test_limits_make_requests_wait_at_the_balancer() -> None:
    """One backend takes two at a time: nobody waits there, and who waits too long is told so."""
    fleet = servers(1, Constant(0.1), slots=2)
    rules = PoolRules(requests_per_backend=2, queue=5, queue_timeout=0.25)
    world = ran(scenario(*fleet, rate=40.0, rules=rules))
    assert set(world.failures) == {"overloaded", "queue_timeout"}
    assert max(world.latencies) <= 0.35 + 1e-9
    assert len(world.latencies) == pytest.approx(20 * 20, rel=0.05)
    pool = world.pools[0]
    assert sum(pool.rejected.values()) == sum(world.failures.values())


def test_probes_take_out_who_is_down_and_bring_it_back() -> None:
    down = Server("down", Constant(0.01), crashes=(Crash(5.0, 5.0),))
    world = World(scenario(down, *servers(2, Constant(0.01)), probes=Probes(1.0, 0.5, 2, 2)), named("random"))
    healthy = {}
    for second in range(1, 20):
        world.advance(float(second))
        healthy[second] = world.pools[0].backends["down"].healthy
    assert [second for second, up in healthy.items() if not up] == [7, 8, 9, 10, 11]


def test_workers_share_the_requests() -> None:
    world = ran(scenario(rate=500.0, workers=4))
    counts = [sum(sum(each.requests.values()) for each in pool.backends.values()) for pool in world.pools]
    assert sum(counts) == len(world.latencies)
    assert all(abs(count - 2500) < 5 * 2500**0.5 for count in counts)
