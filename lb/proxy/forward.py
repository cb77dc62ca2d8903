"""What we tell the backend of the client: X-Request-ID, X-Forwarded-For, -Proto, -Host, and Via."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.core.backend import Backend
from lb.core.message import Request
from lb.core.route import Route
from lb.wire.heads import OURSELVES

if TYPE_CHECKING:
    from lb.proxy.connection import ClientConnection

_FORWARDED_HOST: Final = b"\r\nX-Forwarded-Host: "
VIA: Final = b"1.1" + OURSELVES  # RFC 9110, section 7.6.3: the version received, and a pseudonym for us


def constant_fields(peer: str, scheme: bytes) -> bytes:
    """The lines that are the same for each request of a connection whose client adds nothing to them.

    With a line end in front, so that they need only be added.
    """
    return b"\r\nX-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nVia: %b" % (peer.encode(), scheme, VIA)


def forwarded_fields(
    connection: ClientConnection, request: Request, request_id: bytes, backend: Backend
) -> bytes:
    """Our own lines for a request. A trusted proxy's are continued; anybody else's have been dropped."""
    if request.via or request.http10 or connection.trusted:
        return b"\r\n".join(_lines(connection, request, request_id, backend))
    return (
        connection.plane.id_field + request_id + _FORWARDED_HOST + request.host + connection.constant_fields
    )


def _lines(
    connection: ClientConnection, request: Request, request_id: bytes, backend: Backend
) -> list[bytes]:
    version = b"1.0" + OURSELVES if request.http10 else VIA
    peer = connection.peer.encode()
    proto = request.forwarded_proto.lower()
    host = request.forwarded_host or request.host
    lines = [
        connection.plane.id_field + request_id,
        b"X-Forwarded-For: " + (request.forwarded_for + b", " + peer if request.forwarded_for else peer),
        b"X-Forwarded-Proto: " + (proto if proto in (b"http", b"https") else connection.scheme),
        b"Via: " + (request.via + b", " + version if request.via else version),
    ]
    if host:
        lines.append(b"X-Forwarded-Host: " + host)
    if not request.host:  # HTTP/1.0 may come without, HTTP/1.1 may not go without
        lines.append(b"Host: " + backend.spec.address.encode())
    if connection.verified:
        lines.append(connection.verified[2:])
    return lines


def rewritten(request: Request, route: Route) -> None:
    """The target as the route wants it at the backend."""
    request.target = route.rewrite(request.target)
    request.lines[0] = b"%b %b HTTP/1.1" % (request.method, request.target)
