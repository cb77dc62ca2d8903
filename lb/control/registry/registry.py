"""The registry itself: takes registrations and heartbeats, and notices those that stay away."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from lb.control.registry.expiry import Deadlines, Key
from lb.control.registry.model import CRITICAL, MAINTENANCE, Check, Instance, State, expired
from lb.control.registry.requests import Wrong
from lb.control.registry.store import Store, Unavailable
from lb.control.registry.table import Entry, Table
from lb.core.clock import Clock

log = logging.getLogger("lb.registry")

AGAIN = 1.0  # seconds until a change that the store did not take is tried again
INSTANCES_AT_MOST = 100_000


class Unknown(Exception):
    """There is no instance or check of this ID: the words of Consul, which clients look for."""


class Registry:
    """Who is there. Answers come from the table; changes go through the store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        # Beyond every index of a table before, or of another balancer: who comes from there with its index
        # must not wait here for a change of what it has never seen.
        self.table = Table(int(time.time() * 1000))
        self._store = store
        self._expired = Deadlines(clock, self._on_expired)  # heartbeats that stay away
        self._forsaken = Deadlines(clock, self._on_forsaken)  # instances that are critical for too long
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_listening = self.table.listen(self._on_change)
        self._known: dict[str, Entry] = {}  # by ID, those whose deadlines have been set

    @property
    def trouble(self) -> str:
        """Why the table may not be as the store has it; empty where it is."""
        return self._store.trouble

    async def open(self) -> None:
        """Reads the store. Raises OSError, or what the store raises, where that can't be."""
        await self._store.open(self.table)

    async def close(self) -> None:
        self._stop_listening()
        self._expired.close()
        self._forsaken.close()
        for task in list(self._tasks):
            task.cancel()
        await self._store.close()

    # --- what instances say ---

    async def register(self, instance: Instance, states: Mapping[str, State], replace: bool = False) -> None:
        """Someone is there. Who registers anew keeps what its checks say, and other checks unless `replace`.

        Raises Wrong and Unavailable.
        """
        before = self.table.entries.get(instance.id)
        if before is None and len(self.table.entries) >= INSTANCES_AT_MOST:
            raise Unavailable(f"there are {INSTANCES_AT_MOST} instances, which is as many as may be")
        for name in states:
            self._must_be_free(name, instance.id)
        kept = dict(states)
        if before is not None:
            if not replace:
                others = [check for check in before.instance.checks if check.id not in states]
                instance = _with_checks(instance, (*instance.checks, *others))
            mine = {check.id for check in instance.checks}
            kept |= {
                name: state
                for name, state in before.states.items()
                if name in mine or name.startswith(MAINTENANCE)
            }
        await self._store.put(instance, kept)
        for check in instance.checks:
            if check.ttl and kept[check.id].status != CRITICAL:
                await self._beat(instance.id, check, kept[check.id])

    async def deregister(self, instance_id: str) -> None:
        """Someone has gone. Raises Unknown and Unavailable."""
        if instance_id not in self.table.entries:
            raise Unknown(f'Unknown service ID "{instance_id}". Ensure that the service ID is passed, '
                          "not the service name.")  # fmt: skip
        await self._store.remove(instance_id)

    async def report(self, check_id: str, state: State) -> None:
        """A heartbeat. Raises Unknown and Unavailable."""
        entry, check = self._check(check_id)
        await self._beat(entry.instance.id, check, state)

    async def add_check(self, instance_id: str, check: Check, status: str) -> None:
        """Another check of someone who is there. Raises Unknown, Wrong and Unavailable."""
        entry = self.table.entries.get(instance_id)
        if entry is None:
            raise Unknown(f'ServiceID "{instance_id}" does not exist')
        self._must_be_free(check.id, instance_id)
        others = [each for each in entry.instance.checks if each.id != check.id]
        state = entry.states.get(check.id, State(status))
        await self._store.put(
            _with_checks(entry.instance, (*others, check)), {**entry.states, check.id: state}
        )
        if state.status != CRITICAL:
            await self._beat(instance_id, check, state)

    async def remove_check(self, check_id: str) -> None:
        """Raises Unknown and Unavailable."""
        entry, _ = self._check(check_id)
        others = [each for each in entry.instance.checks if each.id != check_id]
        states = {name: state for name, state in entry.states.items() if name != check_id}
        await self._store.put(_with_checks(entry.instance, tuple(others)), states)

    async def set_maintenance(self, instance_id: str, on: bool, reason: str) -> None:
        """Takes someone out of rotation, or back into it. Raises Unknown and Unavailable."""
        if instance_id not in self.table.entries:
            raise Unknown(f'Unknown service ID "{instance_id}". Ensure that the service ID is passed, '
                          "not the service name.")  # fmt: skip
        state = State(CRITICAL, reason) if on else None
        await self._store.set_state(instance_id, MAINTENANCE + instance_id, state, 0.0)

    def _check(self, check_id: str) -> tuple[Entry, Check]:
        entry = self.table.owner_of(check_id)
        if entry is not None:
            for check in entry.instance.checks:
                if check.id == check_id:
                    return entry, check
        raise Unknown(
            f'Unknown check ID "{check_id}". Ensure that the check ID is passed, not the check name.'
        )

    def _must_be_free(self, check_id: str, instance_id: str) -> None:
        owner = self.table.owner_of(check_id)
        if owner is not None and owner.instance.id != instance_id:
            raise Wrong(f"the check {check_id} is one of {owner.instance.id} already")

    async def _beat(self, instance_id: str, check: Check, state: State) -> None:
        await self._store.set_state(instance_id, check.id, state, check.ttl)
        if not self._store.expires and check.ttl and state.status != CRITICAL:
            self._expired.set((instance_id, check.id), check.ttl)

    # --- what time says ---

    def _on_change(self, service: str, instance_id: str) -> None:
        """Sets and drops deadlines as the table is now: also for those whom a store has brought along."""
        before, entry = self._known.get(instance_id), self.table.entries.get(instance_id)
        if before is not None and before is not entry:
            kept = () if entry is None else entry.states
            for check in before.instance.checks:
                if check.id not in kept:
                    self._expired.drop((instance_id, check.id))
                    self._forsaken.drop((instance_id, check.id))
        if entry is None:
            self._known.pop(instance_id, None)
        else:
            self._known[instance_id] = entry
            self._attend_to(entry)

    def _attend_to(self, entry: Entry) -> None:
        for check in entry.instance.checks:
            key = entry.instance.id, check.id
            critical = entry.states[check.id].status == CRITICAL
            if critical:
                self._expired.drop(key)
            elif check.ttl and not self._store.expires and key not in self._expired:
                self._expired.set(key, check.ttl)
            if not critical:
                self._forsaken.drop(key)
            elif check.deregister_after and key not in self._forsaken:
                self._forsaken.set(key, check.deregister_after)

    def _on_expired(self, key: Key) -> None:
        log.info("registry: %s: no heartbeat of check %s in time", *key)
        entry = self.table.entries.get(key[0])
        last = None if entry is None else entry.states.get(key[1])
        state = expired(last)
        self._begin(self._store.set_state(*key, state, 0.0), self._expired, key)

    def _on_forsaken(self, key: Key) -> None:
        log.info("registry: %s is deregistered: its check %s was critical for too long", *key)
        self._begin(self._store.remove(key[0]), self._forsaken, key)

    def _begin(self, change: Coroutine[Any, Any, None], deadlines: Deadlines, key: Key) -> None:
        async def run() -> None:
            try:
                await change
            except Unavailable as error:
                log.warning("registry: %s: %s; tried again", key[0], error)
                deadlines.set(key, AGAIN)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _with_checks(instance: Instance, checks: tuple[Check, ...]) -> Instance:
    return dataclasses.replace(instance, checks=checks)
