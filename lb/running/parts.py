"""The parts of a running balancer, and of one that is about to be."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lb import __version__
from lb.balance import Balancer
from lb.build import identification
from lb.certificates import ServerTls, expiries
from lb.config import Address, Config
from lb.control.all_records import OwnRecords, Records
from lb.control.state import AdminState
from lb.core.backend import Backend, BackendSpec
from lb.core.pool import Pool
from lb.core.record import Observer
from lb.core.route import Routes
from lb.core.rules import PoolRules
from lb.discovery.members import Members
from lb.discovery.watch import Watch
from lb.logfile import LogFile
from lb.observe.access_log import AccessLog
from lb.observe.clients import ClientMetrics
from lb.observe.metrics import LbCollector, ReloadState
from lb.observe.records import RequestRecords
from lb.proxy.door import Door
from lb.proxy.listener import Listener, ListenerOptions
from lb.proxy.plane import Plane
from lb.proxy.reach import Reach
from lb.proxy.sockets import Inherited, Listening
from lb.registrar import Registrar
from lb.running.replaced import Replaced

if TYPE_CHECKING:
    from lb.control.admin import AdminServer
    from lb.control.prober import Prober


Known = dict[tuple[str, str], tuple[BackendSpec, ...]]
"""The last set of each source, by its pool and by what the configuration says of it."""


class LoopClock:
    """The event loop's timers, with time in microseconds: uvloop's own `time()` counts milliseconds."""

    time = staticmethod(time.monotonic)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.call_later = loop.call_later


class Running:
    """A balancer with all that it has at the moment: nothing yet, when it is made.

    `files` is how many descriptors the process may have.
    """

    probes = True  # whether it asks backends how they are
    discovers = True  # whether it asks sources where the backends are

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        inherited: Inherited | None = None,
        files: int = 1024,
    ) -> None:
        self.config = config
        self.draining = False
        self.clock = LoopClock(loop)
        self.inherited = inherited or Inherited()
        self.files = files
        self.epoch = time.time() - time.monotonic()
        self.pools: dict[str, Pool] = {}
        self.probers: dict[str, Prober] = {}
        self.members: dict[str, Members] = {}  # of the pools that have sources
        self.reaches: dict[str, Reach] = {}
        self.told: Known = {}  # what the process before this one knew of them
        self.listeners: list[Listener] = []
        self.clients = ClientMetrics()
        self.records: RequestRecords | None = None
        self.reloads = ReloadState(time.time())
        self.log_file: LogFile | None = None
        self.turns = -1  # see LogFile
        self.access_log: AccessLog | None = None
        self.admin: AdminServer | None = None
        self.admin_listening: Listening | None = None
        self.registrar = Registrar()
        self.plane = Plane(loop, Routes(()), {}, identification(config), ())
        self.door = Door(self.plane)
        self.replaced = Replaced(self.has_left)
        self.admin_state = self._admin_state()

    def _admin_state(self) -> AdminState:
        return AdminState(
            version=__version__,
            epoch=self.epoch,
            pools={},
            metrics=LbCollector(
                lambda: self.pools,
                self.clients,
                self.reloads,
                __version__,
                connections,
                sources=lambda: self.members,
                certificates=self.certificates,
            ),
            sources=self.members,
            draining=lambda: self.draining,
            config=lambda: self.config.model_dump(mode="json"),
        )

    def listening(self, address: Address) -> Listening:
        """The sockets for a listener of this address, not bound yet."""
        return Listening(address.host, address.port, address.path)

    def sockets(self) -> list[tuple[str, socket.socket]]:
        """All that it listens on, with what a successor knows them by."""
        places = [listener.listening for listener in self.listeners]
        others = (self.admin_listening, self.registrar.listening)
        places += [place for place in others if place is not None]
        return [(place.called, sock) for place in places for sock in place.sockets]

    def tls(self) -> Iterator[tuple[str, ServerTls]]:
        """That of the listeners that have some, by their names."""
        for listener in self.listeners:
            tls = listener.options.tls
            if isinstance(tls, ServerTls):
                yield listener.name, tls

    def certificates(self) -> Iterator[tuple[str, str, float]]:
        """Those that clients are shown: the listener, a name, and when it expires in Unix time."""
        for listener, tls in self.tls():
            for name, at in expiries(tls).items():
                yield listener, name, at

    def observers(self) -> list[Observer]:
        """Who is told of finished exchanges."""
        all_there_may_be: tuple[Observer | None, ...] = (self.clients, self.records, self.access_log)
        return [each for each in all_there_may_be if each is not None]

    def records_to_show(self) -> Records | None:
        """The last requests, for the admin API."""
        return None if self.records is None else OwnRecords(self.records, self.epoch)

    def has_left(self, part: Listener | Pool) -> bool:
        """Whether a listener or a pool that has been replaced is done. Connections are told again each time:
        an idle one may have brought another request."""
        if isinstance(part, Pool):
            if part.in_flight or part.waiting:
                return False
            part.close()
            return True
        mine = [each for each in self.plane.connections if each.came_in_at(part)]
        for connection in mine:
            connection.drain()
        if mine:
            return False
        if part.name not in [listener.name for listener in self.listeners]:
            self.clients.listeners.pop(part.name, None)
        return True


@dataclass
class Prepared:
    """What is to hold from now on. Of what stays as it is, the running one."""

    config: Config
    pools: dict[str, Pool] = field(default_factory=dict)
    policies: dict[str, Balancer] = field(default_factory=dict)  # new ones, of pools that stay
    shadows: dict[str, Balancer | None] = field(default_factory=dict)  # likewise; None: no longer any
    rules: dict[str, PoolRules] = field(default_factory=dict)
    reaches: dict[str, Reach] = field(default_factory=dict)
    probers: dict[str, Prober] = field(default_factory=dict)
    watches: dict[str, list[Watch]] = field(default_factory=dict)  # by pool, of those that have sources
    well: dict[str, list[str]] = field(default_factory=dict)  # by pool, new backends that a probe found well
    routes: Routes | None = None  # None: those that hold
    listeners: list[Listener] = field(default_factory=list)
    options: list[ListenerOptions] = field(default_factory=list)  # of each of them
    admin_listening: Listening | None = None
    admin: AdminServer | None = None
    token: str | None = None
    registrar: Registrar = field(default_factory=Registrar)
    log_file: LogFile | None = None


def connections(backend: Backend) -> dict[str, int]:
    """How many connections of this process to a backend are open, by state."""
    upstream = backend.upstream
    if upstream is None:
        return {"active": 0, "idle": 0}
    idle = len(upstream.idle)
    return {"active": upstream.connections - idle, "idle": idle}
