"""The floor: the least that a Python proxy can do and still be one.

Round robin over the backends, keep-alive and back-pressure on both sides, a request ID, the forwarded fields
and a counter; uvloop protocols with httptools on both sides. No timeouts, retries, HEAD, pipelining, upgrades
or errors of its own: a measure of what the way through Python costs, never a product.

    python -m benchmarks.bare PORT BACKEND_PORT...
"""

import asyncio
import ctypes
import itertools
import os
import sys
from dataclasses import dataclass, field
from typing import Any, cast

import httptools
import uvloop

HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"}
RUN = os.urandom(8).hex().encode()
NUMBERS = itertools.count()
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


@dataclass
class Backend:
    """An address, its idle connections and what it has been sent."""

    port: int
    idle: list["Upstream"] = field(default_factory=list)
    requests: int = 0


class Side(asyncio.Protocol):
    """One connection, of either side: what it reads is written to its peer, one write per piece read."""

    parser: Any  # of requests or of responses

    def __init__(self) -> None:
        self.peer: Side | None = None
        self.out: list[bytes] = []
        self.chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's doesn't inherit from it

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()
        else:
            self.flush()

    def flush(self) -> None:
        if self.peer is not None and self.out:
            self.peer.transport.write(b"".join(self.out))
            self.out.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"transfer-encoding":
            self.chunked = True
        elif lower in HOP_BY_HOP:
            return
        self.out.append(b"%b: %b\r\n" % (name, value))

    def on_body(self, data: bytes) -> None:
        self.out.append(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def on_message_complete(self) -> None:
        if self.chunked:
            self.out.append(b"0\r\n\r\n")
            self.chunked = False

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.peer is not None:
            self.peer.peer = None
            self.peer.transport.abort()


class Client(Side):
    """A connection that brings requests, one at a time."""

    def __init__(self, turn: "itertools.cycle[Backend]") -> None:
        super().__init__()
        self.turn = turn
        self.request_id = b""
        self.dial: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.parser = httptools.HttpRequestParser(self)
        address = transport.get_extra_info("peername")[0].encode()
        self.forwarded = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: http\r\nVia: 1.1 bare\r\n" % address

    def on_url(self, url: bytes) -> None:
        self.out.append(b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if name in (b"Host", b"host"):
            self.out.append(b"X-Forwarded-Host: %b\r\n" % value)

    def on_headers_complete(self) -> None:
        self.request_id = b"X-Request-ID: %b-%x\r\n" % (RUN, next(NUMBERS))
        self.out += (self.request_id, self.forwarded, b"\r\n")
        backend = next(self.turn)
        backend.requests += 1
        if backend.idle:
            self.attach(backend.idle.pop())
        else:
            self.dial = asyncio.ensure_future(self.connect(backend))

    async def connect(self, backend: Backend) -> None:
        """Dials; meanwhile the request waits in `out`."""
        loop = asyncio.get_running_loop()
        try:
            _, upstream = await loop.create_connection(lambda: Upstream(backend), "127.0.0.1", backend.port)
        except OSError:
            self.transport.abort()
            return
        if self.transport.is_closing():
            upstream.transport.abort()
            return
        self.attach(upstream)
        self.flush()

    def attach(self, upstream: "Upstream") -> None:
        self.peer, upstream.peer = upstream, self


class Upstream(Side):
    """A connection to a backend: busy with one client, or idle."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        self.reason = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.parser = httptools.HttpResponseParser(self)

    def on_status(self, reason: bytes) -> None:
        self.reason = reason

    def on_headers_complete(self) -> None:
        assert isinstance(self.peer, Client)
        self.out.insert(0, b"HTTP/1.1 %d %b\r\n" % (self.parser.get_status_code(), self.reason))
        self.out += (self.peer.request_id, b"\r\n")

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.flush()
        if self.peer is not None:
            self.peer.peer = None
            self.peer = None
        if self.parser.should_keep_alive():
            self.transport.resume_reading()  # the client may have held us; nobody does now
            self.backend.idle.append(self)
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if self in self.backend.idle:
            self.backend.idle.remove(self)


def keep_freed_memory() -> None:
    """Tells malloc to keep what is freed: large bodies cost two and a half times as much without it.

    uvloop hands over pieces of up to 256 KiB. glibc gives memory of that size back to the kernel as soon as
    it is freed, and takes page faults to get it anew for the next piece.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 20)
        mallopt(M_TRIM_THRESHOLD, 8 << 20)


async def serve(port: int, backends: list[Backend]) -> None:
    """Forwards from `port` until the process is ended."""
    loop = asyncio.get_running_loop()
    turn = itertools.cycle(backends)
    await loop.create_server(lambda: Client(turn), "127.0.0.1", port, backlog=1024)
    await loop.create_future()


if __name__ == "__main__":
    first, *others = (int(argument) for argument in sys.argv[1:])
    keep_freed_memory()
    uvloop.run(serve(first, [Backend(other) for other in others]))
