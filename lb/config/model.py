"""The configuration as frozen models: durations in seconds, sizes in bytes, None for what is off.

Every default is here and nowhere else, and the descriptions are what editors and the reference show.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from lb.config.access import examine_request_id
from lb.config.answers import ErrorPages, examine_pages
from lb.config.fields import TOKEN, duration, flag, host_or_socket, one_of, parsed, proxy, size, text, whole
from lb.config.guarded import Guarded, own_address
from lb.config.paths import file_path
from lb.config.pools import Pool, zone_name
from lb.config.registry import Registry
from lb.config.resilience import Timeout
from lb.config.routes import Match, Route
from lb.config.secret import TokenSource, no_secret
from lb.config.section import AT_KEY, Found, Section, items_of, pairs_of, peek, readable
from lb.config.shapes import OrOff
from lb.config.tls import OrTrue, ProxyProtocol, Tls
from lb.config.upstream import Forwarded
from lb.config.values import Address, Network, parse_host
from lb.config.written import did_you_mean, is_off, quoted

_bind = host_or_socket("0.0.0.0", least_port=0)
_admin_host = parsed(parse_host, "a host name or an IP address, with no port", "lb.example.com")


class ListenerTimeouts(Section):
    """How long a client may take."""

    request_header: Timeout = Field(
        default=10.0, description="From the first byte of a request to the end of its head."
    )
    request_body: Timeout = Field(default=30.0, description="Without a byte while a body is awaited.")
    write: Timeout = Field(
        default=60.0, description="Without a byte taken by the client while there is something for it."
    )
    keepalive: Timeout = Field(default=75.0, description="Between two requests on a connection.")
    handshake: Timeout = Field(
        default=10.0,
        description="For all that comes before the first request: the PROXY protocol's header, and TLS.",
    )


class ListenerLimits(Section):
    """How large a request may be."""

    request_line: Annotated[int, size(256, 2**20)] = Field(
        default=8192, description="Method, target and version: 414 beyond it."
    )
    header_bytes: Annotated[int, size(256, 2**20)] = Field(
        default=65536, description="All header fields together: 431 beyond it."
    )
    header_count: Annotated[int, whole(1, 10_000)] = Field(
        default=128, description="How many header fields: 431 beyond it."
    )
    body: Annotated[int | None, size(1, 2**53 - 1), OrOff("a size")] = Field(
        default=None, description="The body: 413 beyond it."
    )
    handshakes: Annotated[int, whole(1, 1_000_000)] = Field(
        default=512,
        description="TLS handshakes under way at a time, in each worker. With one more, the oldest is cut.",
    )
    body_rate: Annotated[int | None, size(1, 2**30), OrOff("a size")] = Field(
        default=100,
        description="So many bytes of a body a second on average, over `timeouts.request_body`: 408 below "
        "it.",
    )
    requests_per_connection: Annotated[int | None, whole(1, 10**9), OrOff("a whole number")] = Field(
        default=None, description="So many requests on a connection; the answer of the last one closes it."
    )
    connections_per_client: Annotated[int | None, whole(1, 10_000_000), OrOff("a whole number")] = Field(
        default=None,
        description="So many connections of one client address (for IPv6, of one /64) at a time: more are "
        "closed at once. Trusted proxies aren't counted.",
    )


class Listener(Section):
    """An address that requests are accepted on."""

    required: ClassVar = {"bind": "an address, as in bind: 0.0.0.0:8080"}

    bind: Annotated[Address, _bind] = Field(
        description="`host:port`: `0.0.0.0:8080`, `[::]:8080`, `localhost:8080`. Port 0 takes a free one. "
        "Or a unix socket by its absolute path: `unix:/run/lb.sock`."
    )
    timeouts: ListenerTimeouts = Field(
        default=ListenerTimeouts.model_construct(), description="How long a client may take."
    )
    limits: ListenerLimits = Field(
        default=ListenerLimits.model_construct(), description="How large a request may be."
    )
    tls: Annotated[Tls | None, OrOff()] = Field(default=None, description="TLS with the clients.")
    proxy_protocol: Annotated[ProxyProtocol | None, OrTrue()] = Field(
        default=None,
        description="`true`: each connection must begin with a header of the PROXY protocol, version 1 or 2, "
        "which says who the client is.",
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        address = readable(_bind.read, data.get("bind"))
        if address is not None and address.path and peek(data.get("proxy_protocol"), "from"):
            yield ("proxy_protocol", "from"), "a unix socket's clients have no addresses: write true alone"


_TAKEN_HEADERS = frozenset(
    {"connection", "content-length", "expect", "forwarded", "host", "keep-alive", "proxy-authenticate"}
    | {
        "client-cert",
        "client-cert-chain",
        "x-client-cert-subject",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    }
    | {"x-backend", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}
)


def _request_id_header(written: str) -> str:
    if not TOKEN.fullmatch(written):
        raise ValueError(f"must be the name of a header, not {quoted(written)}")
    if written.lower() in _TAKEN_HEADERS:
        raise ValueError(f"can't be {written}, which means something else in HTTP")
    return written


class RequestId(Section):
    """The ID that every request gets, or keeps if a trusted proxy gave it one."""

    header: Annotated[str, parsed(_request_id_header, "the name of a header", "X-Request-ID")] = Field(
        default="X-Request-ID", description="The header that bears it, toward the backend and the client."
    )


class AccessLog(Section):
    """One line per request."""

    path: Annotated[str, parsed(file_path, "a path", "/var/log/lb/access.log")] = Field(
        default="-", description="A file, or `-` for standard output."
    )
    format: Annotated[Literal["json"], one_of("json")] = Field(
        default="json", description="`json`: one object per line."
    )


class Admin(Guarded):
    """The address of the admin API, the metrics and the health of the balancer itself."""

    what: ClassVar = "admin"

    bind: Annotated[Address, own_address] = Field(
        default=Address("127.0.0.1", 9901),
        description="`host:port`. Anything but loopback needs a token. Port 0 takes a free one.",
    )
    token: Annotated[TokenSource | None, BeforeValidator(no_secret)] = Field(
        default=None, description="Where the token is read from that clients have to present."
    )
    hosts: tuple[Annotated[str, _admin_host], ...] = Field(
        default=(),
        description="Names that clients may call it by in the Host header, besides localhost and addresses. "
        "Without a token, other names are refused; with one, only where this is given.",
    )


class Drain(Section):
    """How the balancer goes on SIGTERM and SIGINT."""

    delay: Annotated[float, duration()] = Field(
        default=0.0,
        description="So long it still accepts, while /readyz says 503: time for others to notice.",
    )
    timeout: Annotated[float, duration()] = Field(
        default=25.0, description="So long it then waits for the requests in flight, at most."
    )


_pool_name = text(
    "a name of 1 to 63 letters, digits and _ . -, with a letter or digit first",
    r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}",
    "greeter",
)


class Config(Section):
    """The whole configuration of a load balancer."""

    required: ClassVar = {"pools": "pools, as in pools: {greeter: {backends: [127.0.0.1:9001]}}"}

    workers: Annotated[int | Literal["auto"], whole(1, 256, "auto")] = Field(
        default=1, description="So many processes share the work. `auto` is one per core."
    )
    watch: Annotated[bool, flag()] = Field(
        default=False,
        description="Reload this file when it changes, as on SIGHUP.",
    )
    zone: Annotated[str | None, zone_name, OrOff("a zone")] = Field(
        default=None,
        description="Where this balancer runs: backends of the same zone come first. If left out, what the "
        "environment variable `LB_ZONE` says.",
    )
    max_connections: Annotated[int | None, whole(1, 10_000_000), OrOff("a whole number")] = Field(
        default=None,
        description="At most so many connections of clients at a time, in all workers together. With `off`, "
        "as many as the limit of open files allows.",
    )
    listeners: tuple[Listener, ...] = Field(
        default=(Listener.model_construct(bind=Address("0.0.0.0", 8080)),),
        min_length=1,
        description="The addresses that requests are accepted on.",
    )
    trusted_proxies: tuple[Annotated[Network | Literal["unix"], proxy()], ...] = Field(
        default=(),
        description="Networks or addresses of the proxies in front, whose X-Forwarded-*, Forwarded and "
        "X-Request-ID are believed. `unix` is whoever comes in at a unix socket.",
    )
    forwarded: Forwarded = Field(
        default=Forwarded.model_construct(),
        description="Which header fields say who the client is.",
    )
    request_id: RequestId = Field(
        default=RequestId.model_construct(), description="The ID that every request gets."
    )
    expose_backend: Annotated[bool, flag()] = Field(
        default=False, description="Tell the client in X-Backend which backend served it."
    )
    request_records: Annotated[int, whole(0, 10_000_000), OrOff("a whole number", 0)] = Field(
        default=10_000, description="So many of the last requests can be explained. `off` is 0."
    )
    access_log: Annotated[AccessLog | None, OrOff()] = Field(
        default=AccessLog.model_construct(), description="One line per request."
    )
    admin: Annotated[Admin | None, OrOff()] = Field(
        default=Admin.model_construct(),
        description="The address of the admin API, the metrics and the health of the balancer itself.",
    )
    registry: Annotated[Registry | None, OrOff()] = Field(
        default=None,
        description="The embedded registry. If left out, there is one in memory where a pool has it as a "
        "source.",
    )
    drain: Drain = Field(
        default=Drain.model_construct(), description="How the balancer goes on SIGTERM and SIGINT."
    )
    routes: tuple[Route, ...] = Field(
        default=(),
        description="Which requests go to which pool; the first that matches wins, and 404 if none does. "
        "With one pool they can be left out: all goes to it.",
    )
    errors: ErrorPages = Field(
        default_factory=dict,
        description="Bodies in place of our own for errors that we answer ourselves, by status. Errors of "
        "backends pass as they are.",
        json_schema_extra={"additionalProperties": False},
    )
    pools: Mapping[Annotated[str, _pool_name], Pool] = Field(
        min_length=1,
        description="The pools by name: letters, digits and `_ . -`.",
        json_schema_extra={"additionalProperties": False},
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        yield from _shared_binds(data)
        if "registry" not in data and _uses_registry(data):
            data["registry"] = Registry()
        yield from examine_pages(data.get("errors"))
        header = readable(_request_id_header, peek(data.get("request_id"), "header") or "X-Request-ID")
        for number, route in items_of(data.get("routes")):
            for path, words in examine_request_id(str(header), peek(route, "headers")):
                yield ("routes", number, "headers", *path), words
        pools = [name for name, _ in pairs_of(data.get("pools"))]
        if not pools:
            return
        if data.get("routes", ()) in ((), []):
            if len(pools) == 1:
                data["routes"] = ({"pool": pools[0]},)
            else:
                names = ", ".join(pools)
                yield ("pools", AT_KEY), f"there are several ({names}), so routes must say which serves what"
        for number, route in items_of(data.get("routes")):
            yield from _unknown_pools(number, route, pools)
        yield from _unreachable_routes(data)

    @property
    def own_zone(self) -> str:
        """Where this balancer runs; empty where nobody said."""
        return self.zone or os.environ.get("LB_ZONE", "")


def _shared_binds(data: Mapping[str, Any]) -> Iterator[Found]:
    """Two that would listen at the same place. Port 0 is another one each time."""
    seen: dict[Address, int] = {}
    for number, listener in items_of(data.get("listeners", Config.model_fields["listeners"].default)):
        bind = readable(_bind.read, peek(listener, "bind"))
        if bind is not None and (bind.port or bind.path) and seen.setdefault(bind, number) != number:
            yield ("listeners", number, "bind"), f"{bind} is here twice: listeners[{seen[bind]}] has it too"
    registry = readable(_bind.read, peek(data.get("registry"), "bind"))
    if registry is not None and registry.port and seen.setdefault(registry, -1) != -1:
        yield ("registry", "bind"), f"{registry} is here twice: listeners[{seen[registry]}] has it too"
    admin = data.get("admin", {})
    if admin is None or is_off(admin):
        return
    written = peek(admin, "bind")
    bind = Admin.model_fields["bind"].default if written is None else readable(own_address.read, written)
    if bind is not None and bind.port and seen.get(bind) == -1:
        yield ("registry", "bind"), f"{bind} is where admin listens, which has the registry in any case"
    elif bind in seen and written is None:
        yield ("listeners", seen[bind], "bind"), f"{bind} is where admin listens if admin.bind isn't given"
    elif bind in seen:
        yield ("admin", "bind"), f"{bind} is here twice: listeners[{seen[bind]}] has it too"


def _uses_registry(data: Mapping[str, Any]) -> bool:
    """Whether a pool has the embedded registry among its sources."""
    sources = [
        each for _, pool in pairs_of(data.get("pools")) for _, each in items_of(peek(pool, "discovery"))
    ]
    return any(peek(each, "registry") is not None for each in sources)


def _unknown_pools(number: int, route: Any, pools: list[str]) -> Iterator[Found]:
    where = ("routes", number)
    name = peek(route, "pool")
    if isinstance(name, str) and name and name not in pools:
        yield (*where, "pool"), _no_such_pool(name, pools)
    for other, _ in pairs_of(peek(route, "split")):
        if other not in pools:
            yield (*where, "split", other, AT_KEY), _no_such_pool(other, pools)


def _no_such_pool(name: str, pools: list[str]) -> str:
    near = did_you_mean(name, pools) or f" (there are: {', '.join(pools)})"
    return f"there is no pool {quoted(str(name))}{near}"


def _unreachable_routes(data: Mapping[str, Any]) -> Iterator[Found]:
    """Routes behind one that takes every request. Only the first is told: the cause is the same."""
    for number, route in items_of(data.get("routes"))[:-1]:
        written = peek(route, "match")
        match = Match() if written is None else readable(Match.model_validate, written)
        if match is not None and match.is_empty and isinstance(route, Mapping | Route):
            yield ("routes", number + 1), f"is never reached, because routes[{number}] matches every request"
            return
