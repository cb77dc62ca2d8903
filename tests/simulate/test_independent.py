"""Another simulator, written for itself, with policies of its own: what comes out has to be the same.

It shares no line with ours: a list of events, queues that are lists, no pool. Only the scenario is the same.
What differs then is chance, and two samples of one distribution are seldom further apart than the test of
Kolmogorov and Smirnov allows.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lb.simulate.latency import Constant, Exponential, Latency, LogNormal
from lb.simulate.scenario import Poisson, Scenario, Server
from lb.simulate.world import World
from tests.simulate.worlds import named


@dataclass(frozen=True)
class Plain:
    """A backend, in the words of neither simulator."""

    mean: float
    kind: str  # of its distribution
    slots: int


def drawn(plain: Plain, chance: Random) -> float:
    if plain.kind == "constant":
        return plain.mean
    if plain.kind == "exponential":
        return chance.expovariate(1 / plain.mean)
    return chance.lognormvariate(math.log(plain.mean), 0.5)  # its median, rather


Chooser = Callable[[Sequence[int], Random, Sequence[int]], int]
"""Which backend, by how many requests are at each; by chance; and by which number its last request had."""

CHOOSERS: dict[str, Chooser] = {
    "random": lambda there, chance, last: chance.randrange(len(there)),
    "round_robin": lambda there, chance, last: last.index(min(last)),
    "p2c": lambda there, chance, last: min(chance.sample(range(len(there)), 2), key=there.__getitem__),
    "least_request": lambda there, chance, last: min((k, last[n], n) for n, k in enumerate(there))[2],
}


def independently(
    plains: Sequence[Plain], rate: float, span: float, choose: Chooser, seed: int
) -> list[float]:
    """The times in system of the requests that come within the span."""
    chance = Random(seed)
    queues: list[list[float]] = [[] for _ in plains]  # when those came that aren't at work yet
    at_work = [0] * len(plains)
    there, last = [0] * len(plains), [-1] * len(plains)
    times: list[float] = []
    events: list[tuple[float, int, float]] = []  # when, which backend (-1: a request comes), when it came
    heapq.heappush(events, (chance.expovariate(rate), -1, 0.0))
    number = 0

    def begin(now: float, which: int, came: float) -> None:
        at_work[which] += 1
        heapq.heappush(events, (now + drawn(plains[which], chance), which, came))

    while events:
        now, which, came = heapq.heappop(events)
        if which < 0:
            if now > span:
                continue
            heapq.heappush(events, (now + chance.expovariate(rate), -1, 0.0))
            which = choose(there, chance, last)
            last[which] = number
            number += 1
            there[which] += 1
            if at_work[which] < plains[which].slots:
                begin(now, which, now)
            else:
                queues[which].append(now)
            continue
        times.append(now - came)
        there[which] -= 1
        at_work[which] -= 1
        if queues[which]:
            begin(now, which, queues[which].pop(0))
    return times


def latency(plain: Plain) -> Latency:
    if plain.kind == "constant":
        return Constant(plain.mean)
    if plain.kind == "exponential":
        return Exponential(plain.mean)
    return LogNormal(plain.mean, plain.mean * math.exp(0.5 * 2.3263478740408408))


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest difference of the shares that are no larger than a value (Smirnov, 1939)."""
    merged = sorted(
        [(value, 1 / len(one), 0.0) for value in one] + [(value, 0.0, 1 / len(other)) for value in other]
    )
    most = first = second = 0.0
    for place, (value, in_one, in_other) in enumerate(merged):
        first, second = first + in_one, second + in_other
        if place + 1 == len(merged) or merged[place + 1][0] > value + 1e-9:
            most = max(most, abs(first - second))
    return most


CERTAIN = 1e-6
"""So often chance alone is outside of the bound; and the seeds are fixed."""

RUNS = 4
"""Each simulator runs so often, with other seeds."""

plains = st.builds(
    Plain,
    mean=st.sampled_from([0.01, 0.02, 0.05]),
    kind=st.sampled_from(["constant", "exponential", "lognormal"]),
    slots=st.integers(1, 6),
)


@pytest.mark.parametrize("policy", CHOOSERS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(fleet=st.lists(plains, min_size=2, max_size=6), load=st.sampled_from([0.3, 0.6, 0.75]))
def test_another_simulator_has_the_same_times(policy: str, fleet: list[Plain], load: float) -> None:
    """Times of one run go together while a queue lasts, so the bound is for fewer of them than there are: one
    for each time that the fleet forgets, some 1 / (1 - load) services."""
    if policy != "least_request":  # the smallest one takes as much as the others, or it may
        rate = load * len(fleet) * min(each.slots / each.mean for each in fleet)
    else:
        rate = load * sum(each.slots / each.mean for each in fleet) * 0.9
    span = 5000 / rate
    machines = tuple(Server(f"b{n}", latency(each), slots=each.slots) for n, each in enumerate(fleet))
    ours: list[float] = []
    theirs: list[float] = []
    for seed in range(RUNS):
        world = World(Scenario("same", Poisson(rate), machines, span), named(policy), seed)
        world.run()
        ours += world.latencies
        theirs += independently(fleet, rate, span, CHOOSERS[policy], 1000 + seed)
    assert abs(len(ours) - len(theirs)) < 5 * (len(ours) + len(theirs)) ** 0.5
    apart = min(len(ours), len(theirs)) * (1 - load)
    assert distance(ours, theirs) < math.sqrt(-math.log(CERTAIN / 2) / 2) * math.sqrt(2 / apart)
