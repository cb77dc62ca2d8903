"""Metrics: counters as plain ints where requests pass, and Prometheus' families when someone scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from lb.core.backend import Backend, Histogram
from lb.core.pool import NO_FAILURE, Pool
from lb.core.source import PoolSources
from lb.observe.clients import ClientMetrics
from lb.observe.exposition import Family, Sample, labels

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

STATES = ("eligible", "unhealthy", "ejected", "standby", "draining", "disabled", "weight_0")

T = TypeVar("T")
Counts = Mapping[str, int] | Mapping[int, int]
Rows = list[tuple[str, Backend]]  # a backend, and its labels `pool` and `backend`


@dataclass
class ReloadState:
    """How reloads of the configuration went. `last_success` is a Unix time; the start counts as one."""

    last_success: float
    results: dict[str, int] = field(default_factory=lambda: {"success": 0, "failure": 0})

    def succeeded(self, now: float) -> None:
        self.results["success"] += 1
        self.last_success = now

    def failed(self) -> None:
        self.results["failure"] += 1


class LbCollector:
    """Makes the page of metrics out of what is counted all over the house.

    `pools` is asked at each scrape, so that a reload may replace them. `connections` says how many
    connections to a backend there are by state (`active`, `idle`), and `queued` how many requests wait for a
    pool: its own queue, or those of all worker processes. `sources` are those of the pools that have any.
    `certificates` are those that listeners show: the listener, a name, and when it expires.
    """

    def __init__(
        self,
        pools: Callable[[], Mapping[str, Pool]],
        clients: ClientMetrics,
        reloads: ReloadState,
        version: str,
        connections: Callable[[Backend], Mapping[str, int]],
        queued: Callable[[Pool], int] = lambda pool: len(pool.waiting),
        sources: Callable[[], Mapping[str, PoolSources]] = dict,
        certificates: Callable[[], Iterable[tuple[str, str, float]]] = tuple,
    ) -> None:
        self._pools = pools
        self._clients = clients
        self._reloads = reloads
        self._version = version
        self._connections = connections
        self._queued = queued
        self._sources = sources
        self._certificates = certificates

    def page(self, accept: str) -> tuple[str, Iterator[bytes]]:
        """The content type that fits an Accept header, and the page in pieces of about a millisecond's work.

        Our own families first, then what prometheus_client knows of this process.
        """
        from prometheus_client.exposition import choose_encoder  # 0.1 s of import, for the first scrape only

        encode, content_type = choose_encoder(accept)
        return content_type, self._pieces(encode, "openmetrics" in content_type)

    def _pieces(self, encode: Callable[[CollectorRegistry], bytes], openmetrics: bool) -> Iterator[bytes]:
        for family in self.families():
            yield from family.pieces(openmetrics)
        yield encode(self._process)  # ends with what ends an OpenMetrics page

    @cached_property
    def _process(self) -> CollectorRegistry:
        from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry)
        return registry

    def families(self) -> Iterator[Family]:
        """All families of the load balancer itself, as they are now."""
        pools = dict(self._pools())
        rows = [
            (f"{label},{labels(backend=backend.id)}", backend)
            for label, pool in [(labels(pool=name), pool) for name, pool in pools.items()]
            for backend in pool.backends.values()
        ]
        yield from self._own()
        yield from self._of_clients()
        yield from self._of_backends(rows)
        yield from _of_pools(pools, self._queued)
        yield from _of_sources(self._sources())

    def _own(self) -> Iterator[Family]:
        yield Family(
            "lb_build_info",
            "gauge",
            "Which version is running; always 1.",
            [(labels(version=self._version), 1)],
        )
        yield Family(
            "lb_config_reloads_total",
            "counter",
            "Reloads of the configuration.",
            [(labels(result=result), count) for result, count in self._reloads.results.items()],
        )
        yield Family(
            "lb_config_last_reload_success_timestamp_seconds",
            "gauge",
            "When the running configuration was loaded, in Unix time.",
            [("", self._reloads.last_success)],
        )

    def _of_clients(self) -> Iterator[Family]:
        listeners = [(labels(listener=name), stats) for name, stats in self._clients.listeners.items()]
        yield Family(
            "lb_client_connections",
            "gauge",
            "Open connections of clients.",
            [(label, stats.connections) for label, stats in listeners],
        )
        yield Family(
            "lb_client_requests_total",
            "counter",
            "Finished requests by the status that the client got.",
            _split(listeners, "code", lambda stats: stats.requests),
        )
        yield Family(
            "lb_client_request_duration_seconds",
            "histogram",
            "From a request's head to the last byte of its response.",
            [(label, stats.duration) for label, stats in listeners],
        )
        yield Family(
            "lb_tls_handshakes_total",
            "counter",
            "TLS handshakes with clients by how they ended.",
            _split(listeners, "result", lambda stats: stats.handshakes),
        )
        yield Family(
            "lb_tls_certificate_expiry_timestamp_seconds",
            "gauge",
            "When a listener's certificate expires, in Unix time.",
            [(labels(listener=listener, name=name), at) for listener, name, at in self._certificates()],
        )
        yield Family(
            "lb_proxy_protocol_headers_total",
            "counter",
            "Headers of the PROXY protocol from clients by what came of them.",
            _split(listeners, "result", lambda stats: stats.proxy_headers),
        )

    def _of_backends(self, rows: Rows) -> Iterator[Family]:
        for name, help, of in _BACKEND_GAUGES:
            yield Family(name, "gauge", help, _each(rows, of))
        help = "Open connections to a backend."
        yield Family("lb_backend_connections", "gauge", help, _split(rows, "state", self._connections))
        for name, help, key, by in _BACKEND_COUNTERS:
            yield Family(name, "counter", help, _split(rows, key, by))
        for name, help, of in _BACKEND_TOTALS:
            yield Family(name, "counter", help, _each(rows, of))
        for name, help, of in _BACKEND_HISTOGRAMS:
            yield Family(name, "histogram", help, _each(rows, of))


_BACKEND_GAUGES: tuple[tuple[str, str, Callable[[Backend], int | Histogram]], ...] = (
    ("lb_backend_up", "Whether the health checks find a backend well.", lambda backend: int(backend.healthy)),
    (
        "lb_backend_weight",
        "A backend's share beside the others of its pool.",
        attrgetter("configured_weight"),
    ),
    ("lb_backend_in_flight", "Requests that a backend is working on.", attrgetter("in_flight")),
)
_BACKEND_COUNTERS: tuple[tuple[str, str, str, Callable[[Backend], Counts]], ...] = (
    ("lb_backend_requests_total", "Answers of a backend by status.", "code", attrgetter("requests")),
    (
        "lb_backend_failures_total",
        "Attempts that failed by the backend's fault.",
        "failure",
        attrgetter("failures"),
    ),
    ("lb_backend_health_checks_total", "Health checks of a backend.", "result", attrgetter("checks")),
    (
        "lb_backend_bytes_total",
        "Bytes of bodies, sent to a backend and received from it.",
        "direction",
        lambda backend: {"sent": backend.sent, "received": backend.received},
    ),
)
_BACKEND_TOTALS: tuple[tuple[str, str, Callable[[Backend], int | Histogram]], ...] = (
    (
        "lb_backend_retries_total",
        "Attempts that failed at a backend and were made up for by another one.",
        attrgetter("retries"),
    ),
    (
        "lb_backend_ejections_total",
        "How often a backend was ejected for its failures.",
        attrgetter("ejections"),
    ),
)
_BACKEND_HISTOGRAMS: tuple[tuple[str, str, Callable[[Backend], int | Histogram]], ...] = (
    (
        "lb_backend_request_duration_seconds",
        "From the pick of a backend to the last byte of its answer.",
        attrgetter("duration"),
    ),
    (
        "lb_backend_first_byte_seconds",
        "From the pick of a backend to the head of its answer.",
        attrgetter("first_byte"),
    ),
    ("lb_backend_connect_seconds", "How long a new connection to a backend takes.", attrgetter("connect")),
)


def _of_pools(pools: Mapping[str, Pool], queued: Callable[[Pool], int]) -> Iterator[Family]:
    rows = [(labels(pool=name), pool) for name, pool in pools.items()]
    yield Family("lb_pool_backends", "gauge", "Backends by state.", _split(rows, "state", backend_states))
    yield Family(
        "lb_pool_queue_length",
        "gauge",
        "Requests that wait for a free backend.",
        _each(rows, queued),
    )
    yield Family(
        "lb_pool_panic",
        "gauge",
        "Whether so few backends can be used that all are.",
        _each(rows, lambda pool: int(pool.panic)),
    )
    yield Family(
        "lb_pool_rejected_total",
        "counter",
        "Requests for which a pool had no backend.",
        _split(rows, "failure", lambda pool: pool.rejected),
    )
    yield Family(
        "lb_tunnels",
        "gauge",
        "Connections that have switched to another protocol, such as WebSocket.",
        _each(rows, lambda pool: pool.tunnels),
    )
    yield Family(
        "lb_tunnels_ended_total",
        "counter",
        "Tunnels that have ended, by failure; none where both sides had ended.",
        _split(rows, "failure", lambda pool: {NO_FAILURE: 0, **pool.tunnel_ends}),
    )
    yield Family(
        "lb_tunnel_seconds_total",
        "counter",
        "How long the tunnels that have ended lasted, all together.",
        _each(rows, lambda pool: pool.tunnel_seconds),
    )
    yield Family(
        "lb_tunnel_bytes_total",
        "counter",
        "Bytes through tunnels, sent to backends and received from them, as they pass.",
        _split(rows, "direction", lambda pool: {"sent": pool.tunnel_sent, "received": pool.tunnel_received}),
    )
    yield Family(
        "lb_policy_errors_total",
        "counter",
        "Calls in which the pool's policy failed.",
        _each(rows, lambda pool: pool.policy_errors),
    )
    yield Family(
        "lb_pool_shadow_picks_total",
        "counter",
        "Picks of the shadow policy: the same backend as the live one, another one, or it failed.",
        _split(rows, "result", lambda pool: pool.shadow_picks),
    )


def _of_sources(sources: Mapping[str, PoolSources]) -> Iterator[Family]:
    rows = [
        (labels(pool=name, source=state.name), state)
        for name, found in sources.items()
        for state in found.states
    ]
    if not rows:
        return
    yield Family(
        "lb_discovery_updates_total",
        "counter",
        "Answers of a source of backends: taken, empty ones that were not believed, and failures.",
        _split(rows, "result", lambda state: state.updates),
    )
    yield Family(
        "lb_discovery_last_success_timestamp_seconds",
        "gauge",
        "When a source last gave an answer that was taken, in Unix time; 0 if never.",
        _each(rows, lambda state: state.last_success),
    )
    yield Family(
        "lb_discovery_backends",
        "gauge",
        "Backends that a source has named last.",
        _each(rows, lambda state: state.backends),
    )


def backend_states(pool: Pool) -> dict[str, int]:
    """How many backends of a pool are in each state, those of none included."""
    counts = dict.fromkeys(STATES, 0)
    for backend in pool.backends.values():
        state = (backend.excluded or "eligible").partition(" (")[0].replace(" ", "_")
        counts[state] = counts.get(state, 0) + 1
    return counts


def _each(rows: Iterable[tuple[str, T]], value: Callable[[T], float | Histogram]) -> Iterator[Sample]:
    for label, owner in rows:
        yield label, value(owner)


def _split(rows: Iterable[tuple[str, T]], key: str, counts: Callable[[T], Counts]) -> Iterator[Sample]:
    """One sample for each key of the counts: a status, a failure's name, a state."""
    for label, owner in rows:
        for value, count in list(counts(owner).items()):  # between two pieces of a page, one may be new
            yield f'{label},{key}="{value}"', count
