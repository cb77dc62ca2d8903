"""TLS between a client and its connection, when the handshake is over.

OpenSSL works on memory alone here (`ssl.MemoryBIO`), and bytes go straight from the event loop to it and on.
asyncio's own TLS transport can't end one half, takes a task for each connection and a large buffer too, and
says a proper goodbye even where a response was cut.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from lb.proxy.connection import ClientConnection

log = logging.getLogger("lb.proxy")

_RECORD: Final = 16384  # bytes: no record holds more (RFC 8446, section 5.1)
_MOST_OWED: Final = 65536  # bytes that OpenSSL may have to say to a client that reads nothing


class Secure:
    """TLS over a transport: its protocol, and the transport of the client's connection.

    What it is to the connection is what asyncio's transports are, as far as the connection uses them.
    """

    __slots__ = (
        "_blocked",
        "_closing",
        "_ended",
        "_incoming",
        "_inner",
        "_outgoing",
        "_raw",
        "_said_goodbye",
        "_tls",
    )

    def __init__(
        self,
        raw: asyncio.Transport,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        inner: ClientConnection,
    ) -> None:
        self._raw = raw
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._inner: ClientConnection | None = inner
        self._blocked = False  # the client reads slower than we write
        self._ended = False  # the client sends no more
        self._closing = False
        self._said_goodbye = False  # close_notify: all that there was to say has been said

    # --- the protocol: from the event loop ---

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self.deliver()

    def deliver(self) -> None:
        """Hands on what is here. In one piece, if it came so."""
        tls, incoming, inner = self._tls, self._incoming, self._inner
        if inner is None or self._ended:
            return
        pieces: list[bytes] = []
        ended = False
        try:
            while True:
                data = tls.read(_RECORD)
                if not data:
                    ended = True
                    break
                pieces.append(data)
                # Asked for first: being told by an exception that there is no more costs more. What is not in
                # `incoming` has been read: no record is longer than a read.
                if not incoming.pending:
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError as error:
            log.debug("TLS with %s broke off: %s", inner.peer, error.reason)
            self._flush()  # the alert that says so
            self.abort()
            return
        if self._outgoing.pending:
            self._flush()
        if pieces:
            inner.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended:
            self._on_goodbye()

    def _flush(self) -> None:
        """Sends what OpenSSL itself has to say: alerts, new keys. Who reads none of it is up to no good."""
        if not self._blocked:
            if not self._raw.is_closing():
                self._raw.write(self._outgoing.read())
        elif self._outgoing.pending > _MOST_OWED:
            self.abort()

    def _on_goodbye(self) -> None:
        """The client's close_notify. Who still waits for an answer then has given up (and in TLS 1.2 has to:
        RFC 5246, section 7.2.1), while its kernel may go on as if somebody were there. In a tunnel it is the
        end of one half (RFC 8446, section 6.1)."""
        inner = self._inner
        if inner is None or inner.tunnel is not None or not inner.busy:
            self._end()
            return
        self._ended = True
        if self._blocked:
            self.abort()
        else:
            self.close()

    def eof_received(self) -> bool:
        """The connection's end, maybe without a close_notify: many clients don't bother, and where it matters
        HTTP tells by its framing that something is missing."""
        self._end()
        return True

    def _end(self) -> None:
        inner = self._inner
        if self._ended or inner is None:
            return
        self._ended = True
        if not inner.eof_received():
            self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Never called: the connection was made when it came in."""

    def connection_lost(self, error: Exception | None) -> None:
        inner, self._inner = self._inner, None
        self._closing = True
        if inner is not None:
            inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._blocked = True
        inner = self._inner
        if inner is not None:
            inner.pause_writing()

    def resume_writing(self) -> None:
        self._blocked = False
        inner = self._inner
        if self._outgoing.pending:
            self._flush()
        if inner is not None:
            inner.resume_writing()

    # --- the transport: from the client's connection ---

    def write(self, data: bytes) -> None:
        """One message, one write: as many records as it takes go out together."""
        if self._closing or not data:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            log.debug("TLS can't be written: %s", error.reason)
            self.abort()
            return
        self._raw.write(self._outgoing.read())

    def write_eof(self) -> None:
        """We send no more, and still listen."""
        if not self._closing and not self._said_goodbye:
            self._say_goodbye()
            self._raw.write_eof()

    def close(self) -> None:
        """Ends it when all is out. The client learns that nothing is missing."""
        if self._closing:
            return
        self._say_goodbye()
        self._closing = True
        self._raw.close()

    def break_off(self) -> None:
        """Ends it when all is out. The client learns that something is missing: there is no close_notify."""
        if not self._closing:
            self._closing = self._said_goodbye = True
            self._raw.close()

    def abort(self) -> None:
        self._closing = self._said_goodbye = True
        self._raw.abort()

    def _say_goodbye(self) -> None:
        if self._said_goodbye:
            return
        self._said_goodbye = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # ours is written; the client's own will come, or was awaited in vain
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())

    def is_closing(self) -> bool:
        return self._closing or self._raw.is_closing()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._raw.get_extra_info(name, default)


def as_transport(secure: Secure) -> asyncio.Transport:
    """It is one by what it does. asyncio's base class would cost it its plain structure."""
    return cast(asyncio.Transport, secure)
