"""The simulator reproduces what is known of random choices, from the formulas of the papers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from random import Random

import pytest

from lb.simulate.contestant import Contestant
from lb.simulate.latency import Constant
from lb.simulate.scenario import Poisson, Scenario
from lb.simulate.world import World
from tests.simulate.library import library
from tests.simulate.supermarket import Control, corrections, shares_of, time_in_system
from tests.simulate.worlds import BestOf, named, servers

SIGMAS = 4


# --- the supermarket model: see supermarket.py ---


def test_the_formula_gives_what_is_printed() -> None:
    printed = {0.9: (10, 2.614, 2.028), 0.95: (20, 3.383, 2.535), 0.99: (100, 5.432, 3.858)}
    for load, means in printed.items():
        assert [time_in_system(load, choices) for choices in (1, 2, 3)] == pytest.approx(means, abs=6e-4)


def test_the_refinement_gives_what_is_printed() -> None:
    """Gast and Van Houdt (2017) have 2.7513 requests per server for ten of them at a load of 0.9."""
    shares = shares_of(0.9, 2)
    ten = sum(shares) + sum(corrections(0.9, 2, shares, replacement=True)) / 10
    assert ten == pytest.approx(2.7513, abs=5e-5)


@dataclass
class Counted:
    """Exponential times of mean 1, and their sum."""

    total: float = 0.0

    def draw_from(self, rng: Random) -> Callable[[], float]:
        def draw() -> float:
            time = rng.expovariate(1.0)
            self.total += time
            return time

        return draw


def mean_time(
    contestant: Contestant, count: int, load: float, span: float, warm_up: float
) -> tuple[float, float]:
    """Of so many servers of one slot, in service times; and for which share of the time they were busy."""
    work = Counted()
    fleet = servers(count, work, slots=1)
    world = World(Scenario("supermarket", Poisson(count * load), fleet, warm_up + span, warm_up), contestant)
    world.advance(warm_up)
    work.total = 0.0
    world.run()
    return world.latencies.summary()["mean"], work.total / count / span


SUPERMARKETS = [(0.9, 100, 2000), (0.95, 100, 2500), (0.9, 500, 400), (0.95, 500, 600), (0.99, 500, 2000)]


@pytest.mark.parametrize(("load", "count", "span"), SUPERMARKETS)
@pytest.mark.parametrize("choices", [2, 3])
def test_supermarket_model_with_choices(load: float, count: int, span: float, choices: int) -> None:
    """Within 5 % of infinitely many servers; and just as far from that as theory has it, but for chance and
    terms in 1/n². A hundred at a load of 0.99 are further away: by 8 % with two choices, 12 % with three.
    """
    policy = named("p2c") if choices == 2 else Contestant("best of 3", BestOf, {"choices": 3})
    mean, busy = mean_time(policy, count, load, span, warm_up=20 / (1 - load))
    control = Control(load, choices, count * load * span)
    mean -= control.slope * (busy - load) / load
    limit, expected = time_in_system(load, choices), time_in_system(load, choices, count)
    rest = limit * (expected / limit - 1) ** 2 + limit * ((busy - load) / (1 - load)) ** 2
    assert abs(mean - expected) < SIGMAS * control.deviation + rest
    assert mean == pytest.approx(limit, rel=0.05)


@pytest.mark.parametrize("load", [0.9, 0.95])
def test_supermarket_model_without_choice(load: float) -> None:
    """Each server is an M/M/1 queue for itself. The number in it, averaged over a span, has a variance of
    2 load (1 + load) / (1 - load)^4 / span (Whitt, 1989); times in the system are as that over the load, by
    Little's law. A queue forgets how it began in some 1 / (1 - sqrt(load))^2 service times.
    """
    span, warm_up = 3000.0, 2 / (1 - sqrt(load)) ** 2
    variance = 2 * load * (1 + load) / (1 - load) ** 4 / span / 100
    mean, _ = mean_time(named("random"), 100, load, span, warm_up)
    assert abs(mean - time_in_system(load, 1)) < SIGMAS * sqrt(variance) / load


# --- linkerd ---

SLOW_SPAN, SPAN, RATE, USUAL, SLOW, PATIENCE = 30.0, 60.0, 1000.0, 0.167, 2.0, 1.0


def beyond_round_robin(timeout: bool) -> Scenario:
    found = library("beyond-round-robin")
    return found if timeout else Scenario(found.name, found.arrivals, found.servers, found.duration)


def success(policy: str, timeout: bool) -> float:
    """The share of the requests that are answered within a second, with a timeout at the balancer or not."""
    world = World(beyond_round_robin(timeout), named(policy))
    world.run()
    good = sum(latency <= PATIENCE for latency in world.latencies)
    return good / (len(world.latencies) + sum(world.failures.values()))


def chance(share: float) -> float:
    """How far a share of all requests may stray."""
    return SIGMAS * sqrt(share * (1 - share) / (RATE * SPAN))


@pytest.mark.parametrize("policy", ["round_robin", "random"])
def test_linkerd_without_regard_to_load(policy: str) -> None:
    """The slow one gets a share of 1/11 in half of the time: 95.45 % are well. linkerd: about 95 %."""
    lost = SLOW_SPAN / SPAN / 11
    assert success(policy, timeout=True) == pytest.approx(1 - lost, abs=chance(lost))


@pytest.mark.parametrize(("policy", "printed"), [("least_request", 0.9956), ("p2c", 0.9950)])
def test_linkerd_by_load_where_answers_are_waited_for(policy: str, printed: float) -> None:
    """An independent reimplementation has 99.56 and 99.50 %.

    All have about as many in flight, RATE / (10 / USUAL + 1 / SLOW) = 16.6. The slow one turns them over in
    SLOW s: 249 requests in 30 s, so 99.58 % are well. The least loaded one has up to 1 more.
    """
    found = success(policy, timeout=False)
    assert found == pytest.approx(printed, abs=0.0005)
    even = SLOW_SPAN * RATE / (10 / USUAL + 1 / SLOW) / SLOW / (RATE * SPAN)
    one_more = SLOW_SPAN / SLOW / (RATE * SPAN)
    if policy == "least_request":
        assert abs(1 - found - even) < one_more + chance(even)


def test_linkerd_by_load_where_the_balancer_gives_up() -> None:
    """Then the slow one turns them over in PATIENCE s, and gets twice as many: linkerd's about 99 %."""
    even = SLOW_SPAN * RATE / (10 / USUAL + 1 / PATIENCE) / PATIENCE / (RATE * SPAN)
    one_more = SLOW_SPAN / PATIENCE / (RATE * SPAN)
    assert abs(1 - success("least_request", timeout=True) - even) < one_more + chance(even)
    assert success("p2c", timeout=True) == pytest.approx(0.99, abs=0.005)


# --- balls into bins ---

BINS = 4096


@pytest.mark.parametrize(("choices", "least", "most"), [(1, 5, 8), (2, 3, 4), (3, 2, 3)])
def test_balls_into_bins(choices: int, least: int, most: int) -> None:
    """As many balls as bins, which never leave: the fullest one (Azar, Broder, Karlin and Upfal, 1994).

    Ranges are those that the issue of the policies has; one choice exceeds 8 in 1.1 % of all runs.
    """
    fleet = servers(BINS, Constant(1e9))
    contestant = {1: named("random"), 2: named("p2c")}.get(
        choices, Contestant("best", BestOf, {"choices": choices})
    )
    for seed in range(1, 6):
        world = World(Scenario("bins", Poisson(1000.0), fleet, 1e6), contestant, seed)
        while world.pools[0].in_flight < BINS:
            world.step()
        fullest = max(backend.in_flight for backend in world.pools[0].backends.values())
        assert least <= fullest <= most
