"""How long a backend works on a request: distributions, which can be added up and mixed. All in seconds.

Each gives a function that draws one time after the other from a generator of random numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import exp, log
from random import Random
from typing import Protocol

Draw = Callable[[], float]

Z99 = 2.3263478740408408
"""A normal variable is above its mean by no more than so many deviations in 99 % of all cases."""


class Latency(Protocol):
    """A distribution of times."""

    def draw_from(self, rng: Random) -> Draw: ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same."""

    seconds: float

    def draw_from(self, rng: Random) -> Draw:
        seconds = self.seconds
        return lambda: seconds


@dataclass(frozen=True, slots=True)
class Exponential:
    """Mostly short, now and then long: what queueing theory takes."""

    mean: float

    def draw_from(self, rng: Random) -> Draw:
        mean, random = self.mean, rng.random
        return lambda: -log(1.0 - random()) * mean


@dataclass(frozen=True, slots=True)
class Normal:
    """Around a mean, and never below nothing."""

    mean: float
    deviation: float

    def draw_from(self, rng: Random) -> Draw:
        mean, deviation, gauss = self.mean, self.deviation, rng.gauss
        return lambda: max(0.0, gauss(mean, deviation))


@dataclass(frozen=True, slots=True)
class LogNormal:
    """What most services look like: half of all below the median, 99 % below `p99`."""

    median: float
    p99: float

    def draw_from(self, rng: Random) -> Draw:
        median, gauss = self.median, rng.gauss
        sigma = log(self.p99 / self.median) / Z99
        return lambda: median * exp(gauss(0.0, sigma))


@dataclass(frozen=True, slots=True)
class Pareto:
    """A heavy tail: the chance to take longer than t is (least / t) to the power of `shape`."""

    least: float
    shape: float

    def draw_from(self, rng: Random) -> Draw:
        least, power, random = self.least, -1.0 / self.shape, rng.random
        return lambda: least * (1.0 - random()) ** power


@dataclass(frozen=True, slots=True)
class Sum:
    """Several, one after the other: a network and a service, say."""

    parts: tuple[Latency, ...]

    def draw_from(self, rng: Random) -> Draw:
        draws = [part.draw_from(rng) for part in self.parts]

        def draw() -> float:
            total = 0.0
            for each in draws:
                total += each()
            return total

        return draw


@dataclass(frozen=True, slots=True)
class Mix:
    """One of several, each as often as its share says: hits and misses of a cache, say."""

    shares: tuple[float, ...]
    parts: tuple[Latency, ...]

    def draw_from(self, rng: Random) -> Draw:
        draws = [part.draw_from(rng) for part in self.parts]
        ends, random = list(accumulate(self.shares)), rng.random
        total, last = ends[-1], len(draws) - 1

        def draw() -> float:
            return draws[min(last, bisect_right(ends, random() * total))]()

        return draw


@dataclass(frozen=True, slots=True)
class Histogram:
    """What was counted elsewhere, up to each of these bounds: evenly spread between a bound and the next."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    def draw_from(self, rng: Random) -> Draw:
        bounds, ends, random = self.bounds, list(accumulate(self.counts)), rng.random
        total, last = ends[-1], len(bounds) - 1

        def draw() -> float:
            place = min(last, bisect_right(ends, random() * total))
            low = bounds[place - 1] if place else 0.0
            return low + (bounds[place] - low) * random()

        return draw


@dataclass(frozen=True, slots=True)
class Sampled:
    """Times that were taken elsewhere, each as likely as any other."""

    values: Sequence[float]

    def draw_from(self, rng: Random) -> Draw:
        values, count, random = self.values, len(self.values), rng.random
        return lambda: values[int(random() * count)]
