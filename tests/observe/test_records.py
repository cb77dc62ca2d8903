"""The ring of request records."""

from lb.core.failure import CONNECT_FAILED, RESPONSE_TIMEOUT
from lb.observe.records import RequestRecords
from tests.observe.made import made_attempt, made_exchange, made_pool


def test_finds_by_id_as_text_and_as_bytes():
    records = RequestRecords(10)
    exchanges = [made_exchange(number) for number in range(5)]
    for exchange in exchanges:
        records.on_exchange(exchange)
    assert all(records.find(exchange.id) is exchange for exchange in exchanges)
    assert records.find(exchanges[3].id.decode()) is exchanges[3]
    assert records.find("018bcfe5-ffff") is None


def test_holds_the_last_ones_only():
    records = RequestRecords(100)
    exchanges = [made_exchange(number) for number in range(250)]
    for exchange in exchanges:
        records.on_exchange(exchange)
    assert len(records) == records.size == 100
    assert [records.find(exchange.id) is exchange for exchange in exchanges] == [False] * 150 + [True] * 100


def test_the_newest_of_one_id_is_found():
    records = RequestRecords(10)
    older, newer = made_exchange(1), made_exchange(1)
    records.on_exchange(older)
    records.on_exchange(newer)
    assert records.find(older.id) is newer


def test_what_got_no_id_is_not_found_by_none():
    records = RequestRecords(10)
    nameless = made_exchange(1)
    nameless.id = b""
    records.on_exchange(nameless)
    assert records.find(b"") is None
    assert records.find("") is None
    assert records.search() == [nameless]


def test_size_0_holds_nothing():
    records = RequestRecords(0)
    records.on_exchange(made_exchange(1))
    assert len(records) == 0
    assert records.search() == []


def test_searches_newest_first_by_whatever_is_given():
    pool = made_pool()
    records = RequestRecords(10)
    good = made_exchange(1, [made_attempt(pool)])
    slow = made_exchange(2, [made_attempt(pool)], duration=3.0)
    late = made_exchange(3, [made_attempt(pool, failure=RESPONSE_TIMEOUT)], RESPONSE_TIMEOUT, status=504)
    hidden = made_exchange(4, [made_attempt(pool, failure=CONNECT_FAILED), made_attempt(pool)])
    for exchange in (good, slow, late, hidden):
        records.on_exchange(exchange)

    def found(**wanted):
        ids = {exchange.id: exchange for exchange in (good, slow, late, hidden)}
        return [ids[exchange.id] for exchange in records.search(**wanted)]

    assert found() == [hidden, late, slow, good]
    assert found(limit=2) == [hidden, late]
    assert found(status=range(500, 600)) == [late]
    assert found(min_duration=3.0 - 1e-9) == [slow]
    assert found(failure="connect_failed") == [hidden]  # the client never saw it
    assert found(failure="response_timeout") == [late]
    for backend in pool.backends:
        wanted = [
            exchange
            for exchange in (hidden, late, slow, good)
            if any(each.backend.id == backend for each in exchange.attempts)
        ]
        assert found(backend=backend) == wanted
    assert found(backend="nobody") == []
    assert found(status=(200,), min_duration=1.0, failure="reset") == []


def test_a_ring_goes_round_more_than_once():
    records = RequestRecords(2500)
    pool = made_pool()
    made = [made_exchange(number, [made_attempt(pool)]) for number in range(6000)]
    for exchange in made:
        records.on_exchange(exchange)
    assert len(records) == 2500
    assert [each.id for each in records.search(limit=9999)] == [each.id for each in reversed(made[3500:])]
