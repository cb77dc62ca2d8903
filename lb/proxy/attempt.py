"""One try of an exchange at one backend."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from lb.core.backend import Backend
from lb.core.failure import CLIENT_GONE, RESET, RESPONSE_TIMEOUT, STALLED, Failure
from lb.core.message import Response
from lb.core.record import AttemptRecord
from lb.core.route import Target
from lb.proxy.timeouts import NEVER
from lb.proxy.upstream import Dial, Upstream, UpstreamConnection

if TYPE_CHECKING:
    from lb.proxy.exchange import Exchange
    from lb.proxy.plane import Plane


class Attempt(AttemptRecord):
    """From the pick to the last byte of the response, or the failure. Ends exactly once.

    It is told by the codec of what the backend answers, and tells the exchange.
    """

    __slots__ = ("_dial", "_exchange", "_upstream", "connection", "pool", "timeouts")

    def __init__(self, exchange: Exchange, target: Target, backend: Backend, started: float) -> None:
        AttemptRecord.__init__(self, backend, started)
        self._exchange: Exchange | None = exchange
        self.pool = target.pool
        self.timeouts = target.timeouts
        self.connection: UpstreamConnection | None = None
        self._dial: Dial | None = None

    def begin(self, plane: Plane, fresh: bool) -> None:
        """Takes an idle connection, or (always where `fresh`) dials a new one."""
        backend = self.backend
        self.pool.start(backend)
        upstream: Upstream = backend.upstream or plane.link(self.pool, backend)
        self._upstream = upstream
        connection: UpstreamConnection | None = None
        if upstream.idle and not fresh:
            connection = upstream.of_same_client(self) if upstream.private else upstream.idle.pop()
        if connection is not None:
            self.reused = True
            self.on_connected(connection, self.started)
        else:
            self._dial = upstream.dial(self)

    def proxy_header(self, version: int) -> bytes:
        """The header of the PROXY protocol for a connection that this attempt is made over."""
        exchange = self._exchange
        return b"" if exchange is None else exchange.proxy_header(version)

    def on_connected(self, connection: UpstreamConnection, now: float) -> None:
        exchange = self._exchange
        if exchange is None:  # cancelled while the last packet was on its way
            connection.discard()
            return
        if not self.reused:
            self._dial = None
            self.pool.connected(self.backend, now - self.started)
        self.connected = now
        self.connection = connection
        connection.attempt = self
        if exchange.request_complete:
            connection.deadline = now + self.timeouts.response_header
        else:
            connection.deadline = NEVER  # until then it is the client who is waited for
        exchange.on_connected(self, connection)

    # --- the request's body, from the exchange ---

    def send_data(self, data: bytes) -> None:
        connection = self.connection
        if connection is not None:
            self.sent += len(data)
            connection.codec.send_data(data)

    def send_end(self, trailers: Sequence[bytes]) -> None:
        connection = self.connection
        if connection is not None:
            timeouts = self.timeouts
            if not connection.paused:  # else it is the client who is waited for
                seconds = timeouts.idle if self.head_at else timeouts.response_header
                connection.deadline = monotonic() + seconds
            connection.codec.send_end(trailers)

    # --- from the backend ---

    def on_interim(self, response: Response) -> None:
        if self._exchange is not None:
            self._exchange.on_interim(response)

    def on_switch(self, response: Response, data: bytes) -> None:
        """The backend takes the offer of another protocol."""
        exchange, connection = self._exchange, self.connection
        if exchange is not None and connection is not None:
            self.head_at = monotonic()
            self.status = response.status
            self.pool.switched(self.backend, self.started)
            exchange.on_switch(self, connection, response, data)

    def on_head(self, response: Response, data: bytes, end: bool) -> None:
        exchange, connection = self._exchange, self.connection
        if exchange is None or connection is None:
            return
        self.head_at = now = monotonic()
        self.status = response.status
        self.received = len(data)
        bad = response.status >= 400  # then another attempt may follow
        if end:
            self._end(None, now, kept=bad)
        else:
            connection.deadline = now + self.timeouts.idle if exchange.request_complete else NEVER
        exchange.on_response(self, response, data, end, now)
        if bad:
            self.pool.freed(self.backend)

    def on_data(self, data: bytes) -> None:
        exchange, connection = self._exchange, self.connection
        if exchange is None:
            return
        self.received += len(data)
        if connection is not None and exchange.request_complete:
            connection.deadline = monotonic() + self.timeouts.idle
        exchange.on_response_data(data)

    def on_end(self, trailers: Sequence[bytes]) -> None:
        exchange = self._exchange
        if exchange is not None:
            self._end(None, monotonic())
            exchange.on_response_end(trailers)

    def on_error(self, failure: Failure) -> None:
        exchange = self._exchange
        if exchange is not None:
            self._end(failure, monotonic(), kept=True)
            exchange.on_failure(self, failure)
            self.pool.freed(self.backend)  # no sooner: another attempt takes its place first

    def on_timeout(self) -> None:
        self.on_error(STALLED if self.head_at else RESPONSE_TIMEOUT)

    def on_blocked(self) -> None:
        """The backend takes no more of the request for now."""
        exchange, connection = self._exchange, self.connection
        if exchange is not None and connection is not None and not exchange.request_complete:
            connection.deadline = monotonic() + self.timeouts.idle
            exchange.on_backend_blocked()

    def on_writable(self) -> None:
        exchange, connection = self._exchange, self.connection
        if exchange is not None and connection is not None and not exchange.request_complete:
            connection.deadline = NEVER
            exchange.on_backend_writable()

    @property
    def idle_timeout(self) -> float:
        return self.timeouts.idle

    # --- the end ---

    def cancel(self, failure: Failure = CLIENT_GONE) -> None:
        """The exchange needs it no longer. The backend is free at once."""
        if self._exchange is not None:
            self._end(failure, monotonic())

    def finish(self, failure: Failure | None) -> None:
        """A tunnel has ended, and the connection with it."""
        if self._exchange is None:
            return
        connection, self.connection = self.connection, None
        if connection is not None and failure is None:
            connection.close(self.timeouts.idle)
        elif connection is not None:
            connection.discard()
        self._end(failure, monotonic())

    def drop(self, now: float) -> None:
        """Its answer is not wanted, though nothing went wrong with it."""
        if self._exchange is not None:
            self._end(None, now, whole=False, kept=True)

    def _end(self, failure: Failure | None, now: float, whole: bool = True, kept: bool = False) -> None:
        exchange, connection = self._exchange, self.connection
        assert exchange is not None
        self._exchange = self.connection = None
        self.ended = now
        self.failure = failure
        if connection is None:
            if self._dial is not None:
                self._dial.cancel()
                self._dial = None
        elif failure is None and whole and exchange.request_complete:
            self._upstream.release(connection, now)
        else:
            connection.discard()
        stale = self.reused and failure is RESET  # closed while it was idle, most likely
        self.pool.end(
            self.backend,
            self.started,
            failure,
            self.status,
            self.head_at,
            self.sent,
            self.received,
            now,
            stale,
            kept,
        )
