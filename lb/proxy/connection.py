"""A client's connection: bytes to exchanges, one after the other.

The classes of the data plane name no base class of asyncio's, whose protocols are only what they do: without
it they compile to plain structures.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from lb.core.access import client_key
from lb.core.failure import REQUEST_TIMEOUT, SHUTTING_DOWN, Failure
from lb.core.identity import plain_address
from lb.core.message import Request
from lb.proxy.exchange import Exchange
from lb.proxy.forward import X_FORWARDED, believe, constant_fields
from lb.proxy.secure import Secure
from lb.proxy.timeouts import NEVER, TICK
from lb.proxy.tunnel import is_gone
from lb.wire.h1_server import ServerCodec

if TYPE_CHECKING:
    from lb.proxy.listener import Listener
    from lb.proxy.plane import Plane
    from lb.proxy.tunnel import Tunnel

_LINGER: Final = (
    5.0  # seconds that a client gets to read our last words while we throw away what it still sends
)
_QUIET: Final = 1.0  # seconds in which a stream may say nothing to a client that sends no more
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
UNIX_PEER: Final = "unix:"  # whoever comes in at a unix socket, toward the backend
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Arrival:
    """Who has come, and how: what is known of a connection before its first request.

    `peer` and `port` are where the connection is from, as the PROXY protocol or else the kernel says;
    `client` is how the log names it. `tls` is the version that is spoken, and `fields` what is told of the
    client's certificate: lines with a line end in front.
    """

    __slots__ = ("client", "fields", "peer", "port", "scheme", "tls")

    def __init__(self, peer: str, port: int, client: str, scheme: bytes, tls: str, fields: bytes) -> None:
        self.peer = peer
        self.port = port
        self.client = client
        self.scheme = scheme
        self.tls = tls
        self.fields = fields

    @staticmethod
    def of(transport: asyncio.BaseTransport, path: str) -> Arrival:
        """As the kernel says. The path is that of the listener, where it is a unix socket."""
        if path:  # as nginx names it toward the backend
            return Arrival(UNIX_PEER, 0, "unix", b"http", "", b"")
        peer = transport.get_extra_info("peername")
        if not peer:
            return Arrival("unknown", 0, "unknown", b"http", "", b"")
        name = plain_address(peer[0])
        return Arrival(name, peer[1], name, b"http", "", b"")

    def told(self, peer: str, port: int, tls: bool) -> Arrival:
        """As a proxy in front says, which may have spoken TLS with the client."""
        client = "unix" if peer == UNIX_PEER else peer
        return Arrival(peer, port, client, b"https" if tls else b"http", "", b"")

    def secured(self, version: str, fields: bytes) -> Arrival:
        """The same, over TLS."""
        return Arrival(self.peer, self.port, self.client, b"https", version, fields)


class ClientConnection:
    """One connection of one client. Requests are answered in order, the next one waits for its turn."""

    __slots__ = (
        "_arrival",
        "_closing",
        "_counted",
        "_exchange",
        "_half_closed",
        "_head_begun",
        "_left",
        "_listener",
        "_options",
        "_port",
        "_quiet",
        "_since",
        "_told",
        "_transport",
        "_unread",
        "blocked",
        "client",
        "codec",
        "constant_fields",
        "deadline",
        "in_full",
        "listener_name",
        "peer",
        "plane",
        "scheme",
        "tls",
        "trusted",
        "tunnel",
        "verified",
    )

    def __init__(self, plane: Plane, listener: Listener, arrival: Arrival | None = None) -> None:
        self._arrival = arrival  # where more is known than the transport tells
        self.plane = plane
        self._listener = listener
        self._options = listener.options
        self._left = (
            listener.options.requests
        )  # that may still come; 0: any number, -1: the last one has come
        self._counted = ""  # as which client
        self.listener_name = listener.name
        self._exchange: Exchange | None = None
        self.tunnel: Tunnel | None = None  # where the connection has switched to another protocol
        self._head_begun = False  # a part of the next head is here
        self._half_closed = False  # the client sends no more, but may still read
        self._closing = False  # nothing more is read: the last bytes have to leave, or a FIN to come
        self.blocked = False  # the client reads slower than we write
        self._told = -1  # bytes of the response when we last looked, and how often they were the same
        self._quiet = 0
        self._unread = 0  # bytes that it had not read when we last looked
        self._since = 0.0  # when it last had nothing to ask for
        self.deadline = NEVER

    # --- from the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plane = self.plane
        self._transport = cast(asyncio.Transport, transport)
        arrival = self._arrival or Arrival.of(transport, self._listener.listening.path)
        self.peer, self._port, self.client = arrival.peer, arrival.port, arrival.client
        self.scheme, self.tls, self.verified = arrival.scheme, arrival.tls, arrival.fields
        self.trusted = plane.identification.trusts(self.peer)
        self.in_full = self.trusted or plane.identification.writes != X_FORWARDED
        self.constant_fields = constant_fields(self.peer, self.scheme) + self.verified
        self.codec = ServerCodec(
            self._transport, self, self._options.limits, plane.request_rules, self.trusted
        )
        self.codec.secure = self.scheme == b"https"
        self._since = monotonic()
        self.deadline = self._since + self._options.request_header
        plane.connections.add(self)
        plane.sweeper.watch(self)
        self._listener.stats.connections += 1
        most = self._options.per_client
        if most and not self.trusted and self.peer != UNIX_PEER:
            key = client_key(self.peer)
            if self._listener.crowd.enter(key, most):
                self._counted = key
            else:
                self.abort()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        codec = self.codec
        if self.tunnel is not None:
            self.tunnel.from_client(data)
        elif self._exchange is None:
            codec.feed(data)
            if not (self.busy or self._head_begun or self._closing or self.blocked):
                self._await_head()
        else:
            codec.feed(data)
            if codec.reading_body and not codec.paused:
                latest = monotonic() + self._options.request_body
                rate = self._options.body_rate
                # Each byte buys some time, up to that: who sends too few runs out of it.
                self.deadline = min(self.deadline + len(data) / rate, latest) if rate else latest

    def _await_head(self) -> None:
        """If the beginning of a head is here: the client has so long for the rest of it."""
        if not self.codec.reading_head:
            return
        self._head_begun = True
        self.deadline = monotonic() + self._options.request_header

    def eof_received(self) -> bool:
        self._half_closed = True
        tunnel = self.tunnel
        if tunnel is not None:
            tunnel.client_ended()
            return True
        exchange = self._exchange
        if exchange is None or self._closing:
            return False
        if not exchange.request_complete:
            exchange.on_client_gone()
            return False
        # It may have shut down only its sending side, and still want the response. Someone who is there
        # takes a 100 (RFC 9110, section 15.2); for someone who is not the kernel answers with a reset.
        self._probe(exchange)
        return True

    def _probe(self, exchange: Exchange) -> None:
        if self.gone():
            self.abort()
            return
        if exchange.takes_interim:
            self._transport.write(_CONTINUE)
        self.deadline = monotonic() + TICK

    def gone(self) -> bool:
        """Whether the kernel has learnt that nobody is at the other end."""
        return is_gone(self._transport)

    def _still_read(self, exchange: Exchange) -> bool:
        """Whether a client that sends no more is likely to read on: not when a response has begun and then
        says nothing for a second. Nearly always that is a stream whose reader has closed it."""
        if not exchange.answering or exchange.bytes_out != self._told:
            self._told, self._quiet = exchange.bytes_out, 0
            return True
        self._quiet += 1
        return self._quiet * TICK < _QUIET

    def connection_lost(self, error: Exception | None) -> None:
        self.plane.connections.discard(self)
        self.plane.sweeper.unwatch(self)
        self._listener.stats.connections -= 1
        if self._counted:
            self._listener.crowd.leave(self._counted)
        self._closing = True
        self.codec.close()
        if self.tunnel is not None:
            self.tunnel.client_lost()
        elif self._exchange is not None:
            self._exchange.on_client_gone()
        on_gone = self.plane.on_gone
        if on_gone is not None:
            on_gone()

    def pause_writing(self) -> None:
        self.blocked = self.codec.held = True
        self._unread = self._transport.get_write_buffer_size()
        if self.tunnel is not None:
            self.deadline = monotonic() + self._options.write
            self.tunnel.client_blocked()
        elif self._exchange is not None:
            self.deadline = monotonic() + self._options.write
            self._exchange.on_client_blocked()

    def resume_writing(self) -> None:
        self.blocked = False
        if self.tunnel is not None:
            self.deadline = NEVER
            self.tunnel.client_writable()
            return
        if self._exchange is not None:
            self.deadline = monotonic() + TICK if self._half_closed else NEVER
            if self.codec.reading_body and not self.codec.paused:
                self.deadline = monotonic() + self._options.request_body
            self._exchange.on_client_writable()
        self.codec.let_go()
        if self._exchange is None and not self._closing:
            self.deadline = monotonic() + self._options.keepalive
            if self.codec.pending and not self._head_begun:
                self._await_head()

    def on_deadline(self, now: float) -> None:
        exchange = self._exchange
        if self._closing or self.blocked:
            unread = self._transport.get_write_buffer_size()
            if unread < self._unread:  # it reads, if slowly
                self._unread = unread
                self.deadline = now + self._options.write
            else:
                self.abort()
        elif exchange is None:
            if self.codec.idle:
                self._close()
            else:
                self.codec.refuse(REQUEST_TIMEOUT, b"")
        elif not exchange.request_complete:
            exchange.on_error(REQUEST_TIMEOUT)
        elif self._half_closed:
            if self.gone() or not self._still_read(exchange):
                self.abort()
            else:
                self.deadline = now + TICK

    # --- from the codec ---

    def on_head(self, request: Request, data: bytes, end: bool) -> Exchange:
        now = monotonic()
        self._exchange = exchange = Exchange(self, now)
        if self.trusted:
            client = believe(self, request)
            if client != self.peer:
                exchange.client = client
        self.deadline = NEVER if end else now + self._options.request_body
        if self._left > 0:
            self._count_request()
        exchange.begin(self, request, data, end)
        return exchange

    def _count_request(self) -> None:
        """Of those that this connection may still bring, where there are only so many."""
        if self._left > 0:
            self._left -= 1
            if not self._left:
                self._left = -1
                self.codec.keep_alive = False

    def on_own(self, request: Request) -> None:
        """An OPTIONS that asks this very hop."""
        self._count_request()
        exchange = self._exchange = Exchange(self, monotonic())
        exchange.answer_options(self, request)

    def on_malformed(self, failure: Failure, start: bytes) -> None:
        """Something that is no request gets an answer all the same, and a line in the log."""
        exchange = self._exchange = Exchange(self, monotonic())
        exchange.id = self.plane.ids.new()
        words = start[:4096].partition(b"\r\n")[0].split(b" ")
        if len(words) == 3:
            exchange.method, exchange.target = words[0][:32], words[1][:1024]
        exchange.fail(failure)

    # --- from the exchange ---

    def exchange_ended(self, exchange: Exchange, now: float) -> None:
        """The last exchange has ended: on to the next, or to the end of the connection."""
        self._exchange = None
        if self._closing:
            return
        if self.codec.keep_alive and not self.plane.draining:
            self._head_begun = False
            self._since = now
            self.deadline = now + (self._options.write if self.blocked else self._options.keepalive)
            self.codec.next()
            if self.codec.pending and not self.busy and not self.blocked:
                self._await_head()
            if self._half_closed and not self.busy:
                self._close()
        elif (exchange.request_complete and self._left >= 0) or self._half_closed:
            self._close()
        else:  # it may be sending still: a body, or what it doesn't know to be one request too many
            self._linger()

    def _close(self, whole: bool = True) -> None:
        """Closes once all that has been written is out; that may be not the whole of a response."""
        self._closing = True
        self._unread = self._transport.get_write_buffer_size()
        self.deadline = monotonic() + self._options.write
        self.codec.close()
        if whole or not self.tls:
            self._transport.close()
        else:
            cast(Secure, self._transport).break_off()

    def _linger(self) -> None:
        """Closes our side, and waits for the client's: a close now would reset the connection, and the
        client might lose our answer over what it is still sending (RFC 9112, section 9.6)."""
        self.codec.close()
        self.codec.resume()
        self._closing = True
        self.deadline = monotonic() + _LINGER
        self._transport.write_eof()

    def cut(self) -> None:
        """Ends a response in its midst so that it cannot look complete: with a reset, not with a FIN.

        What has been written goes out first where the client can tell by the framing. Over TLS there is no
        close_notify either.
        """
        if self.codec.ends_with_connection:
            sock: socket.socket | None = self._transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.abort()
        else:
            self._close(False)

    def drain(self) -> None:
        """The balancer or the listener is going: this is the last exchange. An idle connection gets a second
        in which it may still bring a request."""
        if self._exchange is not None:
            self.codec.keep_alive = False
        elif not self._closing:
            self.deadline = min(self.deadline, monotonic() + 1.0)

    def write(self, data: bytes) -> None:
        """What a tunnel has for the client."""
        self._transport.write(data)

    def write_eof(self) -> None:
        """The tunnel has no more for it."""
        if not self._transport.is_closing():
            self._transport.write_eof()

    def renew(self) -> None:
        """Requests are named, or believed, by other rules: from the next one on."""
        self.trusted = self.plane.identification.trusts(self.peer)
        self.in_full = self.trusted or self.plane.identification.writes != X_FORWARDED
        self.codec.go_by(self.plane.request_rules, self.trusted)

    @property
    def ends(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """The client's address and port, and those that it has connected to; at a unix socket, none."""
        here = self._transport.get_extra_info("sockname")
        return (self.peer, self._port), (here[0], here[1]) if isinstance(here, tuple) else ("", 0)

    def hold(self) -> None:
        """Reads no more of the body: the backend takes no more, and the client is not to blame."""
        self.codec.pause()
        self.deadline = NEVER

    def let(self) -> None:
        """Reads on."""
        self.codec.resume()
        if self.codec.reading_body:
            self.deadline = monotonic() + self._options.request_body

    @property
    def quiet_since(self) -> float:
        """Since when it has nothing to ask for, and we have nothing for it; NEVER where that isn't so."""
        if self._exchange is not None or self.tunnel is not None or self._closing or not self.codec.idle:
            return NEVER
        return NEVER if self._transport.get_write_buffer_size() else self._since

    def leave(self) -> None:
        """Its place is needed for someone else."""
        self._close()

    @property
    def half_closed(self) -> bool:
        """Whether the client sends no more. It may still read."""
        return self._half_closed

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._exchange is not None

    def came_in_at(self, listener: Listener) -> bool:
        """Whether it is one of this listener's."""
        return self._listener is listener

    def shut(self) -> None:
        """The balancer goes now."""
        if self.tunnel is not None:
            self.tunnel.close(SHUTTING_DOWN)
        elif self._exchange is not None:
            self._exchange.on_shutdown()
        else:
            self.abort()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()
