"""Both ends of a codec, played by hand: what is written on the wire, and what is told behind it.

A conversation is fed with bytes, cut in any way, and says what was understood. It insists on the order of
calls that lb/wire/stream.py promises: head, data, and then nothing after the end or the failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lb.core.failure import Failure
from lb.core.message import Limits, Request, Response
from lb.wire.fields import request_rules, response_rules
from lb.wire.h1_client import ClientCodec
from lb.wire.h1_server import ServerCodec
from tests.core.messages import made_request

COMPLETE = "complete"
OURS = b"X-Request-ID: 1"
"""A field line of ours: both codecs are always given at least one."""


class Wire:
    """A connection that keeps what is written on it."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.reading = True

    def write(self, data: bytes) -> None:
        assert data, "a write of nothing"
        self.writes.append(bytes(data))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)


@dataclass
class Body:
    """What was told of a message's body, and how it ended: `COMPLETE`, or the name of a failure."""

    body: bytes = b""
    trailers: tuple[bytes, ...] = ()
    ending: str = ""

    def on_data(self, data: bytes) -> None:
        assert not self.ending, "data after the end"
        assert data, "data of no bytes"
        self.body += data

    def on_end(self, trailers: Sequence[bytes]) -> None:
        assert not self.ending, "two ends"
        self.trailers = tuple(trailers)
        self.ending = COMPLETE

    def on_error(self, failure: Failure) -> None:
        assert not self.ending, "a failure after the end"
        self.ending = failure.name


# --- requests ---


@dataclass
class RequestHeard(Body):
    """A request as the balancer was told of it: its line and its fields as they go on."""

    line: bytes = b""
    host: bytes = b""
    fields: tuple[bytes, ...] = ()
    keep_alive: bool = True
    expects: bool = False


def request(
    line: bytes,
    *fields: bytes,
    host: bytes = b"shop.test",
    body: bytes = b"",
    trailers: Sequence[bytes] = (),
    keep_alive: bool = True,
    expects: bool = False,
    ending: str = COMPLETE,
) -> RequestHeard:
    """What should have been heard. The Host field goes on as it came, in front of the others."""
    if host:
        fields = (b"Host: " + host, *fields)
    return RequestHeard(body, tuple(trailers), ending, line + b" HTTP/1.1", host, fields, keep_alive, expects)


AT_ONCE, LATER, NEVER = "at once", "later", "never"


class ClientConversation:
    """A client talks to the balancer. Each request is answered (without a word) at once, after the bytes
    that brought it are all in, or never."""

    def __init__(self, limits: Limits | None = None, trusted: bool = False, answers: str = AT_ONCE) -> None:
        self.wire = Wire()
        self.codec = ServerCodec(self.wire, self, limits or Limits(), request_rules(), trusted)
        self.answers = answers
        self.requests: list[RequestHeard] = []
        self.heads: list[Request] = []
        self.own: list[Request] = []  # that were for the balancer itself
        self.refused: list[str] = []
        self._answered = 0

    def says(self, *pieces: bytes) -> ClientConversation:
        for piece in pieces:
            self.codec.feed(piece)
            while self.answers == LATER and self._awaits_answer():
                self.answer()
        return self

    @property
    def understood(self) -> tuple[list[RequestHeard], list[str]]:
        """The requests, and why the rest was refused."""
        return self.requests, self.refused

    def _awaits_answer(self) -> bool:
        return len(self.requests) > self._answered and self.requests[-1].ending == COMPLETE

    def answer(self) -> None:
        """The exchange ends, without a word: on to the next request."""
        self._answered += 1
        heard, head = self.requests[-1], self.heads[-1]
        assert self.codec.received == len(heard.body)
        assert head.length in (len(heard.body), -1)
        if self.codec.keep_alive:
            self.codec.next()
        else:
            self.codec.close()

    # what the codec tells

    def on_head(self, head: Request, data: bytes, end: bool) -> ClientConversation:
        assert not self.refused
        assert len(self.requests) == self._answered, "a request before the last one was answered"
        assert head.lines[0] == b"%b %b HTTP/1.1" % (head.method, head.target)
        heard = RequestHeard(
            line=head.lines[0],
            host=head.host,
            fields=tuple(head.lines[1:]),
            keep_alive=head.keep_alive,
            expects=head.expect_continue,
        )
        self.requests.append(heard)
        self.heads.append(head)
        if data:
            heard.on_data(data)
        if end:
            self.on_end(())
        return self

    def on_data(self, data: bytes) -> None:
        self.requests[-1].on_data(data)

    def on_end(self, trailers: Sequence[bytes]) -> None:
        self.requests[-1].on_end(trailers)
        if self.answers == AT_ONCE:
            self.answer()

    def on_error(self, failure: Failure) -> None:
        self.requests[-1].on_error(failure)

    def on_own(self, head: Request) -> None:
        self.own.append(head)
        if self.codec.keep_alive:
            self.codec.next()
        else:
            self.codec.close()

    def on_malformed(self, failure: Failure, start: bytes) -> None:
        assert not self.refused, "refused twice"
        self.refused.append(failure.name)


# --- responses ---


@dataclass
class ResponseHeard(Body):
    """A response as an attempt was told of it, with those that came before the final one."""

    line: bytes = b""
    fields: tuple[bytes, ...] = ()
    interim: list[tuple[bytes, ...]] = field(default_factory=list)

    def on_interim(self, response: Response) -> None:
        assert not self.line, "an interim response after the final one"
        assert 100 <= response.status < 200
        self.interim.append(tuple(response.lines))

    def on_head(self, response: Response, data: bytes, end: bool) -> None:
        assert not self.line, "two heads"
        self.line, *fields = response.lines
        self.fields = tuple(fields)
        assert self.line.startswith(b"HTTP/1.1 %d" % response.status)
        if data:
            self.on_data(data)
        if end:
            self.on_end(())


def response(
    line: bytes,
    *fields: bytes,
    body: bytes = b"",
    trailers: Sequence[bytes] = (),
    interim: Sequence[tuple[bytes, ...]] = (),
    ending: str = COMPLETE,
) -> ResponseHeard:
    """What should have been heard."""
    return ResponseHeard(body, tuple(trailers), ending, b"HTTP/1.1 " + line, fields, list(interim))


class BackendConversation:
    """The balancer asks a backend, and the backend talks."""

    def __init__(self, method: bytes = b"GET") -> None:
        self.wire = Wire()
        self.codec = ClientCodec(self.wire, response_rules("X-Request-ID"))
        self.ask(made_request(method=method))

    def ask(self, head: Request, data: bytes = b"", end: bool = True) -> ResponseHeard:
        """Sends a request; what is heard of its response."""
        self.heard = ResponseHeard()
        self.codec.send_head(self.heard, head, OURS, data, end)
        return self.heard

    def says(self, *pieces: bytes) -> BackendConversation:
        for piece in pieces:
            self.codec.feed(piece)
        return self

    def closes(self, clean: bool = True) -> BackendConversation:
        self.codec.eof(clean)
        return self


# --- cuts ---


def every_cut(data: bytes) -> Iterator[list[bytes]]:
    """In one piece, in two at each place, and byte by byte."""
    yield [data]
    for place in range(1, len(data)):
        yield [data[:place], data[place:]]
    yield [data[place : place + 1] for place in range(len(data))]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """At these places, wherever they are."""
    if not data:
        return []
    borders = sorted({place % len(data) for place in places} - {0})
    return [data[start:end] for start, end in zip([0, *borders], [*borders, len(data)], strict=True)]
