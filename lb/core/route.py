"""Routes: which pool a request goes to. The first one that matches wins."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from lb.core.access import BasicAuth, Networks, client_key
from lb.core.answers import ErrorPage, FixedAnswer, Redirect
from lb.core.edits import Edits
from lb.core.failure import AMBIGUOUS_PATH, NO_ROUTE, Failure
from lb.core.message import Request
from lb.core.paths import is_odd, readings
from lb.core.pool import Pool
from lb.core.rate import RateLimit
from lb.core.rules import RetryRules, Timeouts

Condition = Callable[[Request], bool]


@dataclass(frozen=True, slots=True)
class Match:
    """What a request must be like. An empty one matches every request.

    Hosts are lower-case, `*.example.org` stands for every name under example.org but not for itself.
    """

    hosts: Sequence[str] = ()
    path_prefix: str = "/"
    methods: Sequence[str] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    scheme: str = ""

    def conditions(self) -> list[Condition]:
        """One test for each part that is set: what isn't asked for costs nothing."""
        found: list[Condition] = []
        if self.hosts:
            found.append(_host_in(self.hosts))
        if self.path_prefix.rstrip("/"):
            found.append(_path_under(self.path_prefix.rstrip("/").encode()))
        if self.methods:
            methods = frozenset(method.encode() for method in self.methods)
            found.append(lambda request: request.method in methods)
        for name, value in self.headers.items():
            found.append(_header_is(name.lower().encode(), value.encode()))
        if self.scheme:
            scheme = self.scheme.encode()
            found.append(lambda request: request.scheme == scheme)
        return found


def _host_in(hosts: Sequence[str]) -> Condition:
    exact = frozenset(host.encode() for host in hosts if not host.startswith("*."))
    suffixes = tuple(host[1:].encode() for host in hosts if host.startswith("*."))

    def matches(request: Request) -> bool:
        host = host_name(request.host)
        return host in exact or host.endswith(suffixes)

    return matches


def host_name(host: bytes) -> bytes:
    """A Host value without its port and the root's dot, in lower case."""
    name, colon, port = host.rpartition(b":")
    if not colon or port.endswith(b"]"):
        name = host
    return name.lower().removesuffix(b".")


def _path_under(prefix: bytes) -> Condition:
    """On segment borders: /v1 holds /v1, /v1/a and /v1?q, not /v10."""
    length = len(prefix)

    def matches(request: Request) -> bool:
        target = request.target
        return target.startswith(prefix) and target[length : length + 1] in (b"", b"/", b"?")

    return matches


def _header_is(name: bytes, value: bytes) -> Condition:
    return lambda request: request.header(name) == value


class Quota:
    """How often a route may be asked: by each client (see `client_key`), by each value of a header, or by all
    together."""

    __slots__ = ("_header", "_limit", "_per_client")

    def __init__(self, limit: RateLimit, key: str = "client") -> None:
        self._limit = limit
        self._per_client = key == "client"
        self._header = key.removeprefix("header:").lower().encode() if key.startswith("header:") else b""

    def take(self, request: Request, client: str, now: float) -> float:
        """0.0 if the request may pass; else in how many seconds it might."""
        if self._per_client:
            return self._limit.take(client_key(client) if ":" in client else client, now)
        if self._header:
            return self._limit.take(request.header(self._header) or b"", now)
        return self._limit.take("", now)


class Target:
    """A pool that a route leads to, with the share of the requests that go there, and the rules for them."""

    __slots__ = ("pool", "retries", "share", "timeouts")

    def __init__(
        self,
        pool: Pool,
        share: int = 1,
        timeouts: Timeouts | None = None,
        retries: RetryRules | None = None,
    ) -> None:
        self.pool = pool
        self.share = share
        self.timeouts = timeouts or Timeouts()
        self.retries = retries


@dataclass(frozen=True, slots=True)
class RouteRules:
    """What a route asks of its requests, and does to them, beside sending them to a pool. Each is None where
    it isn't asked for, and a route without any has no rules at all.

    In this order: who may come in (`networks`), how large a body may be (`body`, in bytes), who has to log in
    (`auth`), and an answer that needs no backend. `pages` are bodies for our own errors, by status.
    """

    networks: Networks | None = None
    body: int | None = None
    auth: BasicAuth | None = None
    answer: FixedAnswer | Redirect | None = None
    request: Edits | None = None
    response: Edits | None = None
    host: bytes = b""  # that the backend gets in place of the client's
    pages: Mapping[int, ErrorPage] | None = None


class Route:
    """A match, and where it leads: one pool, or several by share; or to an answer of its own."""

    __slots__ = (
        "_conditions",
        "_cumulative",
        "_rng",
        "_targets",
        "match",
        "name",
        "quota",
        "rules",
        "strip",
        "target",
    )

    def __init__(
        self,
        match: Match,
        targets: Sequence[Target],
        strip_prefix: str = "",
        rng: Random | None = None,
        name: str = "",
        quota: Quota | None = None,
        rules: RouteRules | None = None,
    ) -> None:
        self.match = match
        self.name = name
        self.strip = strip_prefix.rstrip("/").encode()
        self.quota = quota
        self.rules = rules
        self.target: Target | None = targets[0] if len(targets) == 1 else None
        self._targets = tuple(targets)
        self._cumulative = list(accumulate([target.share for target in targets]))
        self._conditions = tuple(match.conditions())
        self._rng = rng or Random()

    @property
    def guards(self) -> bool:
        """Whether it asks more of a request than to match, or refuses it: then nobody may get around it."""
        if self.quota is not None:
            return True
        rules = self.rules
        if rules is None:
            return False
        refuses = isinstance(rules.answer, FixedAnswer) and rules.answer.status >= 400
        return refuses or rules.networks is not None or rules.auth is not None or rules.body is not None

    def matches(self, request: Request) -> bool:
        return all(condition(request) for condition in self._conditions)

    def choose(self) -> Target:
        """The only target, or one of a split drawn by share."""
        if self.target is not None:
            return self.target
        drawn = self._rng.randrange(self._cumulative[-1])
        return self._targets[bisect_right(self._cumulative, drawn)]

    def rewrite(self, target: bytes) -> bytes:
        """The target that the backend sees: without the stripped prefix, and always with a leading slash."""
        rest = target[len(self.strip) :]
        return rest if rest.startswith(b"/") else b"/" + rest


class Routes:
    """The table. `catch_all` is the first route if it takes all: then there is nothing to match."""

    __slots__ = ("_by_scheme", "_guarded", "_routes", "catch_all")

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)
        self._by_scheme = bool([route for route in routes if route.match.scheme])
        self._guarded = bool([route for route in routes if route.guards])
        first = self._routes[0] if self._routes else None
        self.catch_all = first if first is not None and not first.match.conditions() else None

    def find(self, request: Request, scheme: bytes = b"http") -> Route | None:
        """The first that matches. `scheme` is that of the connection that the request came over.

        Where one of the routes guards what it leads to, a path has to lead to the same route however it is
        read; else there is none for it.
        """
        if self._by_scheme:
            request.scheme = request.scheme_over(scheme)
        found = self._first(request)
        if self._guarded and is_odd(request.target) and self._ambiguous(request, found):
            return None
        return found

    def why_none(self, request: Request) -> Failure:
        """Why none was found."""
        if self._guarded and is_odd(request.target) and self._ambiguous(request, self._first(request)):
            return AMBIGUOUS_PATH
        return NO_ROUTE

    def _first(self, request: Request) -> Route | None:
        for route in self._routes:
            if route.matches(request):
                return route
        return None

    def _ambiguous(self, request: Request, found: Route | None) -> bool:
        """Whether the path may be read as one that another route is for, and one of the two guards it."""
        target = request.target
        others = readings(target)
        if others is None:
            return True
        guarded = found is not None and found.guards
        try:
            for path in others:
                request.target = path
                other = self._first(request)
                if other is not found and (guarded or (other is not None and other.guards)):
                    return True
        finally:
            request.target = target
        return False
