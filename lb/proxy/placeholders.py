"""What the placeholders of a route's texts stand for, in a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lb.core.message import Request
from lb.core.route import host_name

if TYPE_CHECKING:
    from lb.core.record import ExchangeRecord


def values_of(
    exchange: ExchangeRecord, request: Request | None, scheme: bytes
) -> Callable[[], Mapping[str, bytes]]:
    """What is asked for them, where there are any. `scheme` is that of the client's connection.

    Path and query are those that the request has now: a route's `strip_prefix` comes later.
    """

    def values() -> Mapping[str, bytes]:
        path, mark, query = (request.target if request is not None else b"").partition(b"?")
        return {
            "client": exchange.client.encode(),
            "host": host_name(exchange.host),
            "method": exchange.method,
            "path": path if path.startswith(b"/") else b"/",  # of OPTIONS * there is none
            "query": mark + query,
            "request_id": exchange.id,
            "scheme": scheme if request is None else request.scheme_over(scheme),
            "user": exchange.user.encode(),
        }

    return values
