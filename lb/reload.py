"""A configuration that is about to hold: all that can fail is done here, before anything of it does.

A start is a reload too, from a balancer that has nothing yet.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING

from lb.balance import Balancer
from lb.build import (
    CannotStart,
    build_policy,
    build_pool,
    build_routes,
    build_shadow,
    build_tls,
    health_check,
    listener_options,
    pool_rules,
    reach_of,
)
from lb.certificates import server_tls
from lb.config import Address, Config, Pool
from lb.config.section import Section
from lb.core.backend import Backend
from lb.core.pool import Pool as RunningPool
from lb.core.route import Routes
from lb.core.rules import PoolRules
from lb.discovery.watch import Watch
from lb.logfile import LogFile
from lb.membership import first_sets, prepare_sources, specs_to_be
from lb.proxy.listener import Listener, ListenerOptions
from lb.proxy.reach import Reach
from lb.proxy.sockets import Listening
from lb.registrar import Registrar, prepare_registrar

if TYPE_CHECKING:
    from lb.app import App
    from lb.control.admin import AdminServer
    from lb.control.prober import Prober

KNOWN_BY = 5.0  # seconds in which a first probe has to find a new backend well, or it joins as unhealthy


@dataclass
class Prepared:
    """What is to hold from now on. Of what stays as it is, the running one."""

    config: Config
    pools: dict[str, RunningPool] = field(default_factory=dict)
    policies: dict[str, Balancer] = field(default_factory=dict)  # new ones, of pools that stay
    shadows: dict[str, Balancer | None] = field(default_factory=dict)  # likewise; None: no longer any
    rules: dict[str, PoolRules] = field(default_factory=dict)
    reaches: dict[str, Reach] = field(default_factory=dict)
    probers: dict[str, Prober] = field(default_factory=dict)
    watches: dict[str, list[Watch]] = field(default_factory=dict)  # by pool, of those that have sources
    well: dict[str, list[str]] = field(default_factory=dict)  # by pool, new backends that a probe found well
    routes: Routes | None = None  # None: those that hold
    listeners: list[Listener] = field(default_factory=list)
    options: list[ListenerOptions] = field(default_factory=list)  # of each of them
    admin_listening: Listening | None = None
    admin: AdminServer | None = None
    token: str | None = None
    registrar: Registrar = field(default_factory=Registrar)
    log_file: LogFile | None = None


async def prepare(app: App, config: Config) -> Prepared:
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
        fresh = await _bind_all(app, new, undo)
        await first_sets(app, new)
        if app.pools:
            await _probe_newcomers(app, new)
        for what, listening in fresh:
            try:
                listening.listen()
            except OSError as error:
                raise CannotStart(f"{what}: {in_words(error)}") from error
        if app.draining:
            raise CannotStart("the balancer is draining")
        undo.pop_all()
    return new


def _prepare_pools(app: App, new: Prepared, undo: AsyncExitStack) -> None:
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


def _reach(app: App, name: str, ours: Pool, before: Pool | None) -> Reach:
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


def _prepare_log(app: App, new: Prepared, undo: AsyncExitStack) -> None:
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


async def _bind_all(app: App, new: Prepared, undo: AsyncExitStack) -> list[tuple[str, Listening]]:
    """Takes the addresses that are new, and returns them with what they are for."""
    fresh: list[tuple[str, Listening]] = []

    async def take(what: str, address: Address, listening: Listening) -> Listening:
        undo.callback(listening.close)
        try:
            await listening.bind(app.inherited)
        except OSError as error:
            raise CannotStart(f"{what} {address}: {in_words(error)}") from error
        fresh.append((f"{what} {address}", listening))
        return listening

    there = list(app.listeners)
    for ours in new.config.listeners:
        listener = next((each for each in there if _is_at(each.listening, ours.bind)), None)
        before = None if listener is None else listener.options
        tls = server_tls(ours.tls, listener.name if listener else str(ours.bind), before and before.tls)
        options = listener_options(ours, tls)
        new.options.append(options)
        if listener is not None:
            there.remove(listener)
        if listener is None or not listener.options.same_entrance(options):
            # Who came in by another way has to leave soon: a new listener takes the address over.
            if listener is not None:
                listening = listener.listening
            else:
                listening = await take("listener", ours.bind, app.listening(ours.bind))
            listener = Listener(app.plane, app.door, listening, options, app.clients.listener)
            undo.callback(listener.pause)
            try:
                await listener.open()
            except OSError as error:
                raise CannotStart(f"listener {ours.bind}: {in_words(error)}") from error
        new.listeners.append(listener)
    admin = new.config.admin
    if admin is not None:
        new.admin, new.admin_listening = app.admin, app.admin_listening
        if new.admin_listening is None or not _is_at(new.admin_listening, admin.bind):
            from lb.control.admin import AdminServer  # see `health_check`

            bind = admin.bind
            listening = Listening(bind.host, bind.port, bind.path, "admin")
            new.admin_listening = await take("admin", bind, listening)
            if new.token is None:
                _must_be_local(bind, listening)
            new.admin = AdminServer(app.admin_state, new.admin_listening.sockets)
    if new.registrar.is_at is None and new.config.registry is not None and new.registrar.registry is not None:
        own = new.config.registry.bind
        if own is not None:
            listening = await take("registry", own, Listening(own.host, own.port, own.path, "registry"))
            new.registrar.serve_at(own, listening, app.admin_state)
    return fresh


def _must_be_local(bind: Address, listening: Listening) -> None:
    """What a name stands for is known only now: localhost may well be another machine's address."""
    for sock in listening.sockets:
        if sock.family != socket.AF_UNIX and not ip_address(sock.getsockname()[0]).is_loopback:
            raise CannotStart(
                f"admin {bind}: is {sock.getsockname()[0]}, which other machines can reach, so admin needs a "
                "token: token: {file: PATH} or {env: NAME}; or bind it to 127.0.0.1"
            )


def _is_at(listening: Listening, address: Address) -> bool:
    return (listening.host, listening.port, listening.path) == (address.host, address.port, address.path)


async def _probe_newcomers(app: App, new: Prepared) -> None:
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


def in_words(error: OSError) -> str:
    """What the kernel or the resolver has to say."""
    number = error.errno
    if number is not None and number in errno.errorcode and not isinstance(error, socket.gaierror):
        return os.strerror(number).lower()
    return (error.strerror or str(error)).lower()


# --- what has changed ---


def changed_keys(old: Config, new: Config) -> Iterator[str]:
    """Where two configurations differ, in short: `drain.timeout`, `pools.greeter.backends (1 new)`."""
    for key in Config.model_fields:
        before, after = getattr(old, key), getattr(new, key)
        if before == after:
            continue
        if key == "pools":
            yield from _changed_pools(old, new)
        else:
            yield from _changed_section(key, before, after)


def _changed_section(key: str, before: object, after: object) -> Iterator[str]:
    if not isinstance(before, Section) or not isinstance(after, Section):
        yield key
        return
    for name in type(before).model_fields:
        if getattr(before, name) != getattr(after, name, None):
            yield f"{key}.{name}"


def _changed_pools(old: Config, new: Config) -> Iterator[str]:
    for name in dict.fromkeys((*old.pools, *new.pools)):
        key = f"pools.{name}"
        if name not in old.pools or name not in new.pools:
            yield f"{key} ({'new' if name in new.pools else 'gone'})"
            continue
        before, after = old.pools[name], new.pools[name]
        for part in Pool.model_fields:
            if part == "backends" and before.backends != after.backends:
                yield f"{key}.backends ({_changed_backends(before, after)})"
            elif getattr(before, part) != getattr(after, part):
                yield from _changed_section(f"{key}.{part}", getattr(before, part), getattr(after, part))


def _changed_backends(before: Pool, after: Pool) -> str:
    old = {each.id: each for each in before.backends}
    new = {each.id: each for each in after.backends}
    fresh = sum(name not in old for name in new)
    gone = sum(name not in new for name in old)
    other = sum(name in old and old[name] != each for name, each in new.items())
    counts = [
        f"{count} {word}" for count, word in ((fresh, "new"), (gone, "gone"), (other, "changed")) if count
    ]
    return ", ".join(counts) or "in another order"
