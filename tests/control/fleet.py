"""Servers to probe: real sockets, each behaving as told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from lb.balance import policy_class
from lb.core.backend import Backend, BackendSpec
from lb.core.pool import Pool

Answer = bytes | None  # None: says nothing and keeps the connection


def answer(status: int, body: bytes = b"ok", *fields: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d Whatever" % status, b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Replica:
    """A server that gives each request the answer it has at the moment, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = answer(200)
        self.asked: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.on_asked: Callable[[], object] = lambda: None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                self.on_asked()
                if self.answer is not None:
                    writer.write(self.answer)
                    await writer.drain()
                if self.answer is None:
                    await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def replica() -> AsyncIterator[Replica]:
    made = Replica()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def spec(port: int, name: str = "") -> BackendSpec:
    return BackendSpec(name or f"127.0.0.1:{port}", "127.0.0.1", port)


class WatchedPool:
    """A pool that lets a test wait until a backend is judged. Stands before one, since it may be compiled."""

    def __init__(self, *specs: BackendSpec, name: str = "greeter") -> None:
        clock = asyncio.get_running_loop()
        policy = policy_class("p2c")(clock, random.Random(1))
        self.pool = Pool(name, policy, clock, starts_healthy=False)
        self.told = asyncio.Condition()
        self.judged: set[Backend] = set()
        self.pool.update(specs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pool, name)

    def set_health(self, backend: Backend, up: bool) -> None:
        self.pool.set_health(backend, up)
        self.judged.add(backend)
        asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        async with self.told:
            self.told.notify_all()

    async def until(self, backend: Backend, up: bool) -> None:
        async with asyncio.timeout(10), self.told:
            await self.told.wait_for(lambda: backend.healthy is up)

    async def until_judged(self, *backends: Backend) -> None:
        """Waits for the first judgement over each of them."""
        async with asyncio.timeout(30), self.told:
            await self.told.wait_for(lambda: self.judged.issuperset(backends))
