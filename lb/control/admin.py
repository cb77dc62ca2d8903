"""The admin server: liveness, readiness, metrics, the API, the dashboard."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from lb.control.api import api_routes
from lb.control.dashboard import dashboard_page
from lb.control.guard import STATE, as_json, errors_as_json, only_who_may
from lb.control.registry.api import RegistryApi
from lb.control.state import AdminState
from lb.control.view import source_views

BODY_AT_MOST = 16 * 1024  # bytes; a change of a backend is some 40

_HEADERS = {
    "Server": "lb",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


def build_admin(state: AdminState) -> web.Application:
    """The admin API as an aiohttp application."""
    app = web.Application(middlewares=[errors_as_json, only_who_may], client_max_size=BODY_AT_MOST)
    app[STATE] = state
    app.add_routes(
        [
            web.get("/livez", _livez),
            web.get("/readyz", _readyz),
            web.get("/metrics", _metrics),
            web.get("/", _dashboard),
            *api_routes(state),
        ]
    )
    registry = RegistryApi(lambda: state.registry, lambda: state.registry_token or state.token)
    app.add_routes(registry.routes())
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
        self._runner = web.AppRunner(app or build_admin(state), access_log=None, shutdown_timeout=1.0)

    async def start(self) -> None:
        """Accepts. Raises OSError where there is no descriptor left.

        The sockets are copied: the server closes what it listens on, and they are not its own.
        """
        await self._runner.setup()
        try:
            for sock in self._sockets:
                await web.SockSite(self._runner, sock.dup()).start()
        except OSError:
            await self._runner.cleanup()
            raise

    async def close(self) -> None:
        """Stops; requests under way have a second to end."""
        await self._runner.cleanup()


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


async def _livez(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    """Whether requests should be sent here: 503 while draining, or where no pool has anyone to serve them."""
    state = request.app[STATE]
    reasons = []
    if state.draining():
        reasons.append("draining")
    if not any(pool.eligible for pool in state.pools.values()):
        reasons.append("no pool has an eligible backend")
    pools: dict[str, dict[str, Any]] = {
        name: {"eligible": len(pool.eligible), "total": len(pool.backends)}
        for name, pool in state.pools.items()
    }
    for name in state.sources:
        pools[name]["sources"] = source_views(state, name)
    body = {"ready": not reasons, "reasons": reasons, "pools": pools}
    return as_json(body, 503 if reasons else 200)


async def _metrics(request: web.Request) -> web.StreamResponse:
    """Sent piece by piece, with a turn for everyone else between, since the page can be large."""
    state = request.app[STATE]
    await state.collect()
    content_type, pieces = state.metrics.page(request.headers.get("Accept", ""))
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(request)
    for piece in pieces if request.method != "HEAD" else ():
        await response.write(piece)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


async def _dashboard(request: web.Request) -> web.Response:
    return dashboard_page()
