"""Backends by a registry in this very process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from lb.core.backend import BackendSpec
from lb.discovery.registry import RegistrySource
from tests.discovery.scripted import specs


class Service:
    """One service of a registry, as a source knows it."""

    def __init__(self) -> None:
        self.there: Sequence[BackendSpec] = ()
        self.asked = 0
        self.listeners: list[Callable[[], object]] = []

    def backends(self) -> Sequence[BackendSpec]:
        self.asked += 1
        return self.there

    def listen(self, changed: Callable[[], object]) -> Callable[[], object]:
        self.listeners.append(changed)
        return lambda: self.listeners.remove(changed)

    def has(self, *numbers: int) -> None:
        self.there = specs(*numbers)
        for listener in self.listeners:
            listener()


async def test_changes_are_told_and_many_of_them_once() -> None:
    service = Service()
    async with contextlib.aclosing(RegistrySource(service).watch()) as sets:
        assert await anext(sets) == ()
        for number in range(10):
            service.has(number)
        assert await anext(sets) == specs(9)
        assert service.asked == 2
        coming = asyncio.ensure_future(anext(sets))
        await asyncio.sleep(0.01)
        assert not coming.done()
        service.has(1, 2)
        assert await coming == specs(1, 2)
    assert service.listeners == []
