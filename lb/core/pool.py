"""A pool: a named set of backends with its policy. The data plane and the simulator drive it alike.

    backend = pool.pick(request)        # or a Failure: the reason for none
    pool.start(backend)
    ...
    pool.end(backend, started, failure) # exactly once per start

The pool settles everything that is no policy's business: who is eligible, no candidate, a single one, a
policy that fails. The eligible set is rebuilt when health, state, weight or membership changes, never per
request, so that a pick costs the same with 3 backends and with 3,000.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple, Protocol

from lb.core.backend import Backend, BackendSpec
from lb.core.clock import Clock
from lb.core.failure import NO_BACKENDS, NO_ELIGIBLE, Failure
from lb.core.message import Request

log = logging.getLogger("lb.pool")

_in_flight = attrgetter("in_flight")

REMEMBERED = 8
"""A request record names at most so many candidates: all of a small pool, else those the policy drew."""


class PoolView(NamedTuple):
    """What a pool looked like when it was picked from. Made when the pool changes, shared by all records."""

    policy: str
    candidates: tuple[Backend, ...]  # all eligible ones; empty where there are too many to remember
    weights: tuple[int, ...]  # theirs
    candidates_total: int
    excluded: tuple[tuple[str, str], ...]  # (ID, reason) of who was no candidate, the first few
    excluded_total: int


Seen = tuple[PoolView, tuple[int, ...], Sequence[Backend], str]
"""What was seen at a pick: the pool; the requests in flight of `candidates`, or where these are empty of
those drawn; the backends that the policy drew, where it drew any; and its reason."""


class Policy(Protocol):
    """What the pool needs of a balancer; `lb.balance.Balancer` is the class to derive from."""

    reason: str
    looked: Sequence[Backend]

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend: ...
    def rebuild(self, backends: Sequence[Backend]) -> None: ...
    def on_start(self, backend: Backend) -> None: ...
    def on_end(self, backend: Backend, started: float, failure: Failure | None) -> None: ...


class Pool:
    """A named set of backends, and the one place that diffs it, picks from it and counts for it."""

    def __init__(self, name: str, policy: Policy, clock: Clock, starts_healthy: bool = True) -> None:
        self.name = name
        self.policy = policy
        self.policy_name = type(policy).__dict__.get("name") or _full_name(type(policy))
        self.clock = clock
        self.starts_healthy = starts_healthy  # false where a first good probe has to come first
        self.backends: dict[str, Backend] = {}
        self.eligible: tuple[Backend, ...] = ()
        self.rejected: dict[str, int] = {}  # exchanges that got no backend, by failure
        self.policy_errors = 0
        self.on_removed: Callable[[Backend], object] = lambda backend: None
        self.view = PoolView(self.policy_name, (), (), 0, (), 0)
        self._last = self.view  # of the last pick: another one after a failed attempt
        self._reason = ""
        self._drawn: Sequence[Backend] = ()
        # A hook that the policy doesn't have is not called.
        self._on_start = _overridden(policy, "on_start")
        self._on_end = _overridden(policy, "on_end")

    # --- membership and state ---

    def update(self, specs: Iterable[BackendSpec]) -> None:
        """Takes the whole new set. Who stays (same ID, same address) keeps health, state and statistics.

        Raises ValueError where an ID comes twice; nothing is changed then.
        """
        specs = list(specs)
        if len({spec.id for spec in specs}) < len(specs):
            raise ValueError(f"pool {self.name}: two backends have the same ID")
        old, self.backends = self.backends, {}
        for spec in specs:
            known = old.get(spec.id)
            if known is not None and (known.spec.host, known.spec.port) == (spec.host, spec.port):
                if known.spec.weight != spec.weight:
                    known.weight = spec.weight
                known.spec = spec
                self.backends[spec.id] = old.pop(spec.id)
            else:
                self.backends[spec.id] = Backend(spec, healthy=self.starts_healthy)
        self.refresh()
        for gone in old.values():
            gone.candidate_of = None
            self.on_removed(gone)

    def set_health(self, backend: Backend, up: bool) -> None:
        if backend.healthy is not up:
            backend.healthy = up
            self.refresh()

    def set_state(self, backend: Backend, state: str) -> None:
        backend.state = state
        self.refresh()

    def set_weight(self, backend: Backend, weight: int) -> None:
        backend.weight = weight
        self.refresh()

    def refresh(self) -> None:
        """Rebuilds what a pick reads, after any change of health, state, weight or membership."""
        reasons = [(backend, backend.excluded) for backend in self.backends.values()]
        for backend, reason in reasons:
            backend.candidate_of = None if reason else self
        self.eligible = tuple(backend for backend, reason in reasons if not reason)
        self.view = self._view(self.eligible, [(backend.id, reason) for backend, reason in reasons if reason])
        try:
            self.policy.rebuild(self.eligible)
        except Exception as error:  # noqa: BLE001 - see `pick`
            self._policy_failed(error)

    def _view(self, candidates: tuple[Backend, ...], excluded: Sequence[tuple[str, str]]) -> PoolView:
        remembered = candidates if len(candidates) <= REMEMBERED else ()
        return PoolView(
            self.policy_name,
            remembered,
            tuple(backend.weight for backend in remembered),
            len(candidates),
            tuple(excluded[:REMEMBERED]),
            len(excluded),
        )

    # --- the way of an attempt ---

    def pick(self, request: Request | None, tried: Sequence[Backend] = ()) -> Backend | Failure:
        """One eligible backend, or why there is none. A tried one only where no other is left."""
        eligible = self.eligible
        self._last = self.view
        if tried:
            eligible = self._untried(tried)
        if len(eligible) > 1:
            policy = self.policy
            try:
                backend = policy.pick(request, eligible)
                if backend.candidate_of is self and (not tried or backend in eligible):
                    self._reason = policy.reason
                    self._drawn = policy.looked
                    return backend
                raise LookupError(f"it picked {backend!r}, which is not eligible")
            except Exception as error:  # noqa: BLE001 - a user's policy may raise anything; requests go on
                return self._fallback(error, eligible)
        self._drawn = ()
        if eligible:
            self._reason = "the only candidate"
            return eligible[0]
        failure = NO_ELIGIBLE if self.backends else NO_BACKENDS
        self.rejected[failure.name] = self.rejected.get(failure.name, 0) + 1
        return failure

    def _untried(self, tried: Sequence[Backend]) -> tuple[Backend, ...]:
        """The eligible ones that have not been tried yet; all of them where none is left."""
        rest = tuple(backend for backend in self.eligible if backend not in tried)
        if not rest:
            return self.eligible
        excluded = [(backend.id, "tried already") for backend in tried if not backend.excluded]
        self._last = self._view(rest, [*excluded, *self.view.excluded])
        return rest

    def seen(self) -> Seen:
        """What the last pick was made from. To be asked between `pick` and `start`, for the record."""
        view, drawn = self._last, self._drawn
        return view, tuple(map(_in_flight, view.candidates or drawn)), drawn, self._reason

    def start(self, backend: Backend) -> None:
        """An attempt begins."""
        backend.in_flight += 1
        if self._on_start is not None:
            try:
                self._on_start(backend)
            except Exception as error:  # noqa: BLE001 - see `pick`
                self._policy_failed(error)

    def connected(self, backend: Backend, seconds: float) -> None:
        """A new connection to this backend took so long."""
        backend.connect.observe(seconds)

    def end(
        self,
        backend: Backend,
        started: float,
        failure: Failure | None,
        status: int = 0,
        first_byte: float = 0.0,
        sent: int = 0,
        received: int = 0,
        ended: float = 0.0,
    ) -> None:
        """An attempt ends, with its last byte or its failure. Exactly once per start.

        `started` is when, by the pool's clock; `first_byte` when the response head came (0: never);
        `status` is 0 where there was no answer; `sent` and `received` are bytes of the bodies; `ended`
        is now, where the caller has just asked the clock.
        """
        backend.in_flight -= 1
        if status:
            try:
                backend.requests[status] += 1
            except KeyError:
                backend.requests[status] = 1
        if failure is None:
            backend.duration.observe((ended or self.clock.time()) - started)
        elif failure.fault == "backend":
            backend.failures[failure.name] = backend.failures.get(failure.name, 0) + 1
        if first_byte:
            backend.first_byte.observe(first_byte - started)
        backend.sent += sent
        backend.received += received
        if self._on_end is not None:
            try:
                self._on_end(backend, started, failure)
            except Exception as error:  # noqa: BLE001 - see `pick`
                self._policy_failed(error)

    def _fallback(self, error: Exception, eligible: Sequence[Backend]) -> Backend:
        """Serves the request all the same when the policy can't pick: the least busy."""
        self._policy_failed(error)
        self._reason = f"the policy failed ({type(error).__name__}); the least busy one was taken"
        self._drawn = ()
        return min(eligible, key=_in_flight)

    def _policy_failed(self, error: Exception) -> None:
        """Counted each time, logged the first time."""
        if not self.policy_errors:
            log.error(
                "pool %s: policy %s failed; where it can't pick, the least busy backend is used: %r",
                self.name,
                self.policy_name,
                error,
                exc_info=error,
            )
        self.policy_errors += 1


def _full_name(policy: type) -> str:
    return f"{policy.__module__}:{policy.__qualname__}"


def _overridden(policy: Policy, name: str) -> Callable[..., None] | None:
    method = getattr(policy, name)
    inherited = getattr(method, "__func__", None)
    return None if getattr(inherited, "does_nothing", False) else method
