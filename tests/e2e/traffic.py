"""Clients that ask without a pause, and count what went wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import TracebackType

from tests.e2e.wire import GET, Wire, connect


class Traffic:
    """Some clients that send one request after the other on connections that they keep, until they are told
    to stop. A connection that the balancer closes as it has announced is made anew."""

    def __init__(self, port: int, clients: int = 8, request: bytes = GET) -> None:
        self._port = port
        self._clients = clients
        self._request = request
        self._stopping = False
        self.answers: Counter[int] = Counter()  # by status
        self.bodies: Counter[bytes] = Counter()
        self.failures: list[str] = []
        self._answered = asyncio.Condition()

    async def __aenter__(self) -> Traffic:
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._clients)]
        await self.go_on()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.go_on()
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def go_on(self, requests: int = 100) -> None:
        """Waits until so many more requests have been answered."""
        wanted = self.answers.total() + requests
        async with asyncio.timeout(20):
            async with self._answered:
                await self._answered.wait_for(lambda: self.failures or self.answers.total() >= wanted)

    async def _run(self) -> None:
        wire: Wire | None = None
        while not self._stopping:
            try:
                if wire is None:
                    wire = await connect(self._port)
                await wire.send(self._request)
                answer = await wire.response()
            except (OSError, AssertionError, TimeoutError) as error:
                self.failures.append(repr(error))
                break
            self.answers[answer.status] += 1
            self.bodies[answer.body] += 1
            async with self._answered:
                self._answered.notify_all()
            if answer.get("connection") == "close":
                wire.close()
                wire = None
        async with self._answered:
            self._answered.notify_all()
        if wire is not None:
            wire.close()
