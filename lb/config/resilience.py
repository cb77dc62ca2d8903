"""How a pool bears slow backends, failing ones, and more requests than it can serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from lb.config.fields import duration, one_of, percentage, size, statuses, whole
from lb.config.section import Found, Section, readable
from lb.config.shapes import OrOff
from lb.config.values import StatusSet, format_duration, parse_statuses
from lb.config.written import is_off

Timeout = Annotated[float, duration(more_than=0)]
Total = Annotated[float | None, duration(more_than=0), OrOff("a duration")]

_MOST = 1_000_000
Bound = Annotated[int | None, whole(1, _MOST), OrOff("a whole number")]
Errors = Annotated[StatusSet, statuses(first=4), OrOff("statuses", StatusSet())]

_positive = duration(more_than=0)
_BAD_GATEWAY = parse_statuses("502-504")


class PoolTimeouts(Section):
    """How long the backends may take."""

    total: Total = Field(
        default=None,
        description="From the end of a request's head to the end of the response, with every attempt and "
        "the waiting in between. It ends what the others would still allow.",
    )
    connect: Timeout = Field(default=2.0, description="Until a connection to the backend stands.")
    response_header: Timeout = Field(
        default=30.0,
        description="From the end of the request until the response's head is here; anew in each attempt.",
    )
    idle: Timeout = Field(
        default=60.0, description="Without a byte in either direction while a body is on its way."
    )
    tunnel: Timeout = Field(
        default=3600.0,
        description="Without a byte in either direction through a WebSocket or another protocol that was "
        "switched to.",
    )


class Retries(Section):
    """Tries a request anew, at another backend if there is one, where that can hide a failure.

    It can as long as the client has got nothing of a response, and the request either has not reached the
    backend or may be done twice (GET, HEAD, OPTIONS, TRACE, PUT, DELETE).
    """

    attempts: Annotated[int, whole(0, 10)] = Field(
        default=1, description="So many further ones, at most, after the first."
    )
    budget: Annotated[float, percentage()] = Field(
        default=0.2,
        description="At most such a share of the pool's requests is tried anew, so that an outage isn't "
        "made worse.",
    )
    min_per_second: Annotated[int, whole(0, 10_000)] = Field(
        default=3, description="So many a second may be tried anew whatever the budget says."
    )
    body: Annotated[int, size(0, 64 * 2**20), OrOff("a size", 0)] = Field(
        default=65536,
        description="A request body is kept for another attempt up to this size; a larger one is sent once. "
        "`off` is 0.",
    )
    statuses: Errors = Field(
        default=_BAD_GATEWAY,
        description="A response with one of these from 400 to 599 is a failure that may be tried anew: "
        "`502-504` or `[502, 503, 504]`. With `off`, only failures without a response are.",
    )


class OutlierDetection(Section):
    """Ejects a backend for a while that fails too many of its requests."""

    consecutive_failures: Annotated[int | None, whole(1, 1000), OrOff("a whole number")] = Field(
        default=5, description="So many failures in a row eject it."
    )
    failure_rate: Annotated[float | None, percentage(more_than_none=True), OrOff("a percentage")] = Field(
        default=None, description="Such a share of failures within an interval ejects it."
    )
    min_requests: Annotated[int, whole(1, _MOST)] = Field(
        default=20, description="The failure rate counts only with so many requests in the interval."
    )
    interval: Annotated[float, duration(least=0.1)] = Field(
        default=10.0, description="The failure rate is taken over such a time, at least `100ms`."
    )
    ejection: Timeout = Field(
        default=10.0, description="So long the first one is. Each further one in a row is longer."
    )
    max_ejection: Timeout = Field(default=300.0, description="So long an ejection is at most.")
    max_ejected: Annotated[float, percentage(more_than_none=True)] = Field(
        default=0.5, description="At most such a share of the backends is ejected at a time."
    )
    statuses: Errors = Field(
        default=_BAD_GATEWAY,
        description="A response with one of these from 400 to 599 is a failure. With `off`, only failures "
        "without a whole response are.",
    )
    mode: Annotated[Literal["enforce", "observe"], one_of("enforce", "observe")] = Field(
        default="enforce", description="`observe` only counts and logs the ejections that there would be."
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        yield from _examine_ejection(data)
        failures, rate = data.get("consecutive_failures", 5), data.get("failure_rate", "off")
        if (failures is None or is_off(failures)) and (rate is None or is_off(rate)):
            yield (
                ("consecutive_failures",),
                "is off, and so is failure_rate: nothing would be ejected; write outlier_detection: off",
            )


def _examine_ejection(data: Mapping[str, Any]) -> Iterator[Found]:
    fields = OutlierDetection.model_fields
    ejection, longest = (
        readable(_positive.read, data.get(key, fields[key].default)) for key in ("ejection", "max_ejection")
    )
    if ejection is None or longest is None or longest >= ejection:
        return
    if "max_ejection" in data:
        least = format_duration(ejection)
        yield ("max_ejection",), f"must be at least as long as ejection, which is {least}"
    else:
        default = format_duration(longest)
        yield ("ejection",), f"is longer than max_ejection, which is {default} if it isn't given"


class PoolLimits(Section):
    """How much a pool takes at a time. What is more waits in the queue, if there is room."""

    requests_per_backend: Bound = Field(default=None, description="Requests in flight at each backend.")
    connections_per_backend: Bound = Field(
        default=None, description="Connections to each backend, the unused ones too."
    )
    requests: Bound = Field(default=None, description="Requests in flight in the whole pool.")
    connections: Bound = Field(
        default=None, description="Connections to all backends of the pool, the unused ones too."
    )
    queue: Annotated[int, whole(0, _MOST), OrOff("a whole number", 0)] = Field(
        default=1024,
        description="So many requests wait where a limit is reached; 503 beyond it. `off` is 0. It has no "
        "use without a limit.",
    )
    queue_timeout: Timeout = Field(default=1.0, description="So long a request waits, and then gets 503.")
