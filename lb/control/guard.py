"""Who may use the admin API, and how it says no."""

from __future__ import annotations

import hmac
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from lb.control.dashboard import dashboard_page
from lb.control.gate import body_within
from lb.control.registry.queries import bears
from lb.control.state import AdminState

log = logging.getLogger("lb.admin")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
STATE = web.AppKey("state", AdminState)

OPEN = ("/livez", "/readyz")  # for probes of an orchestrator, which have no token
_SAFE = ("GET", "HEAD", "OPTIONS")
_OWN = ("same-origin", "none")  # of Sec-Fetch-Site: our own page, or the user's own hand
BODY_WITHIN = 10.0  # seconds
_ONLY_LOCAL = (
    "The admin API answers to localhost, 127.0.0.1 and [::1] only, and to the names in admin.hosts, "
    "unless a token is configured"
)
_ONLY_NAMES = "The admin API answers to addresses, localhost and the names in admin.hosts only"

_host = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]\\]+)(?::([0-9]{1,5}))?", re.ASCII).fullmatch


class Refused(Exception):
    """A request that gets an error: its status, and what is wrong, for a person."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": message, **more}


def as_json(data: Any, status: int = 200) -> web.Response:
    """A JSON response that ends in a newline, for those who look at it in a terminal."""
    text = json.dumps(data, ensure_ascii=False, default=str) + "\n"
    body = text.encode("utf-8", "backslashreplace")
    return web.Response(body=body, status=status, content_type="application/json", charset="utf-8")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of an error message: what may have been meant, or else what there is."""
    known = list(names)
    close = get_close_matches(name, known, n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (there is {', '.join(sorted(known)[:10])})" if known else ""


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Says every error as JSON, also those of the router, and logs what nobody expected."""
    try:
        return await handler(request)
    except Refused as refused:
        return as_json(refused.body, refused.status)
    except web.HTTPNotFound:
        return as_json({"error": f"There is nothing at {request.path}"}, 404)
    except web.HTTPMethodNotAllowed as error:
        allowed = sorted(error.allowed_methods)
        response = as_json({"error": f"{request.path} takes {' and '.join(allowed)} only"}, 405)
        response.headers["Allow"] = ", ".join(allowed)
        return response
    except web.HTTPException as error:
        return as_json({"error": error.text or error.reason}, error.status)
    except ConnectionError:  # the client has left
        raise
    except Exception:
        log.exception("the admin API failed at %s %s", request.method, request.path)
        return as_json({"error": "The admin API failed; the log says more"}, 500)


@web.middleware
async def only_who_may(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lets in who has the token; where there is none, who is on this machine and meant to come here.

    A browser on this machine runs scripts of foreign pages. Such a page can make its own name point here
    (DNS rebinding), but not change the Host that the browser sends; and it can send requests without
    reading the answers, but then the browser says in Origin and Sec-Fetch-Site where they come from.
    """
    state = request.app[STATE]
    if not _is_meant(request.headers.getall("Host", []), state):
        raise Refused(421, _ONLY_NAMES if state.token is not None else _ONLY_LOCAL)
    if request.path not in OPEN and not may_see(request) and not _may_register(request):
        return _unauthorised(request)
    if request.method not in _SAFE and _is_foreign(request):
        raise Refused(403, "Pages of other sites may not change anything here")
    return await handler(request)


def _may_register(request: web.Request) -> bool:
    """Clients of Consul have other places for a token; and the registry may have one of its own."""
    state = request.app[STATE]
    own, token = state.registry_token, state.token
    return request.path.startswith("/v1/") and (
        (token is not None and bears(request, token)) or (own is not None and bears(request, own))
    )


def _is_meant(hosts: list[str], state: AdminState) -> bool:
    """Whether the Host is one that no foreign page can have. With a token, names don't matter unless there is
    a list of them: who bears it is no foreign page, and who doesn't learns nothing."""
    match = _host(hosts[0]) if len(hosts) == 1 else None
    if match is None or int(match[2] or 0) > 65535:
        return False
    if state.token is not None and not state.hosts:
        return True
    name = match[1].lower()
    try:
        address = ip_address(name.strip("[]"))
    except ValueError:
        return name == "localhost" or name.removesuffix(".") in state.hosts
    return address.is_loopback or state.token is not None or name in state.hosts


def _is_foreign(request: web.Request) -> bool:
    origin = request.headers.get("Origin")
    return request.headers.get("Sec-Fetch-Site", "none") not in _OWN or (
        origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()
    )


def may_see(request: web.Request) -> bool:
    """Whether the request bears the token, or none is needed."""
    token = request.app[STATE].token
    if token is None:
        return True
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # As bytes: compare_digest takes no other text than ASCII.
    right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode("utf-8", "replace"))
    return right and scheme.lower() == "bearer"


def _unauthorised(request: web.Request) -> web.StreamResponse:
    """401. To a browser that opens the dashboard it comes with the page, which asks for the token."""
    if request.path == "/" and "text/html" in request.headers.get("Accept", ""):
        response = dashboard_page(401)
    else:
        response = as_json({"error": "This needs the header Authorization: Bearer TOKEN"}, 401)
    response.headers["WWW-Authenticate"] = 'Bearer realm="lb"'
    return response


async def body_of(request: web.Request) -> dict[str, Any]:
    """The JSON object in the body of a request. Raises Refused for anything else."""
    if request.content_type != "application/json":
        raise Refused(415, "The body must be JSON, with Content-Type: application/json")
    try:
        text = await body_within(request, BODY_WITHIN)
        body = json.loads(text, object_pairs_hook=_no_duplicates)
    except TimeoutError:
        raise Refused(408, "The body took too long") from None
    except web.HTTPRequestEntityTooLarge:
        raise Refused(413, "The body is too large") from None
    except RecursionError:
        raise Refused(400, "The body is nested too deep") from None
    except ValueError as error:
        raise Refused(400, f"The body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refused(400, "The body must be a JSON object")
    return body


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found
