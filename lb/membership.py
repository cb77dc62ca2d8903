"""Sources of the pools in a configuration that is about to hold, and when it does."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from lb.core.backend import BackendSpec
from lb.discovery.members import Members, merged
from lb.discovery.watch import Watch
from lb.sources import name_all, specs_of, watches_for

if TYPE_CHECKING:
    from lb.app import App
    from lb.reload import Prepared

log = logging.getLogger("lb.discovery")

KNOWN_BY = 5.0  # seconds that new sources have for their first answer, before things go on without it


def prepare_sources(app: App, new: Prepared, undo: AsyncExitStack) -> None:
    """Begins to watch the sources that are new. Those that are the same as before aren't disturbed."""
    for name, ours in new.config.pools.items():
        if not ours.discovery or not app.discovers:
            continue
        running = app.members[name].watches if name in app.members else ()
        new.watches[name] = watches_for(name, ours, running, new.registrar.registry)
        for watch in new.watches[name]:
            if watch not in running:
                watch.start()
                undo.push_async_callback(watch.close)


async def first_sets(app: App, new: Prepared) -> None:
    """Waits until each source has answered or failed once, but not for long. Where another process still
    serves in our place, a failure is no reason to go on at once."""
    waiting = {}
    for name, watches in new.watches.items():
        for watch in watches:
            event = watch.answered if app.inherited.taken else watch.settled
            if not event.is_set() and not (app.inherited.taken and watch.state.known):
                waiting[asyncio.create_task(event.wait())] = (name, watch)
    if not waiting:
        return
    _, late = await asyncio.wait(waiting, timeout=KNOWN_BY)
    for task in late:
        task.cancel()
        name, watch = waiting[task]
        log.warning(
            "pool %s: source %s (%s) has not answered within %g s; going on without it for now",
            name,
            watch.state.kind,
            watch.state.about,
            KNOWN_BY,
        )


def specs_to_be(new: Prepared, name: str) -> list[BackendSpec]:
    """The backends that a pool is to have, as its sources name them now."""
    found = ((watch.state.name, watch.specs) for watch in new.watches.get(name, ()))
    return merged(specs_of(new.config.pools[name].backends), found)[0]


def adopt_sources(app: App, new: Prepared) -> list[Watch]:
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
        left = merged((), ((each.state.name, each.specs) for each in replaced))[0]
        for watch in watches:
            if left and not watch.state.known:
                watch.inherit(tuple(left))
        name_all(watches)
        if members is None or members.pool is not pool:
            members = app.members[name] = Members(pool)
        members.adopt(specs_of(new.config.pools[name].backends), watches, new.probers.get(name))
        gone += replaced
    return gone
