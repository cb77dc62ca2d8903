"""Ejecting backends that fail real requests, and trying them again.

A backend goes out with so many failures in a row, or with too large a share of them within an interval. When
its time is over, it is a candidate for one request. While that one is under way it is none for others; its
success brings the backend back, its failure ejects it for twice as long. If the client leaves before either,
the next request tries.

Where a further one fails while as many as may be are out, the one that is to be back first is tried early.

Each ejection lasts twice as long as the one before it; each interval without one takes one doubling back.
After Envoy's outlier detection.
"""

from __future__ import annotations

import logging
from typing import Protocol

from lb.core.backend import Backend, Ejection
from lb.core.clock import Clock, Timer
from lb.core.failure import BACKEND, RESPONSE_CUT, STALLED, Failure
from lb.core.rules import OutlierRules

log = logging.getLogger("lb.outlier")

EARLY = 0.25  # seconds at least between two that are tried before their time

_ANSWERED = (RESPONSE_CUT.name, STALLED.name)
"""Failures behind the head of an answer, whose status is counted too."""


class Fleet(Protocol):
    """What is needed of the pool."""

    name: str
    backends: dict[str, Backend]

    def refresh(self) -> None: ...
    def recovered(self, backend: Backend) -> None: ...


class Outliers:
    """Who of a pool is out for its failures. Asked by the pool only of attempts that may matter.

    It never takes the last backend that can serve, nor more than `max_ejected` of those that are active.
    """

    def __init__(self, rules: OutlierRules, clock: Clock, fleet: Fleet) -> None:
        self.clock = clock
        self.fleet = fleet
        self.rules = rules
        self.least_status = min(rules.statuses, default=1000)  # an answer below it is none that counts
        self._past: dict[Backend, tuple[int, float]] = {}  # how often doubled, and when it came back
        self._counted: dict[Backend, tuple[int, int]] = {}  # attempts and failures, when last looked at
        self._stale: dict[Backend, int] = {}  # of the failures, those of idle connections that had broken
        self._timer: Timer | None = None
        self._tried_early = clock.time() - EARLY
        self._look_later()

    def configure(self, rules: OutlierRules) -> None:
        """Goes by other rules from now on. Who is out stays out, as long as it was to be."""
        self.rules = rules
        self.least_status = min(rules.statuses, default=1000)
        if not rules.enforce:
            self.release_all()
        self._look_later()

    def close(self) -> None:
        """Lets everyone go, and looks no more."""
        self.release_all()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the way of an attempt ---

    def on_start(self, backend: Backend) -> None:
        """An attempt at a backend that has failed before begins: maybe the one that tries it again."""
        ejection = backend.ejection
        if ejection is not None and not ejection.closed:
            ejection.closed = ejection.trial = True
            ejection.earlier = backend.own - 1
            self.fleet.refresh()

    def on_end(
        self, backend: Backend, started: float, failure: Failure | None, status: int, stale: bool
    ) -> None:
        """An attempt has ended, badly or at a backend that has failed before. It was picked at `started`."""
        bad = status in self.rules.statuses
        if stale:
            self._stale[backend] = self._stale.get(backend, 0) + 1
        if failure is not None and failure.fault == BACKEND and not stale:
            bad = True
        ejection = backend.ejection
        if ejection is not None:
            if ejection.trial:
                self._on_trial(backend, ejection, started, failure, bad)
        elif bad:
            backend.failed_in_row += 1
            most = self.rules.consecutive_failures
            if most and backend.failed_in_row >= most:
                self._eject(backend, f"{backend.failed_in_row} failures in a row")
        elif failure is None:
            backend.failed_in_row = 0

    def on_switch(self, backend: Backend, started: float) -> None:
        """An attempt at a backend that has failed before has become a tunnel, which may last for hours. If it
        was to try the backend, that has succeeded."""
        ejection = backend.ejection
        if ejection is not None and ejection.trial and not (ejection.earlier and started < ejection.opened):
            self._on_trial(backend, ejection, started, None, False)

    def _on_trial(
        self, backend: Backend, ejection: Ejection, started: float, failure: Failure | None, bad: bool
    ) -> None:
        if ejection.earlier and started < ejection.opened:
            ejection.earlier -= 1
        elif bad:
            self._eject(backend, "it failed again")
        elif failure is None:
            log.info("pool %s: backend %s is back", self.fleet.name, backend.id)
            self._release(backend, ejection)
            self.fleet.recovered(backend)
        else:  # nobody knows: the client left, or an idle connection had broken
            ejection.closed = ejection.trial = False
            self.fleet.refresh()

    # --- out and back ---

    def _eject(self, backend: Backend, why: str) -> None:
        rules, now = self.rules, self.clock.time()
        before = backend.ejection
        if before is None and rules.enforce and not self._may_go(backend):
            self._try_early(now)
            return
        backend.ejections += 1
        if not rules.enforce:
            backend.failed_in_row = 0
            log.info("pool %s: backend %s would be ejected (%s)", self.fleet.name, backend.id, why)
            return
        times, seconds = self._how_long(backend, now)
        if before is not None and before.timer is not None:
            before.timer.cancel()
        self._past[backend] = times, now
        ejection = Ejection(f"ejected ({why}, for {seconds:g} s)", now + seconds)
        ejection.timer = self.clock.call_later(seconds, self._open, backend, ejection)
        backend.ejection = ejection
        backend.failed_in_row = backend.failed_in_row or 1
        log.warning("pool %s: backend %s is ejected for %g s: %s", self.fleet.name, backend.id, seconds, why)
        self.fleet.refresh()

    def _how_long(self, backend: Backend, now: float) -> tuple[int, float]:
        """How often its time is doubled after this ejection, and the seconds of this one."""
        rules = self.rules
        times, back = self._past.get(backend, (0, now))
        if backend.ejection is None:  # it was back in the meantime
            times = max(0, times - int((now - back) / rules.interval))
        longest = max(rules.ejection, rules.max_ejection)
        seconds = min(rules.ejection * 2.0**times, longest)
        return (times + 1 if seconds < longest else times), seconds

    def _open(self, backend: Backend, ejection: Ejection) -> None:
        """The time is over: a candidate for one request."""
        if backend.ejection is ejection:
            ejection.closed = False
            ejection.opened = self.clock.time()
            self.fleet.refresh()

    def _try_early(self, now: float) -> None:
        """There is no room for one more: whoever is to be back first is tried now.

        In a rolling restart it has long been well, and the next one is down.
        """
        out = [
            (each.ejection.until, each.id, each)
            for each in self.fleet.backends.values()
            if each.ejection is not None and each.ejection.closed and not each.ejection.trial
        ]
        if not out or now < self._tried_early + EARLY:
            return
        self._tried_early = now
        _, _, backend = min(out)
        ejection = backend.ejection
        if ejection is not None:
            if ejection.timer is not None:
                ejection.timer.cancel()
            self._open(backend, ejection)

    def _release(self, backend: Backend, ejection: Ejection) -> None:
        if ejection.timer is not None:
            ejection.timer.cancel()
        backend.ejection = None
        backend.failed_in_row = 0
        times, _ = self._past.get(backend, (0, 0.0))
        self._past[backend] = times, self.clock.time()

    def release_all(self) -> None:
        """Everyone is back. The pool has to be refreshed after it."""
        for backend in self.fleet.backends.values():
            if backend.ejection is not None:
                self._release(backend, backend.ejection)

    def forget(self, backend: Backend) -> None:
        """It has left the pool."""
        if backend.ejection is not None:
            self._release(backend, backend.ejection)
        self._past.pop(backend, None)
        self._counted.pop(backend, None)
        self._stale.pop(backend, None)

    # --- how many ---

    def _most(self, active: int) -> int:
        return int(self.rules.max_ejected * active + 1e-9)  # 0.29 times 100 are 29, though not in floats

    def _may_go(self, backend: Backend) -> bool:
        active = [each for each in self.fleet.backends.values() if each.active]
        out = sum(each.ejection is not None for each in active)
        return (
            backend in active
            and backend.healthy
            and out < self._most(len(active))
            and any(each is not backend and _serves(each) for each in active)
        )

    def settle(self) -> None:
        """Lets go of those who are too many now that others have left or fallen ill. Part of a refresh."""
        out = [each for each in self.fleet.backends.values() if each.ejection is not None]
        if not out:
            return
        active = [each for each in self.fleet.backends.values() if each.active]
        out = sorted((each for each in out if each in active), key=_until)
        too_many = len(out) - self._most(len(active))
        if not any(_serves(each) for each in active):
            too_many = len(out)
        for backend in out[: max(0, too_many)]:
            if backend.ejection is not None:
                self._release(backend, backend.ejection)

    # --- by rate ---

    def _look_later(self) -> None:
        """Starts looking at failure rates, where there is a rule for them and nobody looks yet."""
        if self._timer is None and self.rules.failure_rate is not None:
            self._counted = {each: self._counts(each) for each in self.fleet.backends.values()}
            self._timer = self.clock.call_later(self.rules.interval, self._look)

    def _look(self) -> None:
        """Compares what each backend has done with what it had done an interval ago."""
        rules = self.rules
        self._timer = None
        if rules.failure_rate is None:
            return
        before = self._counted
        self._look_later()
        for backend, (attempts, failed) in list(self._counted.items()):
            attempts_before, failed_before = before.get(backend, (0, 0))
            attempts -= attempts_before
            failed -= failed_before
            enough = attempts >= rules.minimum_requests and failed > 0
            if backend.ejection is None and enough and failed >= rules.failure_rate * attempts:
                self._eject(backend, f"{failed} of {attempts} attempts failed")

    def _counts(self, backend: Backend) -> tuple[int, int]:
        """How many attempts at it have ended so far, and how many of them badly."""
        failures = sum(backend.failures.values()) - self._stale.get(backend, 0)
        failed_without_status = failures - sum(backend.failures.get(name, 0) for name in _ANSWERED)
        bad_statuses = sum(backend.requests.get(status, 0) for status in self.rules.statuses)
        attempts = sum(backend.requests.values()) + failed_without_status
        return attempts, failures + bad_statuses


def _serves(backend: Backend) -> bool:
    ejection = backend.ejection
    return backend.healthy and (ejection is None or not ejection.closed)


def _until(backend: Backend) -> float:
    return backend.ejection.until if backend.ejection is not None else 0.0
