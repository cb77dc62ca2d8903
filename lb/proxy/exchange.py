"""One request and its response, from the client's side."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

from lb.core.answers import Redirect
from lb.core.backend import Backend
from lb.core.edits import set_host
from lb.core.failure import (
    AT_LIMIT,
    BAD_HOST,
    BODY_TOO_LARGE,
    CLIENT_GONE,
    EXCHANGE_TIMEOUT,
    FORBIDDEN,
    QUEUE_TIMEOUT,
    RATE_LIMITED,
    SHUTTING_DOWN,
    UNAUTHORIZED,
    Failure,
)
from lb.core.identity import well_formed_id
from lb.core.message import Request, Response
from lb.core.record import ExchangeRecord
from lb.core.route import Route, RouteRules, Target
from lb.proxy.answer import answer, dates, options, own_answer
from lb.proxy.attempt import Attempt
from lb.proxy.forward import client_header, forwarded_fields, rewritten
from lb.proxy.placeholders import values_of
from lb.proxy.retry import Retry
from lb.proxy.timeouts import NEVER
from lb.proxy.tunnel import Tunnel
from lb.proxy.upload import Upload
from lb.proxy.upstream import UpstreamConnection
from lb.wire.fields import without

if TYPE_CHECKING:
    from lb.proxy.connection import ClientConnection

_TRY_AGAIN: Final = 1.0  # seconds in which a place may well be free
_AUTHORIZATION: Final = b"authorization"
_HELD: Final = 65536  # bytes of a request's body that are taken while there is no connection to a backend yet


class Exchange(ExchangeRecord):
    """Identify, route, pick, forward, observe. Then it is a record, and holds nothing alive.

    It stands between the client's connection, which tells it of the request's body, and its attempt, which
    tells it of the response. An attempt that fails may be followed by another one, as long as the client has
    got nothing of a response.
    """

    __slots__ = (
        "_attempt",
        "_connection",
        "_request",
        "_response_begun",
        "_retry",
        "_route",
        "_target",
        "_tried",
        "_upload",
        "_waiting",
        "deadline",
        "request_complete",
    )

    def __init__(self, connection: ClientConnection, started: float) -> None:
        ExchangeRecord.__init__(self, started, connection.listener_name, connection.client, connection.tls)
        self._connection: ClientConnection | None = connection
        self._request: Request | None = None
        self._route: Route | None = None  # where it has rules
        self._target: Target | None = None
        self._attempt: Attempt | None = None
        self._tried: tuple[Attempt, ...] = ()
        self._upload: Upload | None = None  # where there is a body
        self._retry: Retry | None = None  # where an attempt has failed
        self._waiting = False  # for a backend to become free
        self._response_begun = False
        self.request_complete = False
        self.deadline = NEVER  # only looked at where there is one

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
        route = plane.catch_all or plane.routes.find(request, connection.scheme)
        if route is None:
            self.fail(plane.routes.why_none(request))
            return
        self.route = route.name
        rules = route.rules
        if rules is not None:
            self._route = route
        if route.quota is not None:
            seconds = route.quota.take(request, self.client, self.started)
            if seconds:
                self.fail(RATE_LIMITED, seconds)
                return
        if rules is not None and not self._admitted(connection, request, rules, data, end):
            return
        self._forward(connection, request, route, data, end)

    def _admitted(
        self, connection: ClientConnection, request: Request, rules: RouteRules, data: bytes, end: bool
    ) -> bool:
        """Whether the route's rules let it through to a pool. If not, it has its answer, or waits until its
        password has been checked."""
        if rules.networks is not None and not rules.networks.admit(self.client):
            self.fail(FORBIDDEN)
            return False
        if rules.body is not None:
            if request.length > rules.body:
                self.fail(BODY_TOO_LARGE)
                return False
            connection.codec.limit_body(rules.body)
        if rules.auth is not None:
            given = request.header(_AUTHORIZATION)
            verdict = connection.plane.logins.judge(rules.auth, given, self.client, self)
            if verdict.failure is not None:
                self.fail(verdict.failure, verdict.retry_after)
                return False
            if not verdict.user:
                if data or not end:
                    upload = self._upload = Upload(0)
                    upload.wait(data)
                return False
            self.user = verdict.user
        return self._for_pool(connection, request, rules)

    def on_login(self, user: str, failure: Failure | None) -> None:
        """Its password has been checked."""
        connection, request, route = self._connection, self._request, self._route
        if connection is None or request is None or route is None or route.rules is None:
            return
        self.user = user
        if failure is not None:
            self.fail(failure)
        elif self._for_pool(connection, request, route.rules):
            self._forward(connection, request, route, b"", self.request_complete)

    def _for_pool(self, connection: ClientConnection, request: Request, rules: RouteRules) -> bool:
        """Answers where the route itself does, and returns false; else readies the request for the pool."""
        values = values_of(self, request, connection.scheme)
        if rules.answer is not None:
            if isinstance(rules.answer, Redirect) and rules.answer.needs_host and not self.host:
                self.fail(BAD_HOST)  # HTTP/1.0 may come without
            else:
                self._answer(connection, *own_answer(rules.answer, values()))
            return False
        if rules.auth is not None and not rules.auth.pass_on:
            request.lines[1:] = without(request.lines[1:], (_AUTHORIZATION,))
        if rules.host:
            set_host(request.lines, rules.host)
            request.host = request.host or rules.host
        if rules.request is not None:
            rules.request.apply(request.lines, values)
        return True

    def _forward(
        self, connection: ClientConnection, request: Request, route: Route, data: bytes, end: bool
    ) -> None:
        """On to the route's pool, with what there is of the body, if it isn't kept already."""
        plane = connection.plane
        self._target = target = route.target or route.choose()
        pool = target.pool
        self.pool = pool.name
        if route.strip:
            rewritten(request, route)
        if pool.key_of is not None:
            request.key = pool.key_of(request, self.client)
        upload = self._upload
        if data or not end or upload is not None:
            retries = target.retries
            if upload is None:
                self._upload = upload = Upload(0)
            upload.most = retries.body if retries is not None else 0
            if data:
                upload.wait(data)
        if pool.budget is not None:
            pool.budget.on_request(self.started)
        if target.timeouts.total < NEVER:
            self.deadline = self.started + target.timeouts.total
            plane.sweeper.watch(self)
        self._go(connection, target, self.started)

    def _go(self, connection: ClientConnection, target: Target, now: float) -> None:
        """On to a backend, or into the queue."""
        pool = target.pool
        backend = pool.pick(self._request, waited=self._waiting)
        if isinstance(backend, Backend):
            if self._waiting:
                self._waiting = False
                self.deadline = self.started + target.timeouts.total
                if self.deadline == NEVER:
                    connection.plane.sweeper.unwatch(self)
            self._try(connection, target, backend, now, None)
        elif backend is AT_LIMIT and pool.wait(self, self._waiting):
            if not self._waiting:
                self._waiting = True
                self.deadline = min(self.deadline, now + pool.rules.queue_timeout)
                connection.plane.sweeper.watch(self)
        else:
            if backend is AT_LIMIT:
                pool.reject(backend)
            self._waiting = False
            self.view = pool.view
            self.fail(backend, _TRY_AGAIN if backend is AT_LIMIT else 0.0)

    def on_turn(self) -> None:
        """There may be a backend for it now: the pool says so."""
        connection, target = self._connection, self._target
        if connection is not None and target is not None:
            self._go(connection, target, monotonic())

    def _try(
        self,
        connection: ClientConnection,
        target: Target,
        backend: Backend,
        now: float,
        stale: Attempt | None,
    ) -> None:
        """One attempt; over a new connection, where it replaces one whose connection was stale."""
        attempt = self._attempt = Attempt(self, target, backend, now)
        self.attempts = self._tried = (*self._tried, attempt) if self._tried else (attempt,)
        plane = connection.plane
        if plane.records:
            attempt.seen = target.pool.seen() if stale is None else stale.seen
        attempt.begin(plane, stale is not None)

    def on_connected(self, attempt: Attempt, upstream: UpstreamConnection) -> None:
        """There is a connection to the backend: the head goes out, with all of the body that is here."""
        connection, request, upload = self._connection, self._request, self._upload
        assert connection is not None
        assert request is not None
        data, end, trailers = b"", self.request_complete, None
        if upload is not None:
            data, trailers = upload.take(), upload.trailers
            attempt.sent = len(data)
            if not end:
                connection.let()
            elif trailers:
                end = False
        extra = forwarded_fields(connection, request, self.id, attempt.backend)
        upstream.codec.send_head(attempt, request, extra, data, end)
        if trailers:
            upstream.codec.send_end(trailers)
        if connection.blocked:
            upstream.pause()
        if upstream.blocked:  # by what an earlier request left in its buffer: nobody tells of it again
            attempt.on_blocked()

    def on_data(self, data: bytes) -> None:
        """More of the request's body."""
        attempt, upload, connection = self._attempt, self._upload, self._connection
        if connection is None or upload is None:
            return
        if attempt is not None and attempt.connection is not None:
            upload.sent(data)
            attempt.send_data(data)
        else:  # still dialling, or in the queue
            upload.wait(data)
            if upload.size >= _HELD:
                connection.hold()

    def on_end(self, trailers: Sequence[bytes]) -> None:
        """The request is complete."""
        self.request_complete = True
        self.received_at = monotonic()
        if trailers and self._route is not None and self._route.rules is not None:
            edits = self._route.rules.request
            trailers = edits.passing(trailers) if edits is not None else trailers
        attempt, upload, connection = self._attempt, self._upload, self._connection
        if upload is not None:
            upload.trailers = trailers
        if connection is not None and connection.codec.paused:
            connection.let()  # nothing is left to hold back, and only who reads learns that the client goes
        if attempt is not None and attempt.connection is not None:
            attempt.send_end(trailers)

    def on_error(self, failure: Failure) -> None:
        """The request's body broke off, or was refused."""
        self._let_go(failure)
        self.fail(failure)

    def on_deadline(self, now: float) -> None:
        """It waited too long for a backend, or took too long as a whole."""
        connection, target = self._connection, self._target
        if connection is None or target is None:
            return
        connection.plane.sweeper.unwatch(self)
        if connection.tunnel is not None:
            connection.tunnel.close(EXCHANGE_TIMEOUT)
            return
        if self._waiting:
            self.view = target.pool.view
        if self._waiting and now < self.started + target.timeouts.total:
            self._let_go(QUEUE_TIMEOUT)
            target.pool.reject(QUEUE_TIMEOUT)
            self.fail(QUEUE_TIMEOUT, _TRY_AGAIN)
        else:
            self._let_go(EXCHANGE_TIMEOUT)
            self.fail(EXCHANGE_TIMEOUT)

    def _let_go(self, failure: Failure) -> None:
        """Leaves the queue, or gives up the attempt that is under way."""
        attempt, target = self._attempt, self._target
        if attempt is not None:
            attempt.cancel(failure)
        if self._waiting and target is not None:
            self._waiting = False
            target.pool.leave(self)

    # --- the way of the response ---

    def on_interim(self, response: Response) -> None:
        if self._connection is not None:
            self._connection.codec.send_interim(response)

    def on_switch(
        self, attempt: Attempt, backend: UpstreamConnection, response: Response, data: bytes
    ) -> None:
        """From here on it is another protocol: client and backend talk as they like."""
        connection = self._connection
        if connection is None:
            return
        plane = connection.plane
        self._response_begun = True
        self.status = response.status
        extra = plane.id_field + self.id
        if attempt.pool.sticky is not None:
            extra += self._cookie(attempt)
        early = connection.codec.send_switch(response, extra)
        idle = attempt.timeouts.tunnel
        tunnel = Tunnel(self, attempt, connection, backend, idle, plane.sweeper)
        if data:
            tunnel.from_backend(data)
        if early:
            tunnel.from_client(early)
        if connection.half_closed:  # nobody tells of it again
            tunnel.client_ended()

    def on_tunnel_end(self, attempt: Attempt, failure: Failure | None) -> None:
        """Both sides have ended, or one of them is gone."""
        connection = self._connection
        if connection is None:
            return
        self.failure = failure
        attempt.finish(failure)
        connection.codec.received = attempt.sent
        self._finish(monotonic())

    def on_response(self, attempt: Attempt, response: Response, data: bytes, end: bool, now: float) -> None:
        """The response's head is here, with the first data or all of it."""
        connection = self._connection
        if connection is None or (response.status >= 400 and self._instead(attempt, response.status)):
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
            extra += b"\r\nX-Backend: " + attempt.backend.id.encode()
        if not response.dated:  # RFC 9110, section 6.6.1
            extra += b"\r\n" + dates.line()
        if self._route is not None:
            self._edit(connection, self._route, response)
        if attempt.pool.sticky is not None:
            extra += self._cookie(attempt)
        codec.send_head(response, extra, data, end)
        if end:
            self._finish(now)

    def _edit(self, connection: ClientConnection, route: Route, response: Response) -> None:
        """The route's changes of a response's head."""
        rules = route.rules
        if rules is not None and rules.response is not None:
            rules.response.apply(response.lines, values_of(self, self._request, connection.scheme))

    def _cookie(self, attempt: Attempt) -> bytes:
        """The line that brings the client back to this backend, where it hasn't got it yet."""
        sticky, request = attempt.pool.sticky, self._request
        if sticky is None or request is None:
            return b""
        return sticky.field(request.key, attempt.backend, len(self.attempts) > 1)

    def on_response_data(self, data: bytes) -> None:
        if self._connection is not None:
            self.bytes_out += len(data)
            self._connection.codec.send_data(data)

    def on_response_end(self, trailers: Sequence[bytes]) -> None:
        if self._connection is not None:
            if trailers and self._route is not None and self._route.rules is not None:
                edits = self._route.rules.response
                trailers = edits.passing(trailers) if edits is not None else trailers
            self._connection.codec.send_end(trailers)
            self._finish(monotonic())

    def on_failure(self, attempt: Attempt, failure: Failure) -> None:
        """The attempt has failed. What has not reached the client yet may still be said well."""
        connection, target = self._connection, self._target
        if connection is None or target is None:
            return
        if self._response_begun:
            self.failure = failure
            connection.codec.close()
            connection.cut()
            self._finish(monotonic())
        elif not self._again(connection, target, attempt, failure):
            self.fail(failure)

    def _again(
        self, connection: ClientConnection, target: Target, attempt: Attempt, failure: Failure
    ) -> bool:
        """Makes another attempt, where that may hide the failure; false where it may not."""
        now = monotonic()
        backend = self._further(target).after_failure(self._tried, failure, now)
        if backend is None:
            return False
        self._try(connection, target, backend, now, attempt if backend is attempt.backend else None)
        return True

    def _instead(self, attempt: Attempt, status: int) -> bool:
        """Drops an answer that another backend may better, and asks that one."""
        connection, target = self._connection, self._target
        if connection is None or target is None or target.retries is None:
            return False
        now = monotonic()
        backend = self._further(target).after_answer(self._tried, status, now)
        if backend is None:
            return False
        attempt.drop(now)
        self._try(connection, target, backend, now, None)
        return True

    def _further(self, target: Target) -> Retry:
        if self._retry is None:
            assert self._request is not None
            self._retry = Retry(target, self._request, self._upload)
        return self._retry

    # --- both ---

    def proxy_header(self, version: int) -> bytes:
        """Who the client is, for the beginning of a connection to a backend."""
        connection = self._connection
        return b"" if connection is None else client_header(connection, self.client, version)

    def on_client_gone(self) -> None:
        """The client has closed its connection: nobody waits any more."""
        if self._connection is None:
            return
        self.failure = CLIENT_GONE
        self._connection.codec.close()
        if not self._response_begun:
            self.status = CLIENT_GONE.status
        self._let_go(CLIENT_GONE)
        self._finish(monotonic())

    def on_shutdown(self) -> None:
        """The time for draining is over. Who has no answer yet is told so."""
        self._let_go(SHUTTING_DOWN)
        self.fail(SHUTTING_DOWN)

    def on_client_blocked(self) -> None:
        upstream = self._attempt.connection if self._attempt is not None else None
        if upstream is not None:
            upstream.pause()

    def on_client_writable(self) -> None:
        upstream = self._attempt.connection if self._attempt is not None else None
        if upstream is not None and self._attempt is not None:
            upstream.resume()
            if self.request_complete or upstream.blocked:  # else it is the client who is waited for
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

    def fail(self, failure: Failure, retry_after: float = 0.0) -> None:
        """Answers with a failure, where no other answer has begun. `retry_after` is in seconds."""
        connection, request = self._connection, self._request
        if connection is None:
            return
        self.failure = failure
        if self._response_begun:
            connection.codec.close()
            connection.cut()
            self._finish(monotonic())
            return
        accept = request.header(b"accept") if request is not None else None
        rules = self._route.rules if self._route is not None else None
        pages = connection.plane.pages
        if rules is not None and rules.pages is not None:
            pages = rules.pages
        challenge = b""
        if failure is UNAUTHORIZED and rules is not None and rules.auth is not None:
            challenge = rules.auth.challenge
        page = pages.get(failure.status) if pages else None
        self._answer(connection, *answer(failure, self.id, accept, retry_after, page, challenge))

    def _answer(self, connection: ClientConnection, response: Response, body: bytes) -> None:
        """An answer that we make ourselves."""
        if not self.request_complete or connection.plane.draining:
            connection.codec.keep_alive = False
        self.status = response.status
        self.bytes_out = 0 if self.method == b"HEAD" else len(body)
        if self._route is not None:
            self._edit(connection, self._route, response)
        connection.codec.send_head(response, connection.plane.id_field + self.id, body, True)
        self._finish(monotonic())

    def answer_options(self, connection: ClientConnection, request: Request) -> None:
        """Answers an OPTIONS that was to go no further than here: RFC 9110, section 7.6.2."""
        plane = connection.plane
        self.method, self.host, self.target = request.method, request.host, request.target[:1024]
        given = connection.trusted and request.given_id
        self.id = given if given and well_formed_id(given) else plane.ids.new()
        self.request_complete = not request.length
        self.received_at = self.started
        response = options()
        self.status = response.status
        if plane.draining:
            connection.codec.keep_alive = False
        connection.codec.send_head(response, plane.id_field + self.id, b"", True)
        self._finish(self.started)

    def _finish(self, now: float) -> None:
        connection = self._connection
        assert connection is not None
        self._connection = self._request = self._target = self._attempt = self._upload = self._retry = None
        self._route = None
        self._tried = ()
        self.ended = now
        if self.deadline < NEVER:
            connection.plane.sweeper.unwatch(self)
        self.bytes_in = connection.codec.received
        for observe in connection.plane.observers:
            observe(self)
        connection.exchange_ended(self, now)
