"""How long a backend of a scenario works on a request: one of several distributions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from lb.config.fields import duration, number, percentage
from lb.config.resilience import Timeout
from lb.config.section import AT_KEY, Found, Section, items_of, peek, readable
from lb.config.shapes import OrShort

Start = Annotated[float, duration()]


class NormalSpec(Section):
    """Around a mean, and never below nothing."""

    required: ClassVar = {"mean": "a mean", "deviation": "a standard deviation, as in deviation: 5ms"}

    mean: Start = Field(description="The mean.")
    deviation: Start = Field(description="The standard deviation.")


class LogNormalSpec(Section):
    """As most services: half of all below the median, and a long tail."""

    required: ClassVar = {"median": "a median", "p99": "a 99th percentile, as in p99: 80ms"}

    median: Timeout = Field(description="Half of all take no longer.")
    p99: Timeout = Field(description="99 of 100 take no longer.")

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        median, p99 = seconds_of(data.get("median")), seconds_of(data.get("p99"))
        if median is not None and p99 is not None and p99 < median:
            yield ("p99",), "can't be less than the median"


class ParetoSpec(Section):
    """A heavy tail: longer than t with a chance of (least / t) to the power of shape."""

    required: ClassVar = {"least": "a least time", "shape": "a shape, as in shape: 2.1"}

    least: Timeout = Field(description="None takes less.")
    shape: Annotated[float, number(more_than=0, most=1000)] = Field(
        description="The smaller, the heavier is the tail. The mean is infinite up to 1."
    )


class Part(Section):
    """One of the parts of a mix."""

    required: ClassVar = {"share": "a share, as in share: 10%", "latency": "a latency, as in latency: 20ms"}

    share: Annotated[float, percentage(more_than_none=True)] = Field(description="How often it is this one.")
    latency: AnyLatency = Field(description="How long it takes then.")


class Bucket(Section):
    """One of the parts of a histogram."""

    required: ClassVar = {"upto": "a bound, as in upto: 10ms", "count": "a count, as in count: 100"}

    upto: Timeout = Field(description="From the bound before, or 0, up to this.")
    count: Annotated[float, number(most=1e15)] = Field(description="How many of them, not those below.")


class LatencySpec(Section):
    """How long a backend works on a request: one of these. A duration alone is a constant."""

    constant: Annotated[float | None, duration()] = Field(default=None, description="Always the same.")
    exponential: Annotated[float | None, duration(more_than=0)] = Field(
        default=None, description="Of this mean: mostly short, now and then long."
    )
    normal: NormalSpec | None = Field(default=None, description="`{mean, deviation}`.")
    lognormal: LogNormalSpec | None = Field(default=None, description="`{median, p99}`.")
    pareto: ParetoSpec | None = Field(default=None, description="`{least, shape}`.")
    sum: tuple[AnyLatency, ...] | None = Field(
        default=None, min_length=1, description="Several, one after the other."
    )
    mix: tuple[Part, ...] | None = Field(
        default=None, min_length=1, description="One of several: a list of `{share, latency}`."
    )
    histogram: tuple[Bucket, ...] | None = Field(
        default=None, min_length=1, description="As it was measured: a list of `{upto, count}`."
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if len(data) != 1:
            yield (AT_KEY,), f"needs exactly one of {', '.join(cls.model_fields)}"
        before, counts = 0.0, list[float | None]()
        for place, each in items_of(data.get("histogram")):
            bound = seconds_of(peek(each, "upto"))
            if bound is not None and bound <= before:
                yield ("histogram", place, "upto"), "must be more than the bound before"
            before = bound or before
            counts.append(readable(number(most=1e15).read, peek(each, "count")))
        if counts and all(count == 0 for count in counts):
            yield ("histogram",), "needs a count that isn't 0"


AnyLatency = Annotated[LatencySpec, OrShort("constant", duration().json_schema)]


def seconds_of(value: Any) -> float | None:
    """The seconds that are written, or None where the field will complain itself."""
    try:
        return float(duration().read(value))
    except ValueError:
        return None
