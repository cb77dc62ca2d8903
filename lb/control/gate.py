"""The door of the admin server: nobody who only holds connections open keeps others out, or takes descriptors
that clients of the data plane need.

aiohttp waits for ever for a first request, and takes any number of connections. Here there are only so many
at a time; for one more, the one that has been without a request for longest goes. Who brings none in time
goes, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import web

FIRST = 10.0  # seconds until the first request is whole
NEXT = 75.0  # seconds from a response to the next request
SWEEP = 1.0  # seconds between two looks


class Gate:
    """Makes protocols for connections, each around one that `make` makes, and keeps count of them."""

    def __init__(self, make: Callable[[], asyncio.Protocol], most: Callable[[], int]) -> None:
        self._make = make
        self._most = most
        self._inside: dict[asyncio.BaseTransport, _Visit] = {}  # in the order in which they came
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> asyncio.Protocol:
        return _Visit(self, self._make())

    def __len__(self) -> int:
        return len(self._inside)

    def open(self) -> None:
        """From now on looks for who takes too long."""
        self._timer = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def enter(self, visit: _Visit, transport: asyncio.Transport) -> bool:
        """Whether there is room. It is made, where somebody inside has nothing to ask."""
        if len(self._inside) >= self._most():
            quiet = [each for each in self._inside.values() if not each.asking or each.sending]
            if not quiet:
                return False
            self._expel(min(quiet, key=lambda each: each.since))
        self._inside[transport] = visit
        return True

    def leave(self, transport: asyncio.BaseTransport) -> None:
        self._inside.pop(transport, None)

    def asks(self, transport: asyncio.BaseTransport | None) -> None:
        """A request is here, and is being answered."""
        visit = self._inside.get(transport) if transport is not None else None
        if visit is not None:
            visit.asking += 1

    def answered(self, transport: asyncio.BaseTransport | None) -> None:
        """Its answer is made."""
        visit = self._inside.get(transport) if transport is not None else None
        if visit is not None:
            visit.asking -= 1
            visit.patience = NEXT
            visit.since = asyncio.get_running_loop().time()

    def sends(self, transport: asyncio.BaseTransport | None, more: bool) -> None:
        """The body of a request is awaited, or is here. Who sends it slowly is like who asks for nothing."""
        visit = self._inside.get(transport) if transport is not None else None
        if visit is not None:
            visit.sending = more

    def _expel(self, visit: _Visit) -> None:
        self.leave(visit.transport)
        visit.transport.abort()

    def _sweep(self) -> None:
        self.open()
        now = asyncio.get_running_loop().time()
        for visit in list(self._inside.values()):
            if not visit.asking and now > visit.since + visit.patience:
                self._expel(visit)


class _Visit(asyncio.Protocol):
    """One connection: passes on everything that it is told."""

    def __init__(self, gate: Gate, inner: asyncio.Protocol) -> None:
        self._gate = gate
        self._inner = inner
        self._inside = False
        self.asking = 0
        self.sending = False  # a body that is not whole yet
        self.patience = FIRST
        self.since = 0.0  # when it came, or had its last answer, by the loop's clock

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.since = asyncio.get_running_loop().time()
        self._inside = self._gate.enter(self, self.transport)
        if self._inside:
            self._inner.connection_made(transport)
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._inside:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inside else None

    def connection_lost(self, error: Exception | None) -> None:
        if self._inside:
            self._gate.leave(self.transport)
            self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


GATE = web.AppKey("gate", Gate)


@web.middleware
async def attended(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Tells the gate whose request is being answered."""
    gate, transport = request.app.get(GATE), request.transport
    if gate is None:
        return await handler(request)
    gate.asks(transport)
    try:
        return await handler(request)
    finally:
        gate.answered(transport)


async def body_within(request: web.Request, seconds: float) -> bytes:
    """The body of a request. Raises TimeoutError where it isn't whole in time, and what aiohttp raises."""
    gate, transport = request.app.get(GATE), request.transport
    if gate is not None:
        gate.sends(transport, True)
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    finally:
        if gate is not None:
            gate.sends(transport, False)
