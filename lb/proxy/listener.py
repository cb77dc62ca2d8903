"""An address that we accept on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from lb.core.message import Limits
from lb.proxy.connection import ClientConnection
from lb.proxy.crowd import Crowd
from lb.proxy.door import Door
from lb.proxy.entrance import Entrance, Senders, Tls
from lb.proxy.plane import Plane
from lb.proxy.sockets import BACKLOG, Listening


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """What a listener asks of its clients. Times in seconds."""

    request_header: float = 10.0
    request_body: float = 30.0
    keepalive: float = 75.0
    write: float = 60.0  # how long a client may read nothing of what we have for it
    handshake: float = 10.0  # how long all may take that comes before the first request
    handshakes: int = 512  # how many may be under way
    limits: Limits = field(default_factory=Limits)
    tls: Tls | None = None
    proxy_protocol: Senders | None = None  # None: there is no header
    requests: int = 0  # that a connection may bring; 0: any number
    per_client: int = 0  # connections that a client may have at a time; 0: any number
    body_rate: float = 0.0  # bytes of a body a second that a client has to bring on average; 0.0: any

    def same_entrance(self, other: ListenerOptions) -> bool:
        """Whether clients have to say the same before their first request, and are believed the same."""
        ours, theirs = self.tls, other.tls
        if ours is None or theirs is None or ours is theirs:
            same = ours is theirs
        else:
            same = ours.trust == theirs.trust
        return same and self.proxy_protocol == other.proxy_protocol


class ConnectionStats(Protocol):
    """Where a listener counts its connections."""

    connections: int
    handshakes: dict[str, int]  # by result
    proxy_headers: dict[str, int]


StatsOf = Callable[[str], ConnectionStats]


class Listener:
    """Accepts connections on the sockets of one address, each of which it is given bound.

    A connection keeps the options that its listener had when it came.
    """

    def __init__(
        self, plane: Plane, door: Door, listening: Listening, options: ListenerOptions, stats_of: StatsOf
    ) -> None:
        self.plane = plane
        self.door = door
        self.listening = listening
        self.options = options
        self.name = listening.name
        self.stats = stats_of(self.name)
        self.handshakes: dict[Entrance, None] = {}  # under way, the oldest first
        self.successor: Listener | None = None  # on the same address, with another entrance
        self.crowd = Crowd(self.name)
        self._servers: list[asyncio.Server] = []

    async def open(self) -> None:
        """Gets ready to accept, if it isn't. Raises OSError where there is no descriptor left.

        The event loop closes what it listens on when it shall accept no more, so it gets copies.
        """
        if self._servers:
            return
        loop = self.plane.loop
        factory = cast(Callable[[], asyncio.BaseProtocol], self.connection)
        try:
            for sock in self.listening.sockets:
                copy = sock.dup()
                try:
                    server = await loop.create_server(
                        factory, sock=copy, backlog=BACKLOG, start_serving=False
                    )
                except BaseException:
                    copy.close()
                    raise
                self._servers.append(server)
        except OSError:
            self.pause()
            raise

    async def start(self) -> None:
        """Accepts."""
        for server in self._servers:
            await server.start_serving()

    def connection(self) -> ClientConnection | Entrance:
        """A new client's."""
        if self.successor is not None:  # it came just before the address was handed on
            return self.successor.connection()
        if len(self.plane.connections) >= self.door.last:
            self.door.on_full()
        options = self.options
        if options.tls is not None or options.proxy_protocol is not None:
            return Entrance(self.plane, self)
        return ClientConnection(self.plane, self)

    def pause(self) -> None:
        """Accepts no more, until it is opened and started again: connections wait in the backlog."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    def hand_on(self, successor: Listener) -> None:
        """Accepts no more: another listener does, on the same sockets."""
        self.successor = successor
        self.pause()

    def close(self, keep_file: bool = False) -> None:
        """Accepts no more, and lets go of the address. Connections that are there stay."""
        self.pause()
        self.listening.close(keep_file)
