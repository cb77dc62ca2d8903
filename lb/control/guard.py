"""Who may use the admin API, and how it says no."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from lb.control.dashboard import dashboard_page
from lb.control.registry.api import bears
from lb.control.state import AdminState

log = logging.getLogger("lb.admin")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
STATE = web.AppKey("state", AdminState)

OPEN = ("/livez", "/readyz")  # for probes of an orchestrator, which have no token
_SAFE = ("GET", "HEAD", "OPTIONS")


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
    except Exception:
        log.exception("the admin API failed at %s %s", request.method, request.path)
        return as_json({"error": "The admin API failed; the log says more"}, 500)


@web.middleware
async def only_who_may(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lets in who has the token; where there is none, who is on this machine and meant to come here.

    A browser on this machine runs scripts of foreign pages. Such a page can make its own name point here
    (DNS rebinding), but not change the Host that the browser sends; and it can send requests without
    reading the answers, but then the browser says in Origin where they come from.
    """
    token = request.app[STATE].token
    if token is None:
        if not _is_local(request.headers.get("Host", "")):
            raise Refused(421, "The admin API answers to localhost, 127.0.0.1 and [::1] only, "
                               "unless a token is configured")  # fmt: skip
    elif request.path not in OPEN and not _bears(request, token) and not _may_register(request, token):
        return _unauthorised(request)
    origin = request.headers.get("Origin")
    if origin is not None and request.method not in _SAFE and urlsplit(origin).netloc != request.host:
        raise Refused(403, "Pages of other sites may not change anything here")
    return await handler(request)


def _may_register(request: web.Request, token: str) -> bool:
    """Clients of Consul have other places for a token; and the registry may have one of its own."""
    own = request.app[STATE].registry_token
    return request.path.startswith("/v1/") and (
        bears(request, token) or (own is not None and bears(request, own))
    )


def _is_local(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _bears(request: web.Request, token: str) -> bool:
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
        body = json.loads(await request.read(), object_pairs_hook=_no_duplicates)
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
