"""When requests come, without regard to what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi, sin
from random import Random

from lb.simulate.scenario import Poisson


def gaps(arrivals: Poisson, rng: Random) -> Callable[[float], float]:
    """A function of the present time that draws the seconds until the next request.

    Where the rate changes, requests are drawn at the highest one and thinned out (Lewis and Shedler, 1979).
    """
    random, mean = rng.random, 1.0 / arrivals.rate
    if not arrivals.burst_every and not arrivals.period:
        return lambda now: -log(1.0 - random()) * mean

    most = arrivals.burst_times if arrivals.burst_every else 1.0
    most = max(1.0, most) * (1.0 + arrivals.swing)

    def gap(now: float) -> float:
        at = now
        while True:
            at -= log(1.0 - random()) * mean / most
            if random() * most < relative_rate(arrivals, at):
                return at - now

    return gap


def relative_rate(arrivals: Poisson, now: float) -> float:
    """How many times the usual rate holds at a time. Bursts begin after the first `burst_every` seconds; the
    day begins at its mean, on the way up."""
    rate = 1.0
    every = arrivals.burst_every
    if every and now >= every and now % every < arrivals.burst_seconds:
        rate *= arrivals.burst_times
    if arrivals.period:
        rate *= 1.0 + arrivals.swing * sin(2.0 * pi * now / arrivals.period)
    return rate
