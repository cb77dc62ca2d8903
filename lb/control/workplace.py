"""A worker's side: what it is handed, what it is told, and its end.

`work` is the whole life of a worker. It ends when the supervisor says so, or is gone: then nobody could tell
it who is well, so it drains and exits. Signals are for the supervisor alone, also where they are sent to all
processes of a group, as a terminal and systemd do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterable, Mapping
from typing import Protocol

from lb.control.channel import Answer, Channel, take_over
from lb.control.messages import (
    Begin,
    Collect,
    Counts,
    Done,
    Drain,
    Hello,
    Lend,
    Listeners,
    Message,
    Ready,
    Refused,
    TakeBack,
)
from lb.control.shared_memory import SharedTable
from lb.control.workers import SIGNALS, TABLE

log = logging.getLogger("lb.workers")

Sockets = Mapping[str, socket.socket]  # by the name of the listener


class Program(Protocol):
    """What runs in a worker."""

    @property
    def pause(self) -> float:
        """How long to wait between two counts, in seconds."""

    def hello(self, shared: SharedTable) -> None:
        """The first of all: the load table."""

    def listeners(self, sockets: Sockets) -> None:
        """What to accept on from the next `begin`, in the place of all before."""

    def heard(self, message: Message) -> None:
        """Something that needs no answer: configuration, membership, health."""

    def answer(self, message: Message) -> Answer:
        """The answer to anything else that is asked."""

    async def begin(self) -> None:
        """Goes by what it has heard. What it raises is told to the supervisor, and nothing has changed then.

        The first time it begins to accept; after a reload it comes again.
        """

    def lend(self, seat: int, sockets: Sockets) -> None:
        """Accepts on these too."""

    def take_back(self, seat: int) -> None:
        """Accepts no more on what was lent for this seat."""

    def counts(self) -> Iterable[Counts]:
        """What has been counted since the last time."""

    async def drain(self, timeout: float | None) -> None:
        """Takes nothing new and ends what is under way, within so many seconds (None: as configured)."""

    async def close(self) -> None:
        """Ends everything that is left."""


async def work(program: Program, channel: int, way: int) -> None:
    """Works until the supervisor says that it is enough, or is gone. Takes over both descriptors."""
    for each in (channel, way):
        os.set_inheritable(each, False)
    worker = _Work(program, socket.socket(fileno=way))
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    await worker.run(socket.socket(fileno=channel))


class _Work:
    def __init__(self, program: Program, way: socket.socket) -> None:
        self.program = program
        self._way = way
        self._channel = Channel()
        self._enough = asyncio.Event()
        self._timeout: float | None = None  # for draining
        self._draining: asyncio.Future[None] | None = None
        self._begun = False
        self._beginning = asyncio.Lock()

    async def run(self, end: socket.socket) -> None:
        self._channel = await Channel.over(
            end, on_message=self._on_message, on_ask=self._on_ask, on_lost=self._enough.set
        )
        counting = asyncio.ensure_future(self._count())
        await self._enough.wait()
        counting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await counting
        if self._begun:
            self._draining = asyncio.ensure_future(self.program.drain(self._timeout))
            await asyncio.wait((self._draining,))
        await self.program.close()
        await self._say_counts()
        with contextlib.suppress(TimeoutError):
            await self._channel.end()
        self._way.close()

    def _on_message(self, message: Message) -> None:
        match message:
            case Hello():
                found = take_over(self._way)
                self.program.hello(SharedTable(found.pop(TABLE), message.rows, message.row))
                self.program.listeners(_sockets(found))
            case Listeners():
                self.program.listeners(_sockets(take_over(self._way)))
            case Lend():
                self.program.lend(message.seat, _sockets(take_over(self._way)))
            case TakeBack():
                self.program.take_back(message.seat)
            case Drain():
                self._timeout = message.timeout
                self._enough.set()
                if self._draining is not None:
                    asyncio.get_running_loop().call_later(message.timeout, self._draining.cancel)
            case _:
                self.program.heard(message)

    def _on_ask(self, message: Message) -> Answer:
        match message:
            case Begin():
                return self._begin()
            case Collect():
                return self._collect()
            case _:
                return self.program.answer(message)

    async def _begin(self) -> Message:
        try:
            async with self._beginning:
                await self.program.begin()
        except Exception as error:
            log.exception("can't begin")
            return Refused(str(error) or type(error).__name__)
        self._begun = True
        return Ready()

    async def _collect(self) -> Message:
        await self._say_counts()
        return Done()

    async def _count(self) -> None:
        """Says what is new from time to time. Who doesn't keep up hears it later, all at once."""
        while True:
            await asyncio.sleep(self.program.pause)
            if self._begun and self._channel.keeps_up:
                await self._say_counts()

    async def _say_counts(self) -> None:
        for counts in self.program.counts():
            self._channel.tell(counts)
            await asyncio.sleep(0)


def _sockets(descriptors: Mapping[str, int]) -> Sockets:
    return {name: socket.socket(fileno=number) for name, number in descriptors.items()}


def arguments(given: list[str]) -> tuple[int, int]:
    """The descriptors of the channel and of the way, out of a worker's command line."""
    channel, way = given[-2:]
    return int(channel), int(way)
