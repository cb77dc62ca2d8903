"""Both ends of a balancer for tests that aren't async: a backend that records, a client that asks once."""

from __future__ import annotations

import asyncio
import socket
import threading

from tests.conformance.strict import Incomplete, parse_request
from tests.e2e.process import Balancer


class RecordingBackend(threading.Thread):
    """Answers each request, keeps it as it came, and notes what is wrong with it.

    After an answer that isn't its own it closes. In a thread, since hypothesis isn't async.
    """

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(daemon=True)
        self.violations: list[str] = []
        self.requests = 0
        self.raw: list[bytes] = []  # the latest, as they came
        self.reply = b""  # what it answers instead of its own
        self.listening = listening
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self.join(5)

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._on_connection, sock=self.listening.dup())
        await self._over.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        data = b""
        try:
            while more := await reader.read(1 << 16):
                data = self._answer(data + more, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    def _answer(self, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        while data:
            try:
                request, size = parse_request(data)
            except Incomplete:
                break
            self.requests += 1
            self.raw = [*self.raw[-99:], data[:size]]
            self.violations += [f"{each} in {data[:size]!r}" for each in request.violations]
            data = data[size:]
            if self.reply:
                writer.write(self.reply)
                writer.close()
                break
            body = b"" if request.method == "HEAD" else b"ok"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)
        return data


def ask(balancer: Balancer, data: bytes, half_close: bool = True) -> bytes:
    """All that is answered to these bytes, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", balancer.port), 5) as client:
        answered = b""
        try:
            client.sendall(data)
            if half_close:
                client.shutdown(socket.SHUT_WR)
            while more := client.recv(1 << 16):
                answered += more
        except ConnectionError:
            pass
    return answered
