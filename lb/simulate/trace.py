"""A log as it is replayed: its requests in the order in which they came, from a file of 38 bytes for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from heapq import heappop, heappush
from struct import Struct
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple
from weakref import finalize

from lb.simulate.access_log import Entry
from lb.simulate.latencies import Latencies

HELD = 200_000
"""So many requests are held back at most to bring them into order: a log has them in the order of their ends.
Who would have to come still earlier comes as soon as it can, and is counted."""

READ = 4096
"""Records that are read at a time."""

_RECORD = Struct("<dffIHQQ")
_FAILED = 1 << 15  # beside a status


class Came(NamedTuple):
    """A request. Seconds from the first one's arrival, or how long."""

    at: float
    waited: float
    took: float  # below 0: it came to no attempt
    backend: int  # place among the trace's names
    status: int  # 0: no answer
    failed: bool
    client: int  # hashes: one that is the same is the same
    path: int


class Trace:
    """The requests of a log, and what it says of them as a whole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        finalize(self, file.close)
        self.backends: list[str] = []  # by their names, in the order of their first requests
        self.pools: dict[str, int] = {}  # how many requests went to each
        self.requests = 0
        self.first = 0.0  # Unix time
        self.seconds = 0.0  # from the first arrival to the last one
        self.latencies = Latencies()  # of those that went well, until their backend's last byte
        self.failures: dict[str, int] = {}
        self.late = 0  # that came out of order all the same
        self._lag = 0.0

    def _add(self, entries: Iterable[Entry]) -> None:
        places: dict[str, int] = {}
        last = 0.0
        for entry in entries:
            at, took = entry.at, entry.took
            place = places.setdefault(entry.backend, len(places))
            if not self.requests:
                self.first = last = at
            self.first, last = min(self.first, at), max(last, at)
            self._lag = max(self._lag, last - at)
            self.requests += 1
            self.pools[entry.pool] = self.pools.get(entry.pool, 0) + 1
            if entry.failure:
                self.failures[entry.failure] = self.failures.get(entry.failure, 0) + 1
            else:
                self.latencies.append(entry.waited + max(0.0, took))
                self.latencies.fold()
            hashes = _hash(entry.client), _hash(entry.path)
            self._file.write(
                _RECORD.pack(
                    at, entry.waited, took, place, entry.status | bool(entry.failure) * _FAILED, *hashes
                )
            )
        self.backends = list(places)
        self.seconds = last - self.first

    def __iter__(self) -> Iterator[Came]:
        """From the first one to the last."""
        waiting: list[tuple[float, int, Came]] = []
        newest = before = 0.0
        self.late = 0
        for number, came in enumerate(self._as_written()):
            newest = max(newest, came.at)
            heappush(waiting, (came.at, number, came))
            while waiting[0][0] <= newest - self._lag or len(waiting) > HELD:
                before = max(before, waiting[0][0])
                yield self._in_order(heappop(waiting)[2], before)
                if not waiting:
                    break
        while waiting:
            before = max(before, waiting[0][0])
            yield self._in_order(heappop(waiting)[2], before)

    def _in_order(self, came: Came, before: float) -> Came:
        if came.at >= before:
            return came
        self.late += 1
        return came._replace(at=before)

    def _as_written(self) -> Iterator[Came]:
        first, place = self.first, 0
        while True:
            self._file.seek(place)
            block = self._file.read(READ * _RECORD.size)
            if not block:
                return
            place += len(block)
            for at, waited, took, backend, status, client, path in _RECORD.iter_unpack(block):
                failed = bool(status & _FAILED)
                yield Came(at - first, waited, took, backend, status & ~_FAILED, failed, client, path)


def _hash(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") if text else 0


def traced(entries: Iterable[Entry]) -> Trace:
    """The trace of a log's entries. It lives in a temporary file, which goes with it."""
    trace = Trace(TemporaryFile("w+b"))  # noqa: SIM115 - it stays open as long as the trace is there
    trace._add(entries)
    return trace
