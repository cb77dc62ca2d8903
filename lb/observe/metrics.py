"""The page of metrics: plain ints, counted where requests pass, put together when someone scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from lb.core.backend import Backend
from lb.core.pool import Pool
from lb.core.source import PoolSources
from lb.observe.clients import ClientMetrics
from lb.observe.exposition import Family, labels
from lb.observe.families import BACKENDS, LISTENERS, POOLS, SOURCES, Metric

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


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
        self._connections = Metric(
            "lb_backend_connections", "gauge", "Open connections to a backend.", connections, "state"
        )
        self._queued = Metric(
            "lb_pool_queue_length", "gauge", "Requests that wait for a free backend.", queued
        )
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
        yield from self._own()
        yield from self._of_listeners()
        yield from self._of_backends(pools)
        yield from self._of_pools(pools)
        yield from self._of_sources()

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

    def _of_listeners(self) -> Iterator[Family]:
        rows = [(labels(listener=name), stats) for name, stats in self._clients.listeners.items()]
        for metric in LISTENERS:
            yield metric.of(rows)
        yield Family(
            "lb_tls_certificate_expiry_timestamp_seconds",
            "gauge",
            "When a listener's certificate expires, in Unix time.",
            [(labels(listener=listener, name=name), at) for listener, name, at in self._certificates()],
        )

    def _of_backends(self, pools: Mapping[str, Pool]) -> Iterator[Family]:
        rows = [
            (f"{label},{labels(backend=backend.id)}", backend)
            for label, pool in [(labels(pool=name), pool) for name, pool in pools.items()]
            for backend in pool.backends.values()
        ]
        for metric in (*BACKENDS, self._connections):
            yield metric.of(rows)

    def _of_pools(self, pools: Mapping[str, Pool]) -> Iterator[Family]:
        rows = [(labels(pool=name), pool) for name, pool in pools.items()]
        for metric in (*POOLS, self._queued):
            yield metric.of(rows)

    def _of_sources(self) -> Iterator[Family]:
        rows = [
            (labels(pool=name, source=state.name), state)
            for name, found in self._sources().items()
            for state in found.states
        ]
        for metric in SOURCES if rows else ():
            yield metric.of(rows)
