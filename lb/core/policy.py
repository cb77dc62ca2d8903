"""What a pool needs of a policy, and what it finds out about one before it goes by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from lb.core.affinity import KeyReader
from lb.core.backend import Backend
from lb.core.failure import Failure
from lb.core.message import Request
from lb.core.seen import Score

Hook = Callable[..., None]


class Policy(Protocol):
    """A balancing policy as the pool meets it; `lb.balance.Balancer` is the class to derive from."""

    reason: str
    looked: Sequence[Backend]
    scores: Sequence[float]
    key_of: KeyReader | None

    @property
    def weighted(self) -> bool: ...

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend: ...
    def rebuild(self, backends: Sequence[Backend]) -> None: ...
    def on_start(self, backend: Backend) -> None: ...
    def on_end(self, backend: Backend, started: float, failure: Failure | None) -> None: ...


def name_of(policy: Policy) -> str:
    """The name that it is registered by, or else `module:Class`."""
    kind = type(policy)
    return kind.__dict__.get("name") or f"{kind.__module__}:{kind.__qualname__}"


def score_of(policy: Policy) -> Score | None:
    """What it compares, where that can be worked out from requests in flight and weight."""
    found: Score | None = getattr(policy, "score_of", None)
    return found


def hook_of(policy: Policy, name: str) -> Hook | None:
    """One of its hooks; None where it doesn't have that, and so need not be called."""
    method: Hook = getattr(policy, name)
    function = getattr(method, "__func__", method)
    return None if getattr(function, "does_nothing", False) else method
