"""Sources of the pools in a configuration that is about to hold, and when it does."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from lb.build import specs_of
from lb.config.discovery import DiscoverySource
from lb.core.backend import BackendSpec
from lb.discovery.members import Members
from lb.discovery.union import union
from lb.discovery.watch import Watch
from lb.sources import name_all, watches_for

if TYPE_CHECKING:
    from lb.running.parts import Known, Prepared, Running

log = logging.getLogger("lb.discovery")

KNOWN_BY = 5.0  # seconds that new sources have for their first answer, before things go on without it
SOON = 1.0  # and so many where the pool has backends without it


def prepare_sources(app: Running, new: Prepared, undo: AsyncExitStack) -> None:
    """Begins to watch the sources that are new. Those that are the same as before aren't disturbed."""
    zone = new.config.own_zone
    for name, ours in new.config.pools.items():
        if not ours.discovery or not app.discovers:
            continue
        running = app.members[name].watches if name in app.members else ()
        new.watches[name] = watches_for(name, ours, running, new.registrar.registry, zone)
        name_all(new.watches[name], but=running)
        for watch in new.watches[name]:
            if watch not in running:
                told = app.told.get((name, _called(watch)))
                if told is not None:
                    watch.inherit(told)
                watch.start()
                undo.push_async_callback(watch.close)


async def first_sets(app: Running, new: Prepared) -> None:
    """Waits until each source has answered or failed once, but not for long, and less where its pool has
    backends without it. Where another process still serves in our place, a failure is no reason to go on at
    once."""
    waiting = {}
    for name, watches in new.watches.items():
        for watch in watches:
            only_answers = app.inherited.taken and not watch.state.known
            event = watch.answered if only_answers else watch.settled
            if not event.is_set():
                waiting[asyncio.create_task(event.wait())] = (name, watch)
    if not waiting:
        return
    _, late = await asyncio.wait(waiting, timeout=SOON)
    missed = {task for task in late if app.inherited.taken or not specs_to_be(new, waiting[task][0])}
    if missed:
        await asyncio.wait(missed, timeout=KNOWN_BY - SOON)
    for task in late:
        if task.done():
            continue
        task.cancel()
        name, watch = waiting[task]
        log.warning(
            "pool %s: source %s (%s) has not answered yet; going on without it for now",
            name,
            watch.state.name,
            watch.state.about,
        )


# --- from one process to the next ---


def known_to(app: Running) -> str:
    """What a balancer knows, for the process that takes its place."""
    return json.dumps(
        [
            [name, _called(watch), [asdict(spec) for spec in watch.specs]]
            for name, members in app.members.items()
            for watch in members.watches
            if watch.state.known
        ]
    )


def known_of(text: str) -> Known:
    """The same, in that process. Nothing where it is of another version that says it in other words."""
    try:
        return {
            (str(name), str(called)): tuple(BackendSpec(**each) for each in specs)
            for name, called, specs in json.loads(text or "[]")
        }
    except (ValueError, TypeError) as error:
        log.warning("what the process before this one knew of backends is not understood: %s", error)
        return {}


def _called(watch: Watch) -> str:
    assert isinstance(watch.key, DiscoverySource)
    return watch.key.model_dump_json()


def specs_to_be(new: Prepared, name: str) -> list[BackendSpec]:
    """The backends that a pool is to have, as its sources name them now."""
    found = ((watch.state.name, watch.specs) for watch in new.watches.get(name, ()))
    return union(specs_of(new.config.pools[name].backends), found)


def adopt_sources(app: Running, new: Prepared) -> list[Watch]:
    """Has the pools go by their sources; returns the watches that are wanted no longer.

    Where the sources of a pool are others than before, and one of them has not answered yet, it goes on with
    the backends of those that it replaces.
    """
    gone: list[Watch] = []
    for name in app.members.keys() - new.watches.keys():
        before = app.members.pop(name)
        before.close()
        gone += before.watches
    for name, watches in new.watches.items():
        pool, members = new.pools[name], app.members.get(name)
        replaced = [each for each in members.watches if each not in watches] if members is not None else []
        left = union((), ((each.state.name, each.specs) for each in replaced))
        for watch in watches:
            if left and not watch.state.known:
                watch.inherit(tuple(left))
        name_all(watches)
        if members is None or members.pool is not pool:
            members = app.members[name] = Members(pool)
        members.adopt(specs_of(new.config.pools[name].backends), watches, new.probers.get(name))
        gone += replaced
    return gone
