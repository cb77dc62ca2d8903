"""The event loop beside: what runs there, and that it ends."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lb.discovery.aside import Aside


async def test_it_runs_in_a_thread_of_its_own_for_as_long_as_it_is_used() -> None:
    aside = Aside("aside")

    async def where() -> threading.Thread:
        await asyncio.sleep(0)
        return threading.current_thread()

    with aside.used():
        with aside.used():
            first = await aside.run(where())
        assert await aside.run(where()) is first
        assert first is not threading.current_thread()
    assert not first.is_alive()
    with aside.used():
        assert await aside.run(where()) is not first


async def test_failures_come_here() -> None:
    async def fail() -> None:
        raise ValueError("no")

    aside = Aside("aside")
    with aside.used(), pytest.raises(ValueError, match="no"):
        await aside.run(fail())


async def test_who_gives_up_ends_it_there_and_so_does_who_leaves() -> None:
    aside = Aside("aside")
    ended = threading.Semaphore(0)

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.release()

    with aside.used():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await aside.run(wait())
        assert await asyncio.to_thread(ended.acquire, timeout=10)
        left = asyncio.create_task(aside.run(wait()))
        await asyncio.sleep(0.05)
    assert ended.acquire(timeout=10)
    with pytest.raises(asyncio.CancelledError):
        await left
