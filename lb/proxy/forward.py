"""Who the client is, by what trusted proxies say, and what we tell the backend of it: X-Request-ID,
X-Forwarded-For, -Proto and -Host or Forwarded (RFC 7239), and Via."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lb.core.backend import Backend
from lb.core.identity import client_address
from lb.core.message import Request
from lb.core.route import Route
from lb.wire.fields import OWS, valid_host
from lb.wire.forwarded import believed, element
from lb.wire.heads import OURSELVES
from lb.wire.proxy_header import proxy_header

if TYPE_CHECKING:
    from lb.proxy.connection import ClientConnection

_FORWARDED_HOST: Final = b"\r\nX-Forwarded-Host: "
X_FORWARDED: Final = "x-forwarded"  # the ways of saying who the client is
RFC7239: Final = "rfc7239"
EITHER: Final = "either"
BOTH: Final = "both"
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
    if request.via or request.http10 or connection.in_full:
        return b"\r\n".join(_lines(connection, request, request_id, backend))
    return (
        connection.plane.id_field + request_id + _FORWARDED_HOST + request.host + connection.constant_fields
    )


def _lines(
    connection: ClientConnection, request: Request, request_id: bytes, backend: Backend
) -> list[bytes]:
    version = b"1.0" + OURSELVES if request.http10 else VIA
    lines = [connection.plane.id_field + request_id]
    writes = connection.plane.identification.writes
    if writes != RFC7239:
        lines += _x_forwarded(connection, request)
    if writes != X_FORWARDED:
        lines.append(b"Forwarded: " + _forwarded(connection, request))
    lines.append(b"Via: " + (request.via + b", " + version if request.via else version))
    if not request.host:  # HTTP/1.0 may come without, HTTP/1.1 may not go without
        lines.append(b"Host: " + backend.spec.authority.encode())
    if connection.verified:
        lines.append(connection.verified[2:])
    return lines


def _x_forwarded(connection: ClientConnection, request: Request) -> list[bytes]:
    peer = connection.peer.encode()
    host = request.forwarded_host or request.host
    lines = [
        b"X-Forwarded-For: " + (request.forwarded_for + b", " + peer if request.forwarded_for else peer),
        b"X-Forwarded-Proto: " + (request.forwarded_proto or connection.scheme),
    ]
    if host:
        lines.append(b"X-Forwarded-Host: " + host)
    return lines


def _forwarded(connection: ClientConnection, request: Request) -> bytes:
    """What a trusted proxy has in Forwarded is continued; what it has in X-Forwarded-* is translated."""
    peer = connection.peer
    if request.forwarded:
        return request.forwarded + b", " + element(peer, request.host, connection.scheme)
    host = request.forwarded_host or request.host
    proto = request.forwarded_proto or connection.scheme
    if not request.forwarded_for:
        return element(peer, host, proto)
    client = client_address(peer, request.forwarded_for, connection.plane.identification.trusted_proxies)
    ours = element(peer, request.host, connection.scheme)
    return ours if client == peer else element(client, host, proto) + b", " + ours


def believe(connection: ClientConnection, request: Request) -> str:
    """The client's address by what a trusted proxy says. Of that, only what can be believed is left.

    Either the proxy writes X-Forwarded-* or it writes Forwarded, and the other one may come from anybody: all
    is taken from the one, and nothing from the other.
    """
    identification = connection.plane.identification
    reads, proxies = identification.reads, identification.trusted_proxies
    if reads == RFC7239 or (reads == EITHER and request.forwarded and not _says_x_forwarded(request)):
        found = believed(connection.peer, request.forwarded, proxies)
        request.lines[1:] = [line for line in request.lines[1:] if not _is_x_forwarded(line)]
        request.forwarded_for = b", ".join(found.nodes)
        client, proto, host = found.client, found.proto, found.host
    else:
        request.forwarded = b""
        client = client_address(connection.peer, request.forwarded_for, proxies)
        # Of several, the last one is by the proxy that we know.
        proto = request.forwarded_proto.rpartition(b",")[2].strip(OWS).lower()
        host = request.forwarded_host.rpartition(b",")[2].strip(OWS)
    request.forwarded_proto = proto if proto in (b"http", b"https") else b""
    request.forwarded_host = host if host and valid_host(host) else b""
    return client


def _says_x_forwarded(request: Request) -> bool:
    if request.forwarded_for or request.forwarded_proto or request.forwarded_host:
        return True
    return bool([line for line in request.lines[1:] if _is_x_forwarded(line)])


def _is_x_forwarded(line: bytes) -> bool:
    return line[:12].lower() == b"x-forwarded-" or line[:10].lower() == b"x-real-ip:"


def client_header(connection: ClientConnection, client: str, version: int) -> bytes:
    """The PROXY protocol's word for the client: who really asked, by what trusted proxies say. Only of who
    is connected to us a port is known."""
    source, destination = connection.ends
    if client not in (connection.peer, connection.client):
        source = (client, 0)
    return proxy_header(version, source, destination)


def rewritten(request: Request, route: Route) -> None:
    """The target as the route wants it at the backend."""
    request.target = route.rewrite(request.target)
    request.lines[0] = b"%b %b HTTP/1.1" % (request.method, request.target)
