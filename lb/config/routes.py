"""Routes: which requests go to which pool. The first that matches wins."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from lb.config.access import BasicAuth, Headers, Networks, RouteLimits, examine_networks
from lb.config.answers import ErrorPages, Redirect, Respond, examine_pages
from lb.config.fields import TOKEN, duration, one_of, parsed, whole
from lb.config.pools import Pool
from lb.config.resilience import PoolTimeouts, Retries, Timeout
from lb.config.section import AT_KEY, Found, Section, peek, readable
from lb.config.shapes import Inherited, OrOff
from lb.config.values import is_visible, parse_host_pattern
from lb.config.written import as_int, did_you_mean, quoted, suggestion

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")


def _path_prefix(written: str) -> str:
    """With no slash at its end, which would say nothing more: /v1/ matches /v1 as /v1 does."""
    if not written.startswith("/"):
        raise ValueError(f"must start with a /, not {quoted(written)}{suggestion('/' + written)}")
    if not is_visible(written) or any(character in written for character in "?#"):
        raise ValueError(f"must be a path as it stands in a request, without ? and #, not {quoted(written)}")
    if re.search(r"//|/\.\.?(/|$)", written):
        raise ValueError(f"can't have an empty, . or .. part, as {quoted(written)} has")
    return written.rstrip("/") or "/"


def _method(written: str) -> str:
    if not TOKEN.fullmatch(written):
        raise ValueError(f"must be a method such as GET, not {quoted(written)}")
    if written.upper() in _METHODS and written not in _METHODS:
        raise ValueError(
            f"{quoted(written)} is no method: methods are case-sensitive{suggestion(written.upper())}"
        )
    return written


def _header_name(written: str) -> str:
    if not TOKEN.fullmatch(written):
        raise ValueError(f"must be the name of a header, not {quoted(written)}")
    return written.lower()


def _header_value(written: str) -> str:
    if written != written.strip() or not is_visible(written.replace(" ", "")):
        raise ValueError(f"must be visible ASCII, as it stands in the header, not {quoted(written)}")
    return written


_prefix = parsed(_path_prefix, "a path", "/v1", pattern="^/")
_pool = parsed(str, "the name of a pool", "greeter", types=(NoneType,))


class Match(Section):
    """What a request must be like. A key that is left out, or an empty list, asks for nothing."""

    hosts: tuple[Annotated[str, parsed(parse_host_pattern, "a host name", "*.example.org")], ...] = Field(
        default=(),
        description="One of these names in the Host header, without a port. `*.example.org` is every name "
        "under example.org.",
    )
    path_prefix: Annotated[str, _prefix] = Field(
        default="/", description="The path is this or lies under it: `/v1` holds `/v1/a`, not `/v10`."
    )
    methods: tuple[Annotated[str, parsed(_method, "a method", "GET")], ...] = Field(
        default=(), description="One of these methods."
    )
    headers: Mapping[
        Annotated[str, parsed(_header_name, "a header name", "x-beta")],
        Annotated[str, parsed(_header_value, "a header value", "1", type=["string", "number", "boolean"])],
    ] = Field(default_factory=dict, description="Every one of these headers has exactly this value.")
    scheme: Annotated[str | None, one_of("http", "https"), Inherited()] = Field(
        default=None,
        description="It came by `http` or by `https`: to us, or to a trusted proxy that says so.",
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        headers = data.get("headers")
        seen: dict[str, str] = {}
        for name in headers if isinstance(headers, Mapping) else ():
            if seen.setdefault(str(name).lower(), name) is not name:
                yield (
                    ("headers", name, AT_KEY),
                    f"the header {quoted(str(name))} is here twice, since case doesn't matter",
                )

    @property
    def is_empty(self) -> bool:
        """Whether it matches every request."""
        return self == _EVERYTHING


_EVERYTHING = Match.model_construct()


OwnTimeout = Annotated[float | None, duration(more_than=0), Inherited()]
OwnTotal = Annotated[float | None, duration(more_than=0), OrOff("a duration", math.inf), Inherited()]


class RouteTimeouts(Section):
    """How long the backends may take with this route's requests. What is left out is as in the pool."""

    total: OwnTotal = Field(
        default=None,
        description="From the end of a request's head to the end of the response, with every attempt. `off` "
        "lifts the pool's.",
    )
    connect: OwnTimeout = Field(default=None, description="Until a connection to the backend stands.")
    response_header: OwnTimeout = Field(
        default=None,
        description="From the end of the request until the response's head is here; anew in each attempt.",
    )
    idle: OwnTimeout = Field(
        default=None, description="Without a byte in either direction while a body is on its way."
    )
    tunnel: OwnTimeout = Field(
        default=None,
        description="Without a byte in either direction through a WebSocket or another protocol that was "
        "switched to.",
    )


def _rate_key(written: str) -> str:
    kind, colon, name = written.partition(":")
    if kind == "header" and colon:
        return f"header:{_header_name(name)}"
    if written not in ("client", "route"):
        near = did_you_mean(written, ("client", "route", "header:NAME"))
        raise ValueError(f"must be client, route or header:NAME, not {quoted(written)}{near}")
    return written


_rate = whole(1, 10_000_000)
_KEY_PATTERN = "^(client|route|header:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256})$"


class RateLimit(Section):
    """How many requests may come in a time: 429 beyond it."""

    required: ClassVar = {"requests": "a number of requests, as in requests: 100"}

    requests: Annotated[int, _rate] = Field(description="So many on average.")
    per: Timeout = Field(default=1.0, description="In such a time.")
    burst: Annotated[int, _rate] = Field(
        default_factory=int,  # there is always one: see examine
        description="So many may come at once, after a quiet time. As many as `requests` if left out.",
    )
    key: Annotated[str, parsed(_rate_key, "client, route or header:NAME", "client", pattern=_KEY_PATTERN)] = (
        Field(
            default="client",
            description="Who is counted apart: each `client` by its address (for IPv6, its /64), each value "
            "of a header (`header:NAME`), or nobody (`route`: all together).",
        )
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        requests = readable(_rate.read, data.get("requests"))
        if requests is not None:
            data.setdefault("burst", requests)
        yield from ()


_NO_RETRIES = Retries.model_construct(attempts=0)


_WAYS = ("pool", "split", "respond", "redirect")
_FOR_BACKENDS = ("strip_prefix", "timeouts", "retries")


class Route(Section):
    """Sends the requests that match to a pool, or to several by share; or answers them itself.

    In this order: the match, `rate_limit`, `allow` and `deny`, `limits`, `basic_auth`, then the answer or the
    pool.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [key]} for key in _WAYS]})

    match: Match = Field(default=_EVERYTHING, description="Which requests; every one if left out.")
    pool: Annotated[str | None, _pool] = Field(default=None, description="The pool that serves them.")
    split: Mapping[str, Annotated[int, whole(0, 1_000_000)]] | None = Field(
        default=None,
        min_length=1,
        description="In place of `pool`: pools with their shares, as in `{stable: 95, canary: 5}`.",
    )
    respond: Respond | None = Field(
        default=None, description="In place of `pool`: an answer that is always the same."
    )
    redirect: Redirect | None = Field(
        default=None, description="In place of `pool`: sends the client elsewhere. Just a URL is `to` alone."
    )
    strip_prefix: Annotated[str, _prefix] = Field(
        default="",
        description="Is taken off the path for the backend. `match.path_prefix` must begin with it.",
    )
    timeouts: RouteTimeouts = Field(
        default=RouteTimeouts.model_construct(),
        description="In place of the pool's timeouts: each that is given here.",
    )
    retries: Annotated[Retries | None, OrOff(value=_NO_RETRIES), Inherited()] = Field(
        default=None,
        description="In place of the pool's retries as a whole: what isn't given here has its default.",
    )
    rate_limit: Annotated[RateLimit | None, OrOff()] = Field(
        default=None, description="How many requests may come in a time."
    )
    allow: Networks = Field(
        default=(),
        description="The networks that clients may come from: 403 for others. `unix` is who comes by a unix "
        "socket.",
    )
    deny: Networks = Field(
        default=(),
        description="The networks that they may not come from. Where several hold an address, the smallest "
        "decides.",
    )
    limits: RouteLimits = Field(
        default=RouteLimits.model_construct(), description="How large a request may be."
    )
    basic_auth: Annotated[BasicAuth | None, OrOff()] = Field(
        default=None, description="Who may come in, by name and password."
    )
    headers: Headers = Field(
        default=Headers.model_construct(), description="What is added to, set in and removed from heads."
    )
    errors: ErrorPages = Field(
        default_factory=dict,
        description="Bodies in place of our own, by status, beside those of the top level; errors of "
        "backends pass as they are.",
        json_schema_extra={"additionalProperties": False},
    )

    @property
    def targets(self) -> Mapping[str, int]:
        """The pools with their shares; a single pool has the share 1. None where the route answers itself."""
        if self.respond is not None or self.redirect is not None:
            return {}
        return self.split if self.split is not None else {self.pool or "": 1}

    def timeouts_with(self, pool: Pool) -> PoolTimeouts:
        """The timeouts of this route's requests in a pool."""
        own = {key: value for key, value in self.timeouts if value is not None}
        if own.get("total") == math.inf:
            own["total"] = None
        return pool.timeouts.model_copy(update=own)

    def retries_with(self, pool: Pool) -> Retries | None:
        """The retries of this route's requests in a pool; None if there are none."""
        found = self.retries if self.retries is not None else pool.retries
        return found if found is not None and found.attempts else None

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        split = data.get("split")
        first, *others = [key for key in _WAYS if data.get(key) is not None] or [""]
        for key in others:
            yield (key, AT_KEY), f"stands beside {first}, but a route has only one of the two"
        if not first:
            near = [key for key in data if did_you_mean(key, _WAYS)]
            if not near:  # a misspelt one is told already, as an unknown key
                yield (
                    (AT_KEY,),
                    "needs a pool, as in pool: NAME, or a split, as in split: {NAME: 95, OTHER: 5}, "
                    "or an answer: respond or redirect",
                )
        elif isinstance(split, Mapping) and split and all(as_int(share) == 0 for share in split.values()):
            yield ("split",), "gives every pool the share 0, so that no request could go anywhere"
        yield from _examine_strip_prefix(data)
        yield from examine_networks(data)
        yield from examine_pages(data.get("errors"))
        if first in ("respond", "redirect"):
            for key in _FOR_BACKENDS:
                if key in data:
                    yield (key, AT_KEY), f"does nothing beside {first}, which asks no backend"
            if peek(data.get("headers"), "request"):
                yield ("headers", "request", AT_KEY), f"does nothing beside {first}, which asks no backend"


def _examine_strip_prefix(data: Mapping[str, Any]) -> Iterator[Found]:
    """What is stripped has to be there in every path that matches."""
    if "strip_prefix" not in data:
        return
    strip = readable(_prefix.read, data["strip_prefix"])
    match = data.get("match", _EVERYTHING)
    written = match.get("path_prefix", "/") if isinstance(match, Mapping) else peek(match, "path_prefix")
    prefix = readable(_prefix.read, written)
    if strip == "/":
        yield ("strip_prefix",), "strips nothing; leave it out"
    elif strip and prefix == "/":
        yield (
            ("strip_prefix",),
            f"needs match.path_prefix: {strip}, else there are paths that don't begin with it",
        )
    elif strip and prefix and prefix != strip and not prefix.startswith(strip + "/"):
        yield (
            ("strip_prefix",),
            f"must be what match.path_prefix {quoted(prefix)} begins with, not {quoted(strip)}",
        )
