"""A pool: a named set of backends with its policy. The data plane and the simulator drive it alike.

    backend = pool.pick(request)        # or a Failure: the reason for none
    pool.start(backend)
    ...
    pool.end(backend, started, failure) # exactly once per start

Where the pick is `AT_LIMIT`, the request may wait:

    pool.wait(waiter)                   # or not, if the queue is full: pool.reject(AT_LIMIT)
    ...                                 # waiter.on_turn() is called; or first pool.leave(waiter)
    backend = pool.pick(request, waited=True)

The pool settles everything that is no policy's business: who is eligible, no candidate, a single one, limits,
ejections, slow starts, tiers, a policy that fails. The eligible set is rebuilt when any of it changes, never
per request, so that a pick costs the same with 3 backends and with 3,000.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from random import Random
from typing import Any

from lb.core.backend import ACTIVE, DISABLED, Backend, BackendSpec
from lb.core.budget import RetryBudget
from lb.core.clock import Clock
from lb.core.failure import AT_LIMIT, NO_BACKENDS, NO_ELIGIBLE, Failure
from lb.core.message import Request
from lb.core.outlier import Outliers
from lb.core.policy import Policy, hook_of, name_of, score_of
from lb.core.queue import Waiter, Waiting
from lb.core.rules import PoolRules
from lb.core.seen import PoolView, Seen, view_of
from lb.core.shadow import Shadowed
from lb.core.share import Sharing, SlowStart
from lb.core.sticky import Sticky, stuck_to
from lb.core.turnover import NONE as NO_TURNOVER
from lb.core.turnover import Turnover, difference

log = logging.getLogger("lb.pool")

_in_flight, _share = attrgetter("in_flight"), attrgetter("share")
_shared = attrgetter("shared")

ALL_OFF = PoolRules()

NO_FAILURE = "none"
"""What the end of a tunnel is counted by where nothing failed."""

NO_SCORES: Sequence[float] = ()

DRAWS = 3
"""How often a policy that knows no weights may insist on backends that are to get less."""


class Pool:
    """A named set of backends, and the one place that diffs it, picks from it and counts for it."""

    def __init__(
        self,
        name: str,
        policy: Policy,
        clock: Clock,
        starts_healthy: bool = True,
        rules: PoolRules = ALL_OFF,
        rng: Random | None = None,
    ) -> None:
        self.name = name
        self.clock = clock
        self.starts_healthy = starts_healthy  # false where a first good probe has to come first
        self.backends: dict[str, Backend] = {}
        self.eligible: tuple[Backend, ...] = ()
        self.in_flight = 0  # attempts of this process
        self.rejected: dict[str, int] = {}  # exchanges that got no backend, by failure
        self.policy_errors = 0
        self.tunnels = 0  # attempts that have switched to another protocol, and go on
        self.tunnel_ends: dict[str, int] = {}  # of these, by failure
        self.tunnel_seconds = 0.0  # how long those that have ended lasted
        self.tunnel_sent = 0  # bytes to backends, also of those that go on
        self.tunnel_received = 0
        self.panic = False  # whether so few can be used that all are
        self.waiting = Waiting(0, clock, self._has_room)
        self.budget: RetryBudget | None = None  # for the retries, where there are any
        self.sticky: Sticky | None = None  # the cookie that brings clients back, where there is one
        self.shadow_picks: dict[str, int] = {}  # how often the shadow policy picked the same, or another one
        # Called for each that is new, before it may be picked; and for each that has left, after. What the
        # latter has in flight may still have to end.
        self.on_added: Callable[[Backend], object] = lambda backend: None
        self.on_removed: Callable[[Backend], object] = lambda backend: None
        # Called after anything has changed that other processes with this pool have to know.
        self.on_changed: Callable[[], object] = lambda: None
        self._rng = rng or Random()
        self._running = False  # whether there were ever any backends
        self._slow_start = SlowStart(0.0, clock, self.refresh)
        self._sharing = Sharing(self._slow_start)
        self._outliers: Outliers | None = None
        self._careful = False  # whether a pick has to look at limits or shares
        self._unfair = False  # whether there are shares that the policy knows nothing of
        self._waiters = self.waiting.waiters
        self._complained = False
        # Of the last pick: whether the policy made it, and else why and from whom it was made.
        self._asked = False
        self._reason = ""
        self._drawn: Sequence[Backend] = ()
        self._shadowed: Shadowed | None = None
        self._adopt(policy)
        self.view = view_of(self.policy_name, (), ())
        self._last = self.view  # of the last pick: another one after a failed attempt
        self.rules = rules
        self._go_by(rules)

    # --- rules ---

    def configure(self, rules: PoolRules) -> None:
        """Goes by other rules from now on. Statistics, ejections and who waits are kept."""
        self._go_by(rules)
        self.refresh()

    def _go_by(self, rules: PoolRules) -> None:
        self.rules = rules
        outliers, retries = rules.outliers, rules.retries
        if outliers is None:
            if self._outliers is not None:
                self._outliers.close()
            self._outliers = None
        elif self._outliers is None:
            self._outliers = Outliers(outliers, self.clock, self)
        else:
            self._outliers.configure(outliers)
        if retries is None:
            self.budget = None
        elif self.budget is None:
            self.budget = RetryBudget(self.clock, retries.share, retries.least)
        else:
            self.budget.share, self.budget.least = retries.share, retries.least
        self._slow_start.configure(rules.slow_start)
        self.waiting.most = rules.queue
        if rules.sticky is None:
            self.sticky = None
        elif self.sticky is None or self.sticky.rules != rules.sticky:
            self.sticky = Sticky(rules.sticky, self.name)
            self.sticky.learn(self.backends.values())
        self._read_keys()

    def replace_policy(self, policy: Policy) -> None:
        """Picks by another policy from now on. It hears of the attempts that are in flight."""
        shadowed = self._shadowed
        self._adopt(policy if shadowed is None else self._shaded(policy, shadowed.shadow))
        self.refresh()
        self._tell_of_those_in_flight(hook_of(policy, "on_start"))

    def replace_shadow(self, shadow: Policy | None) -> None:
        """Asks another policy too from now on, without heeding it; None: no longer."""
        live = self.policy if self._shadowed is None else self._shadowed.live
        if shadow is not None:
            shadowed = self._shaded(live, shadow)
            self._adopt(shadowed)
            self.refresh()
            self._tell_of_those_in_flight(shadowed.shadow_start)
        elif self._shadowed is not None:
            self._adopt(live)
            self.refresh()

    def _shaded(self, live: Policy, shadow: Policy) -> Shadowed:
        return Shadowed(live, shadow, self, self.shadow_picks)

    def _tell_of_those_in_flight(self, on_start: Callable[[Backend], object] | None) -> None:
        if on_start is None:
            return
        for backend in self.backends.values():
            for _ in range(backend.own):
                try:
                    on_start(backend)
                except Exception as error:  # noqa: BLE001 - see `_choose`
                    self._policy_failed(error)

    def _adopt(self, policy: Policy) -> None:
        self.policy = policy
        self._shadowed = policy if isinstance(policy, Shadowed) else None
        live = policy if self._shadowed is None else self._shadowed.live
        self.policy_name, self._score = name_of(live), score_of(live)
        self.shadow_name = "" if self._shadowed is None else name_of(self._shadowed.shadow)
        self._complained = False
        self._read_keys()
        # A hook that the policy doesn't have is not called.
        self._on_start = hook_of(policy, "on_start")
        self._on_end = hook_of(policy, "on_end")

    def _read_keys(self) -> None:
        """What sets `request.key` before a pick; None where neither the policy nor a cookie asks for one."""
        key_of = self.policy.key_of
        self.key_of = key_of if self.sticky is None else self.sticky.reader(key_of)

    def close(self) -> None:
        """Starts no timer any more: the pool is no longer used. Who waits is for the data plane to tell."""
        self._slow_start.configure(0.0)
        if self._outliers is not None:
            self._outliers.close()
            self._outliers = None
        self.waiting.close()

    # --- membership and state ---

    def update(self, specs: Iterable[BackendSpec]) -> Turnover:
        """Takes the whole new set. Who stays (same ID, same address) keeps health, state and statistics.

        Returns what is different. Raises ValueError where an ID comes twice; nothing is changed then.
        """
        specs = list(specs)
        old = self.backends
        joined, left, renewed = difference(old, specs)
        changed = [backend.id for backend, spec in renewed if backend.spec != spec]
        for backend, spec in renewed:
            if backend.spec.weight != spec.weight:
                backend.configured_weight = spec.weight
            backend.spec = spec
        if not (joined or left or changed) and [*old] == [spec.id for spec in specs]:
            return NO_TURNOVER  # a source that says the same again costs nothing more
        new = {spec.id: self._new(spec) for spec in joined}
        self.backends = {spec.id: new[spec.id] if spec.id in new else old[spec.id] for spec in specs}
        self._running = self._running or bool(specs)
        self._sharing.learn(specs)
        for gone in left:
            gone.candidate_of = None
            self._slow_start.end(gone)
            if self._outliers is not None:
                self._outliers.forget(gone)
        if self.sticky is not None:
            self.sticky.learn(new.values(), left)
        self.refresh()
        for gone in left:
            self.on_removed(gone)
        return Turnover([*new], [gone.id for gone in left], changed)

    def _new(self, spec: BackendSpec) -> Backend:
        backend = Backend(spec, healthy=self.starts_healthy)
        if self._running and backend.healthy:
            self._slow_start.begin(backend)
        self.on_added(backend)
        return backend

    def set_health(self, backend: Backend, up: bool) -> None:
        first = not backend.judged
        backend.judged = True
        if backend.healthy is not up:
            backend.healthy = up
            if not up:
                self._slow_start.end(backend)
            else:
                self._slow_start.begin(backend)
                if backend.ejection is None:
                    backend.failed_in_row = 0
            self.refresh()
        elif first and self._sharing.matters(self.rules):
            self.refresh()
        elif first:
            self.on_changed()

    def set_state(self, backend: Backend, state: str) -> None:
        if backend.state == DISABLED and state == ACTIVE:  # who knows what was done to it
            self._slow_start.begin(backend)
        backend.state = state
        self.refresh()

    def set_weight(self, backend: Backend, weight: int) -> None:
        backend.configured_weight = weight
        self.refresh()

    def recovered(self, backend: Backend) -> None:
        """It is back from an ejection."""
        self._slow_start.begin(backend)
        self.refresh()

    def refresh(self) -> None:
        """Rebuilds what a pick reads, after any change of health, state, weight, membership or rules."""
        if self._outliers is not None:
            self._outliers.settle()
        rules, policy, sharing = self.rules, self.policy, self._sharing
        chosen, excluded = list[Backend](), list[tuple[str, str]]()
        for backend in self.backends.values():
            backend.standby = ""
            backend.share = 1.0
            backend.weight = backend.configured_weight * sharing.scale
            why = backend.excluded
            if why:
                backend.candidate_of = None
                excluded.append((backend.id, why))
            else:
                backend.candidate_of = self
                chosen.append(backend)
        panic = ""
        if sharing.matters(rules) or self._slow_start.any:
            chosen, panic = sharing.chosen(list(self.backends.values()), chosen, rules, policy.weighted, self)
            excluded = [
                (each.id, each.excluded) for each in self.backends.values() if each.candidate_of is None
            ]
        self.panic = bool(panic)
        self._unfair = not policy.weighted and min(map(_share, chosen), default=1.0) < 1.0
        limited = bool(rules.requests or rules.requests_per_backend)
        self._careful = self._unfair or limited or self.sticky is not None
        self.eligible = tuple(chosen)
        self.view = self._view(self.eligible, excluded, panic)
        try:
            policy.rebuild(self.eligible)
        except Exception as error:  # noqa: BLE001 - see `_choose`
            self._policy_failed(error)
        self.on_changed()
        if self._waiters:
            self.waiting.wake(None)

    def _view(
        self, candidates: tuple[Backend, ...], excluded: Sequence[tuple[str, str]], panic: str = ""
    ) -> PoolView:
        scale = self._sharing.scale
        return view_of(self.policy_name, candidates, excluded, panic, self.shadow_name, self._score, scale)

    # --- the way of an attempt ---

    def pick(
        self, request: Request | None, tried: Sequence[Backend] = (), waited: bool = False
    ) -> Backend | Failure:
        """One eligible backend, or why there is none. A tried one only where no other is left.

        `AT_LIMIT` where as many requests as may be are under way, or others wait already: only who `waited`
        goes past them, being told by `on_turn` or having had a backend before, as for a retry. It may wait
        itself then, and so isn't counted as rejected yet.
        """
        eligible = self.eligible
        self._last = self.view
        if tried:
            eligible = self._untried(tried)
        if not eligible:
            if self.sticky is not None and (stuck := self._stuck(request, tried)) is not None:
                return stuck
            self._settled("")
            failure = NO_ELIGIBLE if self.backends else NO_BACKENDS
            self.reject(failure)
            return failure
        if self._careful:
            return self._pick_carefully(request, eligible, tried, waited)
        return self._choose(request, eligible)

    def _choose(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        """One of them: the eligible set or a part of it, not empty."""
        if len(backends) == 1:
            self._settled("the only candidate")
            return backends[0]
        try:
            policy: Any = self.policy  # of which a user's may give anything
            picked: object = policy.pick(request, backends)
            if (
                isinstance(picked, Backend)
                and picked.candidate_of is self
                and (backends is self.eligible or picked in backends)
            ):
                self._asked = True
                return picked
            raise LookupError(f"it picked {picked!r}, which is not eligible")
        except Exception as error:  # noqa: BLE001 - a user's policy may raise anything; requests go on
            return self._fallback(error, backends)

    def _settled(self, reason: str) -> None:
        """The last pick was not the policy's."""
        self._asked, self._reason, self._drawn = False, reason, ()

    def _pick_carefully(
        self,
        request: Request | None,
        eligible: tuple[Backend, ...],
        tried: Sequence[Backend],
        waited: bool,
    ) -> Backend | Failure:
        """Within the limits of the pool and of each backend; whom a cookie names; by share where the policy
        doesn't see to it."""
        rules = self.rules
        if (self._waiters and not waited) or (rules.requests and self.in_flight >= rules.requests):
            return AT_LIMIT
        if self.sticky is not None and (stuck := self._stuck(request, tried)) is not None:
            return stuck
        backend = self._choose(request, eligible)
        if self._unfair:
            backend = self._by_share(request, backend, eligible)
        most = rules.requests_per_backend
        if not most or backend.in_flight < most:
            return backend
        free = self._with_room(eligible, most) or self._with_room(self.eligible, most)
        if not free:
            return AT_LIMIT
        full = [(each.id, "at its limit") for each in eligible if each not in free]
        self._last = self._view(free, [*full, *self._last.excluded], self.view.panic)
        return self._choose(request, free)

    def _stuck(self, request: Request | None, tried: Sequence[Backend]) -> Backend | None:
        """The backend that the request's cookie names, where it may serve it and has room; one that drains
        too."""
        backend, most = stuck_to(request, tried), self.rules.requests_per_backend
        if self.sticky is None or backend is None or (most and backend.in_flight >= most):
            return None
        self._settled(self.sticky.reason)
        if backend.candidate_of is not self:
            self._reason += ", which it may while it drains"
            excluded = [each for each in self.view.excluded if each[0] != backend.id]
            self._last = self._view((backend, *self.eligible), excluded, self.view.panic)
        return backend

    def _by_share(self, request: Request | None, backend: Backend, eligible: tuple[Backend, ...]) -> Backend:
        """This one, as often as its share says; else another pick of the rest.

        A policy may well give the same answer each time, so who was put aside stays so for this request.
        """
        rest = eligible
        for _ in range(DRAWS):
            if backend.share >= 1.0 or self._rng.random() < backend.share:
                return backend
            rest = tuple(each for each in rest if each is not backend)
            if not rest:
                break
            backend = self._choose(request, rest)
        self._settled("drawn by share, while some get less than all of their weight")
        rest = rest or eligible
        return self._rng.choices(rest, [each.share for each in rest])[0]

    @staticmethod
    def _with_room(backends: Sequence[Backend], most: int) -> tuple[Backend, ...]:
        return tuple(backend for backend in backends if backend.in_flight < most)

    def _untried(self, tried: Sequence[Backend]) -> tuple[Backend, ...]:
        """The eligible ones that have not been tried yet; all of them where none is left."""
        rest = tuple(backend for backend in self.eligible if backend not in tried)
        if not rest:
            return self.eligible
        excluded = [(backend.id, "tried already") for backend in tried if not backend.excluded]
        self._last = self._view(rest, [*excluded, *self.view.excluded], self.view.panic)
        return rest

    def seen(self) -> Seen:
        """What the last pick was made from. To be asked between `pick` and `start`, for the record."""
        view, drawn, reason, scores, shadow = self._last, self._drawn, self._reason, NO_SCORES, None
        if self._asked:
            policy = self.policy
            if self._shadowed is not None:
                shadow = self._shadowed.choice
            try:
                reason, drawn, scores = policy.reason, tuple(policy.looked), tuple(policy.scores)
                loads = [backend.in_flight for backend in view.candidates or drawn]
                return view, tuple(loads), drawn, reason, scores, shadow
            except Exception as error:  # noqa: BLE001 - see `_choose`
                self._policy_failed(error)
                reason, drawn, scores = f"it didn't say ({type(error).__name__})", (), NO_SCORES
        loads = [backend.in_flight for backend in view.candidates or drawn]
        return view, tuple(loads), drawn, reason, scores, shadow

    def start(self, backend: Backend) -> None:
        """An attempt begins."""
        own = backend.own = backend.own + 1
        self.in_flight += 1
        shared = backend.shared
        if shared is not None:
            shared.set(backend.place, own)
        if self._on_start is not None:
            self._tell_start(backend)
        if backend.failed_in_row and self._outliers is not None:
            self._outliers.on_start(backend)

    def _tell_start(self, backend: Backend) -> None:
        on_start = self._on_start
        if on_start is not None:
            try:
                on_start(backend)
            except Exception as error:  # noqa: BLE001 - see `_choose`
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
        stale: bool = False,
        kept: bool = False,
    ) -> None:
        """An attempt ends, with its last byte or its failure. Exactly once per start.

        `started` is when it was picked, by the pool's clock; `first_byte` when the response head came (0:
        never); `status` is 0 where there was no answer; `sent` and `received` are bytes of the bodies;
        `ended` is now, where the caller has just asked the clock. `stale` is a failure because an idle
        connection had been closed under it: it says nothing of how the backend is. Its place may be `kept`
        for another attempt of the same exchange, until `freed` tells that this has begun, or isn't to be.
        """
        own = backend.own = backend.own - 1
        self.in_flight -= 1
        shared = backend.shared
        if shared is not None:
            shared.set(backend.place, own)
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
            self._tell_end(backend, started, failure)
        outliers = self._outliers
        if outliers is not None and (
            backend.failed_in_row or failure is not None or status >= outliers.least_status
        ):
            outliers.on_end(backend, started, failure, status, stale)
        if self._waiters and not kept:
            self.waiting.wake(backend)

    def _tell_end(self, backend: Backend, started: float, failure: Failure | None) -> None:
        on_end = self._on_end
        if on_end is not None:
            try:
                on_end(backend, started, failure)
            except Exception as error:  # noqa: BLE001 - see `_choose`
                self._policy_failed(error)

    def switched(self, backend: Backend, started: float) -> None:
        """An attempt goes on as a tunnel. It has still to end."""
        if backend.failed_in_row and self._outliers is not None:
            self._outliers.on_switch(backend, started)

    def tunnel_began(self) -> None:
        """An attempt has become a tunnel: its bytes are added to `tunnel_sent` and `tunnel_received`."""
        self.tunnels += 1

    def tunnel_ended(self, seconds: float, failure: Failure | None) -> None:
        """It lasted so long. Exactly once per `tunnel_began`."""
        self.tunnels -= 1
        self.tunnel_seconds += seconds
        name = NO_FAILURE if failure is None else failure.name
        self.tunnel_ends[name] = self.tunnel_ends.get(name, 0) + 1

    def freed(self, backend: Backend) -> None:
        """The place of an attempt that has ended is kept no longer."""
        if self._waiters:
            self.waiting.wake(backend)

    def retried(self, backend: Backend) -> None:
        """An attempt at this backend has failed and is made up for by another one."""
        backend.retries += 1

    def reject(self, failure: Failure) -> None:
        """An exchange gets no backend: none is there, the limit is reached, its time in the queue is over."""
        self.rejected[failure.name] = self.rejected.get(failure.name, 0) + 1

    # --- who waits ---

    def wait(self, waiter: Waiter, first: bool = False) -> bool:
        """Waits for its turn, after a pick that was `AT_LIMIT`; false where the queue is full.

        Its `on_turn` is called once, as soon as a backend is free or none is left, from within whatever
        brought that about: the end of another attempt, a change of health. It is to pick there and then, with
        `waited`. Should that be `AT_LIMIT`, since another process was quicker, it waits on as the `first`.
        """
        if not self.waiting.join(waiter, first):
            return False
        if any(map(_shared, self.eligible)):
            self.waiting.keep_looking()
        return True

    def leave(self, waiter: Waiter) -> None:
        """Waits no longer: its time is over, or its client has gone."""
        self.waiting.leave(waiter)

    def _has_room(self, freed: Backend | None) -> bool:
        """For one more, at this backend or (None) wherever; or whether there is nothing left to wait for."""
        if not self.eligible:
            return True
        rules = self.rules
        if rules.requests and self.in_flight >= rules.requests:
            return False
        most = rules.requests_per_backend
        if freed is not None and freed.candidate_of is self and (not most or freed.in_flight < most):
            return True
        if freed is not None and not rules.requests:
            return False  # nothing else has changed
        return not most or any(backend.in_flight < most for backend in self.eligible)

    # --- a policy that fails ---

    def _fallback(self, error: Exception, eligible: Sequence[Backend]) -> Backend:
        """Serves the request all the same when the policy can't pick: the least busy."""
        self._policy_failed(error)
        self._settled(f"the policy failed ({type(error).__name__}); the least busy one was taken")
        return min(eligible, key=_in_flight)

    def _policy_failed(self, error: Exception) -> None:
        """Counted each time, logged the first time."""
        if not self._complained:
            log.error(
                "pool %s: policy %s failed; where it can't pick, the least busy backend is used: %r",
                self.name,
                self.policy_name,
                error,
                exc_info=error,
            )
        self._complained = True
        self.policy_errors += 1
