"""Records of requests, whichever worker served them."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from lb.control.all_records import AllRecords, OwnRecords, answer_for
from lb.control.messages import Collect, Find, Found, Message, Refused, Search
from lb.core.failure import RESET
from lb.observe.records import RequestRecords
from lb.observe.render import as_dict
from tests.observe.made import EPOCH, made_attempt, made_exchange, made_pool


def worker(*numbers: int, status: int = 200) -> OwnRecords:
    """One that has served the requests of these numbers, each of them 1 s after the one before it."""
    records, pool = RequestRecords(10), made_pool()
    for number in numbers:
        exchange = made_exchange(number, [made_attempt(pool)], status=status, started=100.0 + number)
        records.on_exchange(exchange)
    return OwnRecords(records, EPOCH)


def all_of(*workers: OwnRecords) -> AllRecords:
    async def ask(message: Message, timeout: float) -> list[Message]:
        answers = [answer_for(each, message) for each in workers]
        return [Found(**json.loads(json.dumps(asdict(each)))) for each in answers if isinstance(each, Found)]

    return AllRecords(ask, 20)


def name(number: int) -> str:
    return made_exchange(number).id.decode()


def names(found: Found) -> list[str]:
    return [record["id"] for _, record in found.records]


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_record_is_found_whoever_served_it(number: int) -> None:
    records = all_of(worker(1, 3), worker(2))
    found = await records.find(name(number))
    assert found is not None
    assert found["id"] == name(number)


async def test_nobody_has_it() -> None:
    assert await all_of(worker(1), worker(2)).find(name(9)) is None
    assert await all_of().find(name(1)) is None
    assert await worker(1).find(name(9)) is None


async def test_of_two_with_the_same_id_the_newer_one() -> None:
    older, newer = RequestRecords(10), RequestRecords(10)
    older.on_exchange(made_exchange(1, started=100.0, status=200))
    newer.on_exchange(made_exchange(1, started=101.0, status=404))
    for both in ((older, newer), (newer, older)):
        found = await all_of(*(OwnRecords(each, EPOCH) for each in both)).find(name(1))
        assert found is not None
        assert found["status"] == 404


async def test_all_in_the_order_of_time_newest_first() -> None:
    found = await all_of(worker(1, 4, 5), worker(2, 3, 6)).search(Search())
    assert names(found) == [name(number) for number in (6, 5, 4, 3, 2, 1)]
    assert found.held == 6


async def test_no_more_than_asked_for() -> None:
    found = await all_of(worker(1, 4, 5), worker(2, 3, 6)).search(Search(limit=2))
    assert names(found) == [name(6), name(5)]


async def test_what_is_searched_for() -> None:
    failed = RequestRecords(10)
    failed.on_exchange(made_exchange(7, failure=RESET, status=502, started=107.0))
    records = all_of(worker(1), worker(2, status=404), OwnRecords(failed, EPOCH))
    assert names(await records.search(Search(status=(400, 499)))) == [name(2)]
    assert names(await records.search(Search(failure=RESET.name))) == [name(7)]
    assert names(await records.search(Search(min_duration=1.0))) == []
    assert names(await records.search(Search(backend="nobody"))) == []


async def test_one_process_alone_answers_alike() -> None:
    own = worker(1, 2)
    assert names(await own.search(Search())) == [name(2), name(1)]
    found = await own.find(name(2))
    assert found == (await own.search(Search(limit=1))).records[0][1]
    assert found == as_dict(own._records.search()[0], EPOCH)


def test_who_keeps_none_or_is_asked_something_else_refuses() -> None:
    assert isinstance(answer_for(None, Find("x")), Refused)
    assert isinstance(answer_for(worker(), Collect()), Refused)
