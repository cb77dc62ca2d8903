"""The answers that we make ourselves: for failures short ones, with the failure's name and the request's ID,
unless a route has others; and those that a route has in place of a pool's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from time import gmtime, strftime, time
from typing import Final

from lb.core.answers import ErrorPage, FixedAnswer, Redirect
from lb.core.failure import METHOD_NOT_ALLOWED, Failure
from lb.core.message import Response
from lb.wire.fields import members

_PHRASES = {
    **{status.value: status.phrase for status in HTTPStatus},
    413: "Content Too Large",  # RFC 9110, section 15.5.14
    414: "URI Too Long",
    422: "Unprocessable Content",
}
_NO_BODY = (204, 205, 304)

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
    failure: Failure,
    request_id: bytes,
    accept: bytes | None,
    retry_after: float = 0.0,
    page: ErrorPage | None = None,
    challenge: bytes = b"",
) -> tuple[Response, bytes]:
    """Head and body for a failure: JSON where the client's Accept names it, else text; or the page for it.

    `retry_after` is in how many seconds it is worth another try; 0.0 where nobody knows. `challenge` is the
    line that asks for a login.

    Nothing in it tells an address of the inside.
    """
    kind, body = _page(page, failure, request_id) if page is not None else _own(failure, request_id, accept)
    lines = [
        _status_line(failure.status),
        b"Content-Type: " + kind,
        b"Content-Length: %d" % len(body),
        b"Cache-Control: no-store",
        dates.line(),
    ]
    if retry_after:
        lines.append(b"Retry-After: %d" % ceil(retry_after))
    if challenge:
        lines.append(challenge)
    if failure is METHOD_NOT_ALLOWED:
        lines.append(_ALLOW)
    return Response(failure.status, lines, len(body)), body


def _page(page: ErrorPage, failure: Failure, request_id: bytes) -> tuple[bytes, bytes]:
    """Content type and body, as the configuration has them."""
    values = {
        "request_id": request_id,
        "status": b"%d" % failure.status,
        "failure": failure.name.encode(),
        "message": failure.message.encode(),
    }
    return page.content_type, page.render(values)


def _own(failure: Failure, request_id: bytes, accept: bytes | None) -> tuple[bytes, bytes]:
    """The same of our own."""
    if accept is not None and _wants_json(accept):
        fields = {
            "status": failure.status,
            "error": failure.name,
            "message": failure.message,
            "request_id": request_id.decode("ascii"),
        }
        return b"application/json", json.dumps(fields).encode() + b"\n"
    text = f"{failure.status} {_phrase(failure.status)}: {failure.message} ({failure.name}, request "
    return b"text/plain; charset=utf-8", text.encode() + request_id + b")\n"


def options() -> Response:
    """What this hop can do, for an OPTIONS that was to go no further."""
    return Response(200, [b"HTTP/1.1 200 OK", _ALLOW, b"Content-Length: 0", dates.line()], 0)


def own_answer(found: FixedAnswer | Redirect, values: Mapping[str, bytes]) -> tuple[Response, bytes]:
    """Head and body of what a route answers itself. `values` are those of the placeholders."""
    lines = [_status_line(found.status), dates.line()]
    if isinstance(found, Redirect):
        lines += [b"Location: " + found.location(values), b"Content-Length: 0"]
        return Response(found.status, lines, 0), b""
    body = found.body
    if found.status not in _NO_BODY:
        lines.append(b"Content-Length: %d" % len(body))
    elif found.status == 205:  # RFC 9110, section 15.3.6: it has none, and has to say so
        lines.append(b"Content-Length: 0")
    if body:
        lines.append(b"Content-Type: " + found.content_type)
    return Response(found.status, lines, len(body)), body


def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {_phrase(status)}".encode()


def _phrase(status: int) -> str:
    return _PHRASES.get(status, "Error" if status >= 400 else "OK")


def _wants_json(accept: bytes) -> bool:
    kinds = [member.partition(b";")[0].strip() for member in members(accept)]
    return any(kind == b"application/json" or kind.endswith(b"+json") for kind in kinds)
