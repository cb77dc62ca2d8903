"""The source `registry`: the instances of a service in the balancer's own registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from time import monotonic, thread_time
from typing import Protocol

from lb.core.backend import BackendSpec
from lb.discovery.base import Pace, SourceError

LOOK = 5.0  # seconds without a change, after which it is said that the last set still holds


class Service(Protocol):
    """A service in a registry, as a source needs it."""

    def backends(self) -> Sequence[BackendSpec]:
        """Those of its instances that are well."""
        ...

    @property
    def trouble(self) -> str:
        """Why the registry does not know; empty where it does."""
        ...

    def listen(self, on_change: Callable[[], object]) -> Callable[[], None]:
        """Calls back after each change, until the function that is returned is called."""
        ...


class RegistrySource:
    """Another set when the service has changed: at once, and seldom enough not to spend all time on it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pace = Pace()
        self._told = ""  # the trouble that was told last

    async def watch(self) -> AsyncIterator[Sequence[BackendSpec]]:
        changed = asyncio.Event()
        stop = self._service.listen(changed.set)
        try:
            if (
                self._told and self._service.trouble == self._told
            ):  # we are here again, and nothing is better yet
                await _set_within(changed, LOOK)
            while True:
                changed.clear()
                self._told = self._service.trouble
                if self._told:
                    raise SourceError(self._told, after=0.0)
                began = thread_time()
                yield self._service.backends()
                rested = monotonic() + self._pace.rest_after(thread_time() - began)
                await _set_within(changed, LOOK)
                await asyncio.sleep(max(0.0, rested - monotonic()))
        finally:
            stop()


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
