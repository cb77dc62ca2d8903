"""Hot functions by themselves, in nanoseconds: `python -m benchmarks.micro [PART OF A NAME]`.

For finding out where time goes and whether a change helps; what counts is the whole, `python -m benchmarks`.
To add one: a function that yields pairs of a name and a call without arguments, in `SUBJECTS`.
"""

import sys
import time
from asyncio import new_event_loop
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from timeit import Timer
from typing import Any

from rich.console import Console
from rich.table import Table

from .cases import BROWSER, FEW

REPEATS = 5
SECONDS = 0.1  # of each repeat, at least

Subject = tuple[str, Callable[[], object]]


def request_ids() -> Iterator[Subject]:
    from lb.core.identity import RequestIds

    yield "request ID", RequestIds(time.time).new


def picks() -> Iterator[Subject]:
    """`Pool.pick` alone, and with the start and end that follow it."""
    from lb.balance import policies
    from lb.core.backend import BackendSpec
    from lb.core.pool import Pool

    clock = new_event_loop()
    for name, policy in policies().items():
        for count in (3, 3000):
            pool = Pool("micro", policy(clock, Random(1)), clock)
            pool.update(BackendSpec(f"b{n}", "127.0.0.1", 1 + n, weight=1 + n % 3) for n in range(count))

            def attempt(pool: Pool = pool) -> None:
                backend: Any = pool.pick(None)
                pool.start(backend)
                pool.end(backend, 0.0, None, status=200)

            yield f"pick {name}, {count:,} backends", partial(pool.pick, None)
            yield f"pick, start, end {name}, {count:,} backends", attempt
    clock.close()


class _Peer:
    """Stands on both sides of a codec and does nothing."""

    def on_head(self, request: object, data: bytes, end: bool) -> None: ...
    def on_own(self, request: object) -> None: ...
    def on_malformed(self, failure: object, start: bytes) -> None:
        raise AssertionError(f"{failure}: {start!r}")

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


def request_heads() -> Iterator[Subject]:
    """A request without a body, from the bytes to `on_head`."""
    from lb.core.message import Limits
    from lb.wire.fields import request_rules
    from lb.wire.h1_server import ServerCodec

    for headers in (FEW, BROWSER):
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n{fields}\r\n".encode()
        peer: Any = _Peer()
        codec = ServerCodec(peer, peer, Limits(), request_rules(), trusted=False)

        def parse(codec: ServerCodec = codec, head: bytes = head) -> None:
            codec.feed(head)
            codec.next()

        yield f"parse a request of {len(headers) + 1} headers", parse


def response_heads() -> Iterator[Subject]:
    """A response with its body, from the bytes to `on_head`."""
    from lb.core.message import Request
    from lb.wire.fields import response_rules
    from lb.wire.h1_client import ClientCodec

    few = ["Content-Type: text/plain"]
    many = [
        *few,
        "Server: x",
        "Date: Thu, 01 Jan 1970 00:00:00 GMT",
        "Cache-Control: no-store",
        "Vary: Accept",
    ]
    many += [
        'ETag: "1"',
        "Connection: keep-alive",
        "X-Content-Type-Options: nosniff",
        "X-Frame-Options: DENY",
    ]
    request = Request(b"GET", b"/", [b"GET / HTTP/1.1", b"Host: a"])
    for fields in (few, many):
        answer = "\r\n".join(
            ["HTTP/1.1 200 OK", "Content-Length: 14", *fields, "", "hello from here"[:14]]
        ).encode()
        peer: Any = _Peer()
        codec = ClientCodec(peer, response_rules("X-Request-ID"))

        def parse(codec: ClientCodec = codec, answer: bytes = answer, peer: Any = peer) -> None:
            codec.send_head(peer, request, b"X-Request-ID: 1", b"", True)
            codec.feed(answer)

        yield f"send a request, parse a response of {len(fields) + 1} headers", parse


SUBJECTS = (request_ids, picks, request_heads, response_heads)


def nanoseconds(call: Callable[[], object]) -> float:
    """Of one call; the least of several repeats, since noise only ever adds."""
    timer = Timer(call)
    count, took = timer.autorange()
    count = max(count, int(count * SECONDS / took))
    return min(timer.repeat(REPEATS, count)) / count * 1e9


def main() -> None:
    """Times what is there; names what is not."""
    wanted = " ".join(sys.argv[1:])
    console = Console()
    table = Table("function", "ns per call", title="Hot functions", title_justify="left")
    table.columns[1].justify = "right"
    for subjects in SUBJECTS:
        try:
            for name, call in subjects():
                if wanted in name:
                    table.add_row(name, f"{nanoseconds(call):,.0f}")
        except (ImportError, AttributeError, TypeError) as error:  # the house is still being built
            console.print(f"[yellow]{subjects.__name__} can't be timed: {error}", highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()
