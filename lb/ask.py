"""Asks the admin API of a running balancer, for the commands. The standard library does."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

PATIENCE = 5.0  # seconds


class Unanswered(Exception):
    """There is no answer, or it is no good one."""


def ask(admin: str, path: str, token: str = "") -> Any:
    """What `GET path` answers, as JSON. Raises Unanswered in words for people."""
    if not admin.startswith(("http://", "https://")):
        admin = f"http://{admin}"
    headers = {"Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    # An HTTP_PROXY of the environment is not for this; and the token isn't for whoever is redirected to.
    opener = build_opener(ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(
            Request(admin.rstrip("/") + quote(path), headers=headers), timeout=PATIENCE
        ) as answer:
            return json.load(answer)
    except HTTPError as error:
        with error:
            raise Unanswered(_message(error)) from error
    except (URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Unanswered(
            f"no answer from {admin}: {reason}. Is the balancer running, and is this its admin address?"
        ) from error
    except ValueError as error:
        raise Unanswered(f"{admin} answers something that is no JSON: is this the admin address?") from error


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


def _message(error: HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"it answers {error.code} {error.reason}"
