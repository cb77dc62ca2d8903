"""A running balancer: started from a configuration, changed to another one, drained, ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from lb import __version__
from lb.build import (
    CannotStart,
    client_room,
    identification,
    own_files,
    upstream_options,
    warnings,
)
from lb.build_access import error_pages
from lb.certificates import Renewal, ServerTls, expiries
from lb.config import Address, Config, ConfigError
from lb.control.all_records import OwnRecords, Records
from lb.control.state import AdminState, ReloadResult
from lb.core.backend import Backend
from lb.core.pool import Pool
from lb.core.record import Observer
from lb.core.route import Routes
from lb.discovery.members import Members
from lb.logfile import LogFile
from lb.membership import Known, adopt_sources
from lb.observe.access_log import AccessLog
from lb.observe.clients import ClientMetrics
from lb.observe.metrics import LbCollector, ReloadState
from lb.observe.records import RequestRecords
from lb.proxy.door import Door
from lb.proxy.listener import Listener
from lb.proxy.plane import Plane
from lb.proxy.reach import Reach
from lb.proxy.sockets import Inherited, Listening
from lb.registrar import Registrar
from lb.reload import KNOWN_BY, Prepared, changed_keys, in_words, prepare
from lb.sources import specs_of

if TYPE_CHECKING:
    from lb.control.admin import AdminServer
    from lb.control.prober import Prober

log = logging.getLogger("lb")

LOG_FLUSH = 0.2  # seconds between two writes of the access log
FOLD = 1.0  # seconds between two countings of the durations gathered


class LoopClock:
    """The event loop's timers, with time in microseconds: uvloop's own `time()` counts milliseconds."""

    time = staticmethod(time.monotonic)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.call_later = loop.call_later


class App:
    """A running balancer.

    `load` reads the configuration anew, for reloads; without it there are none. `files` is how many
    descriptors the process may have.
    """

    probes = True  # whether it asks backends how they are
    discovers = True  # whether it asks sources where the backends are

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        load: Callable[[], Config] | None = None,
        inherited: Inherited | None = None,
        files: int = 1024,
    ) -> None:
        self.config = config
        self.draining = False
        self.changing = asyncio.Lock()  # held while it goes from one configuration to another
        self.clock = LoopClock(loop)
        self.inherited = inherited or Inherited()
        self.pools: dict[str, Pool] = {}
        self.probers: dict[str, Prober] = {}
        self.members: dict[str, Members] = {}  # of the pools that have sources
        self.reaches: dict[str, Reach] = {}
        self.told: Known = {}  # what the process before this one knew of them
        self.listeners: list[Listener] = []
        self.clients = ClientMetrics()
        self.records: RequestRecords | None = None
        self.reloads = ReloadState(time.time())
        self.log_file: LogFile | None = None
        self.turns = -1  # see LogFile
        self.access_log: AccessLog | None = None
        self.admin: AdminServer | None = None
        self.admin_listening: Listening | None = None
        self.registrar = Registrar()
        self.plane = Plane(loop, Routes(()), {}, identification(config), ())
        self.door = Door(self.plane)
        self._loop = loop
        self._load = load
        self._files = files
        self._epoch = time.time() - time.monotonic()
        self._idle = asyncio.Event()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._renewal = Renewal(lambda: [tls for _, tls in self._tls()])
        self._ending: set[asyncio.Future[None]] = set()  # of what has been replaced
        self._leaving: list[Listener | Pool] = []  # replaced, and still serving what they have begun
        self.admin_state = self._build_admin_state()

    def _build_admin_state(self) -> AdminState:
        return AdminState(
            version=__version__,
            epoch=self._epoch,
            pools={},
            metrics=LbCollector(
                lambda: self.pools,
                self.clients,
                self.reloads,
                __version__,
                connections,
                sources=lambda: self.members,
                certificates=self.certificates,
            ),
            sources=self.members,
            draining=lambda: self.draining,
            config=lambda: self.config.model_dump(mode="json"),
            reload=None if self._load is None else self.reload,
        )

    def listening(self, address: Address) -> Listening:
        """The sockets for a listener of this address, not bound yet."""
        return Listening(address.host, address.port, address.path)

    def _tls(self) -> Iterator[tuple[str, ServerTls]]:
        """That of the listeners that have some, by their names."""
        for listener in self.listeners:
            tls = listener.options.tls
            if isinstance(tls, ServerTls):
                yield listener.name, tls

    def certificates(self) -> Iterator[tuple[str, str, float]]:
        """Those that clients are shown: the listener, a name, and when it expires in Unix time."""
        for listener, tls in self._tls():
            for name, at in expiries(tls).items():
                yield listener, name, at

    # --- running ---

    async def start(self) -> None:
        """Binds and begins. Raises CannotStart, and then holds no port."""
        async with self.changing:
            new = await prepare(self, self.config)
            self._apply(new)
            self._warn()
            if self.inherited.taken:  # then nobody is refused meanwhile
                await self._know_backends()
            try:
                await self._accept(new.admin, new.registrar.server)
            except OSError as error:
                await self.close()
                raise CannotStart(f"can't accept connections: {in_words(error)}") from error
        self.plane.sweeper.start()
        self._renewal.start()
        self._flush_log()
        self._fold()

    def _warn(self) -> None:
        for warning in warnings(self.config):
            if self.probes:  # else the supervisor has said it
                log.warning("%s", warning)

    async def _know_backends(self) -> None:
        """Waits until each backend has been probed once, but not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KNOWN_BY):
                await asyncio.gather(*(prober.until_known() for prober in self.probers.values()))

    def sockets(self) -> list[tuple[str, socket.socket]]:
        """All that it listens on, with what a successor knows them by."""
        places = [listener.listening for listener in self.listeners]
        others = (self.admin_listening, self.registrar.listening)
        places += [place for place in others if place is not None]
        return [(place.called, sock) for place in places for sock in place.sockets]

    async def _accept(self, *servers: AdminServer | None) -> None:
        """Begins at the listeners that don't yet, and at the servers that are new."""
        await self.door.admit(self.listeners)
        await self._serve(*servers)

    async def _serve(self, *servers: AdminServer | None) -> None:
        for server in servers:
            if server is not None:
                await server.start()

    async def reload(self) -> ReloadResult:
        """Goes by the configuration as it is now; or on by the old one, where anything is wrong with it."""
        async with self.changing:
            try:
                result = await self._reload()
            except ConfigError as error:
                result = ReloadResult([str(problem) for problem in error.problems])
            except CannotStart as error:
                result = ReloadResult([str(error)])
            except Exception:
                log.exception("reloading failed")
                result = ReloadResult(["reloading failed; the log says more"])
        if result.problems:
            self.reloads.failed()
            for problem in result.problems:
                log.error("not reloaded: %s", problem)
        else:
            self.reloads.succeeded(time.time())
            log.info("reloaded: %s", ", ".join(result.changed) or "nothing has changed")
            for what in result.kept:
                log.warning("not changed by the reload: %s", what)
        return result

    async def _reload(self) -> ReloadResult:
        if self._load is None:
            raise CannotStart("there is no file to reload")
        config = await asyncio.to_thread(self._load)
        kept = []
        if config.workers != self.config.workers:
            kept.append(f"workers is still {self.config.workers}: it takes a restart")
            config = config.model_copy(update={"workers": self.config.workers})
        if self.registrar.registry is not None and config.registry is not None:
            before = self.config.registry
            if before is not None and before.store != config.registry.store:
                kept.append("registry.store is the one from before: it takes a restart")
                registry = config.registry.model_copy(update={"store": before.store})
                config = config.model_copy(update={"registry": registry})
        changed = list(changed_keys(self.config, config))
        new = await prepare(self, config)
        servers = (
            None if new.admin is self.admin else new.admin,
            None if new.registrar.server is self.registrar.server else new.registrar.server,
        )
        self._apply(new)
        self._warn()
        await self._accept(*servers)
        return ReloadResult(changed=changed, kept=kept)

    def reopen_log(self) -> None:
        """Writes the access log to the file that has its path now, where the other one was moved away."""
        if self.access_log is None or self.log_file is None:
            return
        self.access_log.flush()
        try:
            self.log_file.reopen()
        except OSError as error:
            log.error("the access log can't be reopened, and goes on in the old file: %s", error)

    async def drain(self) -> None:
        """Not ready any more, then no new connections, then the exchanges in flight, up to a cap."""
        self.draining = True
        await asyncio.sleep(self.config.drain.delay)
        await self._finish()

    async def leave_to_successor(self) -> None:
        """The same, where another process accepts on the very same sockets: there is nobody to be told."""
        self.draining = True
        for listener in self.listeners:
            listener.close(keep_file=True)
        if self.admin is not None:
            await self.admin.close()
        await self.registrar.close()
        await self._finish()

    async def _finish(self) -> None:
        for listener in self.listeners:
            listener.close()
        self.door.shut()
        self.plane.on_gone = self._on_gone
        self.plane.drain()
        if self.plane.connections:
            try:
                await asyncio.wait_for(self._idle.wait(), self.config.drain.timeout)
            except TimeoutError:
                log.warning(
                    "drain timeout after %gs: %d requests are cut",
                    self.config.drain.timeout,
                    self.plane.exchanges,
                )

    def _on_gone(self) -> None:
        if not self.plane.connections:
            self._idle.set()

    async def close(self) -> None:
        """Ends everything that is left."""
        self._renewal.stop()
        self.door.shut()
        for listener in self.listeners:
            listener.close()
        for members in self.members.values():
            members.close()
            await asyncio.gather(*(watch.close() for watch in members.watches))
        for prober in self.probers.values():
            await prober.close()
        if self.admin is not None:
            await self.admin.close()
        if self.admin_listening is not None:
            self.admin_listening.close()
        await self.registrar.close()
        await self.plane.close()
        for timer in self._timers.values():
            timer.cancel()
        if self.access_log is not None:
            self.access_log.flush()
        if self.log_file is not None:
            self.log_file.close()
        if self._ending:
            await asyncio.wait(self._ending, timeout=2)

    # --- what is done now and then ---

    def _fold(self) -> None:
        for pool in self.pools.values():
            for backend in pool.backends.values():
                backend.fold()
        for stats in self.clients.listeners.values():
            stats.duration.fold()
        self._leave_descriptors()
        for each in list(self._leaving):
            if self._has_left(each):
                self._leaving.remove(each)
        self._timers["fold"] = self._loop.call_later(FOLD, self._fold)

    def _leave_descriptors(self) -> None:
        """Closes unused connections to backends, where all together they take what is meant for clients."""
        upstreams = [
            backend.upstream
            for pool in self.pools.values()
            for backend in pool.backends.values()
            if backend.upstream is not None
        ]
        too_many = sum(each.connections for each in upstreams) - (
            self._files - own_files(self.config) - self.door.room
        )
        while too_many > 0:
            idle = [each.idle[0] for each in upstreams if each.idle]
            if not idle:
                break
            min(idle, key=attrgetter("deadline")).retire()
            too_many -= 1

    def _has_left(self, part: Listener | Pool) -> bool:
        """Whether a listener or a pool that has been replaced is done. Connections are told again each time:
        an idle one may have brought another request."""
        if isinstance(part, Pool):
            if part.in_flight or part.waiting:
                return False
            part.close()
            return True
        mine = [each for each in self.plane.connections if each.came_in_at(part)]
        for connection in mine:
            connection.drain()
        if mine:
            return False
        if part.name not in [listener.name for listener in self.listeners]:
            self.clients.listeners.pop(part.name, None)
        return True

    def _flush_log(self) -> None:
        if self.access_log is not None:
            self.access_log.flush()
        self._timers["log"] = self._loop.call_later(LOG_FLUSH, self._flush_log)

    # --- another configuration ---

    def _apply(self, new: Prepared) -> None:
        """Goes by what has been prepared. Nothing here can fail, and nobody else has a turn meanwhile."""
        old, self.config = self.config, new.config
        self._apply_pools(old, new)
        self._apply_log(new.log_file)
        self._apply_records(new.config.request_records)
        names, names_before = identification(new.config), self.plane.identification
        self.plane.adopt(
            self.plane.routes if new.routes is None else new.routes,
            # Those of a pool that has gone are still asked for by the last of its requests.
            {
                **self.plane.options,
                **{
                    name: upstream_options(each, new.reaches[name]) for name, each in new.config.pools.items()
                },
            },
            names,
            self._observers(),
        )
        renamed = (names.header, names.expose_backend) != (names_before.header, names_before.expose_backend)
        for name, pool in self.pools.items():
            for backend in pool.backends.values():
                upstream, options = backend.upstream, self.plane.options[name]
                # It knows by which names responses are judged, and was made in the old way.
                if upstream is not None and (renamed or upstream.options.reach != options.reach):
                    upstream.close()
                    backend.upstream = None
                elif upstream is not None:
                    upstream.options = options
        self.plane.pages = error_pages(new.config.errors)
        self._apply_listeners(new)
        self._apply_admin(new)

    def _apply_pools(self, old: Config, new: Prepared) -> None:
        for name, pool in new.pools.items():
            if name in self.pools:
                self._change_pool(pool, old, new)
        for watch in adopt_sources(self, new):
            self._end(watch.close())
        for name, pool in new.pools.items():
            for backend_id in new.well.get(name, ()):
                backend = pool.backends.get(backend_id)  # a source may have dropped it in the meantime
                if backend is not None and not backend.judged:
                    log.info("pool %s: backend %s is up before it joins", name, backend_id)
                    pool.set_health(backend, True)
            before, prober = self.probers.get(name), new.probers.get(name)
            if before is not None and before is not prober:
                self._end(before.close())
            if prober is not None:
                prober.start()
        for name, pool in self.pools.items():
            if name not in new.pools:
                if name in self.probers:
                    self._end(self.probers[name].close())
                for backend in pool.backends.values():
                    pool.on_removed(backend)
                self._leaving.append(pool)
        self.pools, self.probers, self.reaches = new.pools, new.probers, new.reaches

    def _change_pool(self, pool: Pool, old: Config, new: Prepared) -> None:
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
        if (before.backends != after.backends or name in self.members) and not after.discovery:
            pool.update(specs_of(after.backends))
        if after.health_check is None:  # nobody would ever find them well again
            for backend in pool.backends.values():
                pool.set_health(backend, True)

    def _apply_log(self, log_file: LogFile | None) -> None:
        before = self.log_file
        if log_file is before:
            return
        if before is not None and self.access_log is not None:
            self.access_log.flush()
            self._end(asyncio.to_thread(before.close))
        self.log_file = log_file
        self.access_log = None if log_file is None else AccessLog(log_file.write, self._epoch)

    def _apply_records(self, size: int) -> None:
        if not size:
            self.records = None
        elif self.records is None:
            self.records = RequestRecords(size)
        elif self.records.size != size:
            self.records = self.records.resized(size)

    def _records_to_show(self) -> Records | None:
        return None if self.records is None else OwnRecords(self.records, self._epoch)

    def _observers(self) -> list[Observer]:
        observers: list[Observer] = [self.clients]
        if self.records is not None:
            observers.append(self.records)
        if self.access_log is not None:
            observers.append(self.access_log)
        return observers

    def _apply_listeners(self, new: Prepared) -> None:
        self.door.set_room(client_room(new.config, self._files))
        for listener, options in zip(new.listeners, new.options, strict=True):
            listener.options = options
        before, self.listeners = self.listeners, new.listeners
        successors = {id(listener.listening): listener for listener in new.listeners}
        for listener in before:
            if listener not in new.listeners:
                successor = successors.get(id(listener.listening))
                if successor is None:
                    listener.close()
                else:
                    listener.hand_on(successor)
                self._leaving.append(listener)
                self._has_left(listener)

    def _apply_admin(self, new: Prepared) -> None:
        state = self.admin_state
        state.pools, state.probers, state.records, state.token = (
            self.pools,
            self.probers,
            self._records_to_show(),
            new.token,
        )
        state.hosts = frozenset(new.config.admin.hosts if new.config.admin is not None else ())
        if new.admin is not self.admin:
            if self.admin is not None:
                self._end(self.admin.close())
            if self.admin_listening is not None:
                self.admin_listening.close()
        self.admin, self.admin_listening = new.admin, new.admin_listening
        self._apply_registrar(new.registrar)

    def _apply_registrar(self, new: Registrar) -> None:
        before, self.registrar = self.registrar, new
        if new.server is not before.server:
            self._end(before.close_server())
        if new.registry is not before.registry and before.registry is not None:
            self._end(before.registry.close())
        self.admin_state.registry, self.admin_state.registry_token = new.registry, new.token

    def _end(self, closing: Coroutine[Any, Any, None]) -> None:
        """Closes what has been replaced, while nobody waits for it."""
        task = asyncio.ensure_future(closing)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def connections(backend: Backend) -> dict[str, int]:
    """How many connections of this process to a backend are open, by state."""
    upstream = backend.upstream
    if upstream is None:
        return {"active": 0, "idle": 0}
    idle = len(upstream.idle)
    return {"active": upstream.connections - idle, "idle": idle}
