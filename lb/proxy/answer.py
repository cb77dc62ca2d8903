"""The answers that we make ourselves: short, with the failure's name and the request's ID."""

from __future__ import annotations

import json
from math import ceil
from time import gmtime, strftime, time
from typing import Final

from lb.core.failure import METHOD_NOT_ALLOWED, Failure
from lb.core.message import Response
from lb.wire.fields import members

_PHRASES = {
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
    508: "Loop Detected",
}

_ALLOW = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


class Dates:
    """The present as a Date field (RFC 9110, section 6.6.1), which changes once a second."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def line(self) -> bytes:
        second = int(time())
        if second != self._second:
            self._line = strftime("Date: %a, %d %b %Y %H:%M:%S GMT", gmtime(second)).encode()
            self._second = second
        return self._line


dates: Final = Dates()


def answer(
    failure: Failure, request_id: bytes, accept: bytes | None, retry_after: float = 0.0
) -> tuple[Response, bytes]:
    """Head and body for a failure: JSON where the client's Accept names it, else text.

    `retry_after` is in how many seconds it is worth another try; 0.0 where nobody knows.

    Nothing in it tells an address of the inside.
    """
    phrase = _PHRASES.get(failure.status, "Error")
    if accept is not None and _wants_json(accept):
        kind = b"application/json"
        fields = {
            "status": failure.status,
            "error": failure.name,
            "message": failure.message,
            "request_id": request_id.decode("ascii"),
        }
        body = json.dumps(fields).encode() + b"\n"
    else:
        kind = b"text/plain; charset=utf-8"
        text = f"{failure.status} {phrase}: {failure.message} ({failure.name}, request "
        body = text.encode() + request_id + b")\n"
    lines = [
        f"HTTP/1.1 {failure.status} {phrase}".encode(),
        b"Content-Type: " + kind,
        b"Content-Length: %d" % len(body),
        b"Cache-Control: no-store",
        dates.line(),
    ]
    if retry_after:
        lines.append(b"Retry-After: %d" % ceil(retry_after))
    if failure is METHOD_NOT_ALLOWED:
        lines.append(_ALLOW)
    return Response(failure.status, lines, len(body)), body


def options() -> Response:
    """What this hop can do, for an OPTIONS that was to go no further."""
    return Response(200, [b"HTTP/1.1 200 OK", _ALLOW, b"Content-Length: 0", dates.line()], 0)


def _wants_json(accept: bytes) -> bool:
    kinds = [member.partition(b";")[0].strip() for member in members(accept)]
    return any(kind == b"application/json" or kind.endswith(b"+json") for kind in kinds)
