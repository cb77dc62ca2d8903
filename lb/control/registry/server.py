"""The registry on an address of its own, where there is nothing else, and who may ask it there."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

from lb.control.gate import attended
from lb.control.registry.api import Handler, RegistryApi

BODY_AT_MOST = 128 * 1024  # bytes

_PRIVATE_NAMES = (".local", ".internal", ".svc", ".localhost")


def build_registry(api: RegistryApi) -> web.Application:
    """The API alone, as an aiohttp application."""
    app = web.Application(middlewares=[attended, _only_meant], client_max_size=BODY_AT_MOST)
    app.add_routes(api.routes())

    async def release(app: web.Application) -> None:
        api.release()

    app.on_shutdown.append(release)
    return app


@web.middleware
async def _only_meant(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A page on the internet can make its own name point here (DNS rebinding), and its reader's browser would
    ask on its behalf; but not by an address, nor by a name that no one out there can have."""
    if not _is_meant(request.headers.get("Host", "")):
        return web.Response(
            status=421,
            text="The registry answers to addresses, and to names without a dot or under .local, .internal "
            "and .svc\n",
        )
    return await handler(request)


def _is_meant(host: str) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    if name and ("." not in name or name.endswith(_PRIVATE_NAMES)):
        return ":" not in name or _is_ip(name)
    return _is_ip(name)


def _is_ip(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
