"""A configuration that is about to hold: all that can fail is done here, before anything of it does.

A start is a reload too, from a balancer that has nothing yet.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from lb.build import (
    CannotStart,
    build_policy,
    build_pool,
    build_routes,
    build_shadow,
    build_tls,
    health_check,
    pool_rules,
    reach_of,
)
from lb.config import Config, Pool
from lb.core.backend import Backend
from lb.logfile import LogFile
from lb.membership import first_sets, prepare_sources, specs_to_be
from lb.proxy.reach import Reach
from lb.registrar import prepare_registrar
from lb.running.binding import Addresses
from lb.running.parts import Prepared, Running

if TYPE_CHECKING:
    from lb.control.prober import Prober

KNOWN_BY = 5.0  # seconds in which a first probe has to find a new backend well, or it joins as unhealthy


async def prepare(app: Running, config: Config) -> Prepared:
    """Makes ready what a configuration needs. Raises CannotStart, and then holds nothing of it."""
    async with AsyncExitStack() as undo:
        new = Prepared(config)
        new.registrar = await prepare_registrar(app, config, undo)
        prepare_sources(app, new, undo)
        _prepare_pools(app, new, undo)
        _prepare_log(app, new, undo)
        if config.admin is not None and config.admin.token is not None:
            try:
                new.token = config.admin.token.read()
            except ValueError as error:
                raise CannotStart(str(error)) from error
        addresses = Addresses(app, undo)
        await addresses.bind_listeners(new)
        await addresses.bind_admin(new)
        await addresses.bind_registry(new)
        await first_sets(app, new)
        if app.pools:
            await _probe_newcomers(app, new)
        addresses.listen()
        if app.draining:
            raise CannotStart("the balancer is draining")
        undo.pop_all()
    return new


def _prepare_pools(app: Running, new: Prepared, undo: AsyncExitStack) -> None:
    config, clock = new.config, app.clock
    for name, ours in config.pools.items():
        before = app.config.pools.get(name)
        pool = app.pools.get(name)
        if pool is None:
            pool = build_pool(name, config, clock)
            undo.callback(pool.close)
        else:
            if before is None or before.balancer != ours.balancer:
                new.policies[name] = build_policy(name, ours, clock)
            if before is None or before.shadow != ours.shadow:
                new.shadows[name] = build_shadow(name, ours, clock)
            new.rules[name] = pool_rules(name, config)
        new.pools[name] = pool
        reach = new.reaches[name] = _reach(app, name, ours, before)
        check = health_check(ours, reach) if app.probes else None
        prober = app.probers.get(name)
        if check is not None and (prober is None or prober.check != check):
            from lb.control.prober import Prober  # see `health_check`

            prober = Prober(pool, check)
            prober.open()
            undo.push_async_callback(prober.close)
        if check is not None and prober is not None:
            new.probers[name] = prober
    if not app.pools or (config.routes, config.pools, config.errors) != (
        app.config.routes,
        app.config.pools,
        app.config.errors,
    ):
        new.routes = build_routes(config, new.pools)


def _reach(app: Running, name: str, ours: Pool, before: Pool | None) -> Reach:
    """How the backends are reached: as before where that is the same, but by the files as they are now."""
    there = app.reaches.get(name)
    if there is None or before is None or before.tls != ours.tls:
        return reach_of(ours, build_tls(name, ours))
    if there.tls is not None:
        try:
            there.tls.renew()
        except ValueError as error:
            raise CannotStart(f"pool {name}: tls: {error}") from error
    return reach_of(ours, there.tls)


def _prepare_log(app: Running, new: Prepared, undo: AsyncExitStack) -> None:
    wanted = new.config.access_log
    if wanted is None:
        return
    if app.log_file is not None and app.log_file.path == wanted.path:
        new.log_file = app.log_file
        return
    log_file = LogFile(wanted.path, app.turns)
    try:
        log_file.open()
    except OSError as error:
        raise CannotStart(f"can't write the access log: {error}") from error
    undo.callback(log_file.close)
    new.log_file = log_file


async def _probe_newcomers(app: Running, new: Prepared) -> None:
    """Asks backends that are new how they are before they join: their pool is not without any until then."""

    async def probe(name: str, prober: Prober) -> None:
        running = app.pools[name].backends if name in app.pools else {}
        specs = specs_to_be(new, name)
        newcomers = [
            spec for spec in specs if spec.id not in running or running[spec.id].spec.address != spec.address
        ]
        found = await prober.find_well([Backend(spec) for spec in newcomers], KNOWN_BY)
        new.well[name] = [backend.id for backend in found]

    await asyncio.gather(*(probe(name, prober) for name, prober in new.probers.items()))
