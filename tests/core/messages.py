"""Heads made by hand."""

from __future__ import annotations

from lb.core.message import Request, Response


def made_request(
    target: bytes = b"/", *fields: bytes, method: bytes = b"GET", host: bytes = b"shop.test"
) -> Request:
    """A request's head as a codec would hand it over."""
    request = Request(method, target, [b"%b %b HTTP/1.1" % (method, target), *fields])
    request.host = host
    return request


def made_response(status: bytes = b"200 OK", *fields: bytes, length: int = 0) -> Response:
    """A response's head as a codec would hand it over: one of a known length has it among its fields."""
    lines = [b"HTTP/1.1 " + status, *fields]
    if length >= 0:
        lines.append(b"Content-Length: %d" % length)
    return Response(int(status[:3]), lines, length)
