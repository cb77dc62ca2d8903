"""A tiny worker: says its process ID to whoever connects, and does as it is told by `how`.

python -m tests.control.worker_program HOW CHANNEL WAY
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable

import uvloop

from lb.control.channel import Answer
from lb.control.messages import Configure, Counts, Find, Found, Message, Refused
from lb.control.shared_memory import SharedTable
from lb.control.workplace import Sockets, arguments, work


class Tiny:
    """Begins and ends connections, counts them, and has one request in flight for each that is open."""

    pause = 0.02

    def __init__(self, how: str) -> None:
        self.how = how
        self.served = 0
        self.said = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.servers: dict[int, list[asyncio.Server]] = {}
        self.lending: dict[int, asyncio.Future[None]] = {}
        self.config = self.next_config = ""

    def hello(self, shared: SharedTable) -> None:
        self.shared = shared

    def listeners(self, sockets: Sockets) -> None:
        self.sockets = sockets

    def heard(self, message: Message) -> None:
        if isinstance(message, Configure):
            self.next_config = message.text

    def answer(self, message: Message) -> Answer:
        if isinstance(message, Find):
            return Found([(0.0, {"process": os.getpid(), "config": self.config})], len(self.servers))
        return Refused("I don't know")

    async def begin(self) -> None:
        if self.how == "refuses":
            raise OSError("the roof is leaking")
        if self.how == "dies":
            os._exit(3)
        if self.how == "hangs":
            await asyncio.sleep(60)
        if self.next_config == "bad luck" and self.config:
            raise OSError("it can't be changed")
        self.config = self.next_config
        if -1 in self.servers:
            self.take_back(-1)
        await self._accept(-1, self.sockets)

    async def _accept(self, seat: int, sockets: Sockets) -> None:
        self.servers[seat] = [await asyncio.start_server(self._serve, sock=each) for each in sockets.values()]

    def lend(self, seat: int, sockets: Sockets) -> None:
        self.lending[seat] = asyncio.ensure_future(self._accept(seat, sockets))

    def take_back(self, seat: int) -> None:
        lending = self.lending.pop(seat, None)
        if lending is not None and not lending.done():  # it is taken back before it is in use
            lending.add_done_callback(lambda _: self.take_back(seat))
        for server in self.servers.pop(seat, []):
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.served += 1
        self.open.add(writer)
        self.shared.table.set(0, len(self.open))
        writer.write(b"%d\n" % os.getpid())
        await reader.read()
        self.open.discard(writer)
        self.shared.table.set(0, len(self.open))
        writer.close()

    def counts(self) -> Iterable[Counts]:
        if self.served > self.said:
            fresh, self.said = self.served - self.said, self.served
            yield Counts(listeners=[("tiny", {"requests": [(200, fresh)]})])

    async def drain(self, timeout: float | None) -> None:
        for servers in self.servers.values():
            for server in servers:
                server.close()
        if self.how == "never ends":
            await asyncio.sleep(60)
        async with asyncio.timeout(timeout):
            while self.open:  # noqa: ASYNC110 - it's a test
                await asyncio.sleep(0.01)
        self.served += 1000  # the last words

    async def close(self) -> None:
        for writer in self.open:
            writer.close()


if __name__ == "__main__":
    uvloop.run(work(Tiny(sys.argv[1]), *arguments(sys.argv)))
