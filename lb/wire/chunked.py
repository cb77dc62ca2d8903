"""The chunked transfer coding (RFC 9112, section 7.1), read strictly and written plainly.

A line ends with CRLF and nothing else, a size is hexadecimal digits and nothing else, extensions follow the
grammar and are dropped, and the trailer section is judged like a header section. Anything else ends the
message: what cannot be read in one way only is not passed on.
"""

from __future__ import annotations

import re
from typing import Final

from lb.wire.fields import TOKEN, Rules, valid_trailer, without

LAST: Final = b"0\r\n\r\n"
_MAX_LINE: Final = 1024  # bytes of a size line with its extensions
_MAX_EXTENSIONS: Final = 16384  # bytes of all extensions of a message: nobody reads them, here or further on
_MAX_TRAILERS: Final = 16384  # bytes of the trailer section

_size: Final = re.compile(rb"[0-9A-Fa-f]{1,32}").fullmatch
_quoted = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_extensions: Final = re.compile(
    rb"(?:[ \t]*;[ \t]*" + TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + TOKEN + rb"|" + _quoted + rb"))?)*"
).fullmatch

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3
_DONE: Final = 4


class ChunkedError(ValueError):
    """The coding was broken."""


class ChunkedReader:
    """Takes bytes as they come; gives what they hold of the content.

    `named` are the fields (lower-case) that the message's Connection field named: they end at this hop in a
    trailer section as they do in a header section (RFC 9110, section 7.6.1).
    """

    __slots__ = (
        "_extension_bytes",
        "_left",
        "_named",
        "_pending",
        "_rules",
        "_state",
        "_trailer_bytes",
        "trailers",
    )

    def __init__(self, rules: Rules, named: tuple[bytes, ...] = ()) -> None:
        self._rules = rules
        self._named = named
        self._extension_bytes = 0
        self._state = _SIZE
        self._left = 0
        self._pending = b""
        self._trailer_bytes = 0
        self.trailers: list[bytes] = []

    @property
    def done(self) -> bool:
        return self._state == _DONE

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Content in these bytes, and what lies beyond the end of the message. Raises ChunkedError."""
        if self._pending:
            data, self._pending = self._pending + data, b""
        content: list[bytes] = []
        at, end = 0, len(data)
        while at < end and self._state != _DONE:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                content.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
                continue
            stop = data.find(b"\r\n", at)
            if stop < 0:
                self._wait_for_line_end(data[at:])
                return b"".join(content), b""
            self._line(data[at:stop])
            at = stop + 2
        return content[0] if len(content) == 1 else b"".join(content), data[at:]

    def _wait_for_line_end(self, start: bytes) -> None:
        """A line whose end has not come yet: refused at once where it can become no good one."""
        body = start.removesuffix(b"\r")
        limit = _MAX_TRAILERS if self._state == _TRAILERS else _MAX_LINE
        if len(body) > limit or b"\r" in body or b"\n" in body or (body and self._state == _DATA_END):
            raise ChunkedError("a line of the chunked coding is broken or too long")
        if self._state == _SIZE and body and not _size(body.partition(b";")[0].rstrip(b" \t")):
            raise ChunkedError("a chunk size is no hexadecimal number")
        self._pending = start

    def _line(self, line: bytes) -> None:
        if self._state == _SIZE:
            self._left = self._chunk_size(line)
            self._state = _DATA if self._left else _TRAILERS
        elif self._state == _DATA_END:
            if line:
                raise ChunkedError("chunk data is longer than its size says")
            self._state = _SIZE
        elif not line:
            self._state = _DONE
        else:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _MAX_TRAILERS or not valid_trailer(line):
                raise ChunkedError("the trailer section is broken or too large")
            if self._rules.trailer_passes(line) and (not self._named or without([line], self._named)):
                self.trailers.append(line)

    def _chunk_size(self, line: bytes) -> int:
        digits = line
        if not _size(line):
            digits, semicolon, rest = line.partition(b";")
            digits = digits.rstrip(b" \t")
            if not semicolon or not _size(digits) or len(line) > _MAX_LINE or not _extensions(b";" + rest):
                raise ChunkedError("a chunk size is no hexadecimal number")
            self._extension_bytes += len(rest)
            if self._extension_bytes > _MAX_EXTENSIONS:
                raise ChunkedError("the chunk extensions are too large")
        size = int(digits, 16)
        if size >= 1 << 60:
            raise ChunkedError("a chunk is larger than any could be")
        return size


def chunk(data: bytes) -> bytes:
    """One chunk of at least one byte: an empty one would end the message."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: list[bytes]) -> bytes:
    """The end of the message, with its trailer fields."""
    return b"\r\n".join([b"0", *trailers, b"", b""]) if trailers else LAST
