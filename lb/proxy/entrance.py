"""What comes before the first request of a connection: the PROXY protocol's header, and TLS.

A plain listener has none of this: its connections go straight to `ClientConnection`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

from lb.core.access import client_key
from lb.core.identity import Network
from lb.core.x509 import NotACertificate, read_certificate
from lb.proxy.connection import UNIX_PEER, Arrival, ClientConnection
from lb.proxy.secure import Secure, as_transport
from lb.proxy.timeouts import NEVER
from lb.wire.proxy_protocol import Malformed, read_header

if TYPE_CHECKING:
    from lb.proxy.listener import Listener
    from lb.proxy.plane import Plane

log = logging.getLogger("lb.proxy")

_HANDSHAKE_RECORD = 22  # RFC 8446, section 5.1: what a client's first byte is
_PLAIN_TEXT = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 46\r\n"
    b"Connection: close\r\n\r\nThis port speaks TLS: ask it with https://...\n"
)


class Tls(Protocol):
    """What a listener needs to speak TLS: certificates, versions, and whom to trust. `trust` is
    equal where the same clients are let in."""

    @property
    def trust(self) -> object: ...

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject: ...


@dataclass(frozen=True, slots=True)
class Senders:
    """Who must begin with a header of the PROXY protocol: these, or everybody where nobody is named."""

    networks: Sequence[Network] = ()

    def include(self, peer: str) -> bool:
        if not self.networks:
            return True
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self.networks)


class Entrance:
    """A connection that has to say more before it may ask. Then it is a `ClientConnection`.

    It takes a place like any other, and all of it together may take so long as the listener says.
    """

    def __init__(self, plane: Plane, listener: Listener) -> None:
        self._plane = plane
        self._listener = listener
        self._options = listener.options
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._begun = False  # the client has said something of what is awaited
        self._header: bytes | None = None  # of the PROXY protocol, as far as it is here; None: none awaited
        self._over = False  # it has been let in, or sent away
        self._counted = ""  # as which client
        self._since = monotonic()
        self.deadline = NEVER

    # --- from the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        plane, listener, options = self._plane, self._listener, self._options
        self._arrival = Arrival.of(transport, listener.listening.path)
        plane.connections.add(self)
        plane.sweeper.watch(self)
        listener.stats.connections += 1
        self.deadline = self._since + options.handshake
        senders = options.proxy_protocol
        if senders is not None and (listener.listening.path or senders.include(self._arrival.peer)):
            self._header = b""
        else:
            self._go_on(b"")

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._header is not None:
            self._begun = True
            self._read_header(self._header + data)
        else:
            self._shake_hands(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if not self._over:
            self._count("gone")
        self._leave()
        on_gone = self._plane.on_gone
        if on_gone is not None:
            on_gone()

    def pause_writing(self) -> None:
        """A handshake isn't long enough for that to matter."""

    def resume_writing(self) -> None:
        pass

    def on_deadline(self, now: float) -> None:
        if self._over:
            self._transport.abort()
        else:
            self._refuse("timeout", "it took too long")

    # --- the PROXY protocol ---

    def _read_header(self, data: bytes) -> None:
        try:
            header = read_header(data)
        except Malformed as error:
            self._refuse("malformed", str(error))
            return
        if header is None:
            self._header = data
            return
        self._count("accepted")
        self._header = None
        if header.source:
            self._arrival = self._arrival.told(header.source, header.port, header.tls)
        self._go_on(data[header.size :])

    def _go_on(self, rest: bytes) -> None:
        """To TLS, or in. What came with the header is the beginning of it."""
        if self._options.tls is None:
            connection = ClientConnection(self._plane, self._listener, self._arrival)
            self._let_in(connection, self._transport, connection)
            if rest:
                connection.data_received(rest)
            return
        if not self._enter_crowd():
            self.abort()
            return
        self._begun = False
        self._tls = self._options.tls.wrap(self._incoming, self._outgoing)
        under_way = self._listener.handshakes
        if len(under_way) >= self._options.handshakes:
            next(iter(under_way)).give_up()
        under_way[self] = None
        if rest:
            self._shake_hands(rest)

    def _enter_crowd(self) -> bool:
        """Whether the client may have one more connection: a handshake is one already."""
        listener, peer, most = self._listener, self._arrival.peer, self._options.per_client
        if not most or peer == UNIX_PEER or self._plane.identification.trusts(peer):
            return True
        key = client_key(peer)
        if listener.crowd.enter(key, most):
            self._counted = key
            return True
        return False

    # --- TLS ---

    def _shake_hands(self, data: bytes) -> None:
        tls = self._tls
        assert tls is not None
        begun, self._begun = self._begun, True
        if not begun and data[0] != _HANDSHAKE_RECORD:
            if data[:1].isalpha():  # HTTP most likely
                self._transport.write(_PLAIN_TEXT)
            self._refuse("plain_text", "it doesn't speak TLS")
            return
        self._incoming.write(data)
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._flush()  # the alert that says what
            self._refuse("failure", error.reason or str(error))
            return
        self._count("success")
        arrival = self._arrival.secured(tls.version() or "", _verified(tls))
        connection = ClientConnection(self._plane, self._listener, arrival)
        secure = Secure(self._transport, tls, self._incoming, self._outgoing, connection)
        self._flush()
        self._let_in(connection, as_transport(secure), secure)
        secure.deliver()  # a request that came with the last of the handshake

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())

    def give_up(self) -> None:
        """There are too many handshakes under way, and this one has had the most time."""
        self._refuse("crowded_out", "too many handshakes are under way")

    # --- the end of it ---

    def _let_in(
        self, connection: ClientConnection, transport: asyncio.Transport, protocol: ClientConnection | Secure
    ) -> None:
        self._leave()
        self._transport.set_protocol(cast(asyncio.BaseProtocol, protocol))
        connection.connection_made(transport)
        if self._plane.draining:
            connection.drain()

    def _refuse(self, result: str, why: str) -> None:
        log.debug("%s is not let in at %s: %s", self._arrival.peer, self._listener.name, why)
        self._count(result)
        self._over = True
        self._listener.handshakes.pop(self, None)
        if result in ("timeout", "crowded_out"):
            self._transport.abort()
        else:
            self._transport.close()
            self.deadline = monotonic() + self._options.handshake  # for who doesn't read our last words

    def _leave(self) -> None:
        """Gives its place free. Who is let in takes another one at once."""
        self._over = True
        if self._counted:
            self._listener.crowd.leave(self._counted)
            self._counted = ""
        self._listener.handshakes.pop(self, None)
        self._listener.stats.connections -= 1
        self._plane.connections.discard(self)
        self._plane.sweeper.unwatch(self)

    def _count(self, result: str) -> None:
        """As the end of what it was just about. Who comes and goes without a word is a probe, and no more."""
        if not self._begun and result == "gone":
            return
        stats = self._listener.stats
        counts = stats.handshakes if self._header is None else stats.proxy_headers
        counts[result] = counts.get(result, 0) + 1

    # --- what any connection is asked ---

    @property
    def busy(self) -> bool:
        return False

    @property
    def quiet_since(self) -> float:
        return NEVER if self._over else self._since

    def came_in_at(self, listener: Listener) -> bool:
        return self._listener is listener

    def renew(self) -> None:
        """Nobody has been named or believed yet."""

    def drain(self) -> None:
        """Who is just coming gets a second for it."""
        self.deadline = min(self.deadline, monotonic() + 1.0)

    def leave(self) -> None:
        self._over = True
        self._transport.abort()

    def shut(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._over = True
        self._transport.abort()


def _verified(tls: ssl.SSLObject) -> bytes:
    """The field lines that tell of the client's certificate, each with a line end in front.

    There only is one where OpenSSL has found it good. The first field is of RFC 9440.
    """
    der = tls.getpeercert(True)
    if not der:
        return b""
    lines = b"\r\nClient-Cert: :" + b64encode(der) + b":"
    try:
        subject = read_certificate(der).subject
    except NotACertificate:
        subject = ""
    return lines + (b"\r\nX-Client-Cert-Subject: " + subject.encode("ascii") if subject else b"")
