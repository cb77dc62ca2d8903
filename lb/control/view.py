"""Pools and backends as JSON-able values."""

from __future__ import annotations

from typing import Any

from lb.control.prober import Prober, ProbeResult
from lb.control.state import AdminState
from lb.core.backend import Backend, Histogram
from lb.core.pool import Pool
from lb.observe.metrics import backend_states
from lb.observe.timestamp import iso_time


def pool_view(state: AdminState, pool: Pool) -> dict[str, Any]:
    """A pool with all its backends, whoever is excluded too."""
    prober = state.probers.get(pool.name)
    return {
        "name": pool.name,
        "policy": pool.policy_name,
        "policy_errors": pool.policy_errors,
        "eligible": len(pool.eligible),
        "total": len(pool.backends),
        "states": backend_states(pool),
        "rejected": dict(pool.rejected),
        "backends": [backend_view(state, backend, prober) for backend in pool.backends.values()],
    }


def backend_view(state: AdminState, backend: Backend, prober: Prober | None) -> dict[str, Any]:
    """A backend: its state, its load, and what it has done so far. Times in ms, sizes in bytes."""
    last = None if prober is None else prober.last(backend)
    return {
        "id": backend.id,
        "address": backend.spec.address,
        "weight": backend.configured_weight,
        "state": backend.state,
        "healthy": backend.healthy,
        "excluded": backend.excluded or None,
        "in_flight": backend.in_flight,
        "requests": {str(status): count for status, count in sorted(backend.requests.items())},
        "failures": dict(backend.failures),
        "checks": dict(backend.checks),
        "last_probe": None if last is None else _probe(state, last),
        "sent": backend.sent,
        "received": backend.received,
        "duration": _summary(backend.duration),
        "first_byte": _summary(backend.first_byte),
        "connect": _summary(backend.connect),
    }


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
