"""A log that is played again: the requests as they came, at backends that work as the log shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf
from random import Random

from lb.balance import Balancer
from lb.core.affinity import KeyReader
from lb.core.backend import Backend
from lb.core.clock import Clock
from lb.core.message import Request
from lb.simulate.contestant import Contestant
from lb.simulate.estimate import Estimate
from lb.simulate.run import Result
from lb.simulate.scenario import Scenario
from lb.simulate.trace import Trace

LOG, AS_LOGGED = "the log", "as logged"
"""What the log says; and the same picks again, at the backends as they are estimated."""


class AsLogged(Balancer):
    """Picks whom the log has. It shows how far the estimates can be trusted."""

    reason = "the log has it"

    def __init__(self, clock: Clock, rng: Random) -> None:
        super().__init__(clock, rng)
        self._by_name: dict[bytes, Backend] = {}

    def rebuild(self, backends: Sequence[Backend]) -> None:
        self._by_name = {backend.id.encode(): backend for backend in backends}

    def pick(self, request: Request | None, backends: Sequence[Backend]) -> Backend:
        logged = None if request is None else self._by_name.get(request.host)
        return logged or backends[int(self.rng.random() * len(backends))]


class LoggedArrivals:
    """Requests at the times of a trace. `host` is the backend that the log has, for `AsLogged`."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.rate = trace.requests / trace.seconds if trace.seconds else float(trace.requests)
        self._names = [name.encode() for name in trace.backends]

    def play(self, reader: KeyReader | None) -> tuple[Callable[[float], float], Callable[[], Request]]:
        following = self._requests(reader)
        present = upcoming = _NOTHING

        def gap(now: float) -> float:
            nonlocal present, upcoming
            present = upcoming
            at, upcoming = next(following, (inf, _NOTHING))
            return max(0.0, at - now)

        return gap, lambda: present

    def _requests(self, reader: KeyReader | None) -> Iterator[tuple[float, Request]]:
        names = self._names
        for came in self.trace:
            request = Request(b"GET", b"/%x" % came.path if came.path else b"", [b""])
            request.host = names[came.backend]
            if reader is not None:
                request.key = reader(request, f"{came.client:x}" if came.client else "")
                request.target = b""
            yield came.at, request


_NOTHING = Request(b"GET", b"", [b""])


def replayed(trace: Trace, estimates: Sequence[Estimate], name: str) -> Scenario:
    """The scenario of a log."""
    servers = tuple(each.server for each in estimates)
    return Scenario(name, LoggedArrivals(trace), servers, max(trace.seconds, 1e-3))


def as_logged() -> Contestant:
    return Contestant(AS_LOGGED, AsLogged)


def logged(trace: Trace, estimates: Sequence[Estimate]) -> Result:
    """What the log itself says, beside the results of policies."""
    counts = [each.attempts for each in estimates]
    squares = sum(count * count for count in counts)
    failed = sum(trace.failures.values())
    return Result(
        LOG,
        trace.requests,
        failed,
        dict(sorted(trace.failures.items())),
        trace.latencies.summary(),
        sum(counts) ** 2 / (len(counts) * squares) if squares else 1.0,
        0,
        0,
        0,
    )
