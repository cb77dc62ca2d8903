"""Meters: what a request costs at a backend. How the least cost is found is a matter of choosers."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from lb.core.backend import Backend
from lb.core.clock import Clock
from lb.core.failure import BACKEND, Failure

LEAST = 1e-6
"""No attempt counts as quicker, in seconds: the number in flight is to matter also where all take no time."""


def busy(backend: Backend) -> float:
    """The requests in flight, the one to come included."""
    return backend.in_flight + 1


class Latency:
    """The seconds that attempts take lately, times the requests in flight, the one to come included.

    The mean is weighted by time (EWMA): what was `decay` seconds ago counts for 37 % (1/e). It is taken at
    the last byte, by the clock. As in Finagle and linkerd:

    * The mean of an idle backend fades in the same measure. So who was slow is tried again some time, and
      who is slow gets a request now and then. That of a busy one stays, or one that hangs would look good.
    * Of a new one nothing is known. It gets one request at once, and no other before there is an answer, if
      others are below the `penalty`.

    An attempt that failed by the backend's fault, or with a status of 500 or above, counts as `penalty`
    seconds at least: who fails fast is not good. Where the client or the balancer gave up, it would have
    taken longer than it did; that counts only where it is more than the mean.
    """

    def __init__(self, clock: Clock, decay: float, penalty: float) -> None:
        self._clock = clock
        self._decay = decay
        self._penalty = penalty
        self._known: dict[Backend, tuple[float, float]] = {}  # the mean, and as of when
        self._errors: dict[Backend, int] = {}

    def keep(self, backends: Sequence[Backend]) -> None:
        """These are the backends. Who comes back is new."""
        self._known = {each: self._known[each] for each in backends if each in self._known}
        before = self._errors
        self._errors = {each: before[each] if each in before else errors(each) for each in backends}

    def cost(self, backend: Backend) -> float:
        busy = backend.in_flight
        known = self._known.get(backend)
        if known is None:
            return self._penalty * (busy + 1) if busy else 0.0
        seconds, since = known
        if not busy:
            return seconds * self._left(since)
        return seconds * (busy + 1)

    def ended(self, backend: Backend, started: float, failure: Failure | None) -> None:
        """An attempt has ended. One at a backend that has left is nobody's business."""
        if backend not in self._errors:
            return
        before, self._errors[backend] = self._errors[backend], errors(backend)
        now = self._clock.time()
        took = max(LEAST, now - started)
        failed = self._errors[backend] > before or (failure is not None and failure.fault == BACKEND)
        if failed:
            took = max(took, self._penalty)
        mean, since = self._known.get(backend, (took, now))
        if failed or failure is None or took > mean or backend not in self._known:
            self._known[backend] = self._with(took, mean, self._left(since)), now

    def _with(self, took: float, mean: float, left: float) -> float:
        """The new mean; `left` is the part that the old one still has."""
        return took + (mean - took) * left

    def _left(self, since: float) -> float:
        return exp((since - self._clock.time()) / self._decay)


class Peak(Latency):
    """Rises at once to whatever is above the mean, and comes down slowly: careful, as linkerd is."""

    def _with(self, took: float, mean: float, left: float) -> float:
        return max(took, took + (mean - took) * left)


def errors(backend: Backend) -> int:
    """How many of its answers had a status of 500 or above."""
    return sum(count for status, count in backend.requests.items() if status >= 500)
