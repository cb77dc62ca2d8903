"""The times that requests took: all of them, or where there are very many, how many of each size."""

from __future__ import annotations

from math import ceil, exp, floor, fsum, log

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}

KEPT = 1_000_000
"""So many values are kept as they are: 32 MB."""

FINENESS = 500
"""Bins for each factor of e: a value that was counted is known to 0.1 % (half of 1/500)."""

LEAST = 1e-9
"""Seconds; what took less is counted as this."""


class Latencies(list[float]):
    """Seconds, in the order in which they came: to be appended to.

    `fold`, to be called now and then, counts them by size and forgets them, once there are more than KEPT.
    Up to then all figures are exact, and a quantile is a value that occurred (the nearest rank). From then on
    a quantile is right to 0.1 %; mean and maximum stay exact.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bins: dict[int, int] = {}
        self._folded = 0
        self._total = 0.0
        self._most = 0.0

    def fold(self, kept: int = KEPT) -> None:
        if len(self) <= kept:
            return
        bins = self._bins
        for value in self:
            place = floor(log(value if value > LEAST else LEAST) * FINENESS)
            bins[place] = bins.get(place, 0) + 1
        self._folded += len(self)
        self._total = fsum((self._total, *self))
        self._most = max(self._most, max(self))
        self.clear()

    @property
    def size(self) -> int:
        return self._folded + len(self)

    def quantiles(self, shares: list[float]) -> list[float]:
        """The values that such shares of all, in ascending order, are not above; 0 where there is none."""
        if not self.size:
            return [0.0] * len(shares)
        if not self._folded:
            ordered = sorted(self)
            return [ordered[max(0, ceil(share * len(ordered)) - 1)] for share in shares]
        self.fold(0)
        found, below, places = list[float](), 0, iter(sorted(self._bins))
        place = 0
        for share in shares:
            while below < share * self._folded:
                place = next(places)
                below += self._bins[place]
            found.append(min(exp((place + 0.5) / FINENESS), self._most))
        return found

    def summary(self) -> dict[str, float]:
        """Mean, quantiles and maximum; 0 without any."""
        if not self.size:
            return {"mean": 0.0} | dict.fromkeys(QUANTILES, 0.0) | {"max": 0.0}
        quantiles = dict(zip(QUANTILES, self.quantiles(list(QUANTILES.values())), strict=True))
        mean = fsum((self._total, *self)) / self.size
        return {"mean": mean} | quantiles | {"max": max(self._most, max(self, default=0.0))}
