"""Request records: the last exchanges, kept so that each can be asked for by its ID."""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import islice

from lb.core.record import ExchangeRecord


class RequestRecords:
    """A ring of the last `size` finished exchanges. What falls out is forgotten.

    Looking one up is a walk from the newest to the oldest, which only people who ask pay for.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._at = 0
        self._kept: list[ExchangeRecord | None] = [None] * size

    def __len__(self) -> int:
        return self.size - self._kept.count(None)

    def on_exchange(self, exchange: ExchangeRecord) -> None:
        at = self._at
        if at >= self.size:
            if not self.size:
                return
            at = 0
        self._at = at + 1
        self._kept[at] = exchange

    def resized(self, size: int) -> RequestRecords:
        """Others of this size, with the newest of these that fit in."""
        other = RequestRecords(size)
        for exchange in list(islice(self._newest_first(), size))[::-1]:
            other.on_exchange(exchange)
        return other

    # --- for people who ask ---

    def find(self, request_id: bytes | str) -> ExchangeRecord | None:
        """The newest exchange of this request ID, if it is still held."""
        wanted = request_id.encode("utf-8", "replace") if isinstance(request_id, str) else request_id
        if not wanted:  # what was refused before it got an ID can't be told apart
            return None
        for exchange in self._newest_first():
            if exchange.id == wanted:
                return exchange
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
        for exchange in self._newest_first():
            if len(found) >= limit:
                break
            if exchange.ended - exchange.started < min_duration:
                continue
            if status is not None and exchange.status not in status:
                continue
            if backend is not None and backend not in [each.backend.id for each in exchange.attempts]:
                continue
            if failure is not None and failure not in _failures(exchange):
                continue
            found.append(exchange)
        return found

    def _newest_first(self) -> Iterator[ExchangeRecord]:
        for exchange in reversed(self._kept[self._at :] + self._kept[: self._at]):
            if exchange is not None:
                yield exchange


def _failures(exchange: ExchangeRecord) -> set[str]:
    """Its own failure's name, and those of its attempts."""
    failures = [exchange.failure, *[attempt.failure for attempt in exchange.attempts]]
    return {failure.name for failure in failures if failure is not None}
