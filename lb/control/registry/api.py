"""The part of Consul's agent HTTP API that registration, TTL checks and look-up take.

Source: https://developer.hashicorp.com/consul/api-docs, its pages agent/service, agent/check, catalog and
health. Errors are plain text, as clients of Consul expect them.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from random import uniform
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from lb.control.gate import attended
from lb.control.registry.model import CRITICAL, PASSING, STATUSES, WARNING, State
from lb.control.registry.registry import Registry, Unknown
from lb.control.registry.requests import (
    OUTPUT_AT_MOST,
    Wrong,
    check_registration,
    duration,
    registration,
    report,
)
from lb.control.registry.store import Unavailable
from lb.control.registry.table import Entry, Table
from lb.control.registry.views import (
    DATACENTER,
    NODE,
    agent_service,
    catalog_service,
    checks_of,
    health_service,
)
from lb.control.room import MOST_REGISTERING

log = logging.getLogger("lb.registry")

WAIT = 300.0  # seconds that a blocking query waits where it doesn't say
WAIT_AT_MOST = 600.0
WAITING = MOST_REGISTERING - 64
"""Blocking queries at a time. The other connections are for all else: a probe of /livez that finds no place
would have us killed."""
BODY_WITHIN = 10.0  # seconds

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RegistryApi:
    """The routes under /v1. `registry` is asked for anew each time, and so is `token`, which changes need: a
    reload may bring others, or none."""

    def __init__(self, registry: Callable[[], Registry | None], token: Callable[[], str | None]) -> None:
        self._find = registry
        self._token = token
        self._waiting: dict[asyncio.Future[None], None] = {}  # the first to come first

    def routes(self) -> list[web.RouteDef]:
        put, get = self._changes, self._answers
        return [
            web.put("/v1/agent/service/register", put(self._register)),
            web.put("/v1/agent/service/deregister/{id:.+}", put(self._deregister)),
            web.put("/v1/agent/service/maintenance/{id:.+}", put(self._maintenance)),
            web.put("/v1/agent/check/register", put(self._register_check)),
            web.put("/v1/agent/check/deregister/{id:.+}", put(self._deregister_check)),
            web.put("/v1/agent/check/pass/{id:.+}", put(self._reported(PASSING))),
            web.put("/v1/agent/check/warn/{id:.+}", put(self._reported(WARNING))),
            web.put("/v1/agent/check/fail/{id:.+}", put(self._reported(CRITICAL))),
            web.put("/v1/agent/check/update/{id:.+}", put(self._update_check)),
            web.get("/v1/agent/self", get(self._self)),
            web.get("/v1/agent/services", get(self._agent_services)),
            web.get("/v1/agent/service/{id:.+}", get(self._agent_service)),
            web.get("/v1/agent/checks", get(self._agent_checks)),
            web.get("/v1/catalog/datacenters", get(self._datacenters)),
            web.get("/v1/catalog/services", get(self._services)),
            web.get("/v1/catalog/service/{name:.+}", get(self._catalog_service)),
            web.get("/v1/health/service/{name:.+}", get(self._health_service)),
            web.get("/v1/health/checks/{name:.+}", get(self._health_checks)),
            web.get("/v1/health/state/{state}", get(self._health_state)),
            web.get("/v1/status/leader", get(self._leader)),
            web.get("/v1/status/peers", get(self._peers)),
        ]

    @property
    def _registry(self) -> Registry:
        found = self._find()
        if found is None:
            raise Unknown("The registry is off: a pool with the source registry turns it on, or registry: {}")
        return found

    @property
    def _table(self) -> Table:
        return self._registry.table

    def release(self) -> None:
        """The server goes: whoever waits gets the table as it is."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    # --- every request ---

    def _changes(self, handler: Handler) -> Handler:
        async def change(request: web.Request) -> web.StreamResponse:
            token = self._token()
            if token is not None and not bears(request, token):
                return _text(
                    403,
                    "Permission denied: this needs the registry's token, in X-Consul-Token or as "
                    "Authorization: Bearer TOKEN",
                )
            return await self._answered(request, handler)

        return change

    def _answers(self, handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._answered(request, handler)

        return answer

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Wrong as error:
            return _text(400, f"Bad request: {error}")
        except web.HTTPRequestEntityTooLarge:
            return _text(413, "The body is too large")
        except Unknown as error:
            return _text(404, str(error))
        except Unavailable as error:
            return _text(500, str(error))

    # --- changes ---

    async def _register(self, request: web.Request) -> web.Response:
        instance, states = registration(await _body(request), request.remote or "127.0.0.1")
        replace = "replace-existing-checks" in request.query and _is_set(request, "replace-existing-checks")
        await self._registry.register(instance, states, replace)
        return web.Response()

    async def _deregister(self, request: web.Request) -> web.Response:
        await self._registry.deregister(request.match_info["id"])
        return web.Response()

    async def _maintenance(self, request: web.Request) -> web.Response:
        if not request.query.get("enable"):
            raise Wrong("enable: is missing; it must be true or false")
        reason = request.query.get("reason", "")[:OUTPUT_AT_MOST]
        await self._registry.set_maintenance(request.match_info["id"], _is_set(request, "enable"), reason)
        return web.Response()

    async def _register_check(self, request: web.Request) -> web.Response:
        await self._registry.add_check(*check_registration(await _body(request)))
        return web.Response()

    async def _deregister_check(self, request: web.Request) -> web.Response:
        await self._registry.remove_check(request.match_info["id"])
        return web.Response()

    def _reported(self, status: str) -> Handler:
        async def reported(request: web.Request) -> web.Response:
            note = request.query.get("note", "")[:OUTPUT_AT_MOST]
            await self._registry.report(request.match_info["id"], State(status, note))
            return web.Response()

        return reported

    async def _update_check(self, request: web.Request) -> web.Response:
        await self._registry.report(request.match_info["id"], report(await _body(request)))
        return web.Response()

    # --- the agent ---

    async def _self(self, request: web.Request) -> web.Response:
        config = {"Datacenter": DATACENTER, "NodeName": NODE, "Server": True}
        return web.json_response({"Config": config, "Member": {"Name": NODE, "Addr": _address(request)}})

    async def _agent_services(self, request: web.Request) -> web.Response:
        entries = self._table.entries.values()
        return web.json_response({entry.instance.id: agent_service(entry) for entry in entries})

    async def _agent_service(self, request: web.Request) -> web.Response:
        entry = self._table.entries.get(request.match_info["id"])
        if entry is None:
            raise Unknown(f"unknown service ID: {request.match_info['id']}")
        return web.json_response(agent_service(entry))

    async def _agent_checks(self, request: web.Request) -> web.Response:
        entries = self._table.entries.values()
        return web.json_response({check["CheckID"]: check for entry in entries for check in checks_of(entry)})

    # --- the catalog and health: these can wait for a change ---

    async def _datacenters(self, request: web.Request) -> web.Response:
        return web.json_response([DATACENTER])

    async def _services(self, request: web.Request) -> web.Response:
        def services() -> dict[str, list[str]]:
            return {
                name: sorted({tag for entry in entries for tag in entry.instance.tags})
                for name, entries in self._table.services()
            }

        return await self._as_of(request, None, services)

    async def _catalog_service(self, request: web.Request) -> web.Response:
        name, address = request.match_info["name"], _address(request)
        return await self._as_of(
            request,
            name,
            lambda: [catalog_service(each, address) for each in self._tagged(request, name)],
        )

    async def _health_service(self, request: web.Request) -> web.Response:
        name, address = request.match_info["name"], _address(request)
        only_passing = "passing" in request.query and _is_set(request, "passing")

        def entries() -> Iterable[Entry]:
            found = self._tagged(request, name)
            return [each for each in found if each.status == PASSING] if only_passing else found

        return await self._as_of(request, name, lambda: [health_service(each, address) for each in entries()])

    async def _health_checks(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return await self._as_of(
            request, name, lambda: [check for each in self._table.service(name) for check in checks_of(each)]
        )

    async def _health_state(self, request: web.Request) -> web.Response:
        state = request.match_info["state"]
        if state not in (*STATUSES, "any"):
            raise Wrong("the state must be any, passing, warning or critical")

        def checks() -> list[dict[str, Any]]:
            found = [check for entry in self._table.entries.values() for check in checks_of(entry)]
            return [check for check in found if state in ("any", check["Status"])]

        return await self._as_of(request, None, checks)

    def _tagged(self, request: web.Request, name: str) -> list[Entry]:
        wanted = set(request.query.getall("tag", []))
        return [entry for entry in self._table.service(name) if wanted <= set(entry.instance.tags)]

    async def _leader(self, request: web.Request) -> web.Response:
        return web.json_response(f"{_address(request)}:8300")

    async def _peers(self, request: web.Request) -> web.Response:
        return web.json_response([f"{_address(request)}:8300"])

    # --- blocking queries ---

    async def _as_of(
        self, request: web.Request, service: str | None, answer: Callable[[], Any]
    ) -> web.Response:
        """The answer; where the request names an index, as soon as there is a higher one, or in its time."""
        index = _index(request)
        if index:
            await self._newer(service, index, _wait(request))
        response = web.json_response(answer())
        response.headers["X-Consul-Index"] = str(self._table.index_of(service))
        response.headers["X-Consul-KnownLeader"] = "true"
        response.headers["X-Consul-LastContact"] = "0"
        return response

    async def _newer(self, service: str | None, index: int, seconds: float) -> None:
        if self._table.index_of(service) != index:  # a lower one, too: the table has begun anew since
            return
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_change(name: str, instance_id: str) -> None:
            if name and service in (None, name) and not changed.done():
                changed.set_result(None)

        stop = self._table.listen(on_change)
        if len(self._waiting) >= WAITING:  # who has waited for longest gets the table as it is
            first = next(iter(self._waiting))
            del self._waiting[first]
            if not first.done():
                first.set_result(None)
        self._waiting[changed] = None
        try:
            await asyncio.wait_for(changed, seconds)
        except TimeoutError:
            pass  # then the answer is as it was
        finally:
            self._waiting.pop(changed, None)
            stop()


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_WITHIN):
            return await request.read()
    except TimeoutError:
        raise Wrong("the body took too long") from None


def bears(request: web.Request, token: str) -> bool:
    """Whether a request has this token, in one of the places where clients of Consul put it."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    places = (
        request.headers.get("X-Consul-Token", ""),
        given.strip() if scheme.lower() == "bearer" else "",
        request.query.get("token", ""),
    )
    wanted = token.encode("utf-8", "replace")
    return any(hmac.compare_digest(place.encode("utf-8", "replace"), wanted) for place in places)


def _is_set(request: web.Request, name: str) -> bool:
    """`?passing` and `?passing=1` are, `?passing=false` isn't."""
    value = request.query[name].lower()
    if value not in ("", "1", "t", "true", "0", "f", "false"):
        raise Wrong(f"{name}: must be true or false")
    return value not in ("0", "f", "false")


def _index(request: web.Request) -> int:
    text = request.query.get("index", "0") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Wrong("index: must be a whole number")
    return int(text)


def _wait(request: web.Request) -> float:
    """With a sixteenth at random on top, as Consul has it, so that they don't all come back at once."""
    text = request.query.get("wait")
    seconds = min(duration(text, "wait"), WAIT_AT_MOST) if text else WAIT
    return seconds + uniform(0, seconds / 16)


def _address(request: web.Request) -> str:
    """Where this server is, as the client sees it."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return str(name[0]) if isinstance(name, tuple) else "127.0.0.1"


def _text(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=message + "\n")


# --- on an address of its own ---

_PRIVATE_NAMES = (".local", ".internal", ".svc", ".localhost")


def build_registry(api: RegistryApi) -> web.Application:
    """The API alone, as an aiohttp application."""
    app = web.Application(middlewares=[attended, _only_meant], client_max_size=BODY_AT_MOST)
    app.add_routes(api.routes())

    async def release(app: web.Application) -> None:
        api.release()

    app.on_shutdown.append(release)
    return app


BODY_AT_MOST = 128 * 1024  # bytes


@web.middleware
async def _only_meant(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A page on the internet can make its own name point here (DNS rebinding), and its reader's browser would
    ask on its behalf; but not by an address, nor by a name that no one out there can have."""
    if not _is_meant(request.headers.get("Host", "")):
        return _text(421, "The registry answers to addresses, and to names without a dot or under "
                          ".local, .internal and .svc")  # fmt: skip
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
