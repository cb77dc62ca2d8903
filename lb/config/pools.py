"""Pools: the backends, the policy that picks among them, and the rules of talking to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_serializer

from lb.config.discovery import DiscoverySource
from lb.config.fields import duration, host_or_socket, one_of, parsed, percentage, statuses, text, whole
from lb.config.policy import examine_policy
from lb.config.resilience import OutlierDetection, PoolLimits, PoolTimeouts, Retries, Timeout
from lb.config.section import AT_KEY, Found, Path, Section, items_of, peek, readable
from lb.config.shapes import OrOff, OrShort
from lb.config.sticky import Sticky
from lb.config.upstream import OnOrMapping, PoolTls
from lb.config.values import Address, StatusSet, is_visible, parse_address, parse_host, parse_statuses
from lb.config.written import nearest, quoted

backend_address = host_or_socket("127.0.0.1", least_port=1)
_POLICY = r"([A-Za-z_][A-Za-z0-9_]*|[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*)"
policy_name = text("the name of a policy or module:Class", _POLICY, "p2c")


class BalancerSpec(Section):
    """The policy that picks a backend for each request: its name alone, or a mapping with its options too."""

    required: ClassVar = {"policy": "a policy, as in policy: p2c"}

    policy: Annotated[str, policy_name] = Field(
        description="A policy that comes along (`p2c`, `least_request`, `round_robin`, `random`, …), or "
        "`module:Class` of your own, looked for beside the configuration file and on Python's path."
    )
    options: Mapping[str, Any] = Field(
        default_factory=dict, description="The policy's own options: the parameters of its `__init__`."
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        policy = readable(policy_name.read, data.get("policy"))
        options = data.get("options", {})
        if policy is not None and isinstance(options, Mapping):
            data["options"] = dict(options)
            yield from examine_policy(policy, data["options"], context.get("directory"))

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"policy": self.policy, **self.options}


zone_name = text(
    "1 to 63 letters, digits and . _ -",
    r"[A-Za-z0-9._-]{1,63}",
    "eu-1a",
    type=["string", "number", "boolean"],
)
_backend_id = text(
    "1 to 128 letters, digits and . _ : / [ ] -",
    r"[A-Za-z0-9._:/\[\]-]{1,128}",
    "greeter-a",
    type=["string", "number"],
)


class Backend(Section):
    """One instance that serves requests: its address, or a mapping where there is more to say."""

    required: ClassVar = {"address": "an address, as in address: 127.0.0.1:9001"}

    id: Annotated[str, _backend_id] = Field(
        default="",
        description="Its name in logs, metrics and commands, unique in its pool. Its address if left out.",
    )
    address: Annotated[Address, backend_address] = Field(
        description="Where it listens: `host:port`, or a unix socket by its absolute path, as in "
        "`unix:/run/app.sock`."
    )
    weight: Annotated[int, whole(0, 65535)] = Field(
        default=1, description="Its share beside the others. 0 gets no requests."
    )
    tier: Annotated[int, whole(0, 9)] = Field(
        default=0,
        description="Tier 0 serves as long as one of its backends can, then tier 1, and so on.",
    )
    zone: Annotated[str | None, zone_name, OrOff("a zone")] = Field(
        default=None, description="Where it runs. Those of the balancer's own `zone` come first."
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        found = readable(backend_address.read, data.get("address"))
        if found is None or data.get("id") is not None:
            return
        data["id"] = str(found)
        if readable(_backend_id.read, data["id"]) is None:
            data["id"] = "-"
            yield ("address",), "needs an id beside it: the path has characters that can't be in one"


def _probe_path(text_: str) -> str:
    if not text_.startswith("/"):
        raise ValueError(f"must start with a /, not {quoted(text_)}")
    if not is_visible(text_) or "#" in text_:
        raise ValueError(f"must be a path without spaces, # and what isn't ASCII, not {quoted(text_)}")
    return text_


def _probe_host(text_: str) -> str:
    if ":" in text_.rpartition("]")[2]:
        return str(parse_address(text_))
    return parse_host(text_)


_host_header = parsed(_probe_host, "a Host header", "www.example.org", types=(NoneType,))
_ONLY_HTTP = ("path", "expect", "host")


class HealthCheck(Section):
    """Asks each backend from time to time whether it is well. It gets requests after its first success."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"type": {"const": "tcp"}}, "required": ["type"]},
            "then": {"properties": dict.fromkeys(_ONLY_HTTP, False)},
        }
    )

    type: Annotated[Literal["http", "tcp"], one_of("http", "tcp")] = Field(
        default="http", description="`http` asks for a path; `tcp` is content with a connection."
    )
    path: Annotated[str, parsed(_probe_path, "a path", "/healthz", pattern="^/")] = Field(
        default="/healthz", description="What to GET. Only with type http."
    )
    interval: Annotated[float, duration(least=0.1)] = Field(
        default=5.0, description="From one probe to the next, give or take a tenth, at least `100ms`."
    )
    timeout: Timeout = Field(default=2.0, description="A probe that takes longer has failed.")
    rise: Annotated[int, whole(1, 1000)] = Field(
        default=2, description="So many good probes in a row bring an unhealthy backend back."
    )
    fall: Annotated[int, whole(1, 1000)] = Field(
        default=3, description="So many failed probes in a row make a healthy backend unhealthy."
    )
    expect: Annotated[StatusSet, statuses()] = Field(
        default=parse_statuses("200-399"),
        description="Which statuses are good: `200-399`, `204` or `200,204,300-399`. Only with type http.",
    )
    host: Annotated[str | None, _host_header] = Field(
        default=None,
        description="The Host header of the probe; the backend's address if left out. Only with type http.",
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if data.get("type") == "tcp":
            for key in _ONLY_HTTP:
                if key in data:
                    yield (key, AT_KEY), f"means nothing with type tcp, which only connects; leave {key} out"


class Zones(Section):
    """How the balancer's own zone comes first."""

    min_backends: Annotated[int, whole(1, 65535)] = Field(
        default=1, description="With fewer that are well in our zone, all zones serve alike."
    )
    traffic: Annotated[float | None, percentage(more_than_none=True), OrOff("a percentage")] = Field(
        default=None,
        description="How much of all traffic our zone has. With `off`, each zone counts as having as much as "
        "any other.",
    )


class Keepalive(Section):
    """Connections to the backends that are kept for the next request."""

    idle: Timeout = Field(
        default=55.0,
        description="An unused connection is closed after this. Keep it below what the backend has.",
    )
    connections: Annotated[int, whole(1, 65535)] = Field(
        default=256, description="At most so many unused connections per backend."
    )


def duplicates(backends: Any) -> Iterator[Found]:
    """Backends of the same ID, or else of the same address, as one before."""
    ids: dict[str, int] = {}
    addresses: dict[Address, int] = {}
    for number, backend in items_of(backends):
        written = backend if isinstance(backend, str) else peek(backend, "address")
        where = readable(backend_address.read, written)
        name = peek(backend, "id") or (str(where) if where else None)
        path: Path = (number, "id") if isinstance(peek(backend, "id"), str) else (number,)
        if isinstance(name, str) and ids.setdefault(name, number) != number:
            what = f"the ID {quoted(str(name))}" if path[-1] == "id" else f"the backend {name}"
            yield path, f"{what} is here twice: backends[{ids[name]}] has it too"
        elif where is not None and addresses.setdefault(where, number) != number:
            yield (number, "address"), f"{where} is here twice: backends[{addresses[where]}] has it too"


class Pool(Section):
    """A named set of backends that serve the same thing."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["backends"]}, {"required": ["discovery"]}]}
    )

    balancer: Annotated[BalancerSpec, OrShort("policy", policy_name.json_schema, rest="options")] = Field(
        default=BalancerSpec.model_construct(policy="p2c", options={}),
        json_schema_extra={"default": "p2c"},
        description="The policy: its name, or `{policy: NAME}` with its options beside.",
    )
    shadow: Annotated[
        Annotated[BalancerSpec, OrShort("policy", policy_name.json_schema, rest="options")] | None,
        OrOff("a policy"),
    ] = Field(
        default=None,
        description="Another policy to try beside it: it is asked for each request and not heeded, and how "
        "often it would have picked another backend is counted.",
    )
    sticky: Annotated[Sticky | None, OrOff()] = Field(
        default=None, description="A cookie brings each client back to the backend that served it first."
    )
    zones: Annotated[Zones | None, OrOff()] = Field(
        default=Zones.model_construct(),
        description="How the balancer's own `zone` comes first, where it has one. With `off`, it doesn't.",
    )
    backends: tuple[Annotated[Backend, OrShort("address", backend_address.json_schema)], ...] = Field(
        default=(),
        min_length=1,
        description="Who serves: `host:port`, `unix:PATH`, or `{id, address, weight, tier, zone}`. Needed "
        "where `discovery` isn't given.",
    )
    discovery: tuple[DiscoverySource, ...] = Field(
        default=(),
        min_length=1,
        description="Where further backends come from at run time: one or several of `{KIND: {…}}`.",
    )
    tls: Annotated[PoolTls | None, OnOrMapping()] = Field(
        default=None, description="TLS toward the backends; `on` is all its defaults."
    )
    proxy_protocol: Annotated[Literal["v1", "v2"] | None, one_of("v1", "v2"), OrOff("v1, v2")] = Field(
        default=None,
        description="Begin each connection to a backend with a header of the PROXY protocol that says who "
        "the client is. Such a connection serves no other client.",
    )
    health_check: Annotated[HealthCheck | None, OrOff()] = Field(
        default=None, description="Asks each backend from time to time whether it is well."
    )
    outlier_detection: Annotated[OutlierDetection | None, OrOff()] = Field(
        default=OutlierDetection.model_construct(),
        description="Ejects a backend for a while that fails too many of its requests.",
    )
    slow_start: Annotated[float | None, duration(more_than=0), OrOff("a duration")] = Field(
        default=None,
        description="So long a backend that is new or well again takes to come to its whole share.",
    )
    panic_threshold: Annotated[float | None, percentage(more_than_none=True), OrOff("a percentage")] = Field(
        default=None,
        description="Below such a share of backends that are well, requests go to the others too: better a "
        "chance of failure than to crush the few that are left.",
    )
    retries: Annotated[Retries | None, OrOff()] = Field(
        default=Retries.model_construct(),
        description="Tries a request anew where that can hide a failure.",
    )
    limits: PoolLimits = Field(
        default=PoolLimits.model_construct(), description="How much the pool takes at a time."
    )
    timeouts: PoolTimeouts = Field(
        default=PoolTimeouts.model_construct(), description="How long the backends may take."
    )
    keepalive: Annotated[Keepalive | None, OrOff()] = Field(
        default=Keepalive.model_construct(),
        description="Connections to the backends that are kept for the next request. With `off`, each "
        "request gets a new one.",
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        both = ("backends", "discovery")
        misspelt = any(
            key not in cls.model_fields and nearest(str(key), cls.model_fields) in both for key in data
        )
        if not any(key in data for key in both) and not misspelt:
            yield (AT_KEY,), "needs backends, as in backends: [127.0.0.1:9001], or discovery"
        for path, words in duplicates(data.get("backends")):
            yield ("backends", *path), words
