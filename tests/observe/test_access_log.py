"""The access log: valid JSON whatever comes, few writes, and no harm from a disk that is full."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.core.failure import CONNECT_FAILED, NO_ROUTE
from lb.observe.access_log import GATHERED, AccessLog
from tests.observe.made import EPOCH, made_attempt, made_exchange, made_pool


class Disk:
    """Takes bytes until it has `room` for no more; then it takes a part and raises, as a file does."""

    def __init__(self, room: int | None = None, at_once: int | None = None) -> None:
        self.data = b""
        self.writes = 0
        self.room = room
        self.at_once = at_once

    def write(self, data: bytes) -> int:
        self.writes += 1
        if self.at_once is not None:
            data = data[: self.at_once]
        if self.room is not None:
            if not self.room:
                raise OSError(28, "No space left on device")
            data = data[: self.room]
            self.room -= len(data)
        self.data += data
        return len(data)

    @property
    def lines(self) -> list[dict[str, object]]:
        assert self.data.endswith(b"\n")
        return [json.loads(line) for line in self.data.splitlines()]


def test_a_line_has_everything():
    disk = Disk()
    log = AccessLog(disk.write, EPOCH)
    pool = made_pool()
    attempt = made_attempt(pool)
    exchange = made_exchange(1, [attempt], started=100.25)
    attempt.started, attempt.connected, attempt.head_at, attempt.ended = 100.251, 100.252, 100.2615, 100.2635
    log.on_exchange(exchange)
    log.flush()
    assert disk.lines == [
        {
            "time": "2023-11-14T22:15:00.250Z",
            "request_id": "018bcfe5-0000-7000-8000-000000000001",
            "client": "10.1.2.3",
            "user": None,
            "listener": "0.0.0.0:8080",
            "tls": None,
            "method": "GET",
            "host": "api.example.com",
            "path": "/v1/hello?to=world",
            "status": 200,
            "failure": None,
            "route": "/v1",
            "pool": "greeter",
            "bytes_in": 0,
            "bytes_out": 14,
            "duration_ms": 15.0,
            "request_ms": 0.5,
            "backend": attempt.backend.id,
            "attempts": 1,
            "connect_ms": 1.0,
            "first_byte_ms": 10.5,
            "attempt_ms": 12.5,
        }
    ]


def test_every_line_has_the_same_keys():
    disk = Disk()
    log = AccessLog(disk.write, EPOCH)
    pool = made_pool()
    unrouted = made_exchange(2, [], NO_ROUTE, status=404)
    unrouted.received_at = 0.0
    log.on_exchange(made_exchange(1, [made_attempt(pool)]))
    log.on_exchange(unrouted)
    log.on_exchange(
        made_exchange(3, [made_attempt(pool), made_attempt(pool, failure=CONNECT_FAILED)], CONNECT_FAILED)
    )
    log.flush()
    full, without, failed = disk.lines
    assert list(full) == list(without) == list(failed)
    assert without["failure"] == "no_route"
    assert (without["backend"], without["attempts"], without["request_ms"]) == (None, 0, None)
    assert (failed["failure"], failed["attempts"]) == ("connect_failed", 2)
    assert failed["connect_ms"] is failed["first_byte_ms"] is None
    assert failed["attempt_ms"] == 3.0


def test_time_goes_on_by_the_second():
    disk = Disk()
    log = AccessLog(disk.write, EPOCH)
    for started in (100.0, 100.9995, 161.5, 100.5):  # one that took long ends after a later one
        log.on_exchange(made_exchange(1, started=started))
    log.flush()
    assert [line["time"] for line in disk.lines] == [
        "2023-11-14T22:15:00.000Z",
        "2023-11-14T22:15:00.999Z",
        "2023-11-14T22:16:01.500Z",
        "2023-11-14T22:15:00.500Z",
    ]


@given(
    target=st.binary(),
    host=st.binary(),
    method=st.binary(),
    client=st.text(st.characters(codec=None)),
    pool=st.text(),
)
def test_any_bytes_make_valid_json(target, host, method, client, pool):
    disk = Disk()
    log = AccessLog(disk.write, EPOCH)
    exchange = made_exchange(1)
    exchange.target, exchange.host, exchange.method = target, host, method
    exchange.client, exchange.pool = client, pool
    log.on_exchange(exchange)
    log.on_exchange(exchange)  # the second one finds its strings at hand
    log.flush()
    assert disk.data.isascii()
    one, two = disk.lines
    assert one == two
    assert one["path"] == target.decode("utf-8", "backslashreplace")
    assert one["host"] == host.decode("utf-8", "backslashreplace")
    assert one["pool"] == pool


def test_what_is_known_by_heart_stays_bounded():
    disk = Disk()
    log = AccessLog(disk.write, EPOCH)
    for number in range(5000):
        exchange = made_exchange(number)
        exchange.host, exchange.client = b"host-%d" % number, f"client-{number}"
        log.on_exchange(exchange)
    log.flush()
    assert [line["host"] for line in disk.lines] == [f"host-{number}" for number in range(5000)]
    assert max(len(log._values), len(log._names)) <= 1024


def test_lines_are_written_together():
    disk = Disk()
    log = AccessLog(disk.write, EPOCH)
    for number in range(100):
        log.on_exchange(made_exchange(number))
    assert disk.writes == 0
    log.flush()
    assert disk.writes == 1
    assert len(disk.lines) == 100
    log.flush()
    assert disk.writes == 1


def test_many_lines_dont_wait_for_the_timer():
    disk = Disk()
    log = AccessLog(disk.write, EPOCH)
    written = 0
    while not disk.writes:
        log.on_exchange(made_exchange(written))
        written += 1
    assert GATHERED < len(disk.data) < GATHERED + 1000
    assert len(disk.lines) == written


def test_a_write_that_takes_a_part_gets_the_rest():
    disk = Disk(at_once=100)
    log = AccessLog(disk.write, EPOCH)
    for number in range(10):
        log.on_exchange(made_exchange(number))
    log.flush()
    assert len(disk.lines) == 10
    assert log.dropped == 0


@pytest.mark.parametrize("room", [0, 1, 700, 1000])
def test_a_full_disk_costs_lines_and_nothing_else(room, caplog):
    disk = Disk(room)
    log = AccessLog(disk.write, EPOCH)
    for number in range(10):
        log.on_exchange(made_exchange(number))
    with caplog.at_level(logging.WARNING, "lb.access_log"):
        log.flush()
        log.on_exchange(made_exchange(10))
        log.flush()
        assert [record.levelname for record in caplog.records] == ["ERROR"]  # once, not at every flush
        assert "No space left" in caplog.text
        disk.room = None
        log.on_exchange(made_exchange(11))
        log.flush()
        assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    whole, cut = [], 0
    for line in disk.data.splitlines():
        try:
            whole.append(json.loads(line)["request_id"])
        except ValueError:
            cut += 1
    assert len(whole) + log.dropped == 12
    assert cut <= 1
    assert whole[-1].endswith("11")


def test_a_closed_file_or_a_gone_reader_is_no_exception():
    for error in (BrokenPipeError(32, "Broken pipe"), ValueError("write to closed file")):

        def gone(data: bytes, error: Exception = error) -> int:
            raise error

        log = AccessLog(gone, EPOCH)
        log.on_exchange(made_exchange(1))
        log.flush()
        assert log.dropped == 1


def test_a_file_that_takes_nothing_doesnt_hang():
    log = AccessLog(lambda data: 0, EPOCH)
    log.on_exchange(made_exchange(1))
    log.flush()
    assert log.dropped == 1
