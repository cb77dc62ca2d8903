"""Request records for people who ask, whichever process served the request.

`Records` is what the admin API asks: of this process alone (`OwnRecords`), or of all workers (`AllRecords`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from lb.control.channel import Answer
from lb.control.messages import Find, Found, Message, Refused, Search
from lb.core.record import ExchangeRecord
from lb.observe.records import RequestRecords
from lb.observe.render import as_dict

Ask = Callable[[Message, float], Awaitable[list[Message]]]

PATIENCE = 2.0
"""Seconds that a worker may take to answer. One that takes longer is left out."""


class Records(Protocol):
    """The last exchanges of a balancer. `size` is how many are kept at most."""

    size: int

    async def find(self, request_id: str) -> dict[str, Any] | None:
        """The newest one of this request ID as JSON-able values, if it is still held."""

    async def search(self, search: Search) -> Found:
        """The newest ones for which all that is given holds."""


class OwnRecords:
    """Those of this process. `epoch` is the Unix time at which the monotonic clock stood at 0."""

    def __init__(self, records: RequestRecords, epoch: float) -> None:
        self.size = records.size
        self._records = records
        self._epoch = epoch

    async def find(self, request_id: str) -> dict[str, Any] | None:
        found = self.answer(Find(request_id))
        return found.records[0][1] if found.records else None

    async def search(self, search: Search) -> Found:
        return self.answer(search)

    def answer(self, question: Find | Search) -> Found:
        """What a worker says when it is asked."""
        if isinstance(question, Find):
            exchange = self._records.find(question.request_id)
            return self._found([exchange] if exchange is not None else [])
        status = question.status
        return self._found(
            self._records.search(
                question.backend,
                None if status is None else range(status[0], status[1] + 1),
                question.failure,
                question.min_duration,
                question.limit,
            )
        )

    def _found(self, exchanges: Iterable[ExchangeRecord]) -> Found:
        records = [(self._epoch + each.ended, as_dict(each, self._epoch)) for each in exchanges]
        return Found(records, len(self._records))


class AllRecords:
    """Those of all workers, each of which keeps its own. What a worker kept goes when it dies.

    `ask` is the supervisor's.
    """

    def __init__(self, ask: Ask, size: int) -> None:
        self.size = size
        self._ask_all = ask

    async def find(self, request_id: str) -> dict[str, Any] | None:
        found = await self._ask(Find(request_id))
        return found.records[0][1] if found.records else None

    async def search(self, search: Search) -> Found:
        found = await self._ask(search)
        return Found(found.records[: search.limit], found.held)

    async def _ask(self, question: Message) -> Found:
        answers = await self._ask_all(question, PATIENCE)
        found = [each for each in answers if isinstance(each, Found)]
        records = sorted((pair for each in found for pair in each.records), key=_ended, reverse=True)
        return Found(records, sum(each.held for each in found))


def answer_for(records: OwnRecords | None, question: Message) -> Answer:
    """A worker's answer to Find and Search, and to anything else a refusal."""
    if records is None or not isinstance(question, Find | Search):
        return Refused(f"{type(question).__name__} can't be answered here")
    return records.answer(question)


def _ended(pair: tuple[float, dict[str, Any]]) -> float:
    return pair[0]
