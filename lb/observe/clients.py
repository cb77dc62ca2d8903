"""What clients asked for, counted as their exchanges end."""

from __future__ import annotations

from lb.core.backend import Histogram
from lb.core.record import ExchangeRecord


class ListenerStats:
    """What clients asked of one listener. It keeps `connections` itself, the number that are open now, and
    how TLS handshakes and headers of the PROXY protocol ended."""

    __slots__ = ("connections", "duration", "handshakes", "proxy_headers", "requests")

    def __init__(self) -> None:
        self.connections = 0
        self.requests: dict[int, int] = {}  # by the status that the client got
        self.handshakes: dict[str, int] = {}  # by result
        self.proxy_headers: dict[str, int] = {}
        self.duration = Histogram()


class ClientMetrics:
    """Counts finished exchanges by listener."""

    def __init__(self) -> None:
        self.listeners: dict[str, ListenerStats] = {}

    def listener(self, name: str) -> ListenerStats:
        """The statistics of a listener, made when it is first asked for."""
        return self.listeners.setdefault(name, ListenerStats())

    def on_exchange(self, exchange: ExchangeRecord) -> None:
        stats = self.listeners.get(exchange.listener) or self.listener(exchange.listener)
        requests, status = stats.requests, exchange.status
        requests[status] = requests.get(status, 0) + 1
        stats.duration.observe(exchange.ended - exchange.started)
