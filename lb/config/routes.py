"""Routes: which requests go to which pool. The first that matches wins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from lb.config.fields import TOKEN, parsed, whole
from lb.config.section import AT_KEY, Found, Section, peek, readable
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


class Route(Section):
    """Sends the requests that match to a pool, or to several by share."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["pool"]}, {"required": ["split"]}]})

    match: Match = Field(default=_EVERYTHING, description="Which requests; every one if left out.")
    pool: Annotated[str | None, _pool] = Field(default=None, description="The pool that serves them.")
    split: Mapping[str, Annotated[int, whole(0, 1_000_000)]] | None = Field(
        default=None,
        min_length=1,
        description="In place of `pool`: pools with their shares, as in `{stable: 95, canary: 5}`.",
    )
    strip_prefix: Annotated[str, _prefix] = Field(
        default="",
        description="Is taken off the path for the backend. `match.path_prefix` must begin with it.",
    )

    @property
    def targets(self) -> Mapping[str, int]:
        """The pools with their shares; a single pool has the share 1."""
        return self.split if self.split is not None else {self.pool or "": 1}

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        pool, split = data.get("pool"), data.get("split")
        if pool is not None and split is not None:
            yield ("split", AT_KEY), "stands beside pool, but a route has only one of the two"
        elif pool is None and split is None:
            near = [key for key in data if did_you_mean(key, ("pool", "split"))]
            if not near:  # a misspelt one is told already, as an unknown key
                yield (
                    (AT_KEY,),
                    "needs a pool, as in pool: NAME, or a split, as in split: {NAME: 95, OTHER: 5}",
                )
        elif isinstance(split, Mapping) and split and all(as_int(share) == 0 for share in split.values()):
            yield ("split",), "gives every pool the share 0, so that no request could go anywhere"
        yield from _examine_strip_prefix(data)


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
