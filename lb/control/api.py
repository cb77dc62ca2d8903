"""The JSON part of the admin API: pools, backends, request records, configuration."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from lb.control.all_records import Records
from lb.control.guard import STATE, Refused, as_json, body_of, did_you_mean
from lb.control.messages import Search
from lb.control.state import AdminState
from lb.control.view import backend_view, pool_view
from lb.core.backend import STATES, Backend
from lb.core.failure import FAILURES
from lb.core.pool import Pool
from lb.observe.render import explain

MAX_WEIGHT = 65535
FOUND_AT_MOST = 1000

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_FILTERS = ("backend", "status", "failure", "min_duration", "limit")


def api_routes(state: AdminState) -> list[web.RouteDef]:
    """The routes under /api. Reloading is one only where the app can."""
    routes = [
        web.get("/api/pools", _pools),
        web.get("/api/pools/{pool}", _pool),
        web.patch("/api/pools/{pool}/backends/{backend:.+}", _change_backend),
        web.get("/api/requests", _requests),
        web.get("/api/requests/{request_id:.+}", _request),  # an ID taken over from a proxy may hold a /
        web.get("/api/config", _config),
    ]
    if state.reload is not None:
        routes.append(web.post("/api/reload", _reload))
    return routes


# --- pools ---


async def _pools(request: web.Request) -> web.Response:
    state = request.app[STATE]
    await state.collect()
    pools = [pool_view(state, pool) for pool in state.pools.values()]
    return as_json({"version": state.version, "draining": state.draining(), "pools": pools})


async def _pool(request: web.Request) -> web.Response:
    state = request.app[STATE]
    await state.collect()
    return as_json(pool_view(state, _find_pool(state, request)))


async def _change_backend(request: web.Request) -> web.Response:
    """Sets weight and state. All of it or, where anything is wrong, nothing."""
    changes = _checked(await body_of(request))
    state = request.app[STATE]  # after the body is here: a reload may have come between
    pool = _find_pool(state, request)
    backend = _find_backend(pool, request.match_info["backend"])
    if "weight" in changes:
        pool.set_weight(backend, changes["weight"])
    if "state" in changes:
        pool.set_state(backend, changes["state"])
    await state.collect()
    return as_json(backend_view(state, pool, backend))


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    """Weight and state out of a body, or Refused with what is wrong with which."""
    for key in body:
        if key not in ("weight", "state"):
            raise Refused(400, f"{key}: is not a thing to change{did_you_mean(key, ('weight', 'state'))}")
    if not body:
        raise Refused(400, "The body must have a weight or a state")
    if "weight" in body:
        weight = body["weight"]
        if type(weight) is not int or not 0 <= weight <= MAX_WEIGHT:  # to isinstance, true is an int
            raise Refused(400, f"weight: must be a whole number from 0 to {MAX_WEIGHT}")
    if "state" in body:
        wanted = body["state"]
        if wanted not in STATES:
            hint = did_you_mean(wanted, STATES) if isinstance(wanted, str) else ""
            raise Refused(400, f"state: must be {', '.join(STATES[:-1])} or {STATES[-1]}{hint}")
        # Not the equal string that came in: the pool tells states apart by identity.
        return {**body, "state": STATES[STATES.index(wanted)]}
    return body


def _find_pool(state: AdminState, request: web.Request) -> Pool:
    name = request.match_info["pool"]
    pool = state.pools.get(name)
    if pool is None:
        raise Refused(404, f"No pool is called {name}{did_you_mean(name, state.pools)}")
    return pool


def _find_backend(pool: Pool, name: str) -> Backend:
    backend = pool.backends.get(name)
    if backend is None:
        hint = did_you_mean(name, pool.backends)
        raise Refused(404, f"No backend of pool {pool.name} is called {name}{hint}")
    return backend


# --- request records ---


async def _request(request: web.Request) -> web.Response:
    """The record as JSON, or to who asks for text/plain in words."""
    state = request.app[STATE]
    records = _records(state)
    request_id = request.match_info["request_id"]
    record = await records.find(request_id)
    if record is None:
        raise Refused(404, f"No request {request_id} is known: the last {records.size} are kept, "
                           "and one is known as soon as it has ended")  # fmt: skip
    if "text/plain" in request.headers.get("Accept", ""):
        return web.Response(text=explain(record))
    return as_json(record)


async def _requests(request: web.Request) -> web.Response:
    state = request.app[STATE]
    records = _records(state)
    query = request.query
    for key in query:
        if key not in _FILTERS:
            raise Refused(400, f"{key}: can't be searched for{did_you_mean(key, _FILTERS)}")
        if len(query.getall(key)) > 1:
            raise Refused(400, f"{key}: is there twice")
    found = await records.search(
        Search(
            backend=query.get("backend"),
            status=_statuses(query["status"]) if "status" in query else None,
            failure=_failure(query["failure"]) if "failure" in query else None,
            min_duration=_seconds(query["min_duration"]) if "min_duration" in query else 0.0,
            limit=_limit(query["limit"]) if "limit" in query else 100,
        )
    )
    return as_json({"held": found.held, "requests": [record for _, record in found.records]})


def _records(state: AdminState) -> Records:
    if state.records is None:
        raise Refused(404, "Request records are turned off: set request_records in the configuration")
    return state.records


def _statuses(text: str) -> tuple[int, int]:
    """The first and the last one."""
    if re.fullmatch("[1-5]xx", text):
        return int(text[0]) * 100, int(text[0]) * 100 + 99
    if not re.fullmatch("[1-5][0-9]{2}", text, re.ASCII):
        raise Refused(400, "status: must be a status, as in 503, or a class of them, as in 5xx")
    return int(text), int(text)


def _failure(name: str) -> str:
    if name not in FAILURES:
        raise Refused(400, f"failure: there is none of this name{did_you_mean(name, FAILURES)}")
    return name


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Refused(400, "min_duration: must be a duration such as 250ms or 1.5s")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def _limit(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text, re.ASCII) or not 1 <= int(text) <= FOUND_AT_MOST:
        raise Refused(400, f"limit: must be a whole number from 1 to {FOUND_AT_MOST}")
    return int(text)


# --- configuration ---


async def _config(request: web.Request) -> web.Response:
    return as_json(request.app[STATE].config())


async def _reload(request: web.Request) -> web.Response:
    reload = request.app[STATE].reload
    if reload is None:
        raise Refused(404, "This balancer can't reload")
    if request.body_exists:
        await body_of(request)
    result = await reload()
    if result.problems:
        raise Refused(
            422, "The new configuration can't be used; the old one stays", problems=list(result.problems)
        )
    return as_json({"reloaded": True, "changed": list(result.changed), "kept": list(result.kept)})
