"""What all connections of the data plane share: routes, rules, observers, the sweeper."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING, Protocol

from lb.core.answers import ErrorPage
from lb.core.backend import Backend
from lb.core.identity import Proxies, RequestIds
from lb.core.pool import Pool
from lb.core.record import Observer
from lb.core.route import Routes
from lb.proxy.forward import EITHER, X_FORWARDED
from lb.proxy.logins import Logins
from lb.proxy.timeouts import Sweeper
from lb.proxy.upstream import Upstream, UpstreamOptions
from lb.wire.fields import request_rules, response_rules

if TYPE_CHECKING:
    from lb.proxy.listener import Listener


@dataclass(frozen=True, slots=True)
class Identification:
    """How requests are named, and whom we believe when they say who they are.

    `reads` is which fields of a trusted proxy say who its client is, `writes` is in which ones we say it.
    `records` is whether anyone will ask why a backend was picked; what was seen is then kept.
    """

    header: str = "X-Request-ID"
    expose_backend: bool = False
    trusted_proxies: Proxies = field(default_factory=Proxies)
    records: bool = True
    reads: str = EITHER
    writes: str = X_FORWARDED

    def trusts(self, address: str) -> bool:
        return bool(self.trusted_proxies) and self.trusted_proxies.trusts(address)


class Connection(Protocol):
    """Who takes a place: a client's connection, or one that is still at the entrance."""

    @property
    def busy(self) -> bool: ...
    @property
    def quiet_since(self) -> float: ...
    def came_in_at(self, listener: Listener) -> bool: ...
    def renew(self) -> None: ...
    def drain(self) -> None: ...
    def leave(self) -> None: ...
    def shut(self) -> None: ...
    def abort(self) -> None: ...


class Plane:
    """The data plane's common ground. One per process."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        routes: Routes,
        options: Mapping[str, UpstreamOptions],
        identification: Identification,
        observers: Sequence[Observer],
    ) -> None:
        self.loop = loop
        self.sweeper = Sweeper(loop)
        self.logins = Logins(loop)
        self.pages: Mapping[int, ErrorPage] = {}  # bodies for our own errors, where no route has others
        self.ids = RequestIds(time)
        self.connections: set[Connection] = set()
        self._identify(identification)
        self.adopt(routes, options, identification, observers)
        self.draining = False
        self.on_gone: Callable[[], object] | None = None  # for who waits until a connection has gone

    def adopt(
        self,
        routes: Routes,
        options: Mapping[str, UpstreamOptions],
        identification: Identification,
        observers: Sequence[Observer],
    ) -> None:
        """Goes by these from now on. Exchanges under way keep the route and the pool that they have."""
        self.routes = routes
        self.catch_all = routes.catch_all
        self.options = options  # by pool
        self.records = identification.records
        self.observers: tuple[Callable[..., None], ...] = tuple(each.on_exchange for each in observers)
        if identification != self.identification:
            self._identify(identification)
            for connection in self.connections:
                connection.renew()

    def _identify(self, identification: Identification) -> None:
        self.identification = identification
        self.expose_backend = identification.expose_backend
        self.id_field = identification.header.encode() + b": "
        self.request_rules = request_rules(identification.header)
        ours = (
            (identification.header, "X-Backend")
            if identification.expose_backend
            else (identification.header,)
        )
        self.response_rules = response_rules(*ours)

    @property
    def exchanges(self) -> int:
        """How many are in flight."""
        return sum(connection.busy for connection in self.connections)

    def link(self, pool: Pool, backend: Backend) -> Upstream:
        """A backend's connections, made when it is first picked."""
        backend.upstream = upstream = Upstream(self, backend, self.options[pool.name])
        return upstream

    def drain(self) -> None:
        """From now on each connection closes with its present exchange, and idle ones soon."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    async def close(self) -> None:
        """Cuts what is still there; who has no answer yet gets a 503."""
        self.sweeper.stop()
        self.logins.close()
        for connection in list(self.connections):
            connection.shut()
        await asyncio.sleep(0.05)  # for these last words, and for the event loop to tell of what was cut
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)
