"""Metric families as text, in the Prometheus format and in OpenMetrics.

prometheus_client's own encoder takes some 15 µs for each sample, and a backend has about 70 of them: 5 s of
a scrape for 5,000 backends, in which no request would move. Here a family's lines are made directly, in
pieces, between which the event loop can turn to requests. Format: Prometheus' "Exposition formats", and
OpenMetrics 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from lb.core.backend import BOUNDS, Histogram

PIECE = 200  # rows, of which a histogram's has 18 lines: about a millisecond of work

Sample = tuple[str, float | Histogram]

_BOUNDS = (*map(repr, BOUNDS), "+Inf")


class Family:
    """A metric: its name, its kind (gauge, counter or histogram), its help, and pairs of labels and value."""

    __slots__ = ("help", "kind", "name", "samples")

    def __init__(self, name: str, kind: str, help: str, samples: Iterable[Sample]) -> None:
        self.name = name
        self.kind = kind
        self.help = help
        self.samples = samples

    def pieces(self, openmetrics: bool) -> Iterator[bytes]:
        """The family as text, some rows at a time. OpenMetrics calls a counter by its name without _total."""
        name = self.name.removesuffix("_total") if openmetrics else self.name
        yield f"# HELP {name} {self.help}\n# TYPE {name} {self.kind}\n".encode()
        lines = (_line(self.name, labels, value) for labels, value in self.samples)
        while piece := "".join(islice(lines, PIECE)):
            yield piece.encode("utf-8", "replace")


def labels(**values: str) -> str:
    """Labels as they stand between the braces."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items())


def _line(name: str, labels: str, value: float | Histogram) -> str:
    if isinstance(value, Histogram):
        return _histogram(name, labels, value)
    return f"{name}{{{labels}}} {value!r}\n" if labels else f"{name} {value!r}\n"


def _histogram(name: str, labels: str, histogram: Histogram) -> str:
    """All samples of a histogram: its buckets, its sum in seconds, its count."""
    start, so_far, lines = f"{name}_bucket{{{labels},le=", 0, []
    for bound, count in zip(_BOUNDS, histogram.counts, strict=True):
        so_far += count
        lines.append(f'{start}"{bound}"}} {so_far}\n')
    lines.append(f"{name}_sum{{{labels}}} {histogram.total!r}\n{name}_count{{{labels}}} {so_far}\n")
    return "".join(lines)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
