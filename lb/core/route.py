"""Routes: which pool a request goes to. The first one that matches wins."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random

from lb.core.message import Request
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
    """How often a route may be asked: by each client, by each value of a header, or by all together."""

    __slots__ = ("_header", "_limit", "_per_client")

    def __init__(self, limit: RateLimit, key: str = "client") -> None:
        self._limit = limit
        self._per_client = key == "client"
        self._header = key.removeprefix("header:").lower().encode() if key.startswith("header:") else b""

    def take(self, request: Request, client: str, now: float) -> float:
        """0.0 if the request may pass; else in how many seconds it might."""
        if self._per_client:
            return self._limit.take(client, now)
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


class Route:
    """A match, and where it leads: one pool, or several by share."""

    __slots__ = (
        "_conditions",
        "_cumulative",
        "_rng",
        "_targets",
        "match",
        "name",
        "quota",
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
    ) -> None:
        self.match = match
        self.name = name
        self.strip = strip_prefix.rstrip("/").encode()
        self.quota = quota
        self.target: Target | None = targets[0] if len(targets) == 1 else None
        self._targets = tuple(targets)
        self._cumulative = list(accumulate([target.share for target in targets]))
        self._conditions = tuple(match.conditions())
        self._rng = rng or Random()

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

    __slots__ = ("_routes", "catch_all")

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)
        first = self._routes[0] if self._routes else None
        self.catch_all = first if first is not None and not first.match.conditions() else None

    def find(self, request: Request) -> Route | None:
        for route in self._routes:
            if route.matches(request):
                return route
        return None
