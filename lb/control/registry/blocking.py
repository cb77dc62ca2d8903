"""Blocking queries: who waits for a change, how many may, and what their answers cost.

A table with thousands of instances is megabytes of JSON, and each of its changes wakes everyone who waits for
it. So an answer is made once for all who ask the same, and the next one only when some time has passed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from lb.control.registry.table import Table
from lb.control.room import MOST_REGISTERING

WAITING = MOST_REGISTERING - 64
"""Blocking queries at a time. The other connections are for all else: a probe of /livez that finds no place
would have us killed."""
PART = 0.05  # of the time at most goes into answers to one question
KEPT = 16  # answers at most


@dataclass(slots=True)
class _Answer:
    version: int  # of the table
    body: bytes
    made: float  # when, by the loop's clock
    cost: float  # seconds that it took


class Waiters:
    """Those who wait, the first to come first; for one more than may, that one gets the table as it is."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}

    def release(self) -> None:
        """The server goes: whoever waits gets the table as it is."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self, table: Table, matters: Callable[[str, str], bool], seconds: float) -> bool:
        """Until a change of a service and an instance that matters: True, or False when time is over first,
        or the place is needed."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        changed = False

        def on_change(service: str, instance_id: str) -> None:
            nonlocal changed
            if service and not waiting.done() and matters(service, instance_id):
                changed = True
                waiting.set_result(None)

        stop = table.listen(on_change)
        if len(self._waiting) >= WAITING:
            first = next(iter(self._waiting))
            del self._waiting[first]
            if not first.done():
                first.set_result(None)
        self._waiting[waiting] = None
        try:
            await asyncio.wait_for(waiting, seconds)
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(waiting, None)
            stop()
        return changed


class Answers:
    """Answers that were made lately, by what was asked."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Answer] = {}

    async def rest(self, question: Hashable) -> None:
        """Until the next answer to this may be made: at once, where the last one cost little."""
        last = self._known.get(question)
        if last is not None:
            until = last.made + last.cost / PART
            await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))

    def shared(self, question: Hashable, version: int, make: Callable[[], Any]) -> bytes:
        """The answer as of a version of the table, as JSON: of somebody else where there is one."""
        known = self._known.pop(question, None)
        if known is None or known.version != version:
            began = perf_counter()
            body = json.dumps(make()).encode()
            known = _Answer(version, body, asyncio.get_running_loop().time(), perf_counter() - began)
        self._known[question] = known
        while len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
        return known.body
