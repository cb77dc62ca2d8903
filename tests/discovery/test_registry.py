"""Backends by a registry in this very process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import pytest

from lb.core.backend import BackendSpec
from lb.discovery.base import SourceError
from lb.discovery.registry import RegistrySource
from tests.discovery.scripted import specs


class Service:
    """One service of a registry, as a source knows it."""

    def __init__(self) -> None:
        self.there: Sequence[BackendSpec] = ()
        self.asked = 0
        self.trouble = ""
        self.listeners: list[Callable[[], object]] = []

    def backends(self) -> Sequence[BackendSpec]:
        self.asked += 1
        return self.there

    def listen(self, on_change: Callable[[], object]) -> Callable[[], None]:
        self.listeners.append(on_change)
        return lambda: self.listeners.remove(on_change)

    def has(self, *numbers: int) -> None:
        self.there = specs(*numbers)
        for listener in self.listeners:
            listener()


async def test_changes_are_told_and_many_of_them_once() -> None:
    service = Service()
    source = RegistrySource(service)
    async with contextlib.aclosing(source.watch()) as sets:
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
    service.trouble = "etcd is gone"
    with pytest.raises(SourceError, match="etcd is gone"):
        await anext(source.watch())
    async with contextlib.aclosing(source.watch()) as sets:
        coming = asyncio.ensure_future(anext(sets))
        await asyncio.sleep(0.01)
        assert not coming.done(), "nothing is better yet"
        service.trouble = ""
        service.has(3)
        assert await coming == specs(3)
