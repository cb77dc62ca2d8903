"""An address that we accept on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from lb.core.message import Limits
from lb.proxy.connection import ClientConnection
from lb.proxy.plane import Plane

BACKLOG = 4096  # connections that wait to be accepted; the kernel's own bound may be lower


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """What a listener asks of its clients. Times in seconds."""

    request_header: float = 10.0
    request_body: float = 30.0
    keepalive: float = 75.0
    write: float = 60.0  # how long a client may read nothing of what we have for it
    limits: Limits = field(default_factory=Limits)


class ConnectionStats(Protocol):
    """Where a listener counts its connections."""

    connections: int


StatsOf = Callable[[str], ConnectionStats]


class Listener:
    """Accepts connections on one address."""

    def __init__(
        self, plane: Plane, host: str, port: int, options: ListenerOptions, stats_of: StatsOf
    ) -> None:
        self.plane = plane
        self.host = host
        self.port = port
        self.options = options
        self._stats_of = stats_of
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Binds and accepts. Raises OSError where the address can't be had.

        Only then the name is sure, which is the address, and the statistics that go by it.
        """
        self._server = await self.plane.loop.create_server(
            cast(Callable[[], asyncio.BaseProtocol], self.connection),
            self.host,
            self.port,
            backlog=BACKLOG,
            start_serving=False,
        )
        if not self.port:
            self.port = self._server.sockets[0].getsockname()[1]
        self.name = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        self.stats = self._stats_of(self.name)
        await self._server.start_serving()

    def connection(self) -> ClientConnection:
        """A new client's."""
        return ClientConnection(self.plane, self)

    def close(self) -> None:
        """Accepts no more. Connections that are there stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
