"""Request records: the last exchanges, kept as they are, so that each can be asked for by its ID."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator

from lb.core.record import ExchangeRecord


class RequestRecords:
    """A ring of the last `size` finished exchanges. What falls out is forgotten.

    Keeping one is the append of a bounded deque: no copy, no index, no Python code of ours on the hot path.
    Looking one up is a walk from the newest to the oldest, which only people who ask pay for.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._ring: deque[ExchangeRecord] = deque(maxlen=size)
        self.on_exchange: Callable[[ExchangeRecord], None] = self._ring.append

    def __len__(self) -> int:
        return len(self._ring)

    def find(self, request_id: bytes | str) -> ExchangeRecord | None:
        """The newest exchange of this request ID, if it is still held."""
        wanted = request_id.encode("utf-8", "replace") if isinstance(request_id, str) else request_id
        if not wanted:  # what was refused before it got an ID can't be told apart
            return None
        return next((exchange for exchange in reversed(self._ring) if exchange.id == wanted), None)

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
        for exchange in reversed(self._ring):
            if exchange.ended - exchange.started < min_duration:
                continue
            if status is not None and exchange.status not in status:
                continue
            if backend is not None and all(each.backend.id != backend for each in exchange.attempts):
                continue
            if failure is not None and failure not in _failures(exchange):
                continue
            yield exchange


def _failures(exchange: ExchangeRecord) -> Iterator[str]:
    for failure in (exchange.failure, *(attempt.failure for attempt in exchange.attempts)):
        if failure is not None:
            yield failure.name
