"""Access logs to be replayed: what a world would have written, and lines by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from lb.balance import policy_class
from lb.simulate.access_log import Told, entries, reader_for, spread
from lb.simulate.clock import Event
from lb.simulate.contestant import Contestant
from lb.simulate.run import Result, result_of
from lb.simulate.scenario import Scenario
from lb.simulate.trace import Trace, traced
from lb.simulate.world import World

START = 1_760_000_000.0


class Writing(World):
    """Writes a line of our own log for each request."""

    def __init__(self, scenario: Scenario, policy: str) -> None:
        super().__init__(scenario, Contestant(policy, policy_class(policy)))
        self.lines: list[str] = []
        self._on_end = self._write

    def _write(self, event: Event) -> None:
        now, _, _, _, backend, asked, started, failure, status, *_ = event
        self.lines.append(
            line(
                asked,
                backend=backend.id,
                status=status or 502,
                failure=failure.name if failure else None,
                duration_ms=(now - asked) * 1e3,
                attempt_ms=(now - started) * 1e3,
                client=f"10.0.0.{len(self.lines) % 40}",
            )
        )
        self._end(event)


def line(at: float, **fields: Any) -> str:
    """A line of our own log, in part."""
    time = datetime.fromtimestamp(START + at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    usual = {"time": time, "client": "10.0.0.1", "path": "/", "status": 200, "failure": None, "pool": "p"}
    usual |= {"backend": "a", "attempts": 1, "duration_ms": 10.0, "attempt_ms": 10.0}
    return json.dumps(usual | fields)


@cache
def log_of(scenario: Scenario, policy: str) -> tuple[tuple[str, ...], Result]:
    """The log of a run, and what came of it."""
    world = Writing(scenario, policy)
    world.run()
    return tuple(world.lines), result_of(world)


def trace_of(lines: Iterable[str], format_: str = "json") -> tuple[Trace, Told]:
    told = Told()
    return traced(spread(entries(lines, reader_for(format_), told))), told


def reading(lines: Sequence[str], format_: str) -> list[Any]:
    return list(spread(entries(lines, reader_for(format_), Told())))
