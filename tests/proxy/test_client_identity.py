"""Who the client is: what trusted proxies say, in either spelling, and nobody else."""

from __future__ import annotations

import asyncio
from itertools import product
from tempfile import TemporaryDirectory

import pytest

from tests.conformance.strict import Request
from tests.e2e.conftest import Play
from tests.e2e.scene import ONE_BACKEND, Scene
from tests.e2e.wire import GET, OK, Wire, connect, get

TRUST = ONE_BACKEND + "trusted_proxies: [127.0.0.0/8]\n"
OURS = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id", "forwarded", "x-real-ip"}


async def told(scene: Scene, *fields: str, client: Wire | None = None) -> tuple[Request, str]:
    """What the backend gets, and who the client is by the record."""
    client = client or await scene.connect()
    await client.send(get("/", *fields, "Connection: close"))
    backend = await scene.backend.accept()
    request = await backend.request()
    await backend.send(OK)
    response = await client.response()
    backend.close()
    record = scene.balancer.record(response.get("x-request-id") or "")
    return request, str(record["client"])


FORGED = {
    "X-Forwarded-For": "203.0.113.66",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "evil",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=203.0.113.66;proto=https;host=evil.example",
    "X-Real-IP": "203.0.113.66",
    "X-Request-ID": "forged-by-evil-hands",
}
SPELLINGS = {
    "as it is": str,
    "lower": str.lower,
    "upper": str.upper,
    "underscores": lambda name: name.replace("-", "_"),
    "one underscore": lambda name: name[::-1].replace("-", "_", 1)[::-1],
}


@pytest.mark.parametrize("write", ["x-forwarded", "rfc7239", "both"])
async def test_a_stranger_forges_nothing_in_no_spelling(play: Play, write: str) -> None:
    scene = await play(f"{ONE_BACKEND}forwarded: {{write: {write}}}\ntrusted_proxies: [10.0.0.0/8]\n")
    client = await scene.connect()
    await client.send(GET)
    backend = await scene.backend.accept()
    for (name, value), spelling, twice in product(FORGED.items(), SPELLINGS.values(), (1, 2)):
        await backend.request()
        await backend.send(OK)
        await client.response()
        field = f"{spelling(name)}: {value}"
        await client.send(get("/", *[field] * twice))
        request = await backend.request()
        everything = request.head.lower()
        for evil in (b"203.0.113.66", b"https", b"evil"):
            assert evil not in everything, (field, request.head)
        await backend.send(OK)
        response = await client.response()
        assert b"evil" not in response.head
        await client.send(GET)
    await backend.request()
    await backend.send(OK)
    await client.response()


@pytest.mark.parametrize("spelling", ["underscores", "one underscore"])
async def test_not_even_through_a_trusted_proxy_with_underscores(play: Play, spelling: str) -> None:
    scene = await play(TRUST)
    fields = [f"{SPELLINGS[spelling](name)}: {value}" for name, value in FORGED.items() if "-" in name]
    request, client = await told(scene, *fields)
    assert client == "127.0.0.1"
    for evil in (b"203.0.113.66", b"https", b"evil"):
        assert evil not in request.head.lower()


@pytest.mark.parametrize(
    ("fields", "client", "proto", "host", "chain"),
    [
        (("Forwarded: for=203.0.113.7;proto=https;host=a.test",), "203.0.113.7", "https", "a.test",
         "203.0.113.7, "),
        (("forwarded: for=203.0.113.7", "FORWARDED: for=127.0.0.2"), "203.0.113.7", "http", "a.example",
         "203.0.113.7, 127.0.0.2, "),
        (('Forwarded: for="[2001:db8::7]:80";proto=ftp;host="a b"',), "2001:db8::7", "http", "a.example",
         "2001:db8::7, "),
        (("Forwarded: for=unknown;proto=https",), "127.0.0.1", "https", "a.example", ""),
        (("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 203.0.113.7:80"), "203.0.113.7", "http", "a.example",
         "6.6.6.6, 203.0.113.7:80, "),
        (("X-Forwarded-For: 203.0.113.7", "Forwarded: for=6.6.6.6;proto=https;host=evil"), "203.0.113.7",
         "http", "a.example", "203.0.113.7, "),
        (("X-Forwarded-Proto: https", "Forwarded: for=6.6.6.6"), "127.0.0.1", "https", "a.example", ""),
        (("X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6;proto=https"), "127.0.0.1", "http", "a.example",
         ""),
        (("X-Forwarded-Proto: https, HTTP",), "127.0.0.1", "http", "a.example", ""),
        (("X-Forwarded-Proto: HTTPS",), "127.0.0.1", "https", "a.example", ""),
        (("X-Forwarded-Proto: javascript",), "127.0.0.1", "http", "a.example", ""),
        (("X-Forwarded-Host: evil, a.test:80",), "127.0.0.1", "http", "a.test:80", ""),
        (("X-Forwarded-Host: a/../b",), "127.0.0.1", "http", "a.example", ""),
        (("X-Forwarded-For: ::ffff:203.0.113.7",), "203.0.113.7", "http", "a.example",
         "::ffff:203.0.113.7, "),
    ],
)  # fmt: skip
async def test_a_trusted_proxy_is_believed_in_one_spelling(
    play: Play, fields: tuple[str, ...], client: str, proto: str, host: str, chain: str
) -> None:
    scene = await play(TRUST)
    request, who = await told(scene, *fields)
    assert who == client
    assert request.all("x-forwarded-for") == [chain + "127.0.0.1"]
    assert (request.get("x-forwarded-proto"), request.get("x-forwarded-host")) == (proto, host)
    assert request.get("forwarded") is None


async def test_where_proxies_write_forwarded_the_other_is_nobodys(play: Play) -> None:
    scene = await play(TRUST + "forwarded: {read: rfc7239}\n")
    forged = [f"{name}: {value}" for name, value in FORGED.items() if name.startswith(("X-F", "X-Real"))]
    request, who = await told(scene, *forged, "Forwarded: for=203.0.113.7;proto=http")
    assert who == "203.0.113.7"
    assert request.get("x-forwarded-for") == "203.0.113.7, 127.0.0.1"
    for evil in (b"203.0.113.66", b"https", b"evil"):
        assert evil not in request.head.lower()


async def test_where_proxies_write_x_forwarded_the_other_is_nobodys(play: Play) -> None:
    scene = await play(TRUST + "forwarded: {read: x-forwarded, write: both}\n")
    request, who = await told(scene, "Forwarded: for=6.6.6.6;proto=https")
    assert (who, request.get("forwarded")) == ("127.0.0.1", "for=127.0.0.1;host=a.example;proto=http")


async def test_forwarded_is_written(play: Play) -> None:
    scene = await play(ONE_BACKEND + "forwarded: {write: rfc7239}\n")
    request, _ = await told(scene, "Forwarded: for=6.6.6.6", "X-Forwarded-For: 6.6.6.6")
    assert request.all("forwarded") == ["for=127.0.0.1;host=a.example;proto=http"]
    assert not OURS & {name for name, _ in request.headers} - {"forwarded", "x-request-id"}
    assert request.get("via") == "1.1 lb"


@pytest.mark.parametrize("write", ["rfc7239", "both"])
async def test_forwarded_is_continued_and_translated(play: Play, write: str) -> None:
    scene = await play(f"{TRUST}forwarded: {{write: {write}}}\n")
    ours = "for=127.0.0.1;host=a.example;proto=http"
    request, _ = await told(scene, "Forwarded: for=203.0.113.7;proto=https")
    assert request.all("forwarded") == [f"for=203.0.113.7;proto=https, {ours}"]
    request, _ = await told(
        scene,
        "X-Forwarded-For: 6.6.6.6, 2001:db8::7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: a.test:8443",
    )
    translated = 'for="[2001:db8::7]";host="a.test:8443";proto=https'
    assert request.all("forwarded") == [f"{translated}, {ours}"]
    assert (request.get("x-forwarded-for") is None) == (write == "rfc7239")


@pytest.mark.parametrize(("trusted", "client"), [("[unix]", "203.0.113.7"), ("[127.0.0.0/8]", "unix")])
async def test_who_comes_in_at_a_unix_socket(play: Play, trusted: str, client: str) -> None:
    with TemporaryDirectory(prefix="lb-") as directory:
        listeners = f"[{{bind: 127.0.0.1:0}}, {{bind: 'unix:{directory}/lb.sock'}}]"
        scene = await play(
            f"{ONE_BACKEND}trusted_proxies: {trusted}\nlisteners: {listeners}\nadmin: {{bind: 127.0.0.1:0}}\n"
        )
        local = Wire(*await asyncio.open_unix_connection(f"{directory}/lb.sock"))
        _, who = await told(scene, "X-Forwarded-For: 203.0.113.7", client=local)
        assert who == client
        local.close()
        scene.balancer.stop()


async def test_a_reload_changes_what_is_written_on_connections_that_are_there(play: Play) -> None:
    scene = await play(ONE_BACKEND)
    client = await connect(scene.balancer.port)
    await client.send(GET)
    backend = await scene.backend.accept()
    assert (await backend.request()).get("forwarded") is None
    await backend.send(OK)
    await client.response()
    scene.balancer.config.write_text(scene.balancer.config.read_text() + "forwarded: {write: both}\n")
    assert scene.balancer.ask("/api/reload", "POST")[0] == 200
    await client.send(GET)
    assert (await backend.request()).get("forwarded") == "for=127.0.0.1;host=a.example;proto=http"
    await backend.send(OK)
    await client.response()
    client.close()
