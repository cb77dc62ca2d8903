"""Backends by DNS: against dnsmasq, and against servers that are slow, broken or lying."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import dns.message
import dns.name
import dns.rdataclass
import dns.rrset
import pytest
import pytest_asyncio

from lb.core.backend import BackendSpec
from lb.discovery.base import SourceError
from lb.discovery.dns import DnsSource, Question
from tests.discovery.dnsmasq import Dnsmasq, dnsmasq

NAME = "greeter.test"


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Dnsmasq]:
    async with dnsmasq(tmp_path) as server:
        yield server


async def ask(port: int, name: str = NAME, **more: Any) -> list[BackendSpec]:
    """The first set of a source."""
    question = Question(
        **{"name": name, "port": 8080, "servers": [("127.0.0.1", port)], "timeout": 2.0, **more}
    )
    async with contextlib.aclosing(DnsSource(question).watch()) as sets:
        return list(await anext(sets))


def ids(found: list[BackendSpec]) -> list[str]:
    return [each.id for each in found]


# --- addresses ---


async def test_addresses_of_both_kinds_in_order(server: Dnsmasq) -> None:
    await server.say(
        f"host-record={NAME},10.0.0.10,2001:db8::2",
        f"host-record={NAME},10.0.0.9",
        f"host-record={NAME},2001:db8::1",
    )
    both = ["10.0.0.9:8080", "10.0.0.10:8080", "[2001:db8::1]:8080", "[2001:db8::2]:8080"]
    found = await ask(server.port)
    assert ids(found) == both
    assert found[2] == BackendSpec("[2001:db8::1]:8080", "2001:db8::1", 8080)
    assert ids(await ask(server.port, type="A")) == both[:2]
    assert ids(await ask(server.port, type="AAAA")) == both[2:]


async def test_a_chain_of_aliases(server: Dnsmasq) -> None:
    await server.say(
        "cname=a.test,b.test", f"cname=b.test,{NAME}", f"host-record={NAME},10.0.0.1", "local-ttl=60"
    )
    assert ids(await ask(server.port, "a.test")) == ["10.0.0.1:8080"]


async def test_an_answer_too_long_for_a_datagram(server: Dnsmasq) -> None:
    await server.say(*(f"host-record={NAME},10.0.{number // 250}.{number % 250}" for number in range(400)))
    assert len(await ask(server.port)) == 400


async def test_no_records_and_no_such_name_are_answers(server: Dnsmasq) -> None:
    await server.say("txt-record=text.test,here")
    assert await ask(server.port, "text.test") == []
    assert await ask(server.port, "nobody.test") == []


async def test_a_type_that_is_refused_is_not_missed_where_it_never_was(server: Dnsmasq) -> None:
    """dnsmasq without an upstream refuses to speak of AAAA where it has only A."""
    await server.say("host-record=greeter.example,10.0.0.1")
    assert ids(await ask(server.port, "greeter.example")) == ["10.0.0.1:8080"]
    with pytest.raises(SourceError, match=r"says REFUSED"):
        await ask(server.port, "greeter.example", type="AAAA")
    with pytest.raises(SourceError, match=r"says REFUSED"):
        await ask(server.port, "nobody.example")
    await server.say("host-record=greeter.example,10.0.0.1,::1")
    source = DnsSource(Question("greeter.example", "address", 80, [("127.0.0.1", server.port)], least=0.1))
    async with contextlib.aclosing(source.watch()) as sets:
        assert len(await anext(sets)) == 2
        await server.say("host-record=greeter.example,10.0.0.1")
        with pytest.raises(SourceError, match=r"AAAA of greeter\.example: .* says REFUSED"):
            await anext(sets)


async def test_the_next_server_where_one_is_down(server: Dnsmasq) -> None:
    await server.say(f"host-record={NAME},10.0.0.1")
    servers = [("127.0.0.1", 1), ("127.0.0.1", server.port)]
    assert ids(await ask(0, servers=servers, timeout=5.0)) == ["10.0.0.1:8080"]


async def test_search_domains(server: Dnsmasq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a pod: a short name, and ndots:5."""
    await server.say("host-record=greeter.default.svc.test,10.0.0.1")
    conf = tmp_path / "resolv.conf"
    conf.write_text("search nowhere.test default.svc.test svc.test\nnameserver 127.0.0.1\noptions ndots:5\n")
    import dns.asyncresolver
    import dns.nameserver

    def of_file(configure: bool = True) -> dns.asyncresolver.Resolver:
        found = resolver(filename=str(conf))
        found.nameservers = [dns.nameserver.Do53Nameserver("127.0.0.1", server.port)]
        return found

    resolver = dns.asyncresolver.Resolver
    monkeypatch.setattr(dns.asyncresolver, "Resolver", of_file)
    for name in ("greeter", "greeter.default", "greeter.default.svc.test."):
        assert ids(await ask(0, name, servers=[])) == ["10.0.0.1:8080"], name
    with pytest.raises(SourceError, match=r"greeter\.: 127.0.0.1.* says REFUSED"):
        await ask(0, "greeter.", servers=[])  # the root's is not this server's business


# --- SRV ---

SERVICE = "_http._tcp.greeter.test"


def srv(target: str, port: int, priority: int, weight: int) -> str:
    return f"srv-host={SERVICE},{target},{port},{priority},{weight}"


async def test_srv_priority_is_the_tier_and_weight_the_weight(server: Dnsmasq) -> None:
    await server.say(
        *(srv("a.test", 81, 10, 5), srv("b.test", 82, 10, 1), srv("c.test", 83, 700, 2)),
        *("host-record=a.test,10.0.0.1", "host-record=b.test,10.0.0.2", "host-record=c.test,10.0.0.3,::3"),
    )
    assert await ask(server.port, SERVICE, type="SRV") == [
        BackendSpec("10.0.0.1:81", "10.0.0.1", 81, 5, 0),
        BackendSpec("10.0.0.2:82", "10.0.0.2", 82, 1, 0),
        BackendSpec("10.0.0.3:83", "10.0.0.3", 83, 2, 1),
        BackendSpec("[::3]:83", "::3", 83, 2, 1),
    ]


async def test_srv_weight_0_is_a_little(server: Dnsmasq) -> None:
    await server.say(
        *(srv("a.test", 81, 0, 0), srv("a.test", 82, 0, 3), srv("a.test", 83, 1, 0), srv("a.test", 84, 1, 0)),
        "host-record=a.test,10.0.0.1",
    )
    found = await ask(server.port, SERVICE, type="SRV")
    assert [(each.port, each.weight, each.tier) for each in found] == [
        (81, 1, 0),
        (82, 300, 0),
        (83, 1, 1),
        (84, 1, 1),
    ]


async def test_srv_that_says_there_is_no_such_service(server: Dnsmasq) -> None:
    await server.say(f"srv-host={SERVICE}")
    assert await ask(server.port, SERVICE, type="SRV") == []


async def test_many_srv_records(server: Dnsmasq) -> None:
    await server.say(
        *(srv(f"h{number}.test", 8000 + number, 0, 1) for number in range(120)),
        *(f"host-record=h{number}.test,10.0.0.{number}" for number in range(120)),
    )
    found = await ask(server.port, SERVICE, type="SRV", timeout=5.0)
    assert {each.id for each in found} == {f"10.0.0.{number}:{8000 + number}" for number in range(120)}


# --- time ---


async def test_it_asks_again_when_the_time_to_live_is_over(server: Dnsmasq) -> None:
    await server.say(f"host-record={NAME},10.0.0.1,1")
    loop = asyncio.get_running_loop()
    source = DnsSource(Question(NAME, "A", 80, [("127.0.0.1", server.port)], least=0.1, most=5))
    async with contextlib.aclosing(source.watch()) as sets:
        assert ids(list(await anext(sets))) == ["10.0.0.1:80"]
        began = loop.time()
        await server.say(f"host-record={NAME},10.0.0.2,1")
        assert ids(list(await anext(sets))) == ["10.0.0.2:80"]
        assert loop.time() - began >= 0.9


@pytest.mark.parametrize(("ttl", "least", "most", "waits"), [(0, 0.5, 9, 0.5), (3600, 0.1, 0.5, 0.5)])
async def test_bounds_for_the_time_to_live(
    server: Dnsmasq, ttl: int, least: float, most: float, waits: float
) -> None:
    await server.say(f"host-record={NAME},10.0.0.1", f"local-ttl={ttl}")
    source = DnsSource(Question(NAME, "A", 80, [("127.0.0.1", server.port)], least=least, most=most))
    loop = asyncio.get_running_loop()
    async with contextlib.aclosing(source.watch()) as sets:
        await anext(sets)
        began = loop.time()
        async with asyncio.timeout(5):
            await anext(sets)
        assert loop.time() - began >= waits * 0.95


async def test_who_is_named_no_more_lingers_as_configured(server: Dnsmasq) -> None:
    """As where a server names two of three, and others each time."""
    await server.say(f"host-record={NAME},10.0.0.2", f"host-record={NAME},10.0.0.3")
    source = DnsSource(Question(NAME, "A", 80, [("127.0.0.1", server.port)], least=0.1, linger=2.0))
    async with contextlib.aclosing(source.watch()) as sets:
        assert ids(list(await anext(sets))) == ["10.0.0.2:80", "10.0.0.3:80"]
        await server.say(f"host-record={NAME},10.0.0.3", f"host-record={NAME},10.0.0.1")
        assert ids(list(await anext(sets))) == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
        async with asyncio.timeout(10):
            while ids(list(await anext(sets))) != ["10.0.0.1:80", "10.0.0.3:80"]:
                pass


# --- servers that are no good ---


async def test_a_server_that_is_silent(server: Dnsmasq) -> None:
    await server.say(f"host-record={NAME},10.0.0.1")
    server.freeze()
    words = rf"no answer for A of greeter\.test within 0\.3 s: 127\.0\.0\.1:{server.port} is silent$"
    for _ in range(2):  # in the same words each time: they go to the log once
        with pytest.raises(SourceError, match=words):
            await ask(server.port, timeout=0.3)


async def test_a_server_that_is_down(server: Dnsmasq) -> None:
    with pytest.raises(
        SourceError, match=r"A of greeter\.test.* 127\.0\.0\.1:\d+ (is silent|can't be asked)"
    ):
        await ask(server.port, timeout=1.0)


class Liar(asyncio.DatagramProtocol):
    """A name server made by hand: what it makes of a question is what it answers with."""

    def __init__(self, reply: Callable[[bytes], bytes]) -> None:
        self._reply = reply
        self.asked = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.asked += 1
        self._transport.sendto(self._reply(data), address)


@contextlib.asynccontextmanager
async def liar(reply: Callable[[bytes], bytes], host: str = "127.0.0.1") -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Liar(reply), (host, 0))
    try:
        yield int(transport.get_extra_info("sockname")[1])
    finally:
        transport.close()


def coded(code: int) -> Callable[[bytes], bytes]:
    """The question with a code, and nothing else (RFC 1035, section 4.1.1)."""

    def reply(question: bytes) -> bytes:
        (flags,) = struct.unpack_from("!H", question, 2)
        end = question.index(b"\0", 12) + 5
        return question[:2] + struct.pack("!HHHHH", flags | 0x8080 | code, 1, 0, 0, 0) + question[12:end]

    return reply


@pytest.mark.parametrize(("code", "word"), [(2, "SERVFAIL"), (5, "REFUSED"), (4, "NOTIMP")])
async def test_an_error_is_not_an_empty_answer(code: int, word: str) -> None:
    async with liar(coded(code)) as port:
        with pytest.raises(SourceError, match=rf"greeter\.test: 127\.0\.0\.1.* says {word}"):
            await ask(port)


async def test_no_such_name_from_a_server_that_says_no_more() -> None:
    async with liar(coded(3)) as port:
        assert await ask(port) == []


@pytest.mark.parametrize(
    "garbage",
    [b"", b"garbage", b"\xff" * 600, b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    ids=["nothing", "short", "long", "http"],
)
async def test_garbage_is_no_answer(garbage: bytes) -> None:
    async with liar(lambda question: question[:2] + garbage if garbage else b"") as port:
        with pytest.raises(SourceError):
            await ask(port, timeout=0.5)


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
async def test_servers_are_named_as_they_are_written(host: str) -> None:
    """Over TCP, where the kernel says at once that nobody is there."""
    cut = b"\x82\0"  # the flags of an answer that is cut short

    def reply(question: bytes) -> bytes:
        return question[:2] + cut + coded(0)(question)[4:]

    async with liar(reply, host) as port:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        with pytest.raises(SourceError) as caught:
            await ask(0, servers=[(host, port)], timeout=0.5)
    assert f"{where} can't be asked (connection refused)" in str(caught.value)


async def test_an_answer_to_another_question_is_none() -> None:
    """As who wants to poison us would send, not knowing the number."""
    async with liar(lambda question: b"\0\0" + coded(3)(question)[2:]) as port:
        with pytest.raises(SourceError):
            await ask(port, timeout=0.5)


def made(record: str) -> dns.rrset.RRset:
    name, ttl, *rest = record.split()
    return dns.rrset.from_text(name.rstrip(".") + ".", int(ttl), *rest)


def forged(name: str, *records: str) -> Callable[[bytes], bytes]:
    """An answer with the right number, of a name that may be another one, with these records."""

    def reply(question: bytes) -> bytes:
        asked = dns.message.from_wire(question)
        response = dns.message.make_response(asked)
        kind = asked.question[0].rdtype
        response.question = [dns.rrset.RRset(dns.name.from_text(name), dns.rdataclass.IN, kind)]
        response.answer = [made(record) for record in records]
        return response.to_wire()

    return reply


async def test_records_of_another_name_are_none() -> None:
    async with liar(forged("evil.test", "evil.test 60 IN A 10.6.6.6")) as port:
        with pytest.raises(SourceError):
            await ask(port, type="A", timeout=0.5)
    async with liar(forged(NAME, "evil.test 60 IN A 10.6.6.6")) as port:
        assert await ask(port, type="A", timeout=0.5) == []
    async with liar(forged(NAME, f"{NAME} 60 IN A 10.0.0.1", "evil.test 60 IN A 10.6.6.6")) as port:
        assert ids(await ask(port, type="A")) == ["10.0.0.1:8080"]


async def test_aliases_that_go_round_are_no_answer() -> None:
    async with liar(forged(NAME, f"{NAME} 60 IN CNAME a.test.", f"a.test. 60 IN CNAME {NAME}.")) as port:
        with pytest.raises(SourceError):
            await ask(port, type="A", timeout=0.5)
