"""What a scenario file and the names of policies stand for, in the plain values of the simulator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from math import inf
from pathlib import Path
from typing import Any

from lb.balance import policies
from lb.build import retry_rules, rules_of
from lb.config.latency import LatencySpec
from lb.config.policy import examine_policy, find_policy
from lb.config.scenario import Deploy, KeysSpec, ScenarioSpec, ServerSpec, SimulatedPool
from lb.config.written import Plain
from lb.core.rules import PoolRules, StickyRules, ZoneRules
from lb.simulate import latency
from lb.simulate.contestant import Contestant
from lb.simulate.latency import Latency
from lb.simulate.scenario import (
    Clients,
    Crash,
    Failing,
    Keys,
    Other,
    Pauses,
    Poisson,
    Probes,
    Scenario,
    Server,
    Slow,
)


class WrongPolicy(Exception):
    """There is no such policy, or it can't be used."""


def contestants(names: Sequence[str], spec: ScenarioSpec | None, directory: Path) -> list[Contestant]:
    """The policies that are named, else those of the scenario, else all. Raises WrongPolicy.

    Modules are looked for in the directory, too.
    """
    if names:
        return [_contestant(name, directory) for name in names]
    if spec is not None and spec.policies:
        return [
            Contestant(_label(each.policy, each.options), find_policy(each.policy, directory), each.options)
            for each in spec.policies
        ]
    keyed = spec is not None and spec.keys is not None
    return [
        Contestant(name, policy)
        for name, policy in policies().items()
        if keyed or "key" not in signature(policy.__init__).parameters  # without keys, they all do as p2c
    ]


def _contestant(written: str, directory: Path) -> Contestant:
    """A policy as it is named in a command: `p2c`, or with options `ring_hash,key=path,vnodes=100`."""
    name, *pairs = written.split(",")
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise WrongPolicy(f"{written}: an option is written as key=value, not {pair!r}")
        options[key.strip()] = Plain(value.strip())
    problems = [
        words if words.startswith(name) or path[0] != "options" else f"{name}: {path[1]}: {words}"
        for path, words in examine_policy(name, options, directory)
    ]
    if problems:
        raise WrongPolicy("; ".join(problems))
    return Contestant(_label(name, options), find_policy(name, directory), options)


def _label(name: str, options: Mapping[str, Any]) -> str:
    written = ", ".join(
        f"{key}: {str(value).lower() if isinstance(value, bool) else value}" for key, value in options.items()
    )
    return f"{name} ({written})" if written else name


def with_workers(scenario: Scenario, workers: int) -> Scenario:
    return replace(scenario, workers=workers)


def scenario(spec: ScenarioSpec, name: str) -> Scenario:
    """The scenario of a file, as the simulator takes it."""
    pool = spec.pool
    probes = pool.health_check
    servers = [server for each in spec.backends for server in _servers(each)]
    if spec.deploy is not None:
        servers = list(_deployed(servers, spec.deploy))
    return Scenario(
        name,
        _arrivals(spec),
        tuple(servers),
        spec.duration,
        spec.warm_up,
        spec.timeout or inf,
        spec.workers.count,
        spec.workers.shared,
        spec.workers.zones,
        _rules(pool, bool(spec.workers.zones)),
        None if probes is None else Probes(probes.interval, probes.timeout, probes.rise, probes.fall),
        None if spec.keys is None else _keys(spec.keys),
        spec.about,
    )


def _rules(pool: SimulatedPool, zoned: bool) -> PoolRules:
    rules = rules_of(pool, None if pool.retries is None else retry_rules(pool.retries))
    if pool.zones is not None and zoned:  # each worker fills in its own
        rules = replace(rules, zones=ZoneRules("", pool.zones.traffic or 0.0, pool.zones.min_backends))
    if pool.sticky:
        rules = replace(rules, sticky=StickyRules("lb", secret=b"simulated"))
    limited = rules.requests or rules.requests_per_backend
    return rules if limited else replace(rules, queue=0)  # where there is no limit, nobody waits


def _arrivals(spec: ScenarioSpec) -> Poisson | Clients:
    arrivals, clients = spec.arrivals, spec.clients
    if clients is not None:
        return Clients(clients.count, _latency(clients.think))
    if arrivals is None:
        raise ValueError("a scenario needs arrivals or clients")
    found = Poisson(arrivals.rate)
    if arrivals.bursts is not None:
        bursts = arrivals.bursts
        found = replace(
            found, burst_every=bursts.every, burst_seconds=bursts.seconds, burst_times=bursts.times
        )
    if arrivals.daily is not None:
        found = replace(found, period=arrivals.daily.period, swing=arrivals.daily.swing)
    return found


def _keys(spec: KeysSpec) -> Keys:
    names = tuple(each.key for each in spec.list_)
    shares = tuple(each.share for each in spec.list_)
    return Keys(spec.count or 0, spec.zipf, names, shares if len(set(shares)) > 1 else ())


def _servers(spec: ServerSpec) -> Iterator[Server]:
    server = Server(
        spec.id,
        _latency(spec.latency),
        spec.weight,
        spec.tier,
        spec.zone or "",
        spec.slots or 0,
        spec.queue,
        ((spec.joins, spec.leaves or inf),),
        tuple(Slow(each.start, each.seconds, each.times) for each in spec.slow if each.times is not None),
        tuple(
            Other(each.start, each.seconds, _latency(each.latency))
            for each in spec.slow
            if each.latency is not None
        ),
        None if spec.pauses is None else Pauses(spec.pauses.every, _latency(spec.pauses.length)),
        tuple(Crash(each.start, each.seconds) for each in spec.crashes),
        tuple(
            Failing(each.start, each.seconds, each.share, _latency(each.latency), each.how)
            for each in spec.failing
        ),
        0.0 if spec.cold is None else spec.cold.seconds,
        1.0 if spec.cold is None else spec.cold.times,
    )
    if spec.count == 1:
        yield server
    else:
        for number in range(1, spec.count + 1):
            yield replace(server, id=f"{spec.id}-{number}")


def _deployed(servers: Iterable[Server], deploy: Deploy) -> Iterator[Server]:
    for number, server in enumerate(servers):
        away = deploy.start + number * deploy.every
        back = away + deploy.down
        spans = [
            span
            for start, end in server.presence
            for span in ((start, min(end, away)), (max(start, back), end))
            if span[0] < span[1]
        ]
        yield replace(server, presence=tuple(spans))


def _latency(spec: LatencySpec) -> Latency:
    if spec.exponential is not None:
        return latency.Exponential(spec.exponential)
    if spec.normal is not None:
        return latency.Normal(spec.normal.mean, spec.normal.deviation)
    if spec.lognormal is not None:
        return latency.LogNormal(spec.lognormal.median, spec.lognormal.p99)
    if spec.pareto is not None:
        return latency.Pareto(spec.pareto.least, spec.pareto.shape)
    if spec.sum is not None:
        return latency.Sum(tuple(map(_latency, spec.sum)))
    if spec.mix is not None:
        shares = tuple(part.share for part in spec.mix)
        return latency.Mix(shares, tuple(_latency(part.latency) for part in spec.mix))
    if spec.histogram is not None:
        return latency.Histogram(
            tuple(each.upto for each in spec.histogram), tuple(each.count for each in spec.histogram)
        )
    return latency.Constant(spec.constant or 0.0)
