"""Backends on unix sockets, and the PROXY protocol toward backends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from tests.e2e.conftest import Play
from tests.e2e.process import eventually
from tests.e2e.scene import Scene
from tests.e2e.wire import GET, OK, Backend, Wire, answer, get
from tests.proxy.certificates import Certificates


@pytest_asyncio.fixture
async def local() -> AsyncIterator[tuple[Path, Backend]]:
    """A backend on a unix socket."""
    with TemporaryDirectory(prefix="lb-") as directory:
        path = Path(directory) / "app.sock"
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen(100)
        listening.setblocking(False)
        backend = Backend(listening)
        await backend.start()
        yield path, backend
        await backend.close()
        listening.close()


async def test_a_backend_on_a_unix_socket(play: Play, local: tuple[Path, Backend]) -> None:
    path, backend = local
    scene = await play(f"pools: {{app: {{backends: ['unix:{path}']}}}}\nexpose_backend: true\n")
    client = await scene.connect()
    await client.send(GET)
    wire = await backend.accept()
    request = await wire.request()
    assert (request.get("host"), request.get("x-forwarded-for")) == ("a.example", "127.0.0.1")
    await wire.send(answer(b"x" * 1_000_000))
    response = await client.response()
    assert (len(response.body), response.get("x-backend")) == (1_000_000, f"unix:{path}")
    await client.send(GET)
    await wire.request()
    await wire.send(OK)
    assert (await client.response()).status == 200
    assert backend.connections == 1

    record = scene.balancer.record(response.get("x-request-id") or "")
    assert record["attempts"][0]["address"] == f"unix:{path}"
    assert scene.balancer.metric("lb_backend_requests_total", backend=f"unix:{path}", code="200") == 2
    [shown] = scene.balancer.api("/api/pools/app")["backends"]
    assert (shown["id"], shown["address"]) == (f"unix:{path}", f"unix:{path}")
    for written in (f"unix:{path}", f"unix:{path}".replace("/", "%2F")):
        status, _ = scene.balancer.ask(f"/api/pools/app/backends/{written}", "PATCH", {"weight": 3})
        assert status == 200
    found = scene.balancer.api(f"/api/requests?backend=unix:{path}")["requests"]
    assert len(found) == 2


async def test_http_1_0_without_a_host_gets_one(play: Play, local: tuple[Path, Backend]) -> None:
    path, backend = local
    scene = await play(f"pools: {{app: {{backends: [{{id: app, address: 'unix:{path}'}}]}}}}\n")
    client = await scene.connect()
    await client.send(b"GET / HTTP/1.0\r\n\r\n")
    wire = await backend.accept()
    assert (await wire.request()).get("host") == "localhost"
    await wire.send(OK)
    assert (await client.response()).status == 200


@pytest.mark.parametrize("kind", ["http", "tcp"])
@pytest.mark.parametrize("tls", [False, True])
async def test_probes_of_a_unix_socket(
    play: Play, local: tuple[Path, Backend], tmp_path: Path, kind: str, tls: bool
) -> None:
    path, backend = local
    backend.serve(OK)
    certificates = Certificates(tmp_path)
    if tls:
        await backend.speak(certificates.server())
    more = f", tls: {{ca: {certificates.ca}}}" if tls else ""
    check = f"{{type: {kind}, interval: 100ms, timeout: 5s, fall: 1}}"
    scene = await play(f"pools: {{app: {{backends: ['unix:{path}'], health_check: {check}{more}}}}}\n")
    await eventually(lambda: scene.balancer.metric("lb_backend_up") == 1, "a good probe")
    assert (await scene.ask(GET)).status == 200
    path.unlink()
    await eventually(lambda: scene.balancer.metric("lb_backend_up") == 0, "a bad probe")
    reason = scene.balancer.api("/api/pools/app")["backends"][0]["last_probe"]["reason"]
    assert reason == "no such file or directory"


async def test_a_socket_that_is_gone(play: Play, tmp_path: Path) -> None:
    scene = await play("pools: {app: {backends: ['unix:/nowhere/lb.sock'], retries: off}}\n")
    response = await scene.ask(get("/", "Accept: application/json"))
    assert (response.status, b"connect_failed" in response.body) == (502, True)
    assert b"nowhere" not in response.body


# --- the PROXY protocol ---


def config(version: str, more: str = "", top: str = "") -> str:
    pool = f"backends: [$a], proxy_protocol: {version}, retries: off, outlier_detection: off{more}"
    return f"access_log: off\npools: {{greeter: {{{pool}}}}}\n{top}"


async def header(wire: Wire) -> tuple[str, str, int, int]:
    """What a header says: source, destination, and their ports; an empty source where it is not known.

    Written from the specification, and not from our own.
    """
    signature = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
    while len(wire.received) < 16:
        assert await wire.read()
    if not wire.received.startswith(signature):
        line = (await wire.until(b"\r\n")).decode()
        assert len(line) <= 107
        words = line.removesuffix("\r\n").split(" ")
        assert words[0] == "PROXY"
        if words[1] == "UNKNOWN":
            return "", "", 0, 0
        assert {4: "TCP4", 6: "TCP6"}[ip_address(words[2]).version] == words[1]
        assert ip_address(words[2]).version == ip_address(words[3]).version
        return words[2], words[3], int(words[4]), int(words[5])
    command, family, length = (
        wire.received[12],
        wire.received[13],
        int.from_bytes(wire.received[14:16], "big"),
    )
    body, wire.received = wire.received[16 : 16 + length], wire.received[16 + length :]
    if command == 0x20:
        return "LOCAL", "", 0, 0
    assert command == 0x21
    if family == 0x00:
        return "", "", 0, 0
    size = {0x11: 4, 0x21: 16}[family]
    assert length == 2 * size + 4
    ports = int.from_bytes(body[-4:-2], "big"), int.from_bytes(body[-2:], "big")
    return str(ip_address(body[:size])), str(ip_address(body[size : 2 * size])), *ports


async def served(scene: Scene, client: Wire, *fields: str) -> tuple[str, str, int, int]:
    """The header of the new connection over which a request goes."""
    await client.send(get("/", *fields))
    wire = await scene.backend.accept()
    found = await header(wire)
    await wire.request()
    await wire.send(OK)
    assert (await client.response()).status == 200
    return found


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_backend_is_told_of_the_client_first(play: Play, version: str) -> None:
    scene = await play(config(version))
    client = await scene.connect()
    mine = client.info("sockname")
    assert await served(scene, client) == ("127.0.0.1", "127.0.0.1", mine[1], scene.balancer.port)


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_connection_serves_one_client_alone(play: Play, version: str) -> None:
    scene = await play(config(version))
    one, other = await scene.connect(), await scene.connect()
    first = await served(scene, one)
    second = await served(scene, other)
    assert first[2] == one.info("sockname")[1] != second[2] == other.info("sockname")[1]
    ones, others = scene.backend.wires
    for client, wire in ((one, ones), (other, others), (one, ones)):  # each over its own one
        await client.send(GET)
        await wire.request()
        await wire.send(OK)
        await client.response()
    assert scene.backend.connections == 2


async def test_behind_a_trusted_proxy_the_client_is_who_it_says(play: Play) -> None:
    scene = await play(config("v1", top="trusted_proxies: [127.0.0.1]\n"))
    proxy = await scene.connect()
    assert (await served(scene, proxy, "X-Forwarded-For: 203.0.113.7"))[0::2] == ("203.0.113.7", 0)
    assert (await served(scene, proxy, "X-Forwarded-For: 203.0.113.8"))[0] == "203.0.113.8"
    assert (await served(scene, proxy, "X-Forwarded-For: 2001:db8::1"))[:2] == (
        "2001:db8::1",
        "::ffff:7f00:1",
    )
    await proxy.send(get("/", "X-Forwarded-For: 203.0.113.7"))  # again: the first one's connection
    first = scene.backend.wires[0]
    assert (await first.request()).get("x-forwarded-for") == "203.0.113.7, 127.0.0.1"
    await first.send(OK)
    await proxy.response()
    assert scene.backend.connections == 3


async def test_idle_ones_of_clients_that_have_gone_make_room(play: Play) -> None:
    scene = await play(config("v2", ", keepalive: {connections: 2}"))
    for _ in range(5):
        client = await scene.connect()
        await served(scene, client)
        client.close()
    await scene.gone("lb_client_connections")
    await eventually(lambda: scene.balancer.metric("lb_backend_connections", state="idle") == 2, "two left")
    client = await scene.connect()
    await served(scene, client)
    await client.send(GET)
    await scene.backend.wires[-1].request()
    await scene.backend.wires[-1].send(OK)
    await client.response()


@pytest.mark.parametrize(("version", "expected"), [("v1", ""), ("v2", "LOCAL")])
async def test_probes_speak_for_themselves(play: Play, version: str, expected: str) -> None:
    scene = await play(config(version, ", health_check: {interval: 100ms, timeout: 5s}"))
    wire = await scene.backend.accept()
    assert (await header(wire))[0] == expected
    assert (await wire.request()).target == "/healthz"
    await wire.send(OK)
    await eventually(lambda: scene.balancer.metric("lb_backend_up") == 1, "a good probe")
    await asyncio.to_thread(scene.balancer.stop)


async def test_the_header_goes_before_tls(play: Play, tmp_path: Path) -> None:
    """The backend peels it off and hands the rest to a server that speaks TLS."""
    certificates = Certificates(tmp_path)
    scene = await play(config("v2", f", tls: {{ca: {certificates.ca}}}"))
    inner = await asyncio.start_server(_ok, "127.0.0.1", 0, ssl=certificates.server())
    told: list[tuple[str, str, int, int]] = []
    ended = asyncio.Event()

    async def peel(wire: Wire) -> None:
        told.append(await header(wire))
        reader, writer = await asyncio.open_connection(*inner.sockets[0].getsockname())
        writer.write(wire.received)
        await asyncio.gather(_pass(wire, writer), _back(reader, wire), return_exceptions=True)
        writer.close()
        await writer.wait_closed()
        ended.set()

    scene.backend.script = peel
    client = await scene.connect()
    for _ in range(2):
        await client.send(GET)
        assert (await client.response()).status == 200
    assert told == [("127.0.0.1", "127.0.0.1", client.info("sockname")[1], scene.balancer.port)]
    await asyncio.to_thread(scene.balancer.stop)
    await asyncio.wait_for(ended.wait(), 10)
    inner.close()


async def _ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(OK)
    except (asyncio.IncompleteReadError, OSError):
        pass
    finally:
        writer.close()


async def _pass(wire: Wire, writer: asyncio.StreamWriter) -> None:
    wire.received = b""
    while await wire.read():
        writer.write(wire.received)
        wire.received = b""
    writer.close()


async def _back(reader: asyncio.StreamReader, wire: Wire) -> None:
    while data := await reader.read(65536):
        await wire.send(data)


async def test_who_comes_in_at_a_unix_socket_is_not_known(play: Play) -> None:
    for version in ("v1", "v2"):
        with TemporaryDirectory(prefix="lb-") as directory:
            listeners = f"[{{bind: 127.0.0.1:0}}, {{bind: 'unix:{directory}/lb.sock'}}]"
            scene = await play(config(version, top=f"listeners: {listeners}\nadmin: {{bind: 127.0.0.1:0}}\n"))
            client = Wire(*await asyncio.open_unix_connection(f"{directory}/lb.sock"))
            assert await served(scene, client) == ("", "", 0, 0)
            client.close()
            await asyncio.to_thread(scene.balancer.stop)


async def test_a_reload_turns_it_on(play: Play) -> None:
    scene = await play(config("off"))
    scene.backend.serve(OK)
    client = await scene.connect()
    await client.send(GET)
    assert (await client.response()).status == 200
    text = scene.balancer.config.read_text()
    scene.balancer.config.write_text(text.replace("proxy_protocol: off", "proxy_protocol: v1"))
    assert scene.balancer.ask("/api/reload", "POST")[0] == 200
    scene.backend.script = None
    assert (await served(scene, client))[0] == "127.0.0.1"
