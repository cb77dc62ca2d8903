"""Pools and backends as JSON-able values."""

from __future__ import annotations

from typing import Any

from lb.control.prober import ProbeResult
from lb.control.state import AdminState
from lb.core.backend import Backend, Ejection, Histogram
from lb.core.pool import Pool
from lb.core.source import STATIC, SourceState
from lb.observe.families import backend_states
from lb.observe.timestamp import iso_time


def pool_view(state: AdminState, pool: Pool) -> dict[str, Any]:
    """A pool with all its backends, whoever is excluded too."""
    return {
        "name": pool.name,
        "policy": pool.policy_name,
        "policy_errors": pool.policy_errors,
        "shadow": {"policy": pool.shadow_name, "picks": dict(pool.shadow_picks)}
        if pool.shadow_name
        else None,
        "eligible": len(pool.eligible),
        "total": len(pool.backends),
        "states": backend_states(pool),
        "panic": pool.view.panic or None,
        "in_flight": sum(backend.in_flight for backend in pool.backends.values()),
        "waiting": state.queued(pool),
        "tunnels": pool.tunnels,
        "limits": {
            "requests": pool.rules.requests or None,
            "requests_per_backend": pool.rules.requests_per_backend or None,
            "queue": pool.rules.queue,
        },
        "rejected": dict(pool.rejected),
        "sources": source_views(state, pool.name),
        "backends": [backend_view(state, pool, backend) for backend in pool.backends.values()],
    }


def source_views(state: AdminState, pool: str) -> list[dict[str, Any]]:
    """The sources of a pool: how each of them does. Nothing where the configuration names all backends."""
    found = state.sources.get(pool)
    return [] if found is None else [_source(each) for each in found.states]


def _source(source: SourceState) -> dict[str, Any]:
    return {
        "name": source.name,
        "kind": source.kind,
        "about": source.about,
        "backends": source.backends if source.known else None,
        "error": source.error or None,
        "last_success": iso_time(source.last_success) if source.last_success else None,
        "last_error": iso_time(source.last_error) if source.last_error else None,
        "updates": dict(source.updates),
    }


def backend_view(state: AdminState, pool: Pool, backend: Backend) -> dict[str, Any]:
    """A backend: its state, its load, and what it has done so far. Times in ms, sizes in bytes.

    `share` is what part of its weight counts at the moment, `in_flight` counts all worker processes.
    """
    prober = state.probers.get(pool.name)
    sources = state.sources.get(pool.name)
    last = None if prober is None else prober.last(backend)
    return {
        "id": backend.id,
        "address": backend.spec.address,
        "source": STATIC if sources is None else sources.origins.get(backend.id, STATIC),
        "weight": backend.configured_weight,
        "share": round(backend.share, 3),
        "tier": backend.spec.tier,
        "zone": backend.spec.zone or None,
        "state": backend.state,
        "healthy": backend.healthy,
        "excluded": backend.excluded or None,
        "ejection": None if backend.ejection is None else _ejection(pool, backend.ejection),
        "in_flight": backend.in_flight,
        "requests": {str(status): count for status, count in sorted(backend.requests.items())},
        "failures": dict(backend.failures),
        "retries": backend.retries,
        "ejections": backend.ejections,
        "checks": dict(backend.checks),
        "last_probe": None if last is None else _probe(state, last),
        "sent": backend.sent,
        "received": backend.received,
        "duration": _summary(backend.duration),
        "first_byte": _summary(backend.first_byte),
        "connect": _summary(backend.connect),
    }


def _ejection(pool: Pool, ejection: Ejection) -> dict[str, Any]:
    """It goes on when it is over, until a request has tried the backend."""
    left = max(0.0, ejection.until - pool.clock.time())
    return {"reason": ejection.reason, "left_ms": round(left * 1e3), "tried": ejection.trial}


def _probe(state: AdminState, last: ProbeResult) -> dict[str, Any]:
    return {
        "good": last.good,
        "reason": last.reason,
        "time": iso_time(state.epoch + last.at),
        "duration_ms": round(last.duration * 1e3, 3),
    }


def _summary(histogram: Histogram) -> dict[str, Any]:
    count = sum(histogram.counts)
    return {"count": count, "mean_ms": round(histogram.total / count * 1e3, 3) if count else None}
