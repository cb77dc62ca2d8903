"""Waiting for what another process or task brings about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def until(found: Callable[[], T], patience: float = 10.0) -> T:
    """Asks again and again until the answer is true, which it returns."""
    async with asyncio.timeout(patience):
        while True:
            if answer := found():
                return answer
            await asyncio.sleep(0.005)
