"""One request and its response, from the client's side."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from lb.core.backend import Backend
from lb.core.failure import CLIENT_GONE, NO_ROUTE, RESET, SHUTTING_DOWN, Failure
from lb.core.identity import well_formed_id
from lb.core.message import IDEMPOTENT_METHODS, Request, Response
from lb.core.record import ExchangeRecord
from lb.proxy.answer import answer
from lb.proxy.attempt import Attempt
from lb.proxy.forward import forwarded_fields, rewritten
from lb.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from lb.proxy.connection import ClientConnection

_HELD: Final = 65536  # bytes of a request's body that are kept while there is no connection to a backend yet


class Exchange(ExchangeRecord):
    """Identify, route, pick, forward, observe. Then it is a record, and holds nothing alive.

    It stands between the client's connection, which tells it of the request's body, and its attempt, which
    tells it of the response.
    """

    __slots__ = (
        "_attempt",
        "_connection",
        "_held",
        "_request",
        "_response_begun",
        "_trailers",
        "request_complete",
    )

    def __init__(self, connection: ClientConnection, started: float) -> None:
        ExchangeRecord.__init__(self, started, connection.listener_name, connection.client)
        self._connection: ClientConnection | None = connection
        self._request: Request | None = None
        self._attempt: Attempt | None = None
        self._held: list[bytes] | None = None
        self._trailers: Sequence[bytes] = ()
        self._response_begun = False
        self.request_complete = False

    # --- the way of the request ---

    def begin(self, connection: ClientConnection, request: Request, data: bytes, end: bool) -> None:
        """The request's head is here, with the first of its body."""
        plane = connection.plane
        self._request = request
        self.method = request.method
        self.host = request.host
        self.target = request.target[:1024]  # enough for the record
        given = connection.trusted and request.given_id
        self.id = given if given and well_formed_id(given) else plane.ids.new()
        if end:
            self.request_complete = True
            self.received_at = self.started
        if data:
            self._held = [data]
        route = plane.catch_all or plane.routes.find(request)
        if route is None:
            self.fail(NO_ROUTE)
            return
        self.route = route.name
        pool = route.pool or route.choose_pool()
        self.pool = pool.name
        if route.strip:
            rewritten(request, route)
        backend = pool.pick(request)
        if backend.__class__ is Failure:
            self.view = pool.view
            self.fail(backend)
            return
        attempt = Attempt(self, pool, cast(Backend, backend), self.started)
        self._attempt = attempt
        self.attempts = (attempt,)
        if plane.records:
            attempt.seen = pool.seen()
        attempt.begin(plane, False)

    def on_connected(self, attempt: Attempt, upstream: UpstreamConnection) -> None:
        """There is a connection to the backend: the head goes out, with all of the body that is here."""
        connection, request = self._connection, self._request
        assert connection is not None
        assert request is not None
        data = b""
        if self._held is not None:
            data, self._held = b"".join(self._held), None
            attempt.sent = len(data)
            if not self.request_complete:
                connection.let()
        end = self.request_complete and not self._trailers
        extra = forwarded_fields(connection, request, self.id, attempt.backend)
        upstream.codec.send_head(attempt, request, extra, data, end)
        if self._trailers:
            upstream.codec.send_end(self._trailers)
        if connection.blocked:
            upstream.pause()
        if upstream.blocked:  # by what an earlier request left in its buffer: nobody tells of it again
            attempt.on_blocked()

    def on_data(self, data: bytes) -> None:
        """More of the request's body."""
        attempt = self._attempt
        if attempt is not None and attempt.connection is not None:
            attempt.send_data(data)
        elif attempt is not None:  # still dialling
            if self._held is None:
                self._held = []
            self._held.append(data)
            if self._connection is not None and sum(map(len, self._held)) >= _HELD:
                self._connection.hold()

    def on_end(self, trailers: Sequence[bytes]) -> None:
        """The request is complete."""
        self.request_complete = True
        self.received_at = monotonic()
        attempt = self._attempt
        if attempt is not None and attempt.connection is not None:
            attempt.send_end(trailers)
        elif attempt is not None:  # still dialling
            self._trailers = trailers

    def on_error(self, failure: Failure) -> None:
        """The request's body broke off, or was refused."""
        if self._attempt is not None:
            self._attempt.cancel(failure)
        self.fail(failure)

    # --- the way of the response ---

    def on_interim(self, response: Response) -> None:
        connection, request = self._connection, self._request
        if connection is None or request is None:
            return
        if response.status != 100 or request.expect_continue:
            connection.codec.send_interim(response)

    def on_response(self, response: Response, data: bytes, end: bool, now: float) -> None:
        """The response's head is here, with the first data or all of it."""
        connection = self._connection
        if connection is None:
            return
        plane = connection.plane
        codec = connection.codec
        if not self.request_complete or plane.draining:
            codec.keep_alive = False  # nothing can be read behind a body that nobody wants
        self._response_begun = True
        self.status = response.status
        self.bytes_out = len(data)
        extra = plane.id_field + self.id
        if plane.expose_backend:
            extra += b"\r\nX-Backend: " + self.attempts[-1].backend.id.encode()
        codec.send_head(response, extra, data, end)
        if end:
            self._finish(now)

    def on_response_data(self, data: bytes) -> None:
        if self._connection is not None:
            self.bytes_out += len(data)
            self._connection.codec.send_data(data)

    def on_response_end(self, trailers: Sequence[bytes]) -> None:
        if self._connection is not None:
            self._connection.codec.send_end(trailers)
            self._finish(monotonic())

    def on_failure(self, attempt: Attempt, failure: Failure) -> None:
        """The attempt has failed. What has not reached the client yet may still be said well."""
        connection = self._connection
        if connection is None:
            return
        if self._response_begun:
            self.failure = failure
            connection.codec.close()
            connection.cut()
            self._finish(monotonic())
        elif self._reused_one_broke(attempt, failure):
            again = self._attempt = Attempt(self, attempt.pool, attempt.backend, monotonic())
            again.seen = attempt.seen
            self.attempts = (*self.attempts, again)
            again.begin(connection.plane, True)
        else:
            self.fail(failure)

    def _reused_one_broke(self, attempt: Attempt, failure: Failure) -> bool:
        """Whether an idle connection broke under this attempt, most likely closed just as we wrote on it.

        No answer came at all, nothing of a body is lost, and twice is as good as once: a new connection to
        the same backend hides it (RFC 9112, section 9.3.1).
        """
        request = self._request
        return (
            failure is RESET
            and attempt.reused
            and not attempt.sent
            and request is not None
            and not request.length
            and request.method in IDEMPOTENT_METHODS
        )

    # --- both ---

    def on_client_gone(self) -> None:
        """The client has closed its connection: nobody waits any more."""
        if self._connection is None:
            return
        self.failure = CLIENT_GONE
        self._connection.codec.close()
        if not self._response_begun:
            self.status = CLIENT_GONE.status
        if self._attempt is not None:
            self._attempt.cancel()
        self._finish(monotonic())

    def on_shutdown(self) -> None:
        """The time for draining is over. Who has no answer yet is told so."""
        if self._attempt is not None:
            self._attempt.cancel(SHUTTING_DOWN)
        self.fail(SHUTTING_DOWN)

    def on_client_blocked(self) -> None:
        upstream = self._attempt.connection if self._attempt is not None else None
        if upstream is not None:
            upstream.pause()

    def on_client_writable(self) -> None:
        upstream = self._attempt.connection if self._attempt is not None else None
        if upstream is not None and self._attempt is not None:
            upstream.resume()
            upstream.deadline = monotonic() + self._attempt.idle_timeout

    def on_backend_blocked(self) -> None:
        if self._connection is not None:
            self._connection.hold()

    def on_backend_writable(self) -> None:
        if self._connection is not None:
            self._connection.let()

    @property
    def answering(self) -> bool:
        """Whether the response has begun."""
        return self._response_begun

    @property
    def takes_interim(self) -> bool:
        """Whether a 1xx response may be sent now."""
        return self._request is not None and not self._request.http10 and not self._response_begun

    def fail(self, failure: Failure) -> None:
        """Answers with a failure, where no other answer has begun."""
        connection, request = self._connection, self._request
        if connection is None:
            return
        self.failure = failure
        if self._response_begun:
            connection.codec.close()
            connection.cut()
        else:
            if not self.request_complete or connection.plane.draining:
                connection.codec.keep_alive = False
            self.status = failure.status
            response, body = answer(failure, self.id, request.header(b"accept") if request else None)
            self.bytes_out = 0 if self.method == b"HEAD" else len(body)
            connection.codec.send_head(response, connection.plane.id_field + self.id, body, True)
        self._finish(monotonic())

    def _finish(self, now: float) -> None:
        connection = self._connection
        assert connection is not None
        self._connection = self._request = self._attempt = self._held = None
        self._trailers = ()
        self.ended = now
        self.bytes_in = connection.codec.received
        for observe in connection.plane.observers:
            observe(self)
        connection.exchange_ended(self, now)
