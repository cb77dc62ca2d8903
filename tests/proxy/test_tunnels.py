"""Connections that switch to another protocol: WebSockets and whatever else is offered and taken."""

from __future__ import annotations

import asyncio
import random

import pytest
from websockets.asyncio.client import connect as ws_connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from tests.e2e.scene import Scene
from tests.e2e.wire import OK, PATIENCE, PIECE, Wire, answer, get, head

CONFIG = """
access_log: off
admin: {bind: 127.0.0.1:0}
listeners: [{bind: 127.0.0.1:0}]
routes:
  - {match: {path_prefix: /brief}, pool: greeter, timeouts: {tunnel: 500ms}}
  - {match: {path_prefix: /last}, pool: greeter, timeouts: {idle: 500ms}}
  - {match: {path_prefix: /short}, pool: greeter, timeouts: {total: 500ms}}
  - {pool: greeter}
pools: {greeter: {backends: [$a], retries: off, outlier_detection: off}}
"""

OFFER = ("Connection: Upgrade", "Upgrade: chat")
TAKEN = head("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: chat")


async def tunnel(scene: Scene, path: str = "/") -> tuple[Wire, Wire]:
    """Both ends of one."""
    client = await scene.connect()
    await client.send(get(path, *OFFER))
    backend = await scene.backend.accept()
    request = await backend.request()
    assert (request.all("connection"), request.all("upgrade")) == (["Upgrade"], ["chat"])
    await backend.send(TAKEN)
    said = await client.until(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nUpgrade: chat\r\n" in said
    assert b"\r\nConnection: Upgrade\r\n" in said
    assert b"\r\nX-Request-ID: " in said
    return client, backend


async def test_bytes_go_to_and_fro(scene: Scene) -> None:
    client, backend = await tunnel(scene)
    for number in range(3):
        await client.send(b"ping %d" % number)
        await backend.until(b"ping %d" % number)
        await backend.send(b"pong %d\r\n\r\n" % number)
        await client.until(b"pong %d\r\n\r\n" % number)
    assert scene.balancer.metric("lb_backend_in_flight") == 1


async def test_a_tunnel_is_counted(scene: Scene) -> None:
    counted = {
        name: scene.balancer.metric(name)
        for name in ("lb_tunnels_ended_total", "lb_tunnel_seconds_total", "lb_tunnel_bytes_total")
    }

    def more(name: str, **labels: str) -> float:
        return scene.balancer.metric(name, pool="greeter", **labels) - (0 if labels else counted[name])

    sent, received = (more("lb_tunnel_bytes_total", direction=each) for each in ("sent", "received"))
    none = more("lb_tunnels_ended_total", failure="none")
    client, backend = await tunnel(scene)
    await client.send(b"ping")
    await backend.until(b"ping")
    await backend.send(b"answer")
    await client.until(b"answer")
    assert scene.balancer.metric("lb_tunnels", pool="greeter") == 1
    assert more("lb_tunnel_bytes_total", direction="sent") == sent + 4
    assert more("lb_tunnel_bytes_total", direction="received") == received + 6
    client.end()
    await backend.ended()
    backend.end()
    await client.ended()
    await scene.gone("lb_tunnels{")
    assert more("lb_tunnels_ended_total", failure="none") == none + 1
    assert more("lb_tunnels_ended_total") == 1
    assert 0 < more("lb_tunnel_seconds_total") < PATIENCE
    record = scene.balancer.api("/api/requests?status=101&limit=1")["requests"][0]
    assert (record["bytes_in"], record["bytes_out"], record["failure"]) == (4, 6, None)
    assert record["duration_ms"] > 0


async def test_what_comes_with_the_heads_is_passed_on(scene: Scene) -> None:
    client, backend = await scene.meet(get("/", *OFFER), b"early")
    await backend.send(TAKEN + b"first")
    await client.until(b"\r\n\r\nfirst")
    await backend.until(b"early")


async def test_much_may_come_before_the_switch(scene: Scene) -> None:
    """More than is read ahead of an ordinary request's turn."""
    client, backend = await scene.meet(get("/", *OFFER), bytes(300_000))
    assert await client.quiet(0.2)
    await backend.send(TAKEN)
    assert await backend.count(300_000, 5) == 300_000
    await client.send(b"and more")
    await backend.until(b"and more")


async def test_a_client_that_has_ended_its_half_before_the_switch(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(get("/", *OFFER), b"all that I have")
    client.end()
    backend = await scene.backend.accept()
    await backend.request()
    await client.until(b"100 Continue")  # asked whether it is still there
    await backend.send(TAKEN)
    await backend.until(b"all that I have")
    assert await backend.ended() == "fin"
    await backend.send(b"mine")
    await client.until(b"mine")
    backend.end()
    assert await client.ended() == "fin"


@pytest.mark.parametrize("by_client", [True, False])
async def test_each_side_may_end_its_half(scene: Scene, by_client: bool) -> None:
    first, second = await tunnel(scene)
    if not by_client:
        first, second = second, first
    await first.send(b"my last words")
    first.end()
    await second.until(b"my last words")
    assert await second.ended() == "fin"
    await second.send(b"mine")
    await first.until(b"mine")
    second.end()
    assert await first.ended() == "fin"
    await scene.gone("lb_backend_in_flight", "lb_client_connections")


@pytest.mark.parametrize("by_client", [True, False])
async def test_a_side_that_breaks_off(scene: Scene, by_client: bool) -> None:
    first, second = await tunnel(scene)
    if not by_client:
        first, second = second, first
    first.reset()
    assert await second.gone()
    await scene.gone("lb_backend_in_flight", "lb_client_connections")


async def test_slow_readers_hold_the_other_side(scene: Scene) -> None:
    client, backend = await tunnel(scene)
    for writer, reader in ((client, backend), (backend, client)):
        reader.stop_reading()
        sent = await writer.pour(1 << 26, patience=0.5)
        assert sent < 1 << 26
        reader.go_on_reading()
        await reader.count(sent)


async def test_the_last_words_of_a_tunnel_wait_for_a_backend_that_takes_some(scene: Scene) -> None:
    client, backend = await tunnel(scene, "/last")
    backend.stop_reading()
    backend.end()
    await client.ended()
    sent = await client.pour(16 << 20, patience=0.3)
    client.end()  # the kernel and the balancer hold it all; both have ended as soon as it is written
    assert sent < 16 << 20
    backend.go_on_reading()
    assert await backend.count(1 << 30) in (sent, sent + PIECE)  # up to the end; all of it
    assert backend.closed == "fin"


async def test_silence_ends_it(scene: Scene) -> None:
    client, backend = await tunnel(scene, "/brief")
    for _ in range(4):
        await asyncio.sleep(0.2)
        await client.send(b"x")
        await backend.until(b"x")
    assert await client.gone()
    assert await backend.gone()
    record = scene.balancer.api("/api/requests?failure=tunnel_idle")["requests"][0]
    assert (record["status"], record["bytes_in"]) == (101, 4)


async def test_the_total_time_ends_it_too(scene: Scene) -> None:
    client, backend = await tunnel(scene, "/short")
    await client.send(b"hello")
    await backend.until(b"hello")
    assert await client.gone()
    assert await backend.gone()
    record = scene.balancer.api("/api/requests?failure=timeout")["requests"][0]
    assert (record["status"], record["bytes_in"]) == (101, 5)


async def test_an_offer_that_is_not_taken(scene: Scene) -> None:
    """The answer is an ordinary one, and so is what follows."""
    client, backend = await scene.meet(get("/1", *OFFER) + get("/2"))
    await backend.send(OK)
    assert (await client.response()).status == 200
    assert (await backend.request()).target == "/2"
    await backend.send(answer(b"two"))
    assert (await client.response()).body == b"two"


@pytest.mark.parametrize(
    "fields",
    [
        ("Upgrade: chat",),
        ("Connection: Upgrade",),
        ("Connection: Upgrade", "Upgrade: h2c"),
        ("Connection: Upgrade", "Upgrade: HTTP/2.0, TLS/1.0"),
        ("Connection: Upgrade", "Upgrade: chat", "Content-Length: 0", "Transfer-Encoding: chunked")[:3],
    ],
)
async def test_what_is_no_offer(scene: Scene, fields: tuple[str, ...]) -> None:
    client = await scene.connect()
    await client.send(get("/", *fields))
    backend = await scene.backend.accept()
    request = await backend.request()
    offered = "Content-Length: 0" in fields
    assert bool(request.all("upgrade")) is offered
    await backend.send(OK)
    assert (await client.response()).status == 200


@pytest.mark.parametrize(
    "reply",
    [
        head("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: other"),
        head("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade"),
        head("HTTP/1.1 101 Switching Protocols", "Upgrade: chat"),
        head("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: chat, other"),
        head("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: other", "Upgrade: chat"),
    ],
)
async def test_a_backend_that_switches_to_what_nobody_offered(scene: Scene, reply: bytes) -> None:
    client, backend = await scene.meet(get("/", *OFFER))
    await backend.send(reply)
    assert (await client.response()).status == 502


# --- the library of the same name on both ends ---


async def echo(socket: ServerConnection) -> None:
    try:
        async for message in socket:
            if message == "close":
                await socket.close(4321, "as you wish")
            elif message == "break":
                socket.transport.abort()
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass


async def test_websockets(scene: Scene) -> None:
    rng = random.Random(1)
    backend = scene.backend
    await backend.close()
    url = f"ws://127.0.0.1:{scene.balancer.port}/chat?room=1"
    sizes = [0, 1, 125, 126, 65535, 65536, 1 << 24]
    async with serve(echo, sock=backend.listening.dup(), max_size=1 << 25, compression=None):
        async with ws_connect(url, max_size=1 << 25, compression=None) as socket:
            for size in sizes:
                message = rng.randbytes(size)
                await socket.send(message)
                assert await socket.recv() == message
            await socket.send([b"in ", b"three ", b"pieces"])
            assert await socket.recv() == b"in three pieces"
            await (await socket.ping(b"still there?"))
            await socket.send("close")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as you wish")
        async with ws_connect(url) as socket:
            await socket.send("break")
            with pytest.raises(ConnectionClosedError):
                await socket.recv()
        many = [await ws_connect(url) for _ in range(50)]
        await asyncio.gather(*[socket.send(str(number)) for number, socket in enumerate(many)])
        answers = await asyncio.gather(*[socket.recv() for socket in many])
        assert answers == [str(number) for number in range(50)]
        await asyncio.gather(*[socket.close() for socket in many])
