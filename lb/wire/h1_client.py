"""HTTP/1.1 towards backends (RFC 9112): requests are written, responses read, by the law of `h1_server.py`.

IDLE -> HEAD -> (LENGTH | CHUNKED | REST) -> IDLE ... or CLOSED
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from lb.core.failure import (
    BAD_RESPONSE,
    RESET,
    RESPONSE_CUT,
    Failure,
)
from lb.core.message import CHUNKED, UNTIL_CLOSE, Request, Response
from lb.wire.chunked import LAST, ChunkedError, ChunkedReader, chunk, last_chunk
from lb.wire.fields import Rules
from lb.wire.heads import (
    NO_CALLBACKS,
    parse_response,
    switches,
)
from lb.wire.stream import ResponseSink, Transport

READ_HEAD: Final = 0
READ_LENGTH: Final = 1
READ_CHUNKED: Final = 2
READ_REST: Final = 3
IDLE: Final = 4
CLOSED: Final = 5

_MAX_RESPONSE_HEAD: Final = 131072  # bytes; more is no head but an attack or an accident
_MAX_INTERIM: Final = 64  # 1xx responses before the real one
_NO_BODY: Final = (204, 304)


class ClientCodec:
    """Writes requests and reads responses, one attempt at a time."""

    __slots__ = (
        "_chunked",
        "_chunking",
        "_head_request",
        "_interim",
        "_left",
        "_parser",
        "_pending",
        "_rules",
        "_sink",
        "_state",
        "_transport",
        "_upgrade",
        "_write",
        "reusable",
    )

    def __init__(self, transport: Transport, rules: Rules) -> None:
        self._transport = transport
        self._write = transport.write
        self._rules = rules
        self._state = IDLE
        self._sink: ResponseSink | None = None
        self._pending = b""
        self._parser: HttpResponseParser | None = None
        self._left = 0
        self._interim = 0
        self._chunked: ChunkedReader | None = None
        self._chunking = False
        self._head_request = False
        self._upgrade = b""  # the protocols that were offered
        self.reusable = True  # whether another request may go this way after the present one

    # --- to the backend ---

    def send_head(self, sink: ResponseSink, request: Request, extra: bytes, data: bytes, end: bool) -> None:
        """Begins an attempt, whose response `sink` is told of: the head, with the first data or all of it,
        in one write. `extra` are field lines of ours."""
        self._sink = sink
        self._state = READ_HEAD
        self._interim = 0
        self._head_request = request.method == b"HEAD"
        self._upgrade = request.upgrade
        if request.length == CHUNKED:
            self._chunking = True
            if data:
                data = chunk(data)
            if end:
                data += LAST
                self._chunking = False
        self._write(b"\r\n".join([*request.lines, extra, b"", data]))

    def send_data(self, data: bytes) -> None:
        self._write(chunk(data) if self._chunking else data)

    def send_end(self, trailers: Sequence[bytes]) -> None:
        if self._chunking:
            self._chunking = False
            self._write(last_chunk(list(trailers)))

    # --- from the backend ---

    @property
    def idle(self) -> bool:
        return self._state == IDLE

    def feed(self, data: bytes) -> None:
        """Takes bytes from the backend and tells of what they hold."""
        state = self._state
        if state == READ_HEAD:
            self._feed_head(data)
            return
        sink = self._sink
        if sink is None:
            self.reusable = False  # bytes that belong to no response: nobody gets them
        elif state == READ_LENGTH:
            self._feed_length(data, sink)
        elif state == READ_CHUNKED:
            self._feed_chunked(data, sink)
        else:
            sink.on_data(data)

    def _feed_length(self, data: bytes, sink: ResponseSink) -> None:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            sink.on_data(data)
            return
        if left < 0:
            self.reusable = False
            data = data[:left]
        self._finish()
        sink.on_data(data)
        sink.on_end(())

    def _feed_chunked(self, data: bytes, sink: ResponseSink) -> None:
        reader = self._chunked
        assert reader is not None
        try:
            content, rest = reader.feed(data)
        except ChunkedError:
            self._fail(BAD_RESPONSE)
            return
        if rest:
            self.reusable = False
        done = reader.done
        if done:
            self._finish()
        if content:
            sink.on_data(content)
        if done:
            sink.on_end(reader.trailers)

    def _feed_head(self, data: bytes) -> None:
        parser = self._parser or HttpResponseParser(NO_CALLBACKS)
        scanned = len(self._pending)
        if scanned:
            data = self._pending + data
        stop = data.find(b"\r\n\r\n", scanned - 3 if scanned > 3 else 0) + 4
        try:
            parser.feed_data(data[scanned:stop] if stop >= 4 else data[scanned:])
        except HttpParserUpgrade:
            pass  # judged by its status below
        except HttpParserError:
            self._fail(BAD_RESPONSE)
            return
        if (stop if stop >= 4 else len(data)) > _MAX_RESPONSE_HEAD:
            self._fail(BAD_RESPONSE)
            return
        if stop < 4:
            self._pending, self._parser = data, parser
            return
        self._parser, self._pending = None, b""
        response = parse_response(data[: stop - 4].split(b"\r\n"), self._rules)
        if response is None:
            self._fail(BAD_RESPONSE)
        elif response.status >= 200:
            self._begin(response, data[stop:], parser)
        else:
            self._interim_head(response, data[stop:])

    def _interim_head(self, response: Response, rest: bytes) -> None:
        """A 1xx is here, and what came behind it: the real one is still to come."""
        if response.status == 101 and self._upgrade and switches(response, self._upgrade):
            self._switch(response, rest)
            return
        self._interim += 1
        if response.status == 101 or self._interim > _MAX_INTERIM:
            self._fail(BAD_RESPONSE)
            return
        if self._sink is not None:
            self._sink.on_interim(response)
        if rest and self._sink is not None:
            self._feed_head(rest)

    def _switch(self, response: Response, rest: bytes) -> None:
        """What follows is another protocol's, and none of ours to read."""
        sink, self._sink = self._sink, None
        self._state = CLOSED
        self.reusable = False
        if sink is not None:
            sink.on_switch(response, rest)

    def _begin(self, response: Response, rest: bytes, parser: HttpResponseParser) -> None:
        """A final response's head is here, with what came behind it."""
        sink = self._sink
        assert sink is not None
        length = response.length
        if self._head_request or response.status in _NO_BODY:
            length = 0
        self.reusable = response.keep_alive
        if length == len(rest):
            if length and parser.should_keep_alive():  # llhttp steps over the body, and is good for the next
                parser.feed_data(rest)
                self._parser = parser
            self._state = IDLE
            self._sink = None
            sink.on_head(response, rest, True)
        elif length > len(rest):
            self._state = READ_LENGTH
            self._left = length - len(rest)
            sink.on_head(response, rest, False)
        elif length >= 0:
            self.reusable = False  # there is more than belongs to it
            self._finish()
            sink.on_head(response, rest[:length], True)
        elif length == UNTIL_CLOSE:
            self.reusable = False
            self._state = READ_REST
            sink.on_head(response, rest, False)
        else:
            self._begin_chunked(response, rest, sink)

    def _begin_chunked(self, response: Response, rest: bytes, sink: ResponseSink) -> None:
        self._state = READ_CHUNKED
        self._chunked = reader = ChunkedReader(self._rules, response.named)
        try:
            content, beyond = reader.feed(rest)
        except ChunkedError:
            self._fail(BAD_RESPONSE)
            return
        if beyond:
            self.reusable = False
        done = reader.done
        if done:
            self._finish()
        at_once = done and not reader.trailers
        sink.on_head(response, content, at_once)
        if done and not at_once:
            sink.on_end(reader.trailers)

    def _finish(self) -> None:
        self._state = IDLE
        self._sink = self._chunked = None

    def _fail(self, failure: Failure) -> None:
        sink, self._sink = self._sink, None
        self._state = CLOSED
        self.reusable = False
        if sink is not None:
            sink.on_error(failure)

    def eof(self, clean: bool) -> None:
        """The backend has closed the connection: `clean` with a FIN, or else by a reset."""
        self.reusable = False
        state, sink = self._state, self._sink
        self._state = CLOSED
        self._sink = None
        if sink is None:
            return
        if state == READ_REST and clean:
            sink.on_end(())
        elif state == READ_HEAD:
            sink.on_error(BAD_RESPONSE if self._pending or self._interim else RESET)
        else:
            sink.on_error(RESPONSE_CUT)

    def detach(self) -> None:
        """The attempt has no more interest: nobody is told of what still comes."""
        self._sink = None
        self._state = CLOSED
        self.reusable = False
