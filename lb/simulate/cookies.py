"""Clients that keep the cookie of a sticky pool and send it back: each key of the scenario is a client."""

from __future__ import annotations

from collections.abc import Callable

from lb.core.affinity import Key
from lb.core.backend import Backend
from lb.core.message import Request
from lb.core.pool import Pool
from lb.simulate.keys import keyed_request


class Jar:
    """The cookies of all clients. They are those of the data plane, good in every worker."""

    def __init__(self, reads_keys: bool) -> None:
        self._reads_keys = reads_keys  # whether the policy goes by keys, too
        self._cookies: dict[bytes, bytes] = {}

    def requests(self, draw: Callable[[], bytes]) -> Callable[[], Request]:
        """One after the other. None is used twice: what is read from its cookie goes with it."""
        return lambda: keyed_request(draw())

    def show(self, request: Request, pool: Pool) -> None:
        """Reads the client's cookie, as the pool's reader does on the way of a real request."""
        key = Key(request.key if self._reads_keys else b"")
        cookie = self._cookies.get(request.target)
        if cookie is not None and pool.sticky is not None:
            key.stuck = pool.sticky.owner(cookie)
        request.key = key

    def keep(self, request: Request | None, pool: Pool, backend: Backend, retried: bool) -> None:
        """What an answer of this backend sets."""
        if request is None or pool.sticky is None:
            return
        line = pool.sticky.field(request.key, backend, retried)
        if line:
            self._cookies[request.target] = line.partition(b"=")[2].partition(b";")[0]
