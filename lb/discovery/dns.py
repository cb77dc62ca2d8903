"""The source `dns`: the addresses of a name, or the servers that its SRV records name.

It asks the name servers itself, and not the C library, which says nothing of how long an answer holds. So
`/etc/hosts` isn't heeded. An answer is asked for anew when its time to live is over (RFC 1035), within
bounds, and a little later by chance, so that many balancers don't come at once.

Three kinds of answer are told apart. Records: they are the backends. No records, or no such name: an empty
set. No good answer (a timeout, SERVFAIL, REFUSED): a failure, of which nothing follows for the backends.

dnspython does the talking: the search list and the servers of `resolv.conf`, the next server where one fails,
EDNS, TCP where an answer is cut short (RFC 7766), chains of CNAMEs.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.resolver

from lb.core.backend import BackendSpec
from lb.discovery.aside import Aside
from lb.discovery.base import SourceError

EDNS = 1232  # bytes of an answer over UDP that no path breaks into fragments (DNS flag day 2020)
EMPTY = 5.0  # seconds at most until a name without records is asked for again, whatever its zone says
LATER = 0.1  # of its time to live: so much later at most an answer is asked for anew
AT_ONCE = 16  # so many names of SRV targets are asked for at the same time
LAST_TIER = 9

ASIDE = Aside("dns")
"""Where it is asked: hundreds of records take dnspython tens of milliseconds, and no request should wait."""

ADDRESSES = {"address": ("A", "AAAA"), "A": ("A",), "AAAA": ("AAAA",)}
"""Which records are asked for, by the type in the configuration. SRV has its own way."""

Records = list[tuple[dns.name.Name, Any]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a name; `address`, `A`, `AAAA` or `SRV`; and the port, where SRV doesn't say it.

    `servers` are asked, or those of resolv.conf where there are none: addresses with their ports. `timeout`
    is for all attempts at one question, `least` and `most` are the bounds for a time to live, in seconds.
    Who is named no more stays for `linger` seconds: some servers name others of many each time.
    """

    name: str
    type: str = "address"
    port: int = 0
    servers: Sequence[tuple[str, int]] = ()
    timeout: float = 5.0
    least: float = 1.0
    most: float = 300.0
    linger: float = 0.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a question was answered with: records, and for how many seconds they hold."""

    records: Sequence[Any]
    ttl: float
    additional: Sequence[Any] = ()  # sets of records that came along


class DnsSource:
    """Asks, and asks again when the answer is too old."""

    def __init__(self, question: Question, rng: random.Random | None = None) -> None:
        self.question = question
        self._rng = rng or random.Random()
        self._had: set[tuple[str, str]] = set()  # names and types that there were records of
        self._named: dict[str, tuple[BackendSpec, float]] = {}  # and when, where who was named lingers

    async def watch(self) -> AsyncIterator[Sequence[BackendSpec]]:
        question = self.question
        with ASIDE.used():
            while True:
                specs, ttl = await ASIDE.run(self._ask())
                yield self._with_lingering(specs) if question.linger else specs
                ttl = max(question.least, min(ttl, question.most if specs else EMPTY))
                await asyncio.sleep(ttl * (1.0 + LATER * self._rng.random()))

    async def _ask(self) -> tuple[list[BackendSpec], float]:
        asking = _Asking(self.question, self._had)
        return await (asking.servers() if self.question.type == "SRV" else asking.hosts())

    def _with_lingering(self, specs: Sequence[BackendSpec]) -> list[BackendSpec]:
        now = time.monotonic()
        self._named |= {spec.id: (spec, now) for spec in specs}
        self._named = {
            name: (spec, at) for name, (spec, at) in self._named.items() if now - at <= self.question.linger
        }
        found = [spec for spec, _ in self._named.values()]
        return sorted(found, key=lambda spec: (spec.tier, _sortable(spec.host), spec.port))


class _Asking:
    """One round of questions."""

    def __init__(self, question: Question, had: set[tuple[str, str]]) -> None:
        self._question = question
        self._had = had
        self._resolver = _resolver(question)  # anew each time: resolv.conf is another one in another network
        self._limit = asyncio.Semaphore(AT_ONCE)

    async def hosts(self) -> tuple[list[BackendSpec], float]:
        """A backend for each address of the name."""
        question = self._question
        answers = await self._all(question.name, ADDRESSES[question.type], search=True)
        found = {str(record.address) for answer in answers for record in answer.records}
        specs = [_spec(address, question.port) for address in sorted(found, key=_sortable)]
        return specs, min(answer.ttl for answer in answers)

    async def servers(self) -> tuple[list[BackendSpec], float]:
        """A backend for each address of each target of the SRV records (RFC 2782).

        The priorities that there are become tiers, the lowest one tier 0. Addresses that came along aren't
        asked for. The target `.` says that there is no such service.
        """
        answer = await self._ask(self._question.name, "SRV", search=True)
        records = [record for record in answer.records if record.target != dns.name.root]
        targets = sorted({record.target for record in records})
        found = dict(
            zip(targets, await asyncio.gather(*(self._target(each, answer) for each in targets)), strict=True)
        )
        tiers = {priority: tier for tier, priority in enumerate(sorted({each.priority for each in records}))}
        weights = _weights(records)
        specs: dict[str, BackendSpec] = {}
        for record in sorted(records, key=lambda each: (each.priority, each.target, each.port)):
            for address in sorted(found[record.target][0], key=_sortable):
                tier = min(tiers[record.priority], LAST_TIER)
                spec = _spec(address, record.port, weights[record.priority, record.weight], tier)
                specs.setdefault(spec.id, spec)
        return list(specs.values()), min([answer.ttl, *(ttl for _, ttl in found.values())])

    async def _target(self, target: dns.name.Name, answer: Found) -> tuple[set[str], float]:
        """The addresses of a target, and how long they hold."""
        along = [
            each
            for each in answer.additional
            if each.name == target and each.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)
        ]
        if along:
            return {str(record.address) for each in along for record in each}, min(each.ttl for each in along)
        async with self._limit:
            answers = await self._all(target, ADDRESSES["address"], search=False)
        return {str(record.address) for each in answers for record in each.records}, min(
            each.ttl for each in answers
        )

    async def _all(self, name: Any, types: Iterable[str], search: bool) -> list[Found]:
        """All of it or nothing: half of the addresses would be taken for all that are left.

        But some servers refuse to speak of AAAA where there is only A (dnsmasq without an upstream does): a
        type that fails and never had any records is not missed where the other one has some.
        """
        asked = [(str(name), each) for each in types]
        found = await asyncio.gather(
            *(self._ask(name, each, search) for each in types), return_exceptions=True
        )
        good = [each for each in found if isinstance(each, Found)]
        for what, answer in zip(asked, found, strict=True):
            if isinstance(answer, BaseException):
                unforeseen = not isinstance(answer, SourceError)
                if unforeseen or what in self._had or not any(each.records for each in good):
                    raise answer
            elif answer.records:
                self._had.add(what)
            else:
                self._had.discard(what)
        return good

    async def _ask(self, name: Any, type: str, search: bool) -> Found:
        """Raises SourceError where there is no good answer."""
        try:
            answer = await self._resolver.resolve(
                name, type, raise_on_no_answer=False, search=search, lifetime=self._question.timeout
            )
        except dns.resolver.NXDOMAIN as error:
            return Found((), min(map(_holds, error.kwargs["responses"].values()), default=EMPTY))
        except dns.resolver.NoNameservers as error:
            raise SourceError(f"no good answer for {type} of {name}: {_reasons(error)}") from error
        except dns.exception.Timeout as error:
            why = _reasons(error)
            waited = f"no answer for {type} of {name} within {self._question.timeout:g} s"
            raise SourceError(f"{waited}{': ' if why else ''}{why}") from error
        except (dns.exception.DNSException, OSError) as error:
            raise SourceError(f"{type} of {name} can't be asked for: {error}") from error
        return Found(list(answer), answer.chaining_result.minimum_ttl, answer.response.additional)


def _resolver(question: Question) -> dns.asyncresolver.Resolver:
    try:
        resolver = dns.asyncresolver.Resolver(configure=not question.servers)
    except dns.exception.DNSException as error:
        raise SourceError(f"resolv.conf names no server: {error}") from error
    if question.servers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(*server) for server in question.servers]
    resolver.use_edns(0, 0, EDNS)
    return resolver


def _holds(response: dns.message.Message) -> float:
    """For how many seconds there is no such name (RFC 2308)."""
    assert isinstance(response, dns.message.QueryMessage)
    return response.resolve_chaining().minimum_ttl


def _reasons(error: dns.exception.DNSException) -> str:
    """What each server said, the last time that it was asked. The same trouble in the same words each time:
    only what is new goes to the log."""
    said = {}
    for server, _, _, reason, response in error.kwargs.get("errors", ()):
        host, _, port = server.removeprefix("Do53:").rpartition("@")
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if response is not None:
            said[where] = f"says {dns.rcode.to_text(response.rcode())}"
        else:
            said[where] = _in_words(reason)
    return ", ".join(f"{where} {words}" for where, words in said.items())


def _in_words(reason: object) -> str:
    if isinstance(reason, dns.exception.Timeout):
        return "is silent"
    if isinstance(reason, OSError) and reason.errno:
        return f"can't be asked ({os.strerror(reason.errno).lower()})"
    return f"makes no sense ({str(reason) or type(reason).__name__})"


def _weights(records: Iterable[Any]) -> dict[tuple[int, int], int]:
    """What a weight is here, by priority and weight.

    One of 0 gets requests too, "a very small chance" beside others and an equal one among its like
    (RFC 2782). Here 0 is none: it becomes 1, and the others as much as a hundred times as large.
    """
    found: dict[tuple[int, int], int] = {}
    for priority in {each.priority for each in records}:
        weights = {each.weight for each in records if each.priority == priority}
        most = max(weights)
        times = max(1, min(100, 65535 // most)) if most and 0 in weights else 1
        found |= {(priority, weight): max(1, weight * times) for weight in weights}
    return found


def _spec(address: str, port: int, weight: int = 1, tier: int = 0) -> BackendSpec:
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return BackendSpec(where, address, port, weight, tier)


def _sortable(address: str) -> tuple[int, int]:
    found = ip_address(address)
    return found.version, int(found)
