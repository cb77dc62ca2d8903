"""Pools that are asked by key, and whose keys are counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from lb.balance import policy_class
from lb.balance.hashing import Keyed
from lb.core.backend import Backend, BackendSpec
from lb.core.pool import Pool
from tests.core.clock import VirtualClock
from tests.core.messages import made_request

KEYS = [b"key-%d" % number for number in range(5000)]


def keyed_pool(backends: Sequence[BackendSpec], policy: str, **options: object) -> Pool:
    """A pool of a policy with options."""
    clock = VirtualClock()
    pool = Pool("greeter", policy_class(policy)(clock, Random(1), **options), clock)  # type: ignore[arg-type]
    pool.update(backends)
    return pool


def pick_for(pool: Pool, key: bytes, tried: Sequence[Backend] = ()) -> Backend:
    """Whom this key is sent to."""
    request = made_request()
    request.key = key
    backend = pool.pick(request, tried)
    assert isinstance(backend, Backend)
    assert pool.policy_errors == 0
    return backend


def settle(pool: Pool) -> None:
    """So much later that a policy that rests between two changes has taken note of the last."""
    assert isinstance(pool.clock, VirtualClock)
    pool.clock.advance(policy_of(pool).rest)


def owners(pool: Pool, keys: Iterable[bytes] = KEYS) -> dict[bytes, str]:
    """Whom each key is sent to, with nothing in flight, some time after the last change."""
    settle(pool)
    return {key: pick_for(pool, key).id for key in keys}


def moved(before: dict[bytes, str], after: dict[bytes, str]) -> list[tuple[str, str]]:
    """From whom to whom keys have moved."""
    return [(before[key], after[key]) for key in before if before[key] != after[key]]


def policy_of(pool: Pool) -> Keyed:
    assert isinstance(pool.policy, Keyed)
    return pool.policy
