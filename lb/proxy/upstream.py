"""Connections to backends: dialled when needed, kept when they may serve again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EMFILE, ENFILE
from time import monotonic
from typing import TYPE_CHECKING, cast

from lb.core.backend import Backend
from lb.core.failure import AT_LIMIT, CONNECT_FAILED, CONNECT_TIMEOUT, INTERNAL, TLS_FAILED
from lb.proxy.backend_tls import refuses_us
from lb.proxy.reach import PLAIN, Reach, TlsFailed
from lb.proxy.timeouts import NEVER
from lb.proxy.tunnel import is_gone
from lb.wire.h1_client import ClientCodec

if TYPE_CHECKING:
    from lb.proxy.attempt import Attempt
    from lb.proxy.plane import Plane
    from lb.proxy.tunnel import Tunnel

log = logging.getLogger("lb.proxy")


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """A pool's rules for its connections: how many seconds an idle one is kept, and how many per backend (0:
    none); how many there may be to all backends together, idle ones too (0: any number); and how they are
    made."""

    keepalive: float = 55.0
    keepalive_connections: int = 256
    most: int = 0
    reach: Reach = PLAIN


class Upstream:
    """All connections to one backend. The last one that became idle is the first to be used again.

    With the PROXY protocol they are private: what is said at the beginning of a connection holds for all of
    it, so that it serves nobody but the client that it was made for.
    """

    __slots__ = ("_plane", "backend", "closed", "connections", "dialling", "idle", "options", "private")

    def __init__(self, plane: Plane, backend: Backend, options: UpstreamOptions) -> None:
        self._plane = plane
        self.backend = backend
        self.options = options
        self.idle: list[UpstreamConnection] = []
        self.connections = 0
        self.dialling = 0
        self.closed = False
        self.private = options.reach.proxy_protocol != 0

    def of_same_client(self, attempt: Attempt) -> UpstreamConnection | None:
        """An idle connection whose header says of the client what a new one's would."""
        header = attempt.proxy_header(self.options.reach.proxy_protocol)
        for connection in reversed(self.idle):
            if connection.header == header:
                self.idle.remove(connection)
                return connection
        return None

    def dial(self, attempt: Attempt) -> Dial:
        if self.options.most:
            self._make_room([each.upstream for each in attempt.pool.backends.values()])
        return Dial(self._plane, self, attempt)

    def _make_room(self, upstreams: Sequence[Upstream | None]) -> None:
        """Closes the connection that was idle for longest, where there are as many as there may be."""
        there = [each for each in upstreams if each is not None]
        if sum([each.connections + each.dialling for each in there]) < self.options.most:
            return
        idle = [each.idle[0] for each in there if each.idle]
        if idle:
            min(idle, key=lambda connection: connection.deadline).retire()

    def release(self, connection: UpstreamConnection, now: float) -> None:
        """An attempt is done with this connection, and left it clean."""
        options = self.options
        idle = self.idle
        if self.private and idle and len(idle) >= options.keepalive_connections:
            idle[0].retire()  # its client may be gone
        if connection.codec.reusable and len(idle) < options.keepalive_connections and not self.closed:
            connection.attempt = None
            connection.deadline = now + options.keepalive
            if connection.paused:
                connection.resume()
            idle.append(connection)
        else:
            connection.discard()

    def close(self) -> None:
        """The backend has left its pool: idle connections go, the others with their attempts."""
        self.closed = True
        for connection in list(self.idle):
            connection.retire()


class Dial:
    """A connection being made for an attempt. The only task on the way of a request."""

    __slots__ = ("_attempt", "_late", "_plane", "_started", "_task", "_upstream", "deadline")

    def __init__(self, plane: Plane, upstream: Upstream, attempt: Attempt) -> None:
        self._plane = plane
        self._upstream = upstream
        self._attempt = attempt
        self._late = False
        self._started = monotonic()
        self.deadline = self._started + attempt.timeouts.connect
        upstream.dialling += 1
        plane.sweeper.watch(self)
        self._task = plane.loop.create_task(self._run())
        self._task.add_done_callback(self._over)  # it may be cancelled before it has begun

    def cancel(self) -> None:
        self._task.cancel()

    def on_deadline(self, now: float) -> None:
        self._late = True
        self._task.cancel()

    def _over(self, task: asyncio.Task[None]) -> None:
        self._upstream.dialling -= 1
        self._plane.sweeper.unwatch(self)

    async def _run(self) -> None:
        upstream, attempt = self._upstream, self._attempt
        reach = upstream.options.reach
        try:
            connection = UpstreamConnection(self._plane, upstream)
            connection.secure = reach.tls is not None
            if reach.proxy_protocol:
                connection.header = attempt.proxy_header(reach.proxy_protocol)
            factory = cast(Callable[[], asyncio.BaseProtocol], lambda: connection)
            patience = attempt.timeouts.connect + 1.0  # the deadline comes first
            await reach.connect(factory, upstream.backend.spec, patience, connection.header)
            connection.opened()
            attempt.on_connected(connection, monotonic())
        except TlsFailed:
            attempt.on_error(TLS_FAILED)
        except OSError as error:
            log.debug("backend %s: connection failed: %s", self._upstream.backend.id, error)
            # Where it's us who have no descriptor left, the backend is not to blame.
            attempt.on_error(AT_LIMIT if error.errno in (EMFILE, ENFILE) else CONNECT_FAILED)
        except asyncio.CancelledError:
            if self._late:
                attempt.on_error(CONNECT_TIMEOUT)
        except Exception:
            log.exception("an attempt could not begin")
            attempt.on_error(INTERNAL)


class UpstreamConnection:
    """One connection to a backend. Serves one attempt at a time, or is idle."""

    __slots__ = (
        "_open",
        "_patience",
        "_plane",
        "_transport",
        "_unread",
        "_upstream",
        "attempt",
        "blocked",
        "codec",
        "deadline",
        "header",
        "paused",
        "secure",
        "tunnel",
    )

    def __init__(self, plane: Plane, upstream: Upstream) -> None:
        self._plane = plane
        self._upstream = upstream
        self._open = False
        self._patience = NEVER
        self._unread = -1  # bytes that it had not read when we last looked, once we want to close
        self.blocked = False  # the backend reads slower than we write
        self.paused = False
        self.attempt: Attempt | None = None
        self.tunnel: Tunnel | None = None  # where the connection has switched to another protocol
        self.deadline = NEVER
        self.header = b""  # of the PROXY protocol, which it began with
        self.secure = False  # whether it is TLS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.codec = ClientCodec(self._transport, self._plane.response_rules)

    def opened(self) -> None:
        """The dial is done. Counted only now: a dial that is cancelled before never tells of its end."""
        self._open = True
        self._upstream.connections += 1
        self._plane.sweeper.watch(self)

    def data_received(self, data: bytes) -> None:
        tunnel = self.tunnel
        if tunnel is not None:
            tunnel.from_backend(data)
        elif self.attempt is None:  # a response that nobody asked for
            self.discard()
        else:
            self.codec.feed(data)

    def eof_received(self) -> bool:
        tunnel = self.tunnel
        if tunnel is not None:
            tunnel.backend_ended()
            return not self.secure  # TLS has no half that could stay open
        self._leave_idle()
        self.codec.eof(clean=True)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._open:
            self._open = False
            self._plane.sweeper.unwatch(self)
            self._upstream.connections -= 1
        self._leave_idle()
        tunnel, attempt = self.tunnel, self.attempt
        if tunnel is not None:
            tunnel.backend_lost()
        elif attempt is not None and not attempt.reused and not attempt.head_at and refuses_us(error):
            tls = self._upstream.options.reach.tls
            if tls is not None and error is not None:
                tls.tell(self._upstream.backend.id, error)
            attempt.on_error(TLS_FAILED)
        else:
            # The end of a TLS connection is one only where it was said (RFC 8446, section 6.1), and then
            # `eof_received` was told: anybody on the way can cut the rest.
            self.codec.eof(clean=error is None and not self.secure)

    def pause_writing(self) -> None:
        self.blocked = True
        if self.tunnel is not None:
            self.tunnel.backend_blocked()
        elif self.attempt is not None:
            self.attempt.on_blocked()

    def resume_writing(self) -> None:
        self.blocked = False
        if self.tunnel is not None:
            self.tunnel.backend_writable()
        elif self.attempt is not None:
            self.attempt.on_writable()

    def on_deadline(self, now: float) -> None:
        if self.attempt is not None:
            self.attempt.on_timeout()
        elif 0 <= (unread := self._transport.get_write_buffer_size()) < self._unread:  # it reads, if slowly
            self._unread = unread
            self.deadline = now + self._patience
        elif self._unread >= 0:  # it was to be closed, and takes nothing of our last words
            self.discard()
        else:
            self.retire()

    def gone(self) -> bool:
        """Whether the kernel has learnt that nobody is at the other end."""
        return is_gone(self._transport)

    def write(self, data: bytes) -> None:
        """What a tunnel has for it."""
        self._transport.write(data)

    def write_eof(self) -> bool:
        """The tunnel has no more for it. False where that can't be said: TLS ends as a whole."""
        if self.secure:
            return False
        if not self._transport.is_closing():
            self._transport.write_eof()
        return True

    def close(self, patience: float) -> None:
        """Closes it once all that has been written is out. A backend that takes nothing of it for so many
        seconds has no more use for it."""
        self.attempt = None
        self._patience = patience
        self._unread = self._transport.get_write_buffer_size()
        self.deadline = monotonic() + patience
        self._transport.close()

    def pause(self) -> None:
        """Reads nothing more: the client is slower than the backend."""
        if not self.paused:
            self.paused = True
            self.deadline = NEVER
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self._transport.resume_reading()

    def discard(self) -> None:
        """Closes it at once, whatever is under way on it: the backend sees that nobody waits any more."""
        self.attempt = None
        self._leave_idle()
        self.codec.detach()
        self._transport.abort()

    def retire(self) -> None:
        """Closes an idle one in order: over TLS the backend is told of it."""
        self._leave_idle()
        self.codec.detach()
        self.deadline = NEVER
        self._transport.close()

    def _leave_idle(self) -> None:
        if self in self._upstream.idle:
            self._upstream.idle.remove(self)
