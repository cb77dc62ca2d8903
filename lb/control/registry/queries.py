"""What stands in the query and the head of a request to the registry, read as Consul reads it."""

from __future__ import annotations

import hmac
from random import uniform

from aiohttp import web

from lb.control.registry.requests import Wrong, duration
from lb.control.registry.store import Unavailable
from lb.control.registry.views import DATACENTER

WAIT = 300.0  # seconds that a blocking query waits where it doesn't say
WAIT_AT_MOST = 600.0

_NARROWING = ("filter", "node-meta")
_ELSEWHERE = ("ns", "partition", "peer", "sg")


def bears(request: web.Request, token: str) -> bool:
    """Whether a request has this token, in one of the places where clients of Consul put it."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    places = (
        request.headers.get("X-Consul-Token", ""),
        given.strip() if scheme.lower() == "bearer" else "",
        request.query.get("token", ""),
    )
    wanted = token.encode("utf-8", "replace")
    return any(hmac.compare_digest(place.encode("utf-8", "replace"), wanted) for place in places)


def is_set(request: web.Request, name: str) -> bool:
    """`?passing` and `?passing=1` are, `?passing=false` isn't. Raises Wrong."""
    value = request.query.get(name, "false").lower()
    if value not in ("", "1", "t", "true", "0", "f", "false"):
        raise Wrong(f"{name}: must be true or false")
    return value not in ("0", "f", "false")


def index_of(request: web.Request) -> int:
    """The index that a blocking query waits to be passed; 0 where it doesn't wait. Raises Wrong."""
    text = request.query.get("index", "0") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Wrong("index: must be a whole number")
    return int(text)


def wait_of(request: web.Request) -> float:
    """The seconds that a blocking query waits at most, with a sixteenth at random on top, as Consul has it,
    so that they don't all come back at once. Raises Wrong."""
    text = request.query.get("wait")
    seconds = duration(text, "wait", least=0.0) if text else 0.0
    seconds = min(seconds or WAIT, WAIT_AT_MOST)
    return seconds + uniform(0, seconds / 16)


def must_be_answerable(request: web.Request, agent: bool = False) -> None:
    """Whoever asks for less than everything, or for what is elsewhere, must not take the answer for that.

    Raises Wrong and Unavailable, with the words of Consul where it has some. An `agent` doesn't look at the
    datacenter.
    """
    query = request.query
    for name in _NARROWING:
        if query.get(name):
            raise Wrong(f"{name}: isn't known here; ask for all, or by tag")
    for name in _ELSEWHERE:
        if query.get(name, "") not in ("", "default"):
            raise Wrong(
                f'Invalid query parameter: "{name}": there are no namespaces, partitions or peers here'
            )
    if not agent and query.get("dc", "") not in ("", DATACENTER):
        raise Unavailable(f"No path to datacenter: there is only {DATACENTER}")
