"""A scenario of `lb simulate` as frozen models: durations in seconds, None for what is off or left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from lb.config.fields import duration, flag, number, one_of, parsed, percentage, text, whole
from lb.config.latency import AnyLatency, LatencySpec, Start, seconds_of
from lb.config.loader import read_text, validated
from lb.config.pools import BalancerSpec, Zones, policy_name, zone_name
from lb.config.resilience import OutlierDetection, PoolLimits, Retries, Timeout
from lb.config.section import AT_KEY, Found, Section, items_of, peek
from lb.config.shapes import OrOff, OrShort
from lb.config.written import as_bool, quoted

TimeoutOrOff = Annotated[float | None, duration(more_than=0), OrOff("a duration")]
Times = Annotated[float, number(more_than=0, most=1_000_000)]
MOST_KEYS = 10_000_000
_FOREVER = 8760 * 3600.0


# --- what befalls it ---


class Span(Section):
    """Something that begins at a time and lasts for a while."""

    start: Start = Field(default=0.0, alias="from", description="When it begins.")
    seconds: Annotated[float, duration(more_than=0)] = Field(
        default=_FOREVER, alias="for", description="How long it lasts. To the end if left out."
    )


class SlowSpan(Span):
    """Takes longer, or has another latency, for a while."""

    times: Annotated[float | None, number(more_than=0, most=1_000_000)] = Field(
        default=None, description="So many times as long."
    )
    latency: AnyLatency | None = Field(default=None, description="This latency instead.")

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if ("times" in data) == ("latency" in data) and not cls.misspelt(data):
            yield (AT_KEY,), "needs one of the two: times, as in times: 5, or a latency"


class PausesSpec(Section):
    """Stands still now and then, as for a collection of garbage."""

    required: ClassVar = {"every": "a mean time between two, as in every: 10s", "for": "for: 200ms, say"}

    every: Timeout = Field(description="The mean time between two.")
    length: AnyLatency = Field(alias="for", description="How long one takes: a latency.")


class FailingSpan(Span):
    """Fails its requests for a while, and quickly."""

    share: Annotated[float, percentage(more_than_none=True)] = Field(
        default=1.0, description="How many of them."
    )
    latency: AnyLatency = Field(
        default=LatencySpec.model_construct(constant=0.001), description="How long that takes."
    )
    how: Annotated[Literal["reset", "503"], one_of("reset", "503")] = Field(
        default="reset", description="It closes the connection, or answers 503."
    )


class ColdSpec(Section):
    """Is slower at first, when it joins in the midst of the run or is back from a crash."""

    required: ClassVar = {"times": "how many times as long, as in times: 5", "for": "for: 10s, say"}

    times: Times = Field(description="So many times as long.")
    seconds: Timeout = Field(alias="for", description="For so long.")


_backend_name = text("1 to 64 letters, digits and . _ -", r"[A-Za-z0-9._-]{1,64}", "replica")


class ServerSpec(Section):
    """A backend, or `count` of a kind, as it really is. The balancer knows its weight and tier alone."""

    required: ClassVar = {"latency": "a latency, as in latency: 20ms"}

    id: Annotated[str, _backend_name] = Field(
        default="backend", description="Its name. Of several, each gets a number behind it."
    )
    count: Annotated[int, whole(1, 100_000)] = Field(default=1, description="So many of this kind.")
    latency: AnyLatency = Field(description="How long it works on a request.")
    weight: Annotated[int, whole(0, 65535)] = Field(default=1, description="Its share beside the others.")
    tier: Annotated[int, whole(0, 9)] = Field(default=0, description="As in the configuration.")
    zone: Annotated[str | None, zone_name, OrOff("a zone")] = Field(
        default=None, description="Where it runs. Those of a worker's own zone come first."
    )
    slots: Annotated[int | None, whole(1, 1_000_000), OrOff("a whole number")] = Field(
        default=None, description="On so many requests it works at a time; on all of them if off."
    )
    queue: Annotated[int | None, whole(0, 1_000_000), OrOff("a whole number")] = Field(
        default=None, description="So many more may wait, and then it answers 503; all of them if off."
    )
    joins: Start = Field(default=0.0, description="When it comes into the pool.")
    leaves: Timeout | None = Field(default=None, description="When it leaves. What it has, it ends.")
    cold: ColdSpec | None = Field(default=None, description="`{times, for}`: slower at first.")
    slow: tuple[SlowSpan, ...] = Field(default=(), description="Spans in which it is slower.")
    pauses: PausesSpec | None = Field(default=None, description="`{every, for}`: stands still now and then.")
    crashes: tuple[Span, ...] = Field(
        default=(), description="Spans in which it is down. What it has at the beginning is lost."
    )
    failing: tuple[FailingSpan, ...] = Field(default=(), description="Spans in which it fails quickly.")

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        joins, leaves = seconds_of(data.get("joins", 0.0)), seconds_of(data.get("leaves"))
        if joins is not None and leaves is not None and leaves <= joins:
            yield ("leaves",), "must be later than when it joins"
        if "queue" in data and "slots" not in data:
            yield ("queue", AT_KEY), "means nothing without slots: nobody ever waits"


# --- who asks ---


class Bursts(Section):
    """Many more requests for a short time, again and again."""

    required: ClassVar = {"every": "every: 10s, say", "for": "for: 500ms, say", "times": "times: 5, say"}

    every: Timeout = Field(description="From the beginning of one to that of the next.")
    seconds: Timeout = Field(alias="for", description="How long one lasts.")
    times: Times = Field(description="So many times the usual rate.")


class Daily(Section):
    """The rate goes up and down, as between day and night."""

    required: ClassVar = {"period": "period: 60s, say", "swing": "swing: 50%, say"}

    period: Timeout = Field(description="How long a day is.")
    swing: Annotated[float, percentage()] = Field(description="How far it goes up and down.")


class ArrivalsSpec(Section):
    """Requests that come whatever becomes of those before: a Poisson process."""

    required: ClassVar = {"rate": "a rate, as in rate: 1000 (requests a second)"}

    rate: Annotated[float, number(more_than=0, most=10_000_000)] = Field(
        description="Requests a second on average."
    )
    bursts: Bursts | None = Field(default=None, description="`{every, for, times}`.")
    daily: Daily | None = Field(default=None, description="`{period, swing}`.")


class ClientsSpec(Section):
    """Clients that each wait for an answer before they ask again. Their number alone will do."""

    required: ClassVar = {"count": "a count, as in count: 100"}

    count: Annotated[int, whole(1, 1_000_000)] = Field(description="How many there are.")
    think: AnyLatency = Field(
        default=LatencySpec.model_construct(constant=0.0),
        description="How long one waits between an answer and its next request: a latency.",
    )


class KeyShare(Section):
    """One of the keys. Its name alone will do."""

    required: ClassVar = {"key": "a key, as in key: alice"}

    key: Annotated[str, text("1 to 200 printable characters", r"[!-~]{1,200}", "alice")] = Field(
        description="What it is called."
    )
    share: Annotated[float, number(more_than=0)] = Field(
        default=1.0, description="How often it comes, beside the others."
    )


class KeysSpec(Section):
    """What requests have in common with others, for policies that go by a key: whatever the policy reads it
    from. Their number alone will do."""

    count: Annotated[int | None, whole(1, MOST_KEYS)] = Field(
        default=None, description="So many, each equally often."
    )
    zipf: Annotated[float, number(most=10)] = Field(
        default=0.0,
        description="The r-th most frequent one comes in proportion to 1 / r to the power of this.",
    )
    list_: tuple[Annotated[KeyShare, OrShort("key", {"type": "string"})], ...] = Field(
        default=(), alias="list", min_length=1, description="Instead: these, as names or as `{key, share}`."
    )

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if ("count" in data) == ("list" in data) and not cls.misspelt(data):
            yield (AT_KEY,), "needs one of the two: count, as in count: 1000, or a list"
        if "zipf" in data and "list" in data:
            yield ("zipf", AT_KEY), "means nothing with a list: each of it has its share"
        seen: dict[str, int] = {}
        for number_, each in items_of(data.get("list")):
            name = peek(each, "key") or each
            if isinstance(name, str) and seen.setdefault(name, number_) != number_:
                yield ("list", number_), f"the key {quoted(name)} is here twice: list[{seen[name]}] is it too"


# --- the balancer ---


class WorkersSpec(Section):
    """Several workers, each with a pool of its own. Their number alone will do."""

    required: ClassVar = {"count": "a count, as in count: 4"}

    count: Annotated[int, whole(1, 256)] = Field(description="How many there are.")
    shared: Annotated[bool, flag()] = Field(
        default=False, description="Whether they tell each other what they have in flight."
    )
    zones: tuple[Annotated[str, zone_name], ...] = Field(
        default=(), description="Where they run, in turn. Those of no zone know none."
    )


class Probes(Section):
    """Asks each backend from time to time whether it is well."""

    interval: Annotated[float, duration(least=0.1)] = Field(default=5.0, description="How often.")
    timeout: Timeout = Field(default=2.0, description="A probe that takes longer has failed.")
    rise: Annotated[int, whole(1, 1000)] = Field(
        default=2, description="Good ones in a row that bring it back."
    )
    fall: Annotated[int, whole(1, 1000)] = Field(default=3, description="Bad ones in a row that take it out.")


class SimulatedPool(Section):
    """The rules of the pool, as in the configuration. Here all are off if left out: see the policy."""

    health_check: Annotated[Probes | None, OrOff()] = Field(default=None, description="Probes.")
    outlier_detection: Annotated[OutlierDetection | None, OrOff()] = Field(
        default=None, description="Ejects who fails too often."
    )
    slow_start: TimeoutOrOff = Field(
        default=None, description="So long a new one takes to come to its share."
    )
    panic_threshold: Annotated[float | None, percentage(more_than_none=True), OrOff("a percentage")] = Field(
        default=None, description="Below such a share of backends that are well, all are used."
    )
    retries: Annotated[Retries | None, OrOff()] = Field(default=None, description="Tries again elsewhere.")
    limits: PoolLimits = Field(
        default=PoolLimits.model_construct(),
        description="How much the pool takes at a time. None at all if left out.",
    )
    zones: Annotated[Zones | None, OrOff()] = Field(
        default=Zones.model_construct(),
        description="How a worker's own zone comes first, where it has one. With `off`, it doesn't.",
    )
    sticky: Annotated[bool, flag()] = Field(
        default=False,
        description="Whether a cookie brings each client back to its backend. Each key is a client.",
    )


class Deploy(Section):
    """A rolling deploy: one backend after the other leaves, and is back a little later, as a new one."""

    required: ClassVar = {"every": "every: 5s, say", "down": "down: 2s, say"}

    start: Start = Field(default=0.0, alias="from", description="When the first one leaves.")
    every: Timeout = Field(description="From one to the next.")
    down: Timeout = Field(description="How long each is away.")


class ScenarioSpec(Section):
    """A scenario: who asks, who answers, and what goes wrong."""

    required: ClassVar = {
        "backends": "backends, as in backends: [{count: 3, latency: 20ms}]",
        "duration": "a duration, as in duration: 60s",
    }

    about: Annotated[str, parsed(str, "a sentence", "One of four is slow.")] = Field(
        default="", description="What it shows, in a sentence."
    )
    duration: Timeout = Field(description="How long requests come. Those under way then are waited for.")
    warm_up: Start = Field(default=0.0, description="What is asked before it isn't counted.")
    timeout: TimeoutOrOff = Field(default=None, description="So long an attempt may take.")
    arrivals: ArrivalsSpec | None = Field(default=None, description="Open: requests that come by themselves.")
    clients: Annotated[ClientsSpec, OrShort("count", whole(1, 1_000_000).json_schema)] | None = Field(
        default=None, description="Closed: clients that wait for their answers."
    )
    keys: Annotated[KeysSpec, OrShort("count", whole(1, MOST_KEYS).json_schema)] | None = Field(
        default=None, description="Keys that requests have, drawn at random. None at all if left out."
    )
    workers: Annotated[WorkersSpec, OrShort("count", whole(1, 256).json_schema)] = Field(
        default=WorkersSpec.model_construct(count=1, shared=False),
        description="How many, and `shared` or not.",
    )
    backends: tuple[ServerSpec, ...] = Field(min_length=1, description="Who answers.")
    deploy: Deploy | None = Field(default=None, description="`{from, every, down}`: a rolling deploy.")
    pool: SimulatedPool = Field(
        default=SimulatedPool.model_construct(), description="The rules of the pool. All off if left out."
    )
    policies: tuple[
        Annotated[BalancerSpec, OrShort("policy", policy_name.json_schema, rest="options")], ...
    ] = Field(default=(), description="Which policies to run, where the command names none. All if left out.")

    @classmethod
    def examine(cls, data: dict[str, Any], context: Mapping[str, Any]) -> Iterator[Found]:
        if ("arrivals" in data) == ("clients" in data) and not cls.misspelt(data):
            yield (AT_KEY,), "needs one of the two: arrivals, as in arrivals: {rate: 1000}, or clients"
        length, warm_up = seconds_of(data.get("duration")), seconds_of(data.get("warm_up", 0.0))
        if length is not None and warm_up is not None and warm_up >= length:
            yield ("warm_up",), "must be less than the duration, or nothing is counted"
        zones = peek(data.get("workers"), "zones")
        known = {str(peek(each, "zone")) for _, each in items_of(data.get("backends"))}
        for number_, zone in items_of(zones):
            if isinstance(zone, str) and zone not in known:
                yield ("workers", "zones", number_), f"no backend is in the zone {quoted(zone)}"
        if as_bool(peek(data.get("pool"), "sticky")) and "keys" not in data:
            yield ("pool", "sticky"), "means nothing without keys: no client comes twice"
        seen: dict[str, int] = {}
        for number_, each in items_of(data.get("backends")):
            name = peek(each, "id") or "backend"
            if isinstance(name, str) and seen.setdefault(name, number_) != number_:
                path: tuple[int | str, ...] = ("backends", number_)
                path += ("id",) if peek(each, "id") else ()
                yield path, f"the ID {quoted(str(name))} is here twice: backends[{seen[name]}] has it too"


def load_scenario(path: str | Path) -> ScenarioSpec:
    """The scenario in a file. Raises ConfigError with every problem. A policy may lie beside it."""
    return scenario_of(read_text(path), str(path), Path(path).parent)


def scenario_of(text: str, name: str = "<string>", directory: Path | None = None) -> ScenarioSpec:
    """The scenario in a text."""
    return validated(ScenarioSpec, text, name, directory, needs="backends")
