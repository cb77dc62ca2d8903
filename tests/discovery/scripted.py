"""A source that says what a test wants it to say, and when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

from lb.core.backend import BackendSpec
from lb.core.source import SourceState
from lb.discovery.watch import Beliefs, Watch


def spec(number: int, **more: int) -> BackendSpec:
    return BackendSpec(f"b{number}", "10.0.0.1", 9000 + number, **more)


def specs(*numbers: int) -> tuple[BackendSpec, ...]:
    return tuple(map(spec, numbers))


class Scripted:
    """Says a set, or fails, whenever `say` is called; each time that it is watched is counted."""

    def __init__(self) -> None:
        self.watched = 0
        self.closed = 0
        self._said: asyncio.Queue[Sequence[BackendSpec] | Exception | None] = asyncio.Queue()

    def say(self, what: Sequence[BackendSpec] | Exception | None) -> None:
        """None is the end of the iteration."""
        self._said.put_nowait(what)

    async def watch(self) -> AsyncIterator[Sequence[BackendSpec]]:
        self.watched += 1
        try:
            while (said := await self._said.get()) is not None:
                if isinstance(said, Exception):
                    raise said
                yield said
        finally:
            self.closed += 1


def watch(source: Scripted, name: str = "scripted", beliefs: Beliefs = Beliefs()) -> Watch:  # noqa: B008
    state = SourceState("scripted", "a test", name)
    return Watch("greeter", source, state, beliefs, rng=random.Random(1))
