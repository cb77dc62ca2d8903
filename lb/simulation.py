"""What `lb simulate` does: finds the scenario, or the log to be replayed, and the policies; runs; prints."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console

from lb.config.scenario import load_scenario
from lb.scenarios import WrongPolicy, contestants, scenario, with_workers
from lb.simulate import replay, report
from lb.simulate.access_log import LONGEST, Entry, Told, WrongFormat, entries, reader_for, spread
from lb.simulate.contestant import CannotRun, Contestant
from lb.simulate.default import ONE_SLOW_REPLICA
from lb.simulate.estimate import Estimate, estimated
from lb.simulate.plot import CannotPlot, Seen, checked, draw
from lb.simulate.progress import showing_progress
from lb.simulate.run import Result, simulate
from lb.simulate.scenario import Scenario
from lb.simulate.trace import Trace, traced

WIDE = 110
"""Columns of a table that isn't for a terminal."""

STANDARD_INPUT = Path("-")


class CannotSimulate(Exception):
    """It can't be run as it was asked for: one line says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    names: Sequence[str]
    scenario_file: Path | None
    log_file: Path | None
    log_format: str
    pool: str
    slots: int | None  # 0: no queue
    backends: int
    workers: int | None
    seed: int
    as_json: bool
    plot: Path | None


@dataclass(frozen=True, slots=True)
class _Log:
    """A log that has been read."""

    trace: Trace
    estimates: Sequence[Estimate]
    told: Told
    keyless: Sequence[str]  # policies that go by what the log doesn't say


def run(asked: Asked) -> None:
    """Raises CannotSimulate, or ConfigError where the scenario is wrong."""
    try:
        if asked.plot is not None:
            checked(asked.plot)
        world, chosen, log = _log(asked) if asked.log_file is not None else _scenario(asked)
        if asked.workers is not None:
            world = with_workers(world, asked.workers)
        seen = {each.label: Seen() for each in chosen} if asked.plot is not None else {}
        with showing_progress(Console(stderr=True), len(chosen)) as progress:
            results = list(simulate(world, chosen, asked.seed, progress, seen))
        if asked.plot is not None:
            draw(asked.plot, world, asked.seed, seen)
    except (WrongPolicy, CannotRun, CannotPlot, WrongFormat) as error:
        raise CannotSimulate(str(error)) from error
    if log is not None:
        results.insert(0, replay.logged(log.trace, log.estimates))
    _print(asked, world, results, log)


def _scenario(asked: Asked) -> tuple[Scenario, list[Contestant], None]:
    spec, world, directory = None, ONE_SLOW_REPLICA, Path.cwd()
    file = asked.scenario_file
    if file is not None:
        spec = load_scenario(file)
        world = scenario(spec, file.stem)
        directory = directory if asked.names else file.parent
    return world, contestants(asked.names, spec, directory), None


def _print(asked: Asked, world: Scenario, results: Sequence[Result], log: _Log | None) -> None:
    if asked.as_json:
        found = report.as_json(world, asked.seed, results)
        if log is not None:
            found["log"] = _log_as_json(log)
        print(json.dumps(found, indent=2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    console.print(report.as_table(world, asked.seed, results))
    for line in [*_doubts(results), *_remarks(log)] if log is not None else ():
        console.print(line, markup=False)


# --- a log ---


def _log(asked: Asked) -> tuple[Scenario, list[Contestant], _Log]:
    if asked.scenario_file is not None:
        raise CannotSimulate("a log has its own requests and backends: leave out --scenario or --replay")
    file = asked.log_file or STANDARD_INPUT
    chosen = contestants(asked.names, None, Path.cwd())
    told = Told()
    with showing_progress(Console(stderr=True), 1) as progress:
        try:
            trace = traced(_entries(file, asked, told, lambda share: progress(f"reading {file}", share)))
        except (OSError, EOFError, zlib.error) as error:
            why = getattr(error, "strerror", None) or error
            raise CannotSimulate(f"can't read {file}: {why}") from error
    _usable(file, trace, told, asked)
    estimates = estimated(trace, asked.slots, asked.backends, asked.seed)
    world = replay.replayed(trace, estimates, file.name if file != STANDARD_INPUT else "standard input")
    if not asked.backends:
        chosen.insert(0, replay.as_logged())
    keyless = [each.label for each in chosen if each.options.get("key", "client") not in ("client", "path")]
    return world, chosen, _Log(trace, estimates, told, keyless)


def _entries(file: Path, asked: Asked, told: Told, progress: Callable[[float], object]) -> Iterator[Entry]:
    lines = _lines(file, progress)
    first = next(lines, "")
    while first and not first.strip():
        first = next(lines, "")
    named = asked.log_format or ("json" if first.lstrip().startswith("{") else "nginx")

    def all_of_them() -> Iterator[str]:
        if first:
            yield first
        yield from lines

    for entry in spread(entries(all_of_them(), reader_for(named), told)):
        if asked.pool and entry.pool != asked.pool:
            told.elsewhere += 1
        else:
            yield entry


def _lines(file: Path, progress: Callable[[float], object]) -> Iterator[str]:
    """Its lines, one at a time: the file may be larger than the memory, and so may be a line."""
    size = 0
    with sys.stdin.buffer if file == STANDARD_INPUT else file.open("rb") as raw:
        if file != STANDARD_INPUT:
            size = os.fstat(raw.fileno()).st_size
        stream = gzip.GzipFile(fileobj=raw) if file.suffix == ".gz" else raw
        text = io.TextIOWrapper(stream, "utf-8", "backslashreplace")
        for number in count():
            line = text.readline(LONGEST + 1)
            if not line:
                return
            if number % 1000 == 0:
                progress(raw.tell() / size if size else 0.0)
            yield line


def _usable(file: Path, trace: Trace, told: Told, asked: Asked) -> None:
    """Raises CannotSimulate where there is nothing to replay."""
    if not trace.requests:
        why = f"; {told.first}" if told.first else ""
        at_pool = f" of the pool {asked.pool}" if asked.pool else ""
        raise CannotSimulate(f"{file}: none of its {told.lines} lines is a request{at_pool}{why}")
    if len(trace.pools) > 1:
        pools = ", ".join(f"{name} ({count})" for name, count in sorted(trace.pools.items()))
        raise CannotSimulate(f"{file} has requests of several pools: {pools}; say which by --pool")
    named = [name for name in trace.backends if name]
    if not named and not asked.backends:
        raise CannotSimulate(
            f"{file} doesn't say which backend had a request ($upstream_addr in nginx): say how many there "
            "are by --backends"
        )
    if named and asked.backends:
        raise CannotSimulate(f"{file} names its {len(named)} backends: leave out --backends")


def _log_as_json(log: _Log) -> dict[str, Any]:
    trace, told = log.trace, log.told
    return {
        "lines": told.lines,
        "malformed": told.malformed,
        "first_malformed": told.first or None,
        "elsewhere": told.elsewhere,
        "requests": trace.requests,
        "seconds": trace.seconds,
        "backends": [
            {"id": each.server.id, "attempts": each.attempts, "slots": each.slots, "median": each.median}
            for each in log.estimates
        ],
    }


SHOWN = 12
"""Backends whose estimates are printed."""


FAR = 0.25
"""By so much the median or the p90 differ where the estimates don't fit."""


def _doubts(results: Sequence[Result]) -> Iterator[str]:
    log, again = results[0], results[1]
    if again.policy == replay.AS_LOGGED and any(
        abs(again.latency[name] - log.latency[name]) > FAR * log.latency[name] for name in ("p50", "p90")
    ):
        yield ""
        yield f"'{replay.AS_LOGGED}' is far from '{replay.LOG}': the estimates don't fit; see --slots."


def _remarks(log: _Log) -> Iterator[str]:
    told, trace = log.told, log.trace
    yield ""
    shown = [
        f"{each.server.id} {report.seconds(each.median)}"
        + (f" ({each.slots} at a time)" if each.slots else "")
        for each in log.estimates[:SHOWN]
    ]
    more = f" and {len(log.estimates) - SHOWN} more" if len(log.estimates) > SHOWN else ""
    yield f"Work on a request, as estimated (median): {', '.join(shown)}{more}"
    if not any(each.slots for each in log.estimates):
        yield "No queue at a backend can be seen in the log, so none forms in the replay either."
    if told.malformed:
        yield f"{told.malformed} of {told.lines} lines are no requests and were left out ({told.first})"
    if told.elsewhere:
        yield f"{told.elsewhere} requests did not come to this pool, and were left out"
    for label in log.keyless:
        yield f"{label}: the log doesn't have such a key, so all requests were without one"
    if trace.late:
        yield f"{trace.late} requests were out of order by too much, and came later than in the log"
