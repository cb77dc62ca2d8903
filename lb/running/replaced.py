"""What another configuration has taken the place of, as long as it isn't done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from lb.core.pool import Pool
from lb.proxy.listener import Listener


class Replaced:
    """Parts of a balancer that are wanted no longer.

    Some are closed, others first serve what they have begun: `has_left` says whether one is done with it.
    """

    def __init__(self, has_left: Callable[[Listener | Pool], bool]) -> None:
        self._has_left = has_left
        self._leaving: list[Listener | Pool] = []
        self._ending: set[asyncio.Future[None]] = set()

    def leave(self, part: Listener | Pool) -> None:
        """Lets it serve to the end."""
        self._leaving.append(part)

    def look(self) -> None:
        """Lets go of those that are done."""
        self._leaving = [part for part in self._leaving if not self._has_left(part)]

    def end(self, closing: Coroutine[Any, Any, None]) -> None:
        """Closes something, while nobody waits for it."""
        task = asyncio.ensure_future(closing)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def ended(self, timeout: float) -> None:
        """Waits until all is closed, so many seconds at most."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=timeout)
