"""Builds everything from a configuration, runs it, and ends it. The only module that knows all floors."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from random import Random

from lb import __version__
from lb.balance import policy_class
from lb.config import Config, Retries
from lb.config import Pool as PoolConfig
from lb.config import Route as RouteConfig
from lb.control.admin import AdminServer
from lb.control.prober import HealthCheck, Prober
from lb.control.state import AdminState
from lb.core.backend import Backend, BackendSpec
from lb.core.message import Limits
from lb.core.pool import Pool
from lb.core.rate import RateLimit
from lb.core.record import Observer
from lb.core.route import Match, Quota, Route, Routes, Target
from lb.core.rules import OutlierRules, PoolRules, RetryRules, Timeouts
from lb.logfile import LogFile
from lb.observe.access_log import AccessLog
from lb.observe.metrics import ClientMetrics, LbCollector, ReloadState
from lb.observe.records import RequestRecords
from lb.proxy.listener import Listener, ListenerOptions
from lb.proxy.plane import Identification, Plane
from lb.proxy.upstream import UpstreamOptions

log = logging.getLogger("lb")

LOG_FLUSH = 0.2  # seconds between two writes of the access log
FOLD = 1.0  # seconds between two countings of the durations gathered


class CannotStart(Exception):
    """The configuration is good, but the machine won't have it: a port is taken, a file can't be written."""


class LoopClock:
    """The event loop's timers, with time in microseconds: uvloop's own `time()` counts milliseconds."""

    time = staticmethod(time.monotonic)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.call_later = loop.call_later


class App:
    """A running balancer."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.draining = False
        self._loop = loop
        self._clock = LoopClock(loop)
        self._epoch = time.time() - time.monotonic()
        self._idle = asyncio.Event()
        self._flushing: asyncio.TimerHandle | None = None
        self._folding: asyncio.TimerHandle | None = None
        self.pools = {name: self._build_pool(name, pool) for name, pool in config.pools.items()}
        self.probers = {
            name: Prober(self.pools[name], _health_check(pool))
            for name, pool in config.pools.items()
            if pool.health_check is not None
        }
        self.clients = ClientMetrics()
        self.records = RequestRecords(config.request_records) if config.request_records else None
        self._log_file: LogFile | None = None
        self.access_log: AccessLog | None = None
        if config.access_log is not None:
            self._log_file = LogFile(config.access_log.path)
            self.access_log = AccessLog(self._log_file.write, self._epoch)
        self.plane = Plane(
            loop,
            Routes([self._build_route(f"routes[{i}]", route) for i, route in enumerate(config.routes)]),
            {name: _upstream_options(pool) for name, pool in config.pools.items()},
            Identification(
                config.request_id.header,
                config.expose_backend,
                config.trusted_proxies,
                records=self.records is not None,
            ),
            self._observers(),
        )
        self.plane.on_idle = self._idle.set
        self.listeners = [
            Listener(
                self.plane, each.bind.host, each.bind.port, _listener_options(each), self.clients.listener
            )
            for each in config.listeners
        ]
        self.admin = self._build_admin()

    # --- building ---

    def _build_pool(self, name: str, config: PoolConfig) -> Pool:
        spec = config.balancer
        try:
            policy = policy_class(spec.policy)(self._clock, Random(), **spec.options)
        except Exception as error:
            raise CannotStart(f"pool {name}: policy {spec.policy} can't be made: {error}") from error
        rules = _pool_rules(config)
        if rules.retries is None and any(_retries(route, config) for route in self.config.routes):
            rules = replace(rules, retries=RetryRules())  # a budget for the routes that have retries
        pool = Pool(name, policy, self._clock, starts_healthy=config.health_check is None, rules=rules)
        pool.update(
            BackendSpec(each.id, each.address.host, each.address.port, each.weight, each.tier)
            for each in config.backends
        )
        pool.on_removed = _close_connections
        return pool

    def _build_route(self, name: str, config: RouteConfig) -> Route:
        match = config.match
        return Route(
            Match(match.hosts, match.path_prefix, match.methods, match.headers),
            [
                Target(
                    self.pools[pool],
                    share,
                    _timeouts(config, self.config.pools[pool]),
                    _retries(config, self.config.pools[pool]),
                )
                for pool, share in config.targets.items()
            ],
            config.strip_prefix,
            name=name,
            quota=_quota(config),
        )

    def _observers(self) -> list[Observer]:
        observers: list[Observer] = [self.clients]
        if self.records is not None:
            observers.append(self.records)
        if self.access_log is not None:
            observers.append(self.access_log)
        return observers

    def _build_admin(self) -> AdminServer | None:
        config = self.config.admin
        if config is None:
            return None
        try:
            token = config.token.read() if config.token is not None else None
        except ValueError as error:
            raise CannotStart(str(error)) from error
        state = AdminState(
            version=__version__,
            epoch=self._epoch,
            pools=self.pools,
            metrics=LbCollector(
                lambda: self.pools, self.clients, ReloadState(time.time()), __version__, _connections
            ),
            records=self.records,
            probers=self.probers,
            draining=lambda: self.draining,
            config=lambda: self.config.model_dump(mode="json"),
            token=token,
        )
        return AdminServer(state, config.bind.host, config.bind.port)

    # --- running ---

    async def start(self) -> None:
        """Binds and begins. Raises CannotStart, and then holds no port."""
        _allow_many_files()
        if self._log_file is not None:
            try:
                self._log_file.open()
            except OSError as error:
                raise CannotStart(f"can't write the access log: {error}") from error
        try:
            for listener in self.listeners:
                await _bound(listener.start(), f"listener {listener.host}:{listener.port}")
            if self.admin is not None:
                await _bound(self.admin.start(), f"admin {self.admin.host}:{self.admin.port}")
        except CannotStart:
            await self.close()
            raise
        for prober in self.probers.values():
            prober.start()
        self.plane.sweeper.start()
        if self.access_log is not None:
            self._flush_log()
        self._fold()

    def _fold(self) -> None:
        for pool in self.pools.values():
            for backend in pool.backends.values():
                backend.fold()
        for stats in self.clients.listeners.values():
            stats.duration.fold()
        self._folding = self._loop.call_later(FOLD, self._fold)

    def _flush_log(self) -> None:
        assert self.access_log is not None
        self.access_log.flush()
        self._flushing = self._loop.call_later(LOG_FLUSH, self._flush_log)

    async def drain(self) -> None:
        """Not ready any more, then no new connections, then the exchanges in flight, up to a cap."""
        self.draining = True
        await asyncio.sleep(self.config.drain.delay)
        for listener in self.listeners:
            listener.close()
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

    async def close(self) -> None:
        """Ends everything that is left."""
        for listener in self.listeners:
            listener.close()
        for prober in self.probers.values():
            await prober.close()
        if self.admin is not None:
            await self.admin.close()
        await self.plane.close()
        for timer in (self._flushing, self._folding):
            if timer is not None:
                timer.cancel()
        if self.access_log is not None and self._log_file is not None:
            self.access_log.flush()
            self._log_file.close()


async def serve(config: Config, say: Callable[[str], None]) -> None:
    """Runs until SIGTERM or SIGINT, then drains; a second signal ends it at once. Raises CannotStart."""
    loop = asyncio.get_running_loop()
    app = App(config, loop)
    stop, now = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, log.warning, "SIGHUP: reloading is not there yet; restart instead")
    await app.start()
    for listener in app.listeners:
        say(f"listening on http://{listener.name}")
    if app.admin is not None:
        say(f"admin on http://{_joined(app.admin.host, app.admin.port)}")
    _calm_the_collector()
    _keep_freed_memory()
    await stop.wait()
    say(f"draining (at most {config.drain.delay + config.drain.timeout:g}s; once more to stop at once)")
    drained = asyncio.ensure_future(app.drain())
    at_once = asyncio.ensure_future(now.wait())
    await asyncio.wait((drained, at_once), return_when=asyncio.FIRST_COMPLETED)
    for task in (drained, at_once):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await app.close()
    say("stopped")


def _calm_the_collector() -> None:
    """What was built at the start is never garbage, and requests leave no cycles behind: collect seldom.

    With Python's thresholds the collector takes a third of the time of a request, looking for nothing in
    the request records.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def _keep_freed_memory() -> None:
    """Tells malloc to keep a few MiB of what is freed: large bodies cost twice as much without it.

    uvloop hands over pieces of up to 256 KiB. glibc gives memory of that size back to the kernel as soon as
    it is freed, and takes page faults to get it anew for the next piece.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_TRIM_THRESHOLD, 8 << 20)


def _allow_many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _bound(start: object, what: str) -> None:
    try:
        await start  # type: ignore[misc]
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise CannotStart(f"{what}: {reason}") from error


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _close_connections(backend: Backend) -> None:
    if backend.upstream is not None:
        backend.upstream.close()


def _connections(backend: Backend) -> dict[str, int]:
    upstream = backend.upstream
    if upstream is None:
        return {"active": 0, "idle": 0}
    idle = len(upstream.idle)
    return {"active": upstream.connections - idle, "idle": idle}


def _health_check(pool: PoolConfig) -> HealthCheck:
    check = pool.health_check
    assert check is not None
    return HealthCheck(
        check.type,
        check.path,
        check.interval,
        check.timeout,
        check.rise,
        check.fall,
        check.expect,
        check.host or "",
    )


def _upstream_options(pool: PoolConfig) -> UpstreamOptions:
    keepalive, limits = pool.keepalive, pool.limits
    if keepalive is None:
        return UpstreamOptions(0.0, 0, limits.connections or 0)
    kept = min(keepalive.connections, limits.connections_per_backend or keepalive.connections)
    return UpstreamOptions(keepalive.idle, kept, limits.connections or 0)


def _pool_rules(pool: PoolConfig) -> PoolRules:
    """HTTP/1.1 has one request at a time on a connection, so a limit of one is a limit of the other."""
    limits, outliers = pool.limits, pool.outlier_detection
    return PoolRules(
        pool.slow_start or 0.0,
        pool.panic_threshold or 0.0,
        _least(limits.requests, limits.connections),
        _least(limits.requests_per_backend, limits.connections_per_backend),
        limits.connections or 0,
        limits.connections_per_backend or 0,
        limits.queue,
        limits.queue_timeout,
        None
        if outliers is None
        else OutlierRules(
            outliers.consecutive_failures or 0,
            outliers.failure_rate,
            outliers.min_requests,
            outliers.interval,
            outliers.ejection,
            outliers.max_ejection,
            outliers.max_ejected,
            outliers.mode == "enforce",
            outliers.statuses.members,
        ),
        None if pool.retries is None else _retry_rules(pool.retries),
    )


def _least(*limits: int | None) -> int:
    """The lowest of the limits that there are; 0 where there are none."""
    return min((limit for limit in limits if limit), default=0)


def _retry_rules(retries: Retries) -> RetryRules:
    return RetryRules(
        retries.attempts, retries.budget, retries.min_per_second, retries.body, retries.statuses.members
    )


def _retries(route: RouteConfig, pool: PoolConfig) -> RetryRules | None:
    found = route.retries_with(pool)
    return None if found is None else _retry_rules(found)


def _timeouts(route: RouteConfig, pool: PoolConfig) -> Timeouts:
    found = route.timeouts_with(pool)
    total = inf if found.total is None else found.total
    return Timeouts(found.connect, found.response_header, found.idle, total, found.tunnel)


def _quota(route: RouteConfig) -> Quota | None:
    limit = route.rate_limit
    if limit is None:
        return None
    return Quota(RateLimit(limit.requests / limit.per, limit.burst), limit.key)


def _listener_options(listener: object) -> ListenerOptions:
    timeouts, limits = listener.timeouts, listener.limits  # type: ignore[attr-defined]
    return ListenerOptions(
        timeouts.request_header,
        timeouts.request_body,
        timeouts.keepalive,
        timeouts.write,
        limits=Limits(limits.request_line, limits.header_bytes, limits.header_count, limits.body),
    )
