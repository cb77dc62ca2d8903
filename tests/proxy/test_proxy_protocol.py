"""The PROXY protocol from clients: by hand, from curl, and from HAProxy."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.certificates import client_context, write_pair
from tests.e2e.process import eventually
from tests.e2e.scene import Scene, Stage, set_up
from tests.e2e.wire import GET, OK, Wire, get
from tests.tools import need
from tests.wire.test_proxy_protocol import BAD, V4, V6, tlv, v2

CONFIG = """
access_log: {path: DIR/log}
admin: {bind: 127.0.0.1:0}
trusted_proxies: [192.0.2.200]
listeners:
  - {bind: 127.0.0.1:0, proxy_protocol: true, timeouts: {handshake: 1s}}
  - {bind: 127.0.0.1:0, proxy_protocol: true, tls: {certificates: [PAIR]}}
  - {bind: 127.0.0.1:0, proxy_protocol: {from: [127.0.0.2]}}
  - {bind: 127.0.0.1:0}
  - {bind: "unix:DIR/lb.sock", proxy_protocol: true}
routes:
  - {match: {path_prefix: /rare}, pool: greeter, rate_limit: {requests: 1, per: 1h, key: client}}
  - {pool: greeter}
pools: {greeter: {backends: [$a], retries: off, outlier_detection: off}}
"""
MUST, SECURE, FROM, PLAIN, UNIX = range(5)
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("p")


@pytest.fixture(scope="module")
def stage(directory: Path) -> Iterator[Stage]:
    cert, key = write_pair(directory, AUTHORITY, "localhost", "localhost", "127.0.0.1")
    text = CONFIG.replace("DIR", str(directory)).replace("PAIR", f"{{cert: {cert}, key: {key}}}")
    (directory / "balancer").mkdir()
    with set_up(directory / "balancer", text) as stage:
        yield stage


def port(scene: Scene, listener: int) -> int:
    return int(scene.balancer.addresses[listener].rpartition(":")[2])


async def seen(scene: Scene, client: Wire, *pieces: bytes) -> dict[str, list[str]]:
    """What the backend is told of the client that sends these."""
    for piece in pieces:
        await client.send(piece)
        await asyncio.sleep(0)
    backend = await scene.backend.accept()
    request = await backend.request()
    await backend.send(OK)
    assert (await client.response()).body == b"ok"
    backend.close()
    return {name: request.all(name) for name in ("x-forwarded-for", "x-forwarded-proto")}


HEADERS = [
    (LINE, "192.0.2.7"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    (v2(V4), "192.0.2.7"),
    (v2(V6, 0x21), "2001:db8::7"),
    (v2(V4 + tlv(4, bytes(5000))), "192.0.2.7"),
    (v2(V4, command=0x20), "127.0.0.1"),
    (v2(bytes(216), 0x31), "unix:"),
]


@pytest.mark.parametrize(("header", "address"), HEADERS)
async def test_the_address_given_is_the_clients(scene: Scene, header: bytes, address: str) -> None:
    """The request may come with the header, or behind it."""
    for pieces in ((header + GET,), (header, GET), (header[:9], header[9:] + GET[:5], GET[5:])):
        client = await scene.connect(port(scene, MUST))
        found = await seen(scene, client, *pieces)
        assert found == {"x-forwarded-for": [address], "x-forwarded-proto": ["http"]}


@pytest.mark.parametrize("header", [LINE, v2(V4 + tlv(4, b"abc"))])
async def test_the_header_may_come_in_any_two_pieces(scene: Scene, header: bytes) -> None:
    scene.backend.serve(OK)
    for stop in range(1, len(header) + 1):
        client = await scene.connect(port(scene, MUST))
        await client.send(header[:stop])
        await asyncio.sleep(0.002)
        await client.send(header[stop:] + GET)
        assert (await client.response()).status == 200
        client.close()


async def test_it_may_come_byte_by_byte(scene: Scene) -> None:
    client = await scene.connect(port(scene, MUST))
    found = await seen(scene, client, *[LINE[place : place + 1] for place in range(len(LINE))], GET)
    assert found["x-forwarded-for"] == ["192.0.2.7"]


@pytest.mark.parametrize("data", [*BAD, GET, b"\r\n\r\n"])
async def test_what_is_no_header_reaches_nobody(scene: Scene, data: bytes) -> None:
    client = await scene.connect(port(scene, MUST))
    await client.send(data.ljust(107, b"x") + GET)
    await client.ended()
    assert not scene.backend.connections


async def test_who_says_nothing_is_closed_and_what_went_wrong_is_counted(scene: Scene) -> None:
    def count(result: str) -> float:
        return scene.balancer.metric("lb_proxy_protocol_headers_total", result=result)

    before = {result: count(result) for result in ("accepted", "malformed", "timeout", "gone")}
    clients = [await scene.connect(port(scene, MUST)) for _ in range(4)]
    await clients[0].send(b"PROX")
    await clients[1].send(b"GET / HTTP/1.1\r\n")
    await clients[2].send(b"PROXY")
    clients[2].close()
    clients[3].close()  # a probe: no header at all
    await clients[0].ended()
    await clients[1].ended()
    assert {result: count(result) - before[result] for result in before} == {
        "accepted": 0,
        "malformed": 1,
        "timeout": 1,
        "gone": 1,
    }


async def test_a_header_comes_once_and_only_where_it_is_awaited(scene: Scene) -> None:
    twice = await scene.connect(port(scene, MUST))
    await twice.send(LINE + LINE + GET)
    assert (await twice.response()).status >= 400
    client = await scene.connect(port(scene, PLAIN))
    await client.send(LINE + GET)
    assert (await client.response()).status >= 400
    assert not scene.backend.connections


async def test_with_tls_the_header_comes_first(scene: Scene) -> None:
    for split in (False, True):
        reader, writer = await asyncio.open_connection("127.0.0.1", port(scene, SECURE))
        writer.write(LINE)
        if split:
            await asyncio.sleep(0.05)
        await writer.start_tls(client_context(AUTHORITY), server_hostname="localhost")
        found = await seen(scene, Wire(reader, writer), GET)
        assert found == {"x-forwarded-for": ["192.0.2.7"], "x-forwarded-proto": ["https"]}
        writer.close()


async def test_a_sender_may_tell_of_its_own_tls(scene: Scene) -> None:
    client = await scene.connect(port(scene, MUST))
    found = await seen(scene, client, v2(V4 + tlv(0x20, b"\x01" + bytes(4))) + GET)
    assert found == {"x-forwarded-for": ["192.0.2.7"], "x-forwarded-proto": ["https"]}


async def test_only_those_that_are_named_must_send_it_and_may(scene: Scene) -> None:
    client = await scene.connect(port(scene, FROM))  # from 127.0.0.1
    assert (await seen(scene, client, GET))["x-forwarded-for"] == ["127.0.0.1"]
    forging = await scene.connect(port(scene, FROM))
    await forging.send(LINE + GET)
    assert (await forging.response()).status >= 400
    named = Wire(*await asyncio.open_connection("127.0.0.1", port(scene, FROM), local_addr=("127.0.0.2", 0)))
    assert (await seen(scene, named, LINE + GET))["x-forwarded-for"] == ["192.0.2.7"]
    named.close()
    mute = Wire(*await asyncio.open_connection("127.0.0.1", port(scene, FROM), local_addr=("127.0.0.2", 0)))
    await mute.send(GET)
    await mute.ended()
    mute.close()


async def test_a_unix_socket_takes_it_too(scene: Scene, directory: Path) -> None:
    client = Wire(*await asyncio.open_unix_connection(str(directory / "lb.sock")))
    assert (await seen(scene, client, LINE + GET))["x-forwarded-for"] == ["192.0.2.7"]
    client.close()


async def test_trust_rates_and_log_go_by_the_address(scene: Scene, directory: Path) -> None:
    trusted = LINE.replace(b"192.0.2.7", b"192.0.2.200")
    forwarded = get("/", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
    client = await scene.connect(port(scene, MUST))
    found = await seen(scene, client, trusted + forwarded)
    assert found == {"x-forwarded-for": ["203.0.113.9, 192.0.2.200"], "x-forwarded-proto": ["https"]}
    client = await scene.connect(port(scene, MUST))
    found = await seen(scene, client, LINE + forwarded)
    assert found == {"x-forwarded-for": ["192.0.2.7"], "x-forwarded-proto": ["http"]}
    scene.backend.serve(OK)
    statuses = []
    for last in (b"31", b"31", b"32"):
        client = await scene.connect(port(scene, MUST))
        await client.send(LINE.replace(b"192.0.2.7", b"192.0.2." + last) + get("/rare"))
        statuses.append((await client.response()).status)
    assert statuses == [200, 429, 200]
    log = directory / "log"
    await eventually(lambda: log.read_text().count("/rare") == 3, "the lines")
    clients = [json.loads(line)["client"] for line in log.read_text().splitlines() if "/rare" in line]
    assert clients == ["192.0.2.31", "192.0.2.31", "192.0.2.32"]


# --- real senders ---


async def test_curl(scene: Scene) -> None:
    scene.backend.serve(OK)
    url = f"http://127.0.0.1:{port(scene, MUST)}/"
    program = await asyncio.create_subprocess_exec(
        need("curl"), "-sS", "--haproxy-protocol", "-w", "%{http_code}", url, stdout=subprocess.PIPE
    )
    out, _ = await program.communicate()
    assert out == b"ok200"


@pytest.mark.parametrize(
    "options",
    [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2-ssl proxy-v2-options crc32c",
        "send-proxy-v2 check check-send-proxy inter 100ms",
    ],
)
async def test_haproxy_and_its_checks(
    scene: Scene, tmp_path_factory: pytest.TempPathFactory, options: str
) -> None:
    directory = tmp_path_factory.mktemp("h")
    config, path = directory / "haproxy.cfg", directory / "stats.sock"
    place = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    front = place.sockets[0].getsockname()[1]
    place.close()
    await place.wait_closed()
    config.write_text(
        f"global\n stats socket {path}\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 9s\n"
        f" timeout server 9s\nlisten front\n bind 127.0.0.1:{front}\n"
        f" server lb 127.0.0.1:{port(scene, MUST)} {options}\n"
    )
    program = await asyncio.create_subprocess_exec(
        need("haproxy"), "-db", "-q", "-f", str(config), stderr=subprocess.DEVNULL
    )
    try:
        await eventually(path.exists, "HAProxy")
        connection = await asyncio.open_connection("127.0.0.1", front, local_addr=("127.0.0.9", 0))
        client = Wire(*connection)
        assert (await seen(scene, client, GET))["x-forwarded-for"] == ["127.0.0.9"]
        client.close()
    finally:
        program.kill()
        await program.wait()
