"""An event loop in a thread of its own, beside the one that has the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Aside:
    """The thread, which runs for as long as somebody uses it. To be used from one other thread alone."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._users = 0
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within this block, `run` can be called."""
        if not self._users:
            self._start()
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._stop()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Has it done there. Who gives up here ends it there."""
        assert self._loop is not None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _start(self) -> None:
        started = Event()

        async def run() -> None:
            self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
            started.set()
            await self._end.wait()

        self._thread = Thread(target=lambda: asyncio.run(run()), name=self._name, daemon=True)
        self._thread.start()
        started.wait()

    def _stop(self) -> None:
        assert self._thread is not None
        assert self._loop is not None
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()  # which takes no time: asyncio.run cancels what is left
        self._thread = self._loop = self._end = None
