"""Another configuration takes effect: what was prepared takes the place of what there was.

Nothing here can fail, and nobody else has a turn meanwhile.
"""

from __future__ import annotations

import asyncio
import logging

from lb.build import client_room, identification, specs_of, upstream_options
from lb.build_access import error_pages
from lb.config import Config
from lb.core.pool import Pool
from lb.logfile import LogFile
from lb.membership import adopt_sources
from lb.observe.access_log import AccessLog
from lb.observe.records import RequestRecords
from lb.registrar import Registrar
from lb.running.parts import Prepared, Running

log = logging.getLogger("lb")


def apply(app: Running, new: Prepared) -> None:
    """Has the balancer go by it."""
    old, app.config = app.config, new.config
    _apply_pools(app, old, new)
    _apply_log(app, new.log_file)
    _apply_records(app, new.config.request_records)
    _apply_plane(app, new)
    _apply_listeners(app, new)
    _apply_admin(app, new)
    _apply_registrar(app, new.registrar)


def _apply_pools(app: Running, old: Config, new: Prepared) -> None:
    for name, pool in new.pools.items():
        if name in app.pools:
            _change_pool(app, pool, old, new)
    for watch in adopt_sources(app, new):
        app.replaced.end(watch.close())
    for pool in new.pools.values():
        _apply_health(app, pool, new)
    for name, pool in app.pools.items():
        if name not in new.pools:
            if name in app.probers:
                app.replaced.end(app.probers[name].close())
            for backend in pool.backends.values():
                pool.on_removed(backend)
            app.replaced.leave(pool)
    app.pools, app.probers, app.reaches = new.pools, new.probers, new.reaches


def _change_pool(app: Running, pool: Pool, old: Config, new: Prepared) -> None:
    """Who stays keeps health, state and statistics; a weight that was set by hand stays, too."""
    name = pool.name
    before, after = old.pools[name], new.config.pools[name]
    pool.starts_healthy = after.health_check is None
    if name in new.policies:
        pool.replace_policy(new.policies[name])
    if name in new.shadows:
        pool.replace_shadow(new.shadows[name])
    rules = new.rules[name]
    if rules != pool.rules:
        pool.configure(rules)
    if (before.backends != after.backends or name in app.members) and not after.discovery:
        pool.update(specs_of(after.backends))
    if after.health_check is None:  # nobody would ever find them well again
        for backend in pool.backends.values():
            pool.set_health(backend, True)


def _apply_health(app: Running, pool: Pool, new: Prepared) -> None:
    """What probes have found already holds, and they go on."""
    for backend_id in new.well.get(pool.name, ()):
        backend = pool.backends.get(backend_id)  # a source may have dropped it in the meantime
        if backend is not None and not backend.judged:
            log.info("pool %s: backend %s is up before it joins", pool.name, backend_id)
            pool.set_health(backend, True)
    before, prober = app.probers.get(pool.name), new.probers.get(pool.name)
    if before is not None and before is not prober:
        app.replaced.end(before.close())
    if prober is not None:
        prober.start()


def _apply_log(app: Running, log_file: LogFile | None) -> None:
    before = app.log_file
    if log_file is before:
        return
    if before is not None and app.access_log is not None:
        app.access_log.flush()
        app.replaced.end(asyncio.to_thread(before.close))
    app.log_file = log_file
    app.access_log = None if log_file is None else AccessLog(log_file.write, app.epoch)


def _apply_records(app: Running, size: int) -> None:
    if not size:
        app.records = None
    elif app.records is None:
        app.records = RequestRecords(size)
    elif app.records.size != size:
        app.records = app.records.resized(size)


def _apply_plane(app: Running, new: Prepared) -> None:
    plane = app.plane
    names, names_before = identification(new.config), plane.identification
    options = {name: upstream_options(each, new.reaches[name]) for name, each in new.config.pools.items()}
    plane.adopt(
        plane.routes if new.routes is None else new.routes,
        {
            **plane.options,
            **options,
        },  # those of a pool that has gone are asked for by the last of its requests
        names,
        app.observers(),
    )
    plane.pages = error_pages(new.config.errors)
    renamed = (names.header, names.expose_backend) != (names_before.header, names_before.expose_backend)
    for name, pool in app.pools.items():
        for backend in pool.backends.values():
            upstream = backend.upstream
            # It knows by which names responses are judged, and was made in the old way.
            if upstream is not None and (renamed or upstream.options.reach != options[name].reach):
                upstream.close()
                backend.upstream = None
            elif upstream is not None:
                upstream.options = options[name]


def _apply_listeners(app: Running, new: Prepared) -> None:
    app.door.set_room(client_room(new.config, app.files))
    for listener, options in zip(new.listeners, new.options, strict=True):
        listener.options = options
    before, app.listeners = app.listeners, new.listeners
    successors = {id(listener.listening): listener for listener in new.listeners}
    for listener in before:
        if listener not in new.listeners:
            successor = successors.get(id(listener.listening))
            if successor is None:
                listener.close()
            else:
                listener.hand_on(successor)
            app.replaced.leave(listener)
            app.has_left(listener)  # its connections are told at once


def _apply_admin(app: Running, new: Prepared) -> None:
    state = app.admin_state
    state.pools, state.probers, state.records, state.token = (
        app.pools,
        app.probers,
        app.records_to_show(),
        new.token,
    )
    state.hosts = frozenset(new.config.admin.hosts if new.config.admin is not None else ())
    if new.admin is not app.admin:
        if app.admin is not None:
            app.replaced.end(app.admin.close())
        if app.admin_listening is not None:
            app.admin_listening.close()
    app.admin, app.admin_listening = new.admin, new.admin_listening


def _apply_registrar(app: Running, new: Registrar) -> None:
    before, app.registrar = app.registrar, new
    if new.server is not before.server:
        app.replaced.end(before.close_server())
    if new.registry is not before.registry and before.registry is not None:
        app.replaced.end(before.registry.close())
    app.admin_state.registry, app.admin_state.registry_token = new.registry, new.token
