"""Where a registry keeps its table. The simplest one keeps it in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lb.control.registry.model import Instance, State
from lb.control.registry.table import Table


class Unavailable(Exception):
    """The store can't be written to now: what is wrong, for whoever wanted it and for the log."""


class Store(Protocol):
    """Keeps what is registered, and tells the table of it.

    A method returns when the change is safe and in the table, or raises Unavailable, and then nothing has
    changed. `expires` is whether the store itself notices a heartbeat that stays away; else the registry
    watches, and says so by `set_state`. `trouble` is why the table may not be as the store has it.
    """

    expires: bool
    trouble: str

    async def open(self, table: Table) -> None: ...

    async def close(self) -> None: ...

    async def put(self, instance: Instance, states: Mapping[str, State]) -> None: ...

    async def remove(self, instance_id: str) -> None: ...

    async def set_state(self, instance_id: str, check: str, state: State | None, ttl: float) -> None:
        """What a check says from now on; None takes it away. It is a heartbeat, too: where the store expires
        it does so `ttl` seconds from here (0.0: never)."""


class MemoryStore:
    """Is gone with the process."""

    expires = False
    trouble = ""

    async def open(self, table: Table) -> None:
        self._table = table

    async def close(self) -> None:
        pass

    async def put(self, instance: Instance, states: Mapping[str, State]) -> None:
        self._table.put(instance, states)

    async def remove(self, instance_id: str) -> None:
        self._table.remove(instance_id)

    async def set_state(self, instance_id: str, check: str, state: State | None, ttl: float) -> None:
        self._table.set_state(instance_id, check, state)
