"""What each metric is: name, kind, help, and where its value is found. In the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

from lb.core.backend import Backend, Histogram
from lb.core.pool import NO_FAILURE, Pool
from lb.core.source import SourceState
from lb.observe.clients import ListenerStats
from lb.observe.exposition import Family, Sample

STATES = ("eligible", "unhealthy", "ejected", "standby", "draining", "disabled", "weight_0")

Counts = Mapping[str, int] | Mapping[int, int]
Owner = TypeVar("Owner")


class Metric(NamedTuple, Generic[Owner]):
    """A family in which each owner, a backend say, has a sample.

    With a `key` it has several: one for each of its counts, under a label of that name.
    """

    name: str
    kind: str  # gauge, counter or histogram
    help: str
    value: Callable[[Owner], Any]  # a number or a Histogram; with a key, Counts
    key: str = ""

    def of(self, rows: Iterable[tuple[str, Owner]]) -> Family:
        """The family of these owners, which come with their labels."""
        samples = _split(rows, self.key, self.value) if self.key else _each(rows, self.value)
        return Family(self.name, self.kind, self.help, samples)


def backend_states(pool: Pool) -> dict[str, int]:
    """How many backends of a pool are in each state, those of none included."""
    counts = dict.fromkeys(STATES, 0)
    for backend in pool.backends.values():
        state = (backend.excluded or "eligible").partition(" (")[0].replace(" ", "_")
        counts[state] = counts.get(state, 0) + 1
    return counts


def _each(rows: Iterable[tuple[str, Owner]], value: Callable[[Owner], float | Histogram]) -> Iterator[Sample]:
    for label, owner in rows:
        yield label, value(owner)


def _split(
    rows: Iterable[tuple[str, Owner]], key: str, counts: Callable[[Owner], Counts]
) -> Iterator[Sample]:
    for label, owner in rows:
        for value, count in list(counts(owner).items()):  # between two pieces of a page, one may be new
            yield f'{label},{key}="{value}"', count


LISTENERS: tuple[Metric[ListenerStats], ...] = (
    Metric("lb_client_connections", "gauge", "Open connections of clients.", attrgetter("connections")),
    Metric(
        "lb_client_requests_total",
        "counter",
        "Finished requests by the status that the client got.",
        attrgetter("requests"),
        "code",
    ),
    Metric(
        "lb_client_request_duration_seconds",
        "histogram",
        "From a request's head to the last byte of its response.",
        attrgetter("duration"),
    ),
    Metric(
        "lb_tls_handshakes_total",
        "counter",
        "TLS handshakes with clients by how they ended.",
        attrgetter("handshakes"),
        "result",
    ),
    Metric(
        "lb_proxy_protocol_headers_total",
        "counter",
        "Headers of the PROXY protocol from clients by what came of them.",
        attrgetter("proxy_headers"),
        "result",
    ),
)

BACKENDS: tuple[Metric[Backend], ...] = (
    Metric(
        "lb_backend_up",
        "gauge",
        "Whether the health checks find a backend well.",
        lambda backend: int(backend.healthy),
    ),
    Metric(
        "lb_backend_weight",
        "gauge",
        "A backend's share beside the others of its pool.",
        attrgetter("configured_weight"),
    ),
    Metric(
        "lb_backend_in_flight", "gauge", "Requests that a backend is working on.", attrgetter("in_flight")
    ),
    Metric(
        "lb_backend_requests_total",
        "counter",
        "Answers of a backend by status.",
        attrgetter("requests"),
        "code",
    ),
    Metric(
        "lb_backend_failures_total",
        "counter",
        "Attempts that failed by the backend's fault.",
        attrgetter("failures"),
        "failure",
    ),
    Metric(
        "lb_backend_health_checks_total",
        "counter",
        "Health checks of a backend.",
        attrgetter("checks"),
        "result",
    ),
    Metric(
        "lb_backend_bytes_total",
        "counter",
        "Bytes of bodies, sent to a backend and received from it.",
        lambda backend: {"sent": backend.sent, "received": backend.received},
        "direction",
    ),
    Metric(
        "lb_backend_retries_total",
        "counter",
        "Attempts that failed at a backend and were made up for by another one.",
        attrgetter("retries"),
    ),
    Metric(
        "lb_backend_ejections_total",
        "counter",
        "How often a backend was ejected for its failures.",
        attrgetter("ejections"),
    ),
    Metric(
        "lb_backend_request_duration_seconds",
        "histogram",
        "From the pick of a backend to the last byte of its answer.",
        attrgetter("duration"),
    ),
    Metric(
        "lb_backend_first_byte_seconds",
        "histogram",
        "From the pick of a backend to the head of its answer.",
        attrgetter("first_byte"),
    ),
    Metric(
        "lb_backend_connect_seconds",
        "histogram",
        "How long a new connection to a backend takes.",
        attrgetter("connect"),
    ),
)

POOLS: tuple[Metric[Pool], ...] = (
    Metric("lb_pool_backends", "gauge", "Backends by state.", backend_states, "state"),
    Metric(
        "lb_pool_panic",
        "gauge",
        "Whether so few backends can be used that all are.",
        lambda pool: int(pool.panic),
    ),
    Metric(
        "lb_pool_rejected_total",
        "counter",
        "Requests for which a pool had no backend.",
        attrgetter("rejected"),
        "failure",
    ),
    Metric(
        "lb_tunnels",
        "gauge",
        "Connections that have switched to another protocol, such as WebSocket.",
        attrgetter("tunnels"),
    ),
    Metric(
        "lb_tunnels_ended_total",
        "counter",
        "Tunnels that have ended, by failure; none where both sides had ended.",
        lambda pool: {NO_FAILURE: 0, **pool.tunnel_ends},
        "failure",
    ),
    Metric(
        "lb_tunnel_seconds_total",
        "counter",
        "How long the tunnels that have ended lasted, all together.",
        attrgetter("tunnel_seconds"),
    ),
    Metric(
        "lb_tunnel_bytes_total",
        "counter",
        "Bytes through tunnels, sent to backends and received from them, as they pass.",
        lambda pool: {"sent": pool.tunnel_sent, "received": pool.tunnel_received},
        "direction",
    ),
    Metric(
        "lb_policy_errors_total",
        "counter",
        "Calls in which the pool's policy failed.",
        attrgetter("policy_errors"),
    ),
    Metric(
        "lb_pool_shadow_picks_total",
        "counter",
        "Picks of the shadow policy: the same backend as the live one, another one, or it failed.",
        attrgetter("shadow_picks"),
        "result",
    ),
)

SOURCES: tuple[Metric[SourceState], ...] = (
    Metric(
        "lb_discovery_updates_total",
        "counter",
        "Answers of a source of backends: taken, empty ones that were not believed, and failures.",
        attrgetter("updates"),
        "result",
    ),
    Metric(
        "lb_discovery_last_success_timestamp_seconds",
        "gauge",
        "When a source last gave an answer that was taken, in Unix time; 0 if never.",
        attrgetter("last_success"),
    ),
    Metric(
        "lb_discovery_backends", "gauge", "Backends that a source has named last.", attrgetter("backends")
    ),
)
