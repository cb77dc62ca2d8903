"""The admin server: liveness, readiness, metrics, the API, the dashboard."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, PayloadEncodingError

from lb.control.api import api_routes
from lb.control.dashboard import dashboard_page
from lb.control.gate import GATE, Gate, attended
from lb.control.guard import STATE, as_json, errors_as_json, may_see, only_who_may
from lb.control.registry.api import RegistryApi
from lb.control.room import room
from lb.control.state import AdminState
from lb.control.view import source_views

BODY_AT_MOST = 16 * 1024  # bytes; a change of a backend is some 40
STALLED = 30.0  # seconds in which a client may take nothing of a page

_HEADERS = {
    "Server": "lb",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_POLICY = "default-src 'none'; frame-ancestors 'none'"  # of what is no page; the dashboard has its own


def build_admin(state: AdminState) -> web.Application:
    """The admin API as an aiohttp application."""
    app = web.Application(middlewares=[attended, errors_as_json, only_who_may], client_max_size=BODY_AT_MOST)
    app[STATE] = state
    registry = RegistryApi(lambda: state.registry, lambda: state.registry_token or state.token)
    routes = [
        web.get("/livez", _livez),
        web.get("/readyz", _readyz),
        web.get("/metrics", _metrics),
        web.get("/", _dashboard),
        *api_routes(state),
        *registry.routes(),
        web.route("*", r"/{path:(?:.|\n)*}", _nothing),
    ]
    for route in routes:
        route.kwargs["expect_handler"] = _expected
    app.add_routes(routes)
    app.on_shutdown.append(_releasing(registry))
    app.on_response_prepare.append(_add_headers)
    return app


def _releasing(registry: RegistryApi) -> Callable[[web.Application], Awaitable[None]]:
    async def release(app: web.Application) -> None:
        registry.release()

    return release


class AdminServer:
    """The admin API on sockets that are bound already."""

    def __init__(
        self, state: AdminState, sockets: Sequence[socket.socket], app: web.Application | None = None
    ) -> None:
        self._sockets = sockets
        self._state = state
        self._app = app or build_admin(state)
        self._runner = web.AppRunner(self._app, access_log=None, logger=_log(), shutdown_timeout=1.0)
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Accepts. Raises OSError where there is no descriptor left.

        The sockets are copied: the server closes what it listens on, and they are not its own.
        """
        app, runner, loop = self._app, self._runner, asyncio.get_running_loop()
        app[GATE] = gate = Gate(
            lambda: cast(web.Server, runner.server)(), lambda: room(self._state.registry is not None)
        )
        await runner.setup()
        gate.open()
        try:
            for sock in self._sockets:
                self._servers.append(await loop.create_server(gate, sock=sock.dup()))
        except OSError:
            await self.close()
            raise

    async def close(self) -> None:
        """Stops; requests under way have a second to end."""
        for server in self._servers:
            server.close()
        gate = self._app.get(GATE)
        if gate is not None:
            gate.close()
        await self._runner.cleanup()


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault("Content-Security-Policy", _POLICY)


def _log() -> logging.Logger:
    """For what goes wrong around a handler. Bytes that are no request would be a traceback each, with which
    anybody could fill the log."""
    logger = logging.getLogger("lb.admin.http")
    if not logger.filters:
        logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError | PayloadEncodingError | ConnectionError | TimeoutError):
        return False
    if error is not None:
        record.msg, record.args, record.exc_info = f"{record.getMessage()}: {error!r}", (), None
    return True


async def _expected(request: web.Request) -> web.Response | None:
    """Expect. aiohttp's own comes before all that may refuse a request, and fails at what isn't ASCII."""
    if request.headers["Expect"].lower() != "100-continue":
        return as_json({"error": "Expect can be 100-continue only"}, 417)
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # of the response itself nothing has been said
    return None


async def _nothing(request: web.Request) -> web.Response:
    """A path that isn't there, or not for this method."""
    allowed: set[str] = set()
    for resource in list(request.app.router.resources())[:-1]:
        allowed |= (await resource.resolve(request))[1]
    raise web.HTTPMethodNotAllowed(request.method, allowed) if allowed else web.HTTPNotFound


async def _livez(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    """Whether requests should be sent here: 503 while draining, or where no pool has anyone to serve them."""
    state = request.app[STATE]
    serves = any(pool.eligible for pool in state.pools.values())
    if serves:  # then whichever worker is asked has to know it, too
        await state.collect()
    reasons = []
    if state.draining():
        reasons.append("draining")
    if not serves:
        reasons.append("no pool has an eligible backend")
    pools: dict[str, dict[str, Any]] = {
        name: {"eligible": len(pool.eligible), "total": len(pool.backends)}
        for name, pool in state.pools.items()
    }
    for name in state.sources:
        pools[name]["sources"] = source_views(state, name)
    body: dict[str, Any] = {"ready": not reasons, "reasons": reasons}
    if may_see(request):
        body["pools"] = pools
    return as_json(body, 503 if reasons else 200)


async def _metrics(request: web.Request) -> web.StreamResponse:
    """Sent piece by piece, with a turn for everyone else between, since the page can be large."""
    state = request.app[STATE]
    await state.collect()
    content_type, pieces = state.metrics.page(request.headers.get("Accept", ""))
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(request)
    try:
        for piece in pieces if request.method != "HEAD" else ():
            async with asyncio.timeout(STALLED):
                await response.write(piece)
            await asyncio.sleep(0)
        await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    return response


async def _dashboard(request: web.Request) -> web.Response:
    return dashboard_page()
