"""Both ends of the balancer as raw bytes: clients that write them, and backends that see what arrives."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from tests.conformance.strict import Incomplete, Request, Response, parse_request, parse_response

PATIENCE = 5.0  # seconds that anything may take which should happen at once
PIECE = 1 << 18  # bytes that are read or written at once

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


def get(path: str = "/", *fields: str, version: str = "1.1") -> bytes:
    return head(f"GET {path} HTTP/{version}", "Host: a.example", *fields)


def post(body: bytes, *fields: str, path: str = "/") -> bytes:
    """A POST of a whole body with its length."""
    return head(f"POST {path} HTTP/1.1", "Host: a.example", f"Content-Length: {len(body)}", *fields) + body


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def answer(body: bytes = b"ok", *fields: str, status: str = "200 OK") -> bytes:
    return head(f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields) + body


class Wire:
    """One end of a connection. Whatever is awaited comes within PATIENCE, or the test fails."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received = b""  # and not used yet
        self.closed = ""  # "fin" or "rst" once the other end has closed

    # --- out ---

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            async with asyncio.timeout(PATIENCE):
                await self._writer.drain()

    async def pour(self, size: int, patience: float, sent: list[int] | None = None) -> int:
        """Sends so many bytes, or as many as are taken until nobody takes any for a while."""
        done, piece = 0, bytes(PIECE)
        while done < size:
            self._writer.write(piece[: size - done])
            try:
                async with asyncio.timeout(patience):
                    await self._writer.drain()
            except TimeoutError:
                break
            done += min(PIECE, size - done)
            if sent is not None:
                sent[0] = done
        return done

    def push(self, data: bytes) -> None:
        """Sends without waiting for anyone to take it."""
        self._writer.write(data)

    def stop_reading(self) -> None:
        """Takes nothing more from the kernel, whose buffers then fill up."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def go_on_reading(self) -> None:
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    def info(self, name: str) -> Any:
        """What the transport knows, as `ssl_object`."""
        return self._writer.get_extra_info(name)

    def end(self) -> None:
        """Sends no more (a FIN), but still reads."""
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Closes with a RST, unless it is closed already."""
        if not self.closing:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abandon()

    def abandon(self) -> None:
        """Closes without a word, and sends nothing of what still waits."""
        with suppress(AttributeError):  # asyncio's, where the last of it has gone already
            self._writer.transport.abort()

    @property
    def closing(self) -> bool:
        """Whether this end has been closed."""
        return self._writer.is_closing()

    @property
    def _socket(self) -> socket.socket:
        found: socket.socket = self._writer.get_extra_info("socket")
        return found

    # --- in ---

    async def read(self) -> bool:
        """Some more bytes; False where the other end has closed."""
        try:
            data = await self._reader.read(PIECE)
        except ConnectionError:
            self.closed = "rst"
            return False
        self.received += data
        if not data:
            self.closed = self.closed or "fin"
        return bool(data)

    async def until(self, mark: bytes) -> bytes:
        """Everything up to these bytes, and them."""
        async with asyncio.timeout(PATIENCE):
            while mark not in self.received:
                assert await self.read(), f"ended ({self.closed}) before {mark!r}: {self.received!r}"
        found, mark, self.received = self.received.partition(mark)
        return found + mark

    async def request(self) -> Request:
        """The next request, which has to be strictly well-formed."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    request, size = parse_request(self.received)
                    break
                except Incomplete:
                    assert await self.read(), f"ended ({self.closed}) in a request: {self.received!r}"
        assert not request.violations, (request.violations, request.head)
        self.received = self.received[size:]
        return request

    async def response(self, method: str = "GET", patience: float = PATIENCE) -> Response:
        """The next response, whole and strictly well-formed."""
        response = await self.rest(method, patience)
        assert response.complete, f"{self.closed or 'open'}, and this is all of it: {response}"
        return response

    async def rest(self, method: str = "GET", patience: float = PATIENCE) -> Response:
        """The next response, or the beginning of one that the other end cut."""
        async with asyncio.timeout(patience):
            while True:
                response = parse_response(self.received, method == "HEAD", self.closed)
                if response.complete or response.violations or self.closed:
                    break
                await self.read()
        assert not response.violations, (response.violations, response.head)
        self.received = response.rest if response.complete else b""
        return response

    async def count(self, size: int, patience: float = 60.0) -> int:
        """Reads so many bytes, or up to the end, and throws them away."""
        done, self.received = len(self.received), b""
        async with asyncio.timeout(patience):
            while done < size and await self.read():
                done += len(self.received)
                self.received = b""
        return done

    async def ended(self, patience: float = PATIENCE) -> str:
        """Waits for the other end to close without another byte: "fin" or "rst"."""
        async with asyncio.timeout(patience):
            while not self.closed:
                await self.read()
        assert not self.received, f"more came before the end: {self.received[:200]!r}"
        return self.closed

    async def gone(self, patience: float = PATIENCE) -> str:
        """Waits for the other end to close, whatever it sends before."""
        async with asyncio.timeout(patience):
            while not self.closed:
                self.received = b""
                await self.read()
        return self.closed

    async def more(self, seconds: float) -> bool:
        """Whether another byte comes within so long."""
        try:
            async with asyncio.timeout(seconds):
                return not self.closed and await self.read()
        except TimeoutError:
            return False

    async def quiet(self, seconds: float) -> bool:
        """Whether nothing comes for so long: no byte, no end."""
        return not (self.received or self.closed or await self.more(seconds) or self.closed)


Script = Callable[[Wire], Awaitable[None]]


class Backend:
    """A backend at a socket that listens already. Its connections are taken by the test, or by a script."""

    def __init__(self, listening: socket.socket) -> None:
        self._local = listening.family == socket.AF_UNIX
        name = listening.getsockname()
        self.address = f"unix:{name}" if self._local else "{}:{}".format(*name)
        self.connections = 0
        self.script: Script | None = None
        self.listening = listening
        self._waiting: asyncio.Queue[Wire] = asyncio.Queue()
        self.wires: list[Wire] = []
        self._scripts: set[asyncio.Task[None]] = set()

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(
            self._on_connection, sock=self.listening.dup(), limit=PIECE, ssl=tls
        )

    async def speak(self, tls: ssl.SSLContext | None) -> None:
        """Speaks TLS from the next connection on, or none."""
        self._server.close()
        await self.start(tls)

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if not self._local:  # asyncio does it only for sockets that it has made itself
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(reader, writer)
        self.wires.append(wire)
        if self.script is None:
            self._waiting.put_nowait(wire)
        else:
            self._scripts.add(asyncio.ensure_future(self._run(self.script, wire)))

    async def _run(self, script: Script, wire: Wire) -> None:
        try:
            await script(wire)
        except (ConnectionError, AssertionError, TimeoutError):
            pass  # the connection has ended, and with it the script
        finally:
            wire.close()

    def serve(self, reply: bytes) -> None:
        """Answers each request from now on with this."""
        self.script = always(reply)

    async def accept(self) -> Wire:
        """The next new connection."""
        async with asyncio.timeout(PATIENCE):
            return await self._waiting.get()

    async def no_more(self, seconds: float = 0.2) -> bool:
        """Whether nobody connects for so long."""
        try:
            async with asyncio.timeout(seconds):
                self._waiting.put_nowait(await self._waiting.get())
        except TimeoutError:
            return True
        return False

    async def close(self) -> None:
        """Closes in order: the balancer has seen each connection end before the next test begins."""
        self._server.close()
        for task in self._scripts:
            task.cancel()
        await asyncio.gather(*self._scripts, return_exceptions=True)
        for wire in self.wires:
            if not wire.closed and not wire.closing:
                await _say_goodbye(wire)
            wire.abandon()


async def _say_goodbye(wire: Wire) -> None:
    try:
        wire.end()
        async with asyncio.timeout(1):
            while not wire.closed:
                wire.received = b""
                await wire.read()
    except (OSError, RuntimeError, TimeoutError):
        pass


async def connect(port: int, tls: ssl.SSLContext | None = None, name: str = "localhost") -> Wire:
    server = {} if tls is None else {"ssl": tls, "server_hostname": name}
    return Wire(*await asyncio.open_connection("127.0.0.1", port, limit=PIECE, **server))


def always(reply: bytes = OK) -> Script:
    """A backend that gives every request the same answer, for as long as the connection lasts."""

    async def serve(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(reply)

    return serve
