"""Deliberately strict parsers of HTTP/1.1: every deviation that a proxy lets through is noted as a violation.

They are our own reading of RFC 9112, and share not a line with `lb.wire`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Fields = list[tuple[str, bytes]]

_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_request_line = re.compile(rb"([^ ]+) ([^ ]+) (HTTP/\d\.\d)", re.S).fullmatch
_status_line = re.compile(rb"(HTTP/1\.[01]) (\d{3})( .*)?", re.S).fullmatch
_bad_target = re.compile(rb"[\x00-\x20\x7f#]").search
_size_line = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[^\r\n]*)?").fullmatch


class Incomplete(Exception):
    """More bytes are needed."""


@dataclass
class Message:
    """What requests and responses have in common. Names are in lower case, values are bytes."""

    headers: Fields = field(default_factory=list)
    trailers: Fields = field(default_factory=list)
    body: bytes = b""
    head: bytes = b""
    violations: list[str] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value.decode("latin-1") for key, value in self.headers if key == name]

    def get(self, name: str) -> str | None:
        """The only value of a field; None if it isn't there."""
        values = self.all(name)
        assert len(values) < 2, f"{name} is there {len(values)} times"
        return values[0] if values else None


@dataclass
class Request(Message):
    method: str = ""
    target: str = ""
    version: str = ""
    connection: int = 0  # the number of the connection it came on


@dataclass
class Response(Message):
    status: int | None = None  # None: there is no whole head; -1: no good status line
    version: str = ""
    status_line: bytes = b""
    complete: bool = False
    interim: list[int] = field(default_factory=list)
    rest: bytes = b""  # what came behind it


def parse_request(data: bytes) -> tuple[Request, int]:
    """The first request, and how many bytes it has. A violation in the framing takes all there is."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        raise Incomplete
    request = Request(head=data[: end + 4])
    _judge_head(data[:end], request.violations)
    start, *lines = data[:end].split(b"\r\n")
    if match := _request_line(start):
        request.method, request.target, request.version = (part.decode("latin-1") for part in match.groups())
        if not _token(match[1]):
            request.violations.append(f"bad method {match[1]!r}")
        if _bad_target(match[2]):
            request.violations.append(f"bad target {match[2][:60]!r}")
    else:
        request.method = request.target = request.version = start.decode("latin-1")
        request.violations.append(f"bad request line {start[:60]!r}")
    request.headers = _fields(lines, request.violations, "head")
    if request.version == "HTTP/1.1" and len(request.all("host")) != 1:
        request.violations.append(f"{len(request.all('host'))} Host fields")
    return request, _request_body(data, end + 4, request)


def _request_body(data: bytes, at: int, request: Request) -> int:
    lengths, codings = request.all("content-length"), request.all("transfer-encoding")
    if lengths and codings:
        request.violations.append("both Content-Length and Transfer-Encoding")
    if len(lengths) > 1:
        request.violations.append("several Content-Length")
    if codings:
        if [coding.lower() for coding in codings] != ["chunked"]:
            request.violations.append(f"Transfer-Encoding {codings!r}")
            return len(data)
        return _chunked(data, at, request)
    if lengths:
        if not re.fullmatch("[0-9]{1,18}", lengths[0], re.ASCII):
            request.violations.append(f"bad Content-Length {lengths[0][:30]!r}")
            return len(data)
        end = at + int(lengths[0])
        if len(data) < end:
            raise Incomplete
        request.body = data[at:end]
        return end
    return at


def parse_response(data: bytes, head_request: bool = False, closed: str = "") -> Response:
    """The first final response, as far as it is here. `closed` is "fin" or "rst" once the other end did."""
    response = Response()
    at = 0
    while True:
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            response.rest = data[at:]
            return response
        response.head = data[at : end + 4]
        _judge_head(data[at:end], response.violations)
        response.status_line, *lines = data[at:end].split(b"\r\n")
        at = end + 4
        match = _status_line(response.status_line)
        if match is None:
            response.violations.append(f"status line {response.status_line[:50]!r}")
            response.status, response.rest = -1, data[at:]
            return response
        headers = _fields(lines, response.violations, "head")
        status = int(match[2])
        if status < 200 and status != 101:
            response.interim.append(status)
            continue
        response.status, response.headers, response.version = status, headers, match[1].decode()
        _response_body(data, at, response, head_request, closed)
        return response


def _response_body(data: bytes, at: int, response: Response, head_request: bool, closed: str) -> None:
    lengths, codings = response.all("content-length"), response.all("transfer-encoding")
    if lengths and codings:
        response.violations.append("both Content-Length and Transfer-Encoding")
    if len(lengths) > 1:
        response.violations.append("several Content-Length")
    if response.status == 101:
        response.body, response.complete = data[at:], True
    elif head_request or response.status in (204, 304):
        response.rest, response.complete = data[at:], True
    elif codings:
        if [coding.lower() for coding in codings] != ["chunked"]:
            response.violations.append(f"Transfer-Encoding {codings!r}")
            return
        try:
            end = _chunked(data, at, response)
        except Incomplete:
            return
        response.complete = not response.violations
        response.rest = data[end:]
    elif lengths:
        if not re.fullmatch("[0-9]{1,18}", lengths[0], re.ASCII):
            response.violations.append(f"bad Content-Length {lengths[0][:30]!r}")
            return
        end = at + int(lengths[0])
        response.body, response.rest = data[at:end], data[end:]
        response.complete = len(data) >= end
    else:
        response.body, response.complete = data[at:], closed == "fin"


def _judge_head(head: bytes, violations: list[str]) -> None:
    rest = head.replace(b"\r\n", b"")
    for octet, name in ((b"\n", "bare LF"), (b"\r", "bare CR"), (b"\0", "NUL")):
        if octet in rest:
            violations.append(f"{name} in head")


def _fields(lines: list[bytes], violations: list[str], where: str) -> Fields:
    found: Fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if line.startswith((b" ", b"\t")):
            violations.append(f"obs-fold in {where}: {line[:40]!r}")
        elif not colon:
            violations.append(f"no colon in {where}: {line[:40]!r}")
        elif not _token(name):
            violations.append(f"bad name in {where}: {name[:40]!r}")
        elif re.search(rb"[\r\n\0]", value):
            violations.append(f"control character in {where}: {line[:40]!r}")
        found.append((name.lower().decode("latin-1"), value.strip(b" \t")))
    return found


def _chunked(data: bytes, at: int, message: Message) -> int:
    """Reads a chunked body into the message, as much of it as is here; where it ends."""
    pieces: list[bytes] = []
    try:
        while True:
            line, at = _line(data, at)
            match = _size_line(line)
            if match is None:
                message.violations.append(f"bad chunk size {line[:40]!r}")
                return len(data)
            size = int(match[1], 16)
            if not size:
                break
            pieces.append(data[at : at + size])
            if len(data) < at + size + 2:
                raise Incomplete
            if data[at + size : at + size + 2] != b"\r\n":
                message.violations.append("chunk data not followed by CRLF")
                return len(data)
            at += size + 2
    finally:
        message.body = b"".join(pieces)
    lines = []
    while True:
        line, at = _line(data, at)
        if not line:
            break
        lines.append(line)
    message.trailers = _fields(lines, message.violations, "trailers")
    return at


def _line(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.find(b"\r\n", at)
    if end < 0:
        raise Incomplete
    return data[at:end], end + 2
