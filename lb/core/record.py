"""What is remembered of an exchange and its attempts: the value that observers are handed at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lb.core.backend import Backend
from lb.core.failure import Failure
from lb.core.seen import PoolView, Seen


class AttemptRecord:
    """One try of an exchange at one backend. Times are by the monotonic clock in seconds; 0.0 is never.

    `started` is when the backend was picked, `connected` when a connection to it was there, `head_at` when
    the response head came, `ended` when the last byte did, or the failure.
    """

    __slots__ = (
        "backend",
        "connected",
        "ended",
        "failure",
        "head_at",
        "received",
        "reused",
        "seen",
        "sent",
        "started",
        "status",
    )

    def __init__(self, backend: Backend, started: float) -> None:
        self.backend = backend
        self.started = started
        self.connected = 0.0
        self.head_at = 0.0
        self.ended = 0.0
        self.status = 0  # of the response; 0: none came
        self.failure: Failure | None = None
        self.sent = 0  # bytes of the request's body
        self.received = 0  # bytes of the response's body
        self.reused = False  # whether the connection had served another attempt before
        self.seen: Seen | None = None  # what the pick was made from; None where records are off


class ExchangeRecord:
    """One request and its response, seen from the client's side. Times as in `AttemptRecord`.

    `started` is when the request's head was here, `received_at` when its body was, `ended` when the last
    byte of the response was handed to the client's connection.
    """

    __slots__ = (
        "attempts",
        "bytes_in",
        "bytes_out",
        "client",
        "ended",
        "failure",
        "host",
        "id",
        "listener",
        "method",
        "pool",
        "received_at",
        "route",
        "started",
        "status",
        "target",
        "tls",
        "user",
        "view",
    )

    def __init__(self, started: float, listener: str, client: str, tls: str = "") -> None:
        self.id = b""
        self.started = started
        self.received_at = 0.0
        self.ended = 0.0
        self.listener = listener  # the name of the listener: its address
        self.client = client  # the address of who really asked
        self.tls = tls  # the version that the client speaks; empty: none
        self.method = b"-"
        self.host = b""
        self.target = b"-"
        self.route = ""
        self.user = ""  # who has logged in at the route
        self.pool = ""
        self.status = 0  # that the client got; 0: none
        self.failure: Failure | None = None
        self.bytes_in = 0  # of the request's body
        self.bytes_out = 0  # of the response's body
        self.attempts: Sequence[AttemptRecord] = ()
        self.view: PoolView | None = None  # the pool, where it had no backend to give


class Observer(Protocol):
    """Who is told of finished exchanges: metrics, access log, request records, the simulator's recorder."""

    def on_exchange(self, exchange: ExchangeRecord, /) -> None: ...
