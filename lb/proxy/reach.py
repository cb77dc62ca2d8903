"""How the backends of a pool are reached: over TCP or a unix socket, with or without TLS, and with or without
a header of the PROXY protocol in front of it all.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from lb.core.backend import BackendSpec
from lb.proxy.backend_tls import BackendTls, Handshake, in_words
from lb.wire.proxy_header import local_header

GOODBYE = 1.0  # seconds that a backend has to say its own close_notify behind ours

Factory = Callable[[], asyncio.BaseProtocol]


class TlsFailed(OSError):
    """There is a connection, but no TLS on it. The text is the reason in words."""


@dataclass(frozen=True, slots=True)
class Reach:
    """A pool's way to its backends; `proxy_protocol` is the version, 0 for none.

    The same for requests and for health probes, so that a probe finds what a request would.
    """

    tls: BackendTls | None = None
    proxy_protocol: int = 0

    @property
    def is_plain(self) -> bool:
        return self.tls is None and not self.proxy_protocol

    async def connect(
        self, factory: Factory, spec: BackendSpec, patience: float, header: bytes = b""
    ) -> asyncio.BaseProtocol:
        """A connection, whose protocol is told of it when it is ready for HTTP. `header` goes first.

        `patience` in seconds is for a handshake that the caller doesn't end sooner. Raises OSError, and
        TlsFailed of it.
        """
        handshake = None if self.tls is None else self.tls.handshake(spec.address)
        try:
            found = await self._connect(factory, spec, patience, header, handshake)
            if handshake is not None:
                handshake.ended(True)
            return found
        except OSError as error:
            if self.tls is None or handshake is None or not handshake.begun:
                raise
            handshake.ended(False)
            self.tls.tell(spec.id, error)
            raise TlsFailed(in_words(error)) from error

    async def probe(self, factory: Factory, spec: BackendSpec, patience: float) -> asyncio.BaseProtocol:
        """The same for who asks on our own behalf and no client's."""
        header = local_header(self.proxy_protocol) if self.proxy_protocol else b""
        return await self.connect(factory, spec, patience, header)

    async def _connect(
        self,
        factory: Factory,
        spec: BackendSpec,
        patience: float,
        header: bytes,
        handshake: Handshake | None,
    ) -> asyncio.BaseProtocol:
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {}
        if self.tls is not None:
            options = {
                "ssl": cast(Any, handshake),
                "server_hostname": self.tls.name_for(spec.host),
                "ssl_handshake_timeout": patience,
                "ssl_shutdown_timeout": GOODBYE,
            }
        if header:
            sock = await _connected(loop, spec)
            try:
                await loop.sock_sendall(sock, header)
                if spec.path:
                    _, protocol = await loop.create_unix_connection(factory, sock=sock, **options)
                else:
                    _, protocol = await loop.create_connection(factory, sock=sock, **options)
            except BaseException:
                sock.close()
                raise
        elif spec.path:
            _, protocol = await loop.create_unix_connection(factory, spec.path, **options)
        else:
            _, protocol = await loop.create_connection(factory, spec.host, spec.port, **options)
        return protocol


PLAIN = Reach()


async def _connected(loop: asyncio.AbstractEventLoop, spec: BackendSpec) -> socket.socket:
    """A socket that is connected, and has sent nothing yet. Raises OSError."""
    if spec.path:
        return await _try(loop, socket.AF_UNIX, spec.path)
    failed: OSError | None = None
    for family, _, _, _, address in await loop.getaddrinfo(spec.host, spec.port, type=socket.SOCK_STREAM):
        try:
            return await _try(loop, family, address)
        except OSError as error:
            failed = failed or error
    raise failed or OSError(f"{spec.host} has no address")


async def _try(loop: asyncio.AbstractEventLoop, family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
