"""The access log: one JSON line for each exchange, gathered and written many at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii as quoted

from lb.core.record import AttemptRecord, ExchangeRecord
from lb.observe.timestamp import iso_time

log = logging.getLogger("lb.access_log")

GATHERED = 64 * 1024  # characters; more than this is written at once
_KNOWN = 1024  # so many quoted strings are kept at hand


class AccessLog:
    """Writes finished exchanges as JSON lines.

    `write` takes bytes, and may say how many of them it took, as files do; `epoch` is the Unix time at which
    the monotonic clock stood at 0. Someone has to call `flush` every now and then, and at the end.

    A line's `path` is the request's target as it came, with its query, up to 1 KiB. Times ending in `_ms`
    are in milliseconds, or null where it never came to that: `duration_ms` and `request_ms` (until the
    request's body was here) count from the request's head; `connect_ms`, `first_byte_ms` and `attempt_ms`
    count from the pick of the last attempt, like the metrics of the backends do.

    A disk that is full or a reader that has gone must not cost a single request: such lines are dropped and
    counted in `dropped`, and the log says so once.
    """

    def __init__(self, write: Callable[[bytes], object], epoch: float) -> None:
        self.dropped = 0
        self._write = write
        self._epoch = epoch
        self._lines: list[str] = []
        self._size = 0
        self._second = -1  # the Unix time whose text is at hand
        self._second_text = ""
        self._names = _Names()
        self._values = _Values()
        self._failing = False
        self._cut = False  # whether the last thing written was the beginning of a line

    def on_exchange(self, exchange: ExchangeRecord) -> None:
        line = self._line(exchange)
        self._lines.append(line)
        self._size += len(line)
        if self._size > GATHERED:
            self.flush()

    def flush(self) -> None:
        """Writes what has been gathered. Never raises for what the writing meets."""
        if not self._lines:
            return
        data = "".join(self._lines).encode("ascii")
        self._lines.clear()
        self._size = 0
        if self._cut:
            data = b"\n" + data  # so that only the line that was cut is lost
        try:
            while data:
                taken = self._write(data)
                if not isinstance(taken, int) or taken >= len(data):
                    data = b""
                elif taken <= 0:
                    raise OSError("nothing was taken")
                else:
                    self._cut = data[taken - 1 : taken] != b"\n"
                    data = data[taken:]
        except (OSError, ValueError) as error:  # ValueError: the file has been closed
            self._on_lost(data, error)
        else:
            self._on_written()

    def _on_lost(self, data: bytes, error: Exception) -> None:
        self.dropped += data.count(b"\n") - data.startswith(b"\n")
        if not self._failing:
            self._failing = True
            log.error("the access log can't be written, its lines are dropped: %s", error)

    def _on_written(self) -> None:
        self._cut = False
        if self._failing:
            self._failing = False
            log.warning("the access log can be written again; %d lines have been lost so far", self.dropped)

    def _line(self, exchange: ExchangeRecord) -> str:
        # One f-string a line: a fraction of what building a dict and dumping it costs.
        started = exchange.started
        now = self._epoch + started
        second = int(now)
        if second != self._second:
            self._second, self._second_text = second, iso_time(second)[:-4]
        names = self._names
        values = self._values
        failure = exchange.failure
        received = exchange.received_at
        return (
            f'{{"time":"{self._second_text}{int((now - second) * 1e3):03d}Z",'
            f'"request_id":"{exchange.id.decode()}","client":{names[exchange.client]},'
            f'"user":{names[exchange.user] if exchange.user else "null"},'
            f'"listener":{names[exchange.listener]},'
            f'"tls":{names[exchange.tls] if exchange.tls else "null"},"method":{values[exchange.method]},'
            f'"host":{values[exchange.host]},'
            f'"path":{quoted(exchange.target.decode("utf-8", "backslashreplace"))},'
            f'"status":{exchange.status},"failure":{names[failure.name] if failure else "null"},'
            f'"route":{names[exchange.route]},"pool":{names[exchange.pool]},'
            f'"bytes_in":{exchange.bytes_in},"bytes_out":{exchange.bytes_out},'
            f'"duration_ms":{(exchange.ended - started) * 1e3:.3f},'
            f'"request_ms":{_millis(started, received) if received != started else "0.000"},'
            f"{self._attempts(exchange.attempts)}}}\n"
        )

    def _attempts(self, attempts: Sequence[AttemptRecord]) -> str:
        if not attempts:
            return '"backend":null,"attempts":0,"connect_ms":null,"first_byte_ms":null,"attempt_ms":null'
        last = attempts[-1]
        picked, connected = last.started, last.connected
        return (
            f'"backend":{self._names[last.backend.id]},"attempts":{len(attempts)},'
            f'"connect_ms":{_millis(picked, connected) if connected != picked else "0.000"},'
            f'"first_byte_ms":{_millis(picked, last.head_at)},"attempt_ms":{_millis(picked, last.ended)}'
        )


def _millis(since: float, moment: float) -> str:
    return f"{(moment - since) * 1e3:.3f}" if moment else "null"


class _Names(dict[str, str]):
    """JSON strings of what comes again and again: addresses, names. Forgets all when it has grown large."""

    def __missing__(self, name: str) -> str:
        if len(self) >= _KNOWN:
            self.clear()
        text = self[name] = quoted(name)
        return text


class _Values(dict[bytes, str]):
    """The same for bytes from the wire, which may be no UTF-8 at all."""

    def __missing__(self, value: bytes) -> str:
        if len(self) >= _KNOWN:
            self.clear()
        text = self[value] = quoted(value.decode("utf-8", "backslashreplace"))
        return text
