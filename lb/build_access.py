"""What the access rules of a route stand for: who may come in, what is answered, what is changed in heads."""

from __future__ import annotations

from collections.abc import Mapping

from lb.config import Config, Route
from lb.config.answers import ErrorPages, pages_by_status
from lb.core.access import BasicAuth, Networks
from lb.core.answers import ErrorPage, FixedAnswer, Redirect
from lb.core.edits import Edits
from lb.core.route import RouteRules

_NONE = RouteRules()


def error_pages(pages: ErrorPages) -> dict[int, ErrorPage]:
    """Bodies for our own errors, by status."""
    return {
        status: ErrorPage(page.content, page.media_type) for status, page in pages_by_status(pages).items()
    }


def route_rules(route: Route, config: Config) -> RouteRules | None:
    """The rules of a route; None where it has none, so that they cost nothing."""
    rules = RouteRules(
        Networks(route.allow, route.deny) if route.allow or route.deny else None,
        route.limits.body,
        _basic_auth(route),
        _answer(route),
        _request_edits(route),
        _response_edits(route),
        route.headers.request.host.encode(),
        {**error_pages(config.errors), **error_pages(route.errors)} if route.errors else None,
    )
    return None if rules == _NONE else rules


def _basic_auth(route: Route) -> BasicAuth | None:
    found = route.basic_auth
    return None if found is None else BasicAuth(found.realm, found.hashes, found.pass_on)


def _answer(route: Route) -> FixedAnswer | Redirect | None:
    if route.redirect is not None:
        return Redirect(route.redirect.to, route.redirect.status)
    found = route.respond
    return None if found is None else FixedAnswer(found.status, found.content, found.media_type)


def _request_edits(route: Route) -> Edits | None:
    changes = route.headers.request
    fields = {name: value for name, value in changes.set.items() if name.lower() != "host"}
    return _edits(fields, changes.add, changes.remove)


def _response_edits(route: Route) -> Edits | None:
    changes = route.headers.response
    return _edits(changes.set, changes.add, changes.remove)


def _edits(
    set_: Mapping[str, str], add: Mapping[str, tuple[str, ...]], remove: tuple[str, ...]
) -> Edits | None:
    return Edits(set_, add, remove) if set_ or add or remove else None
