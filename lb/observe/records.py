"""Request records: the last exchanges, kept so that each can be asked for by its ID.

To keep the objects themselves would cost most of all that is done for a request: ten thousand of them, with
all that they refer to, are ten megabytes that no cache holds, and each new one would be made in cold memory.
So the ordinary exchange (one attempt, no failure) is written into a preallocated slot as plain numbers, and
what is shared by many (names, the pool's view) is kept once. All others are few, and kept as they are.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from struct import Struct
from typing import Any

from lb.core.backend import Backend
from lb.core.pool import REMEMBERED, PoolView, Seen
from lb.core.record import AttemptRecord, ExchangeRecord

_ID, _TARGET = 36, 96  # bytes; whoever has more is kept as it is
# ID, target and its length, how many loads there are, and these; times; bytes; statuses, reused
_SLOT = Struct(f"={_ID}s{_TARGET}sBB{REMEMBERED}I7d4QHHB")
_REST = [(0,) * (REMEMBERED - count) for count in range(REMEMBERED + 1)]
_PER_PAGE = 1024
_NAMES = 4096  # sets of names that are kept once

Names = tuple[str, str, bytes, bytes, str, str, str, Sequence[Backend], Backend]
"""Listener, client, method, host, route, pool, reason, the backends drawn, the one picked."""


class RequestRecords:
    """A ring of the last `size` finished exchanges. What falls out is forgotten.

    Looking one up is a walk from the newest to the oldest, which only people who ask pay for.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._at = 0
        self._kept: list[Names | ExchangeRecord | None] = [None] * size
        self._views: list[PoolView | None] = [None] * size
        self._pages: list[bytearray | None] = [None] * (size // _PER_PAGE + 1)
        self._names: dict[Names, Names] = {}

    def __len__(self) -> int:
        return self.size - self._kept.count(None)

    def on_exchange(self, exchange: ExchangeRecord) -> None:
        at = self._at
        if at >= self.size:
            if not self.size:
                return
            at = 0
        self._at = at + 1
        attempts = exchange.attempts
        if exchange.failure is None and len(attempts) == 1 and len(exchange.id) == _ID:
            seen = attempts[0].seen
            if seen is not None and self._pack(at, exchange, attempts[0], seen):
                return
        self._kept[at] = exchange

    def _pack(self, at: int, exchange: ExchangeRecord, attempt: AttemptRecord, seen: Seen) -> bool:
        """Writes an ordinary exchange into its slot; false where something of it has no room there."""
        view, loads, drawn, reason = seen
        target = exchange.target
        count = len(loads)
        if len(target) > _TARGET or count != len(view.candidates) or drawn.__class__ is not tuple:
            return False
        _SLOT.pack_into(
            self._pages[at // _PER_PAGE] or self._new_page(at // _PER_PAGE),
            at % _PER_PAGE * _SLOT.size,
            *(exchange.id, target, len(target), count, *loads, *_REST[count]),
            *(exchange.started, exchange.received_at, exchange.ended),
            *(attempt.started, attempt.connected, attempt.head_at, attempt.ended),
            *(exchange.bytes_in, exchange.bytes_out, attempt.sent, attempt.received),
            *(exchange.status, attempt.status, attempt.reused),
        )
        who = (exchange.listener, exchange.client, exchange.method, exchange.host, exchange.route)
        names = (*who, exchange.pool, reason, drawn, attempt.backend)
        self._kept[at] = self._names.get(names) or self._new_names(names)
        self._views[at] = view
        return True

    def _new_page(self, number: int) -> bytearray:
        self._pages[number] = page = bytearray(_PER_PAGE * _SLOT.size)
        return page

    def _new_names(self, names: Names) -> Names:
        if len(self._names) >= _NAMES:
            self._names.clear()  # those in use come back at once
        self._names[names] = names
        return names

    # --- for people who ask ---

    def find(self, request_id: bytes | str) -> ExchangeRecord | None:
        """The newest exchange of this request ID, if it is still held."""
        wanted = request_id.encode("utf-8", "replace") if isinstance(request_id, str) else request_id
        if not wanted:  # what was refused before it got an ID can't be told apart
            return None
        for at in self._newest_first():
            kept = self._kept[at]
            if isinstance(kept, ExchangeRecord):
                if kept.id == wanted:
                    return kept
            elif self._slot(at)[0] == wanted:
                return self._unpacked(at)
        return None

    def search(
        self,
        backend: str | None = None,
        status: Container[int] | None = None,
        failure: str | None = None,
        min_duration: float = 0.0,
        limit: int = 100,
    ) -> list[ExchangeRecord]:
        """Up to `limit` exchanges for which all that is given holds, newest first.

        `backend` is the ID of one that any attempt went to, `status` a set of statuses that the client got,
        `failure` the name of the exchange's failure or of an attempt's, `min_duration` seconds.
        """
        found: list[ExchangeRecord] = []
        for exchange in self._matching(backend, status, failure, min_duration):
            if len(found) >= limit:
                break
            found.append(exchange)
        return found

    def _matching(
        self, backend: str | None, status: Container[int] | None, failure: str | None, min_duration: float
    ) -> Iterator[ExchangeRecord]:
        for exchange in map(self._unpacked, self._newest_first()):
            if exchange.ended - exchange.started < min_duration:
                continue
            if status is not None and exchange.status not in status:
                continue
            if backend is not None and all(each.backend.id != backend for each in exchange.attempts):
                continue
            if failure is not None and failure not in _failures(exchange):
                continue
            yield exchange

    def _newest_first(self) -> Iterator[int]:
        for at in (*range(self._at - 1, -1, -1), *range(self.size - 1, self._at - 1, -1)):
            if self._kept[at] is not None:
                yield at

    def _slot(self, at: int) -> tuple[Any, ...]:
        page = self._pages[at // _PER_PAGE]
        assert page is not None
        return _SLOT.unpack_from(page, at % _PER_PAGE * _SLOT.size)

    def _unpacked(self, at: int) -> ExchangeRecord:
        """The exchange as it was handed to us."""
        kept, view = self._kept[at], self._views[at]
        if isinstance(kept, ExchangeRecord):
            return kept
        assert kept is not None
        assert view is not None
        listener, client, method, host, route, pool, reason, drawn, backend = kept
        request_id, target, length, count, *rest = self._slot(at)
        loads, rest = tuple(rest[:count]), rest[REMEMBERED:]
        exchange = ExchangeRecord(rest[0], listener, client)
        exchange.id, exchange.target = request_id, target[:length]
        exchange.method, exchange.host, exchange.route, exchange.pool = method, host, route, pool
        attempt = AttemptRecord(backend, rest[3])
        exchange.received_at, exchange.ended, _, attempt.connected, attempt.head_at, attempt.ended = rest[1:7]
        exchange.bytes_in, exchange.bytes_out, attempt.sent, attempt.received = rest[7:11]
        exchange.status, attempt.status, reused = rest[11:]
        attempt.reused = bool(reused)
        attempt.seen = (view, loads, drawn, reason)
        exchange.attempts = (attempt,)
        return exchange


def _failures(exchange: ExchangeRecord) -> Iterator[str]:
    for failure in (exchange.failure, *(attempt.failure for attempt in exchange.attempts)):
        if failure is not None:
            yield failure.name
