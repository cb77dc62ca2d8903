"""A connection that has switched to another protocol (RFC 9110, section 7.8), such as WebSocket.

From the 101 on, bytes go to and fro as they come, until both sides have ended. Each side may end its half and
still listen. Where one side is slower, the other is not read from.
"""

from __future__ import annotations

import asyncio
import socket
from time import monotonic
from typing import TYPE_CHECKING, Final

from lb.core.failure import CLIENT_GONE, RESPONSE_CUT, TUNNEL_IDLE, Failure
from lb.proxy.timeouts import NEVER, TICK, Sweeper

_UNTOLD: Final = 1.0
"""Seconds in which nothing passes, after which a tunnel ends whose backend can't be told of the client's end.
Over TLS it can't: asyncio ends both halves at once."""

if TYPE_CHECKING:
    from lb.core.pool import Pool
    from lb.proxy.attempt import Attempt
    from lb.proxy.connection import ClientConnection
    from lb.proxy.exchange import Exchange
    from lb.proxy.upstream import UpstreamConnection


def is_gone(transport: asyncio.Transport) -> bool:
    """Whether the kernel has learnt that nobody is at the other end, which behind an end it tells no one."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    return sock is None or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


class Tunnel:
    """What stands between the two connections, and counts what passes. `idle` is in seconds."""

    __slots__ = (
        "_attempt",
        "_backend",
        "_backend_ended",
        "_client",
        "_client_ended",
        "_exchange",
        "_idle",
        "_passed",
        "_pool",
        "_since",
        "_sweeper",
        "_untold",
        "deadline",
    )

    def __init__(
        self,
        exchange: Exchange,
        attempt: Attempt,
        client: ClientConnection,
        backend: UpstreamConnection,
        idle: float,
        sweeper: Sweeper,
    ) -> None:
        self._exchange: Exchange | None = exchange
        self._attempt = attempt
        self._pool: Pool = attempt.pool
        self._client = client
        self._backend = backend
        self._client_ended = False
        self._backend_ended = False
        self._idle = idle
        self._untold = False  # the client sends no more, and there is no way to tell the backend
        self._sweeper = sweeper
        self._since = self._passed = monotonic()  # when it began, and when a byte last passed
        self.deadline = self._passed + idle
        client.deadline = backend.deadline = NEVER
        client.tunnel = backend.tunnel = self
        sweeper.watch(self)
        self._pool.tunnel_began()

    # --- from the client's connection ---

    def from_client(self, data: bytes) -> None:
        if self._exchange is not None:
            self._passed = monotonic()
            self._attempt.sent += len(data)
            self._pool.tunnel_sent += len(data)
            self._backend.write(data)

    def client_ended(self) -> None:
        """It sends no more."""
        self._client_ended = True
        if self._backend_ended:
            self._end(None)
        else:
            self.deadline = monotonic() + TICK
            if not self._backend.write_eof():
                self._untold = True
                self._idle = min(self._idle, _UNTOLD)

    def client_lost(self) -> None:
        self._end(None if self._client_ended and self._backend_ended else CLIENT_GONE)

    def client_blocked(self) -> None:
        self._backend.pause()

    def client_writable(self) -> None:
        self._backend.resume()

    # --- from the backend's ---

    def from_backend(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is not None:
            self._passed = monotonic()
            exchange.bytes_out += len(data)
            self._attempt.received += len(data)
            self._pool.tunnel_received += len(data)
            self._client.write(data)

    def backend_ended(self) -> None:
        self._backend_ended = True
        if self._client_ended:
            self._end(None)
        else:
            self.deadline = monotonic() + TICK
            self._client.write_eof()

    def backend_lost(self) -> None:
        self._end(None if self._backend_ended else RESPONSE_CUT)

    def backend_blocked(self) -> None:
        self._client.hold()

    def backend_writable(self) -> None:
        self._client.let()

    # --- the end ---

    def on_deadline(self, now: float) -> None:
        """Nothing has passed for too long, or one side has ended and may be gone altogether."""
        if self._client_ended and self._client.gone():
            self._end(CLIENT_GONE)
        elif self._backend_ended and self._backend.gone():
            self._end(RESPONSE_CUT)
        elif now >= self._passed + self._idle:
            self._end(None if self._untold else TUNNEL_IDLE)
        else:
            ended = self._client_ended or self._backend_ended
            self.deadline = now + TICK if ended else self._passed + self._idle

    def close(self, failure: Failure) -> None:
        """It has to go, for what no side has done."""
        self._end(failure)

    def _end(self, failure: Failure | None) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        self._sweeper.unwatch(self)
        self._client.tunnel = self._backend.tunnel = None
        self._pool.tunnel_ended(monotonic() - self._since, failure)
        exchange.on_tunnel_end(self._attempt, failure)
