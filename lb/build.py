"""What a configuration stands for: policies, pools, routes, options. Nothing here binds, opens or begins."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf
from random import Random
from typing import TYPE_CHECKING

from lb.balance import Balancer, policy_class
from lb.build_access import route_rules
from lb.config import Backend as BackendConfig
from lb.config import Config, OutlierDetection, Retries
from lb.config import Listener as ListenerConfig
from lb.config import Pool as PoolConfig
from lb.config import Route as RouteConfig
from lb.config.pools import BalancerSpec
from lb.config.sticky import Sticky as StickyConfig
from lb.control.room import room
from lb.core.backend import Backend, BackendSpec
from lb.core.clock import Clock
from lb.core.identity import Proxies
from lb.core.message import Limits
from lb.core.pool import Pool
from lb.core.rate import RateLimit
from lb.core.route import Match, Quota, Route, Routes, Target
from lb.core.rules import OutlierRules, PoolRules, RetryRules, StickyRules, Timeouts, ZoneRules
from lb.proxy.backend_tls import BackendTls, TlsOptions
from lb.proxy.entrance import Senders, Tls
from lb.proxy.listener import ListenerOptions
from lb.proxy.plane import Identification
from lb.proxy.reach import Reach
from lb.proxy.upstream import UpstreamOptions

if TYPE_CHECKING:
    from lb.config.scenario import SimulatedPool
    from lb.control.prober import HealthCheck

log = logging.getLogger("lb")


class CannotStart(Exception):
    """The configuration is good, but the machine won't have it: a port is taken, a file can't be written."""


def build_policy(name: str, config: PoolConfig, clock: Clock) -> Balancer:
    """The policy of a pool. Raises CannotStart where it can't be made."""
    return _made(name, config.balancer, clock)


def build_shadow(name: str, config: PoolConfig, clock: Clock) -> Balancer | None:
    """The policy that is only tried, where there is one. Raises CannotStart where it can't be made."""
    return None if config.shadow is None else _made(name, config.shadow, clock)


def _made(name: str, spec: BalancerSpec, clock: Clock) -> Balancer:
    try:
        return policy_class(spec.policy)(clock, Random(), **spec.options)
    except Exception as error:
        raise CannotStart(f"pool {name}: policy {spec.policy} can't be made: {error}") from error


def build_pool(name: str, config: Config, clock: Clock) -> Pool:
    """A pool with its backends. Raises CannotStart where its policy can't be made."""
    ours = config.pools[name]
    pool = Pool(
        name,
        build_policy(name, ours, clock),
        clock,
        starts_healthy=ours.health_check is None,
        rules=pool_rules(name, config),
    )
    pool.replace_shadow(build_shadow(name, ours, clock))
    if not ours.discovery:  # else all come at once, when its sources have been asked
        pool.update(specs_of(ours.backends))
    pool.on_removed = _close_connections
    return pool


def specs_of(backends: Iterable[BackendConfig]) -> list[BackendSpec]:
    """Backends as the configuration has them."""
    return [spec_of(each) for each in backends]


def spec_of(backend: BackendConfig) -> BackendSpec:
    """One of them."""
    where = backend.address
    return BackendSpec(
        backend.id, where.host, where.port, backend.weight, backend.tier, where.path, backend.zone or ""
    )


def _close_connections(backend: Backend) -> None:
    if backend.upstream is not None:
        backend.upstream.close()


def pool_rules(name: str, config: Config) -> PoolRules:
    """The rules of a pool."""
    pool = config.pools[name]
    retries = None if pool.retries is None else retry_rules(pool.retries)
    if retries is None and any(_retries(route, pool) for route in config.routes if name in route.targets):
        retries = RetryRules()  # a budget for the routes that have some
    zone = config.own_zone
    return replace(
        rules_of(pool, retries),
        zones=ZoneRules(zone, pool.zones.traffic or 0.0, pool.zones.min_backends)
        if zone and pool.zones
        else None,
        sticky=None if pool.sticky is None else _sticky_rules(name, pool.sticky),
    )


def _sticky_rules(name: str, config: StickyConfig) -> StickyRules:
    """Raises CannotStart where the secret can't be read."""
    try:
        return StickyRules(config.cookie, config.attributes, config.read_secret())
    except ValueError as error:
        raise CannotStart(f"pool {name}: {error}") from error


def rules_of(pool: PoolConfig | SimulatedPool, retries: RetryRules | None) -> PoolRules:
    """The rules that a pool has in the file. HTTP/1.1 has one request at a time on a connection, so that a
    limit of one is a limit of the other."""
    limits = pool.limits
    return PoolRules(
        pool.slow_start or 0.0,
        pool.panic_threshold or 0.0,
        _least(limits.requests, limits.connections),
        _least(limits.requests_per_backend, limits.connections_per_backend),
        limits.connections or 0,
        limits.connections_per_backend or 0,
        limits.queue,
        limits.queue_timeout,
        None if pool.outlier_detection is None else _outlier_rules(pool.outlier_detection),
        retries,
    )


def _least(*limits: int | None) -> int:
    """The lowest of the limits that there are; 0 where there are none."""
    return min((limit for limit in limits if limit), default=0)


def _outlier_rules(config: OutlierDetection) -> OutlierRules:
    return OutlierRules(
        config.consecutive_failures or 0,
        config.failure_rate,
        config.min_requests,
        config.interval,
        config.ejection,
        config.max_ejection,
        config.max_ejected,
        config.mode == "enforce",
        config.statuses.members,
    )


def retry_rules(config: Retries) -> RetryRules:
    return RetryRules(
        config.attempts, config.budget, config.min_per_second, config.body, config.statuses.members
    )


def _retries(route: RouteConfig, pool: PoolConfig) -> RetryRules | None:
    found = route.retries_with(pool)
    return None if found is None else retry_rules(found)


def build_routes(config: Config, pools: Mapping[str, Pool]) -> Routes:
    return Routes(
        [
            _build_route(f"routes[{number}]", route, config, pools)
            for number, route in enumerate(config.routes)
        ]
    )


def _build_route(name: str, route: RouteConfig, config: Config, pools: Mapping[str, Pool]) -> Route:
    match = route.match
    targets = [
        Target(
            pools[pool],
            share,
            _timeouts(route, config.pools[pool]),
            _retries(route, config.pools[pool]),
        )
        for pool, share in route.targets.items()
    ]
    return Route(
        Match(match.hosts, match.path_prefix, match.methods, match.headers, match.scheme or ""),
        targets,
        route.strip_prefix,
        name=name,
        quota=_quota(route),
        rules=route_rules(route, config),
    )


def _timeouts(route: RouteConfig, pool: PoolConfig) -> Timeouts:
    found = route.timeouts_with(pool)
    total = inf if found.total is None else found.total
    return Timeouts(found.connect, found.response_header, found.idle, total, found.tunnel)


def _quota(route: RouteConfig) -> Quota | None:
    limit = route.rate_limit
    if limit is None:
        return None
    return Quota(RateLimit(limit.requests / limit.per, limit.burst), limit.key)


SPARE_FILES = 48
"""Descriptors for all that isn't a client or its backend: the log, names that are looked up, files that are
open for a moment, and what Python and the event loop have for themselves."""

SOURCE_FILES = 16
"""Descriptors for a source of backends, and for probes of those that it names."""


def own_files(config: Config) -> int:
    """How many descriptors are not for clients and the connections that these need."""
    listening = 2 * (len(config.listeners) + 1)
    probes = sum(len(pool.backends) for pool in config.pools.values() if pool.health_check is not None)
    sources = sum(len(pool.discovery) for pool in config.pools.values())
    admin = 0 if config.admin is None and config.registry is None else room(config.registry is not None)
    return SPARE_FILES + listening + probes + SOURCE_FILES * sources + admin


def client_room(config: Config, files: int) -> int:
    """How many clients there may be at a time, where the process may have so many descriptors.

    Each of them takes one, and another one toward a backend.
    """
    most = max(1, (files - own_files(config)) // 2)
    wanted = config.max_connections
    if wanted is not None and wanted > most:
        log.warning(
            "max_connections: %d descriptors are enough for %d clients, not for %d", files, most, wanted
        )
    return most if wanted is None else min(wanted, most)


def identification(config: Config) -> Identification:
    return Identification(
        config.request_id.header,
        config.expose_backend,
        Proxies(
            [each for each in config.trusted_proxies if not isinstance(each, str)],
            "unix" in config.trusted_proxies,
        ),
        records=bool(config.request_records),
        reads=config.forwarded.read,
        writes=config.forwarded.write,
    )


def build_tls(name: str, pool: PoolConfig) -> BackendTls | None:
    """A pool's TLS toward its backends, if it has any. Raises CannotStart where a file is no good."""
    tls = pool.tls
    if tls is None:
        return None
    options = TlsOptions(
        tls.server_name or "",
        tls.ca or "",
        tls.cert or "",
        tls.key or "",
        tls.min_version,
        not tls.insecure_skip_verify,
    )
    try:
        return BackendTls(options, name)
    except ValueError as error:
        raise CannotStart(f"pool {name}: tls: {error}") from error


def missing_files(config: Config) -> list[str]:
    """Files that can't be used, of which a start would fail on this machine. Elsewhere they may be good."""
    found = []
    for name, pool in config.pools.items():
        try:
            build_tls(name, pool)
        except CannotStart as error:
            found.append(f"it couldn't start here: {error}")
    return found


def reach_of(pool: PoolConfig, tls: BackendTls | None) -> Reach:
    return Reach(tls, int(pool.proxy_protocol.removeprefix("v")) if pool.proxy_protocol else 0)


def warnings(config: Config) -> list[str]:
    """What is allowed, and yet should be known to who runs it."""
    return [
        f"pools.{name}.tls: insecure_skip_verify is on: any certificate is taken, so that whoever is on the "
        "way to the backends can read and change everything"
        for name, pool in config.pools.items()
        if pool.tls is not None and pool.tls.insecure_skip_verify
    ]


def health_check(pool: PoolConfig, reach: Reach) -> HealthCheck | None:
    check = pool.health_check
    if check is None:
        return None
    from lb.control.prober import HealthCheck  # 0.4 s of import, which workers do without

    return HealthCheck(
        check.type,
        check.path,
        check.interval,
        check.timeout,
        check.rise,
        check.fall,
        check.expect,
        check.host or "",
        None if reach.is_plain and not _may_have_sockets(pool) else reach,
    )


def _may_have_sockets(pool: PoolConfig) -> bool:
    return bool(pool.discovery) or any(each.address.path for each in pool.backends)


def upstream_options(pool: PoolConfig, reach: Reach) -> UpstreamOptions:
    keepalive, limits = pool.keepalive, pool.limits
    if keepalive is None:
        return UpstreamOptions(0.0, 0, limits.connections or 0, reach)
    kept = min(keepalive.connections, limits.connections_per_backend or keepalive.connections)
    return UpstreamOptions(keepalive.idle, kept, limits.connections or 0, reach)


def listener_options(listener: ListenerConfig, tls: Tls | None = None) -> ListenerOptions:
    """What a listener asks of its clients. Its TLS is made elsewhere, since that may fail."""
    timeouts, limits = listener.timeouts, listener.limits
    return ListenerOptions(
        timeouts.request_header,
        timeouts.request_body,
        timeouts.keepalive,
        timeouts.write,
        timeouts.handshake,
        limits.handshakes,
        Limits(limits.request_line, limits.header_bytes, limits.header_count, limits.body),
        tls,
        None if listener.proxy_protocol is None else Senders(listener.proxy_protocol.senders),
        requests=limits.requests_per_connection or 0,
        per_client=limits.connections_per_client or 0,
        body_rate=float(limits.body_rate or 0),
    )
