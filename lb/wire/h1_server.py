"""HTTP/1.1 towards clients (RFC 9112): requests are read, responses written.

The law of both halves of HTTP/1.1: a head is judged whole before anything of it is used (`heads.py`), and
the lengths of bodies are counted, to the byte, so that nothing that lies beyond a message is ever taken for
a part of it. What is refused ends the connection.

    HEAD -> (LENGTH | CHUNKED) -> WAIT (for the response) -> HEAD ... or CLOSED
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from httptools import HttpRequestParser

from lb.core.failure import (
    BAD_FRAMING,
    BAD_REQUEST,
    BODY_TOO_LARGE,
    HEAD_TOO_LARGE,
    URI_TOO_LONG,
    Failure,
)
from lb.core.message import CHUNKED, Limits, Request, Response
from lb.wire.chunked import LAST, ChunkedError, ChunkedReader, chunk, last_chunk
from lb.wire.fields import Rules
from lb.wire.heads import (
    CODING_CHUNKED,
    NO_CALLBACKS,
    Answered,
    Refused,
    judged,
    line_begun,
    parse_request,
)
from lb.wire.stream import RequestHandler, RequestSink, Transport

READ_HEAD: Final = 0
READ_LENGTH: Final = 1
READ_CHUNKED: Final = 2
WAIT: Final = 3
CLOSED: Final = 4

_MAX_WAITING: Final = 65536  # bytes of requests that a client may send ahead of its turn
_NO_BODY: Final = (204, 304)
_CARRIAGE_RETURN: Final = 13


class ServerCodec:
    """Reads requests and writes responses, one exchange at a time, in order.

    What a client sends beyond the present request (pipelining) waits until `next()`, and reading pauses when
    too much of it does.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_chunking",
        "_feeding",
        "_handler",
        "_left",
        "_limits",
        "_most",
        "_parser",
        "_request",
        "_rules",
        "_scanned",
        "_skipped",
        "_small",
        "_state",
        "_transport",
        "_trusted",
        "_write",
        "ends_with_connection",
        "held",
        "keep_alive",
        "paused",
        "pending",
        "received",
        "secure",
    )

    def __init__(
        self, transport: Transport, handler: RequestHandler, limits: Limits, rules: Rules, trusted: bool
    ) -> None:
        self._transport = transport
        self._write = transport.write
        self._handler = handler
        self._limits = limits
        # A head of at most so many bytes can't break any of them (the shortest field has four).
        self._small = min(limits.request_line, limits.header_bytes, 4 * limits.header_count)
        self._rules = rules
        self._trusted = trusted  # whether X-Forwarded-* and the request ID of this client are believed
        self._state = READ_HEAD
        self.pending = b""  # bytes that could not be used yet
        self._scanned = 0  # of them, how many hold no end of a head
        self._parser: HttpRequestParser | None = None  # of a head that came in pieces, or for the next one
        self._skipped = False  # whether an empty line has been ignored in front of it
        self._request: Request | None = None
        self._body: RequestSink | None = None
        self._left = 0  # bytes of the body to come
        self._most: int | None = None  # that a chunked body may have
        self._chunked: ChunkedReader | None = None
        self._chunking = False  # whether the response is being sent chunked
        self._feeding = False
        self.held = False  # whether the client must first read what is there for it
        self.paused = False  # whether the backend takes no more of the body
        self.keep_alive = True
        self.ends_with_connection = False  # whether the response's end is told by that of the connection
        self.received = 0  # bytes of the present request's body
        self.secure = False  # whether the client speaks through TLS

    def go_by(self, rules: Rules, trusted: bool) -> None:
        """Judges the next heads by other rules."""
        self._rules = rules
        self._trusted = trusted

    # --- from the client ---

    @property
    def idle(self) -> bool:
        """Between requests, with nothing of the next one here yet."""
        return self._state == READ_HEAD and not self.pending and not self._skipped

    @property
    def reading_head(self) -> bool:
        """Whether a part of a head is here, and the rest is awaited."""
        return self._state == READ_HEAD and (bool(self.pending) or self._skipped)

    @property
    def reading_body(self) -> bool:
        return self._state in (READ_LENGTH, READ_CHUNKED)

    def feed(self, data: bytes) -> None:
        """Takes bytes from the client and tells of what they hold."""
        if self.pending:
            data, self.pending = self.pending + data, b""
        self._feeding = True
        while data:
            state = self._state
            if state == READ_HEAD and not self.held:
                data = self._feed_head(data)
            elif state == READ_LENGTH:
                data = self._feed_length(data)
            elif state == READ_CHUNKED:
                data = self._feed_chunked(data)
            else:
                if state != CLOSED and self.keep_alive:  # the next request waits for its turn
                    self.pending = data
                    if len(data) > _MAX_WAITING:  # up to there, reading tells when the client goes away
                        self._transport.pause_reading()
                break
        self._feeding = False

    def _feed_head(self, data: bytes) -> bytes:
        if data[0] <= _CARRIAGE_RETURN:
            return self._skip_empty_line(data)
        scanned = self._scanned
        stop = data.find(b"\r\n\r\n", scanned - 3 if scanned > 3 else 0) + 4
        try:
            if stop < 4:
                self._partial_head(data)
                return b""
            if stop == len(data):
                head, rest = data, b""
            else:
                head, rest = data[:stop], data[stop:]
            lines = head[:-4].split(b"\r\n")
            if len(head) > self._small:
                self._judge_size(lines, len(head))
            parser = self._parser or HttpRequestParser(NO_CALLBACKS)
            if scanned:
                judged(parser, head[scanned:], head)
                self._scanned = 0
            else:
                judged(parser, head, head)
            self._skipped = False
            request = parse_request(lines, self._rules, self._trusted, self._limits.body, self.secure)
        except Refused as refused:
            self.refuse(refused.failure, data)
            return b""
        except Answered as answered:
            return self._answer_here(answered.request, rest)
        self._request = request
        self.keep_alive = request.keep_alive
        length = request.length
        if not length:
            # Only here llhttp is at the beginning of a message again, and good for the next one. It has its
            # own mind about that, and heeds Proxy-Connection, which we drop.
            reusable = request.keep_alive and not request.upgrade and parser.should_keep_alive()
            self._parser = parser if reusable else None
            self.received = 0
            self._state = WAIT
            self._handler.on_head(request, b"", True)
            return rest
        self._parser = None
        return self._begin_body(request, length, rest)

    def _answer_here(self, request: Request, rest: bytes) -> bytes:
        """OPTIONS that ends here (RFC 9110, section 7.6.2). Its body, if it has one, is nobody's."""
        self._request = request
        self._parser = None
        self._state = WAIT
        self.received = 0
        self.keep_alive = request.keep_alive and not request.length
        self._handler.on_own(request)
        return rest if self.keep_alive else b""

    def _skip_empty_line(self, data: bytes) -> bytes:
        """RFC 9112, section 2.2: one empty line in front of a request is ignored. llhttp ignores any number,
        and bare line feeds too; we refuse those."""
        if self._skipped or b"\r\n"[: len(data)] != data[:2]:
            self.refuse(BAD_REQUEST, data)
            return b""
        if len(data) == 1:
            self.pending = data
            return b""
        self._skipped = True
        return data[2:]

    def _begin_body(self, request: Request, length: int, rest: bytes) -> bytes:
        """The head tells of a body, of which `rest` may hold all, a part or nothing."""
        if length == CHUNKED:
            self.received = 0
            self._state = READ_CHUNKED
            self._chunked = ChunkedReader(self._rules, request.named)
            self._most = self._limits.body
            self._body = self._handler.on_head(request, b"", False)
        elif len(rest) >= length:
            self.received = length
            self._state = WAIT
            body, rest = rest[:length], rest[length:]
            self._handler.on_head(request, body, True)
        else:
            self.received = len(rest)
            self._left = length - len(rest)
            self._state = READ_LENGTH
            body, rest = rest, b""
            self._body = self._handler.on_head(request, body, False)
        return rest

    def _partial_head(self, data: bytes) -> None:
        """Keeps the beginning of a head, if it may still become a good one."""
        longest = self._limits.request_line
        if len(data) > longest + 1 and data.find(b"\r\n", 0, longest + 2) < 0:
            raise Refused(URI_TOO_LONG)
        if len(data) > self._limits.header_bytes + self._limits.request_line:
            raise Refused(HEAD_TOO_LARGE)
        if not self._scanned and line_begun(data):
            self.pending = data  # may still become anything: what is wrong shows when the line is whole
            return
        if self._parser is None:
            self._parser = HttpRequestParser(NO_CALLBACKS)
        fresh, self._scanned, self.pending = data[self._scanned :], len(data), data
        judged(self._parser, fresh, data)

    def _judge_size(self, lines: list[bytes], total: int) -> None:
        if len(lines[0]) > self._limits.request_line:
            raise Refused(URI_TOO_LONG)
        size = total - len(lines[0])
        if len(lines) - 1 > self._limits.header_count or size > self._limits.header_bytes:
            raise Refused(HEAD_TOO_LARGE)

    def _feed_length(self, data: bytes) -> bytes:
        body, rest = data, b""
        if len(data) > self._left:
            body, rest = data[: self._left], data[self._left :]
        self._left -= len(body)
        self.received += len(body)
        sink = self._body
        assert sink is not None
        if self._left:
            sink.on_data(body)
        else:
            self._state = WAIT
            self._body = None
            sink.on_data(body)
            sink.on_end(())
        return rest

    def _feed_chunked(self, data: bytes) -> bytes:
        reader, sink = self._chunked, self._body
        assert reader is not None
        assert sink is not None
        try:
            content, rest = reader.feed(data)
        except ChunkedError:
            self.close()
            sink.on_error(BAD_FRAMING)
            return b""
        self.received += len(content)
        if self._most is not None and self.received > self._most:
            self.close()
            sink.on_error(BODY_TOO_LARGE)
            return b""
        if reader.done:
            self._state = WAIT
            self._body = self._chunked = None
        if content:
            sink.on_data(content)
        if reader.done:
            sink.on_end(reader.trailers)
        return rest

    def limit_body(self, most: int) -> None:
        """The present request's body may have at most so many bytes, if not fewer already. Its length, where
        it is known, has been judged by who says so."""
        self._most = most if self._most is None else min(self._most, most)

    def refuse(self, failure: Failure, start: bytes) -> None:
        """Gives up on what the client sends; the handler answers, and nothing is read after it."""
        self.close()
        # RFC 9110, section 9.3.2: what looks like a HEAD gets no content, even if it is none.
        self._request = Request(b"HEAD", b"", []) if start.startswith(b"HEAD ") else None
        self._handler.on_malformed(failure, start)

    def close(self) -> None:
        """Takes nothing from the client any more."""
        self._state = CLOSED
        self.pending = b""
        self.keep_alive = False

    def let_go(self) -> None:
        """The client has read what was there for it: its next request may come."""
        self.held = False
        if self._state == READ_HEAD and self.pending and not self._feeding:
            self._transport.resume_reading()
            pending, self.pending = self.pending, b""
            self.feed(pending)

    def next(self) -> None:
        """The exchange has ended: on to the next request."""
        self._state = READ_HEAD
        self._request = self._body = None
        if self.pending or self.paused:
            self.paused = False
            self._transport.resume_reading()
            if self.pending and not self._feeding and not self.held:
                pending, self.pending = self.pending, b""
                self.feed(pending)

    # --- to the client ---

    def send_interim(self, response: Response) -> None:
        """A 1xx response. HTTP/1.0 knows none (RFC 9110, section 15.2)."""
        if self._request is not None and not self._request.http10:
            self._write(b"\r\n".join([*response.lines, b"", b""]))

    def send_switch(self, response: Response, extra: bytes) -> bytes:
        """The 101. What the client has sent already behind its request is handed back: it's not for us."""
        self._write(
            b"\r\n".join(
                [*response.lines, b"Connection: Upgrade", b"Upgrade: " + response.upgrade, extra, b"", b""]
            )
        )
        pending = self.pending
        self.close()
        if len(pending) > _MAX_WAITING:  # then `feed` has paused; whoever takes it sees to its own pace
            self._transport.resume_reading()
        return pending

    def send_head(self, response: Response, extra: bytes, data: bytes, end: bool) -> None:
        """The head, with the first data or all of it, in one write. `extra` are further field lines of ours.

        What says how long the body is, and whether the connection stays, is decided here.
        """
        request = self._request
        lines = response.lines
        if response.length < 0 or not self.keep_alive or request is None or request.http10:
            data = self._frame(response, data, end)
        if request is not None and request.method == b"HEAD":
            data = b""
        lines += (extra, b"", data)
        self._write(b"\r\n".join(lines))

    def _frame(self, response: Response, data: bytes, end: bool) -> bytes:
        """Adds what tells the body's end and the connection's fate; the data as they are to be written."""
        request = self._request
        lines = response.lines
        http10 = request is not None and request.http10
        bodyless = response.status in _NO_BODY or (request is not None and request.method == b"HEAD")
        if response.length < 0 and not bodyless:
            if http10:
                self.keep_alive = False  # only the end of the connection can tell the end of the body
                self.ends_with_connection = True
            else:
                self._chunking = not end
                lines.append(CODING_CHUNKED)
                data = (chunk(data) if data else b"") + (LAST if end else b"")
        if not self.keep_alive:
            lines.append(b"Connection: close")
        elif http10:
            lines.append(b"Connection: keep-alive")
        return data

    def send_data(self, data: bytes) -> None:
        self._write(chunk(data) if self._chunking else data)

    def send_end(self, trailers: Sequence[bytes]) -> None:
        if self._chunking:
            self._chunking = False
            takes = trailers and self._request is not None and self._request.takes_trailers
            self._write(last_chunk(list(trailers)) if takes else LAST)

    def pause(self) -> None:
        """Reads no more from the client until `resume()`: the backend takes no more."""
        self.paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            if len(self.pending) <= _MAX_WAITING:
                self._transport.resume_reading()
