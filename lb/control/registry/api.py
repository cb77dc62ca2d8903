"""The part of Consul's agent HTTP API that registration, TTL checks and look-up take.

Source: https://developer.hashicorp.com/consul/api-docs, its pages agent/service, agent/check, catalog and
health. Errors are plain text, as clients of Consul expect them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from lb.control.gate import body_within
from lb.control.registry.blocking import Answers, Waiters
from lb.control.registry.model import CRITICAL, PASSING, STATUSES, WARNING, State
from lb.control.registry.queries import bears, index_of, is_set, must_be_answerable, wait_of
from lb.control.registry.registry import Registry, Unknown
from lb.control.registry.requests import (
    OUTPUT_AT_MOST,
    Wrong,
    check_registration,
    registration,
    report,
)
from lb.control.registry.store import Unavailable
from lb.control.registry.table import Entry, Table
from lb.control.registry.views import (
    DATACENTER,
    NODE,
    NODE_ID,
    agent_service,
    catalog_service,
    checks_of,
    content_hash,
    health_service,
    health_status,
    local_health,
)

log = logging.getLogger("lb.registry")

BODY_WITHIN = 10.0  # seconds
VERSION = "1.8.7"  # of Consul, whose answers ours are like
_HEALTH = {PASSING: 200, WARNING: 429, CRITICAL: 503, "maintenance": 503}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RegistryApi:
    """The routes under /v1. `registry` is asked for anew each time, and so is `token`, which changes need: a
    reload may bring others, or none."""

    def __init__(self, registry: Callable[[], Registry | None], token: Callable[[], str | None]) -> None:
        self._find = registry
        self._token = token
        self._waiters = Waiters()
        self._answers_made = Answers()

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
            web.get("/v1/agent/health/service/id/{id:.+}", get(self._local_health)),
            web.get("/v1/agent/health/service/name/{name:.+}", get(self._local_health_of_all)),
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
        self._waiters.release()

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
            return await self._answered(request, handler, True)

        return change

    def _answers(self, handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._answered(request, handler, request.path.startswith("/v1/agent/"))

        return answer

    async def _answered(self, request: web.Request, handler: Handler, agent: bool) -> web.StreamResponse:
        try:
            must_be_answerable(request, agent)
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
        replace = is_set(request, "replace-existing-checks")
        await self._registry.register(instance, states, replace)
        return web.Response()

    async def _deregister(self, request: web.Request) -> web.Response:
        await self._registry.deregister(request.match_info["id"])
        return web.Response()

    async def _maintenance(self, request: web.Request) -> web.Response:
        if not request.query.get("enable"):
            raise Wrong("enable: is missing; it must be true or false")
        reason = request.query.get("reason", "")[:OUTPUT_AT_MOST]
        await self._registry.set_maintenance(request.match_info["id"], is_set(request, "enable"), reason)
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
        config = {"Datacenter": DATACENTER, "NodeName": NODE, "NodeID": NODE_ID, "Server": True}
        config |= {"Revision": "", "Version": VERSION}
        member = {"Name": NODE, "Addr": _address(request), "Port": 8301, "Tags": {}, "Status": 1}
        return _json({"Config": config, "Member": member, "Meta": {}})

    async def _agent_services(self, request: web.Request) -> web.Response:
        entries = self._table.entries.values()
        return _json({entry.instance.id: agent_service(entry) for entry in entries})

    async def _agent_service(self, request: web.Request) -> web.Response:
        """With `hash`, as soon as it is another one, or in its time."""
        name, wait, known = request.match_info["id"], wait_of(request), request.query.get("hash", "")
        if name.partition("/")[0] in ("register", "deregister", "maintenance"):
            raise web.HTTPMethodNotAllowed(request.method, ["PUT"])
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            service = agent_service(self._entry(name))
            found = content_hash(service)
            if known != found or loop.time() >= until:
                break
            if not await self._waiters.wait(self._table, lambda _, each: each == name, until - loop.time()):
                break
        return _json({**service, "ContentHash": found}, {"X-Consul-ContentHash": found})

    def _entry(self, instance_id: str) -> Entry:
        entry = self._table.entries.get(instance_id)
        if entry is None:
            raise Unknown(f"unknown service ID: {instance_id}")
        return entry

    async def _agent_checks(self, request: web.Request) -> web.Response:
        entries = self._table.entries.values()
        return _json({check["CheckID"]: check for entry in entries for check in checks_of(entry)})

    async def _local_health(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        entry = self._table.entries.get(name)
        if entry is None:
            nothing = {"AggregatedStatus": CRITICAL, "Service": None, "Checks": None}
            return _health(request, 404, CRITICAL, nothing, f"ServiceId {name} not found")
        status = health_status([entry])
        return _health(request, _HEALTH[status], status, local_health(entry), status)

    async def _local_health_of_all(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        entries = self._table.service(name)
        if not entries:
            return _health(request, 404, CRITICAL, [], f"ServiceName {name} Not Found")
        status = health_status(entries)
        return _health(request, _HEALTH[status], status, [local_health(each) for each in entries], status)

    # --- the catalog and health: these can wait for a change ---

    async def _datacenters(self, request: web.Request) -> web.Response:
        return _json([DATACENTER])

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
        only_passing = is_set(request, "passing")

        def instances() -> list[dict[str, Any]]:
            found = self._tagged(request, name)
            if only_passing:
                found = [each for each in found if each.status == PASSING]
            return [health_service(each, address) for each in found]

        return await self._as_of(request, name, instances)

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
        return _json(f"{_address(request)}:8300")

    async def _peers(self, request: web.Request) -> web.Response:
        return _json([f"{_address(request)}:8300"])

    # --- blocking queries ---

    async def _as_of(
        self, request: web.Request, service: str | None, answer: Callable[[], Any]
    ) -> web.Response:
        """The answer; where the request names an index, as soon as there is a higher one, or in its time."""
        index, wait = index_of(request), wait_of(request)
        question = request.path, _address(request), *sorted(_narrowed(request))
        # A lower one is another one, too: the table has begun anew since.
        if index and self._table.index_of(service) == index:
            await self._waiters.wait(self._table, lambda name, _: service in (None, name), wait)
        if index:
            await self._answers_made.rest(question)
        body = self._answers_made.shared(question, self._table.version, answer)
        response = web.Response(body=body, content_type="application/json")
        response.headers["X-Consul-Index"] = str(self._table.index_of(service))
        response.headers["X-Consul-KnownLeader"] = "true"
        response.headers["X-Consul-LastContact"] = "0"
        return response


async def _body(request: web.Request) -> bytes:
    try:
        return await body_within(request, BODY_WITHIN)
    except TimeoutError:
        raise Wrong("the body took too long") from None


def _narrowed(request: web.Request) -> list[tuple[str, str]]:
    """What an answer depends on, beside its path."""
    return [(name, value) for name, value in request.query.items() if name in ("passing", "tag")]


def _address(request: web.Request) -> str:
    """Where this server is, as the client sees it."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return str(name[0]) if isinstance(name, tuple) else "127.0.0.1"


def _json(data: Any, headers: Mapping[str, str] | None = None, status: int = 200) -> web.Response:
    body = json.dumps(data).encode()
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def _health(request: web.Request, status: int, words: str, data: Any, reason: str) -> web.Response:
    """How an instance is, in the status of the response, and in a word where that is asked for."""
    # A name of the request goes into a field of the response.
    visible = "".join(each if each.isascii() and each.isprintable() else "?" for each in reason)
    headers = {"X-Consul-Reason": visible}
    if request.query.get("format") != "text":
        return _json(data, headers, status)
    if status == 404:  # as Consul has it
        return _json(reason, headers, status)
    return web.Response(status=status, text=words, headers=headers)


def _text(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=message + "\n")
