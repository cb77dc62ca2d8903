"""Requests with keys: what they have in common with others that are to go to the same backend."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from random import Random

from lb.core.backend import Backend
from lb.core.message import Request
from lb.simulate.scenario import Keys


def drawing(keys: Keys, rng: Random) -> Callable[[], bytes]:
    """A function that draws one key after the other."""
    random, names = rng.random, [name.encode() for name in keys.names]
    if keys.shares:
        ends = list(accumulate(keys.shares))
    elif keys.zipf:
        ends = list(accumulate(rank**-keys.zipf for rank in range(1, keys.count + 1)))
    else:
        count = len(names) or keys.count
        return lambda: names[int(random() * count)] if names else b"key-%d" % (random() * count)
    total, last = ends[-1], len(ends) - 1

    def draw() -> bytes:
        place = min(last, bisect_right(ends, random() * total))
        return names[place] if names else b"key-%d" % place

    return draw


def keyed_request(key: bytes) -> Request:
    """A request of this key, whatever it is that a policy reads it from."""
    target = b"/" + key
    request = Request(b"GET", target, [b"GET %b HTTP/1.1" % target])
    request.host = b"simulated"
    request.key = key
    return request


KNOWN = 100_000
"""So many requests of different keys are kept, to be used again."""


def drawn_requests(draw: Callable[[], bytes], keyed: bool) -> Callable[[], Request]:
    """A function that makes one request after the other, of keys that are drawn. Where none is asked for,
    `keyed` is false, and none is in them."""
    known: dict[bytes, Request] = {}

    def request() -> Request:
        key = draw()
        found = known.get(key)
        if found is None:
            found = keyed_request(key)
            if not keyed:
                found.key = b""
            if len(known) < KNOWN:
                known[key] = found
        return found

    return request


REMEMBERED = 1_000_000
"""So many keys are followed; of others that come later, nothing is said."""


class Owners:
    """Which backend served a key last, and how many keys have moved since the counting began."""

    def __init__(self) -> None:
        self._last: dict[bytes, Backend] = {}
        self._again: set[bytes] = set()
        self._moved: set[bytes] = set()
        self.requests = 0  # of a key that had come before
        self.moves = 0  # of these, how many went to another backend than the one before

    def begin_counting(self) -> None:
        self._again.clear()
        self._moved.clear()
        self.requests = self.moves = 0

    def picked(self, key: bytes, backend: Backend) -> None:
        if not key:
            return
        last = self._last.get(key)
        if last is not None:
            self.requests += 1
            self._again.add(key)
            if last.id != backend.id:
                self.moves += 1
                self._moved.add(key)
        if last is not backend and (last is not None or len(self._last) < REMEMBERED):
            self._last[key] = backend

    @property
    def keys(self) -> int:
        """How many came more than once, and so could move."""
        return len(self._again)

    @property
    def moved(self) -> int:
        """How many of these moved at least once."""
        return len(self._moved)
