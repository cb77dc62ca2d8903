"""WebSockets, with the library of that name on both ends: what one says is what the other hears."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as ws_connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.typing import Subprotocol

from tests.e2e.conftest import Play
from tests.e2e.process import Balancer, eventually
from tests.e2e.scene import Scene

CONFIG = """
access_log: off
admin: {bind: 127.0.0.1:0}
listeners: [{bind: 127.0.0.1:0}]
drain: {timeout: 20s}
routes:
  - {match: {path_prefix: /brief}, pool: greeter, timeouts: {tunnel: 500ms}}
  - {pool: greeter}
pools: {greeter: {backends: [$a], retries: off, outlier_detection: off}}
"""

MOST = 1 << 25
# All that may be sent (RFC 6455, section 7.4): 1004, 1005, 1006 and 1015 may not.
CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]


class Echo:
    """Says all back, and remembers how each connection ended."""

    def __init__(self) -> None:
        self.ends: asyncio.Queue[ConnectionClosed] = asyncio.Queue()
        self.requests: list[ServerConnection] = []

    async def __call__(self, socket: ServerConnection) -> None:
        self.requests.append(socket)
        try:
            while True:
                message = await socket.recv()
                if isinstance(message, str) and message.startswith("close "):
                    await socket.close(int(message.split()[1]), "as you wish")
                elif message == "break":
                    socket.transport.abort()
                elif message == "ping":
                    await (await socket.ping(b"from the server"))
                    await socket.send("pong came")
                else:
                    await socket.send(message)
        except ConnectionClosed as closed:
            self.ends.put_nowait(closed)


@asynccontextmanager
async def echoing(scene: Scene, **options: object) -> AsyncIterator[tuple[Echo, str]]:
    """An echo in the place of the scene's backend, and the URL that leads there."""
    echo, backend = Echo(), scene.backend
    await backend.close()
    async with serve(echo, sock=backend.listening.dup(), max_size=MOST, **options):  # type: ignore[arg-type]
        yield echo, f"ws://127.0.0.1:{scene.balancer.port}/chat?room=1"


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("by_client", [True, False])
async def test_every_close_code_arrives_with_its_reason(scene: Scene, code: int, by_client: bool) -> None:
    async with echoing(scene) as (echo, url):
        socket = await ws_connect(url)
        if by_client:
            await socket.close(code, "reason ü")
            closed = await echo.ends.get()
            assert closed.rcvd is not None
            assert (closed.rcvd.code, closed.rcvd.reason) == (code, "reason ü")
        else:
            await socket.send(f"close {code}")
            with pytest.raises(ConnectionClosed) as raised:
                await socket.recv()
            assert raised.value.rcvd is not None
            assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (code, "as you wish")
    await scene.gone("lb_tunnels{", "lb_client_connections")


async def test_a_close_without_a_code(scene: Scene) -> None:
    async with echoing(scene) as (echo, url):
        socket = await ws_connect(url)
        socket.transport.write(bytes([0x88, 0x80, 1, 2, 3, 4]))
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        closed = await echo.ends.get()
        assert closed.rcvd is not None
        assert closed.rcvd.code == 1005


@pytest.mark.parametrize("by_client", [True, False])
async def test_an_end_without_a_close_is_an_abnormal_one(scene: Scene, by_client: bool) -> None:
    async with echoing(scene) as (echo, url):
        socket = await ws_connect(url)
        if by_client:
            await socket.send("hello")
            await socket.recv()
            socket.transport.abort()
            closed = await echo.ends.get()
        else:
            await socket.send("break")
            with pytest.raises(ConnectionClosed) as raised:
                await socket.recv()
            closed = raised.value
        assert closed.rcvd is None
    await scene.gone("lb_tunnels{", "lb_client_connections")


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_messages_of_every_size(scene: Scene, compression: str | None) -> None:
    rng = random.Random(1)
    async with (
        echoing(scene, compression=compression) as (_, url),
        ws_connect(url, max_size=MOST, compression=compression) as socket,
    ):
        assert bool(socket.protocol.extensions) is (compression == "deflate")
        for size in (0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 1 << 24):
            message = rng.randbytes(size)
            await socket.send(message)
            assert await socket.recv() == message
        text = "ü€😀" * 100_000
        await socket.send(text)
        assert await socket.recv() == text


async def test_fragments(scene: Scene) -> None:
    async with echoing(scene) as (_, url), ws_connect(url, max_size=MOST) as socket:
        await socket.send(["in ", "", "four ", "pieces"])
        assert await socket.recv() == "in four pieces"
        pieces = [bytes([number % 256]) * 4096 for number in range(1024)]
        await socket.send(pieces)
        assert await socket.recv() == b"".join(pieces)


async def test_pings_both_ways(scene: Scene) -> None:
    async with echoing(scene) as (_, url), ws_connect(url) as socket:
        for payload in (b"", b"still there?", bytes(125)):
            latency = await (await socket.ping(payload))
            assert latency >= 0
        await socket.send("ping")
        assert await socket.recv() == "pong came"


async def test_subprotocols_and_extensions_are_agreed_on_by_the_ends(scene: Scene) -> None:
    chat, talk = Subprotocol("chat.v2"), Subprotocol("talk")
    factory = ClientPerMessageDeflateFactory(client_max_window_bits=9, server_no_context_takeover=True)
    async with (
        echoing(scene, subprotocols=[talk, chat]) as (echo, url),
        ws_connect(url, subprotocols=[chat, talk], extensions=[factory], compression=None) as socket,
    ):
        assert socket.subprotocol == echo.requests[0].subprotocol
        [extension] = socket.protocol.extensions
        [other] = echo.requests[0].protocol.extensions
        assert extension.name == other.name == "permessage-deflate"
        assert "client_max_window_bits=9" in str(extension) or "local_max_window_bits=9" in repr(extension)
        await socket.send("hello " * 1000)
        assert await socket.recv() == "hello " * 1000


async def test_a_handshake_that_is_refused_is_an_ordinary_answer(scene: Scene) -> None:
    async with echoing(scene, subprotocols=None, origins=["https://shop.test"]) as (_, url):
        with pytest.raises(InvalidStatus) as refused:
            await ws_connect(url, origin="https://evil.test")  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403
        async with ws_connect(url, origin="https://shop.test") as socket:  # type: ignore[arg-type]
            await socket.send("hello")
            assert await socket.recv() == "hello"


async def test_silence_ends_it_and_pings_keep_it(scene: Scene) -> None:
    async with echoing(scene) as (echo, url):
        url = url.replace("/chat", "/brief")
        async with ws_connect(url, ping_interval=0.1) as socket:
            await asyncio.sleep(1.2)
            await socket.send("still here")
            assert await socket.recv() == "still here"
        assert (await echo.ends.get()).rcvd is not None
        async with ws_connect(url, ping_interval=None) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is None
        assert (await echo.ends.get()).rcvd is None


async def test_who_reads_slowly_holds_the_other_and_misses_nothing(scene: Scene) -> None:
    """160 MiB come back while the client reads none of it: the balancer's memory stays what it is."""
    message = bytes(1 << 20)
    async with (
        echoing(scene, compression=None) as (_, url),
        ws_connect(url, max_size=MOST, compression=None, max_queue=1, ping_interval=None) as socket,
    ):
        await socket.send(b"x")
        await socket.recv()
        before = scene.balancer.memory()
        sending = asyncio.create_task(_send(socket, message, 160))
        done, _ = await asyncio.wait([sending], timeout=1.0)
        assert not done, "all was taken, though nothing was read"
        assert scene.balancer.memory() - before < 16 << 20
        for _ in range(160):
            assert await socket.recv() == message
        await sending


async def _send(socket: ClientConnection, message: bytes, times: int) -> None:
    for _ in range(times):
        await socket.send(message)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_tunnel_lives_through_reloads(play: Play, workers: int) -> None:
    scene = await play(f"workers: {workers}\n{CONFIG}")
    balancer = scene.balancer
    async with echoing(scene) as (_, url), ws_connect(url) as socket:
        await _still_talks(socket)
        text = balancer.config.read_text()
        for number, changed in enumerate(
            (
                text.replace("retries: off", "retries: {attempts: 1}"),
                text.replace("greeter", "other"),  # its pool and its routes are no more
                text.replace("127.0.0.1:0}]", "127.0.0.1:0, limits: {header_count: 50}}]"),
            )
        ):
            balancer.config.write_text(changed)
            balancer.send(signal.SIGHUP)
            await eventually(lambda seen=number + 1: _reloads(balancer) == seen, "the reload")  # type: ignore[misc]
            await _still_talks(socket)
        async with ws_connect(url) as another:
            await _still_talks(another)


def _reloads(balancer: Balancer) -> float:
    return balancer.metric("lb_config_reloads_total", result="success")


async def _still_talks(socket: ClientConnection) -> None:
    await socket.send("still there?")
    assert await socket.recv() == "still there?"


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_tunnel_may_end_by_itself_while_the_balancer_drains(play: Play, workers: int) -> None:
    scene = await play(f"workers: {workers}\n{CONFIG}")
    async with echoing(scene) as (echo, url):
        async with ws_connect(url) as socket:
            await _still_talks(socket)
            scene.balancer.send(signal.SIGTERM)
            await asyncio.sleep(0.5)
            await _still_talks(socket)
            assert scene.balancer.process.poll() is None
        assert (await echo.ends.get()).rcvd is not None
        assert await asyncio.to_thread(scene.balancer.wait) == 0


async def test_tunnels_are_cut_when_the_time_for_draining_is_over(play: Play) -> None:
    scene = await play(CONFIG.replace("20s", "300ms"))
    async with echoing(scene) as (echo, url):
        socket = await ws_connect(url)
        await _still_talks(socket)
        scene.balancer.send(signal.SIGTERM)
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert (await echo.ends.get()).rcvd is None
        assert await asyncio.to_thread(scene.balancer.wait) == 0


async def test_all_workers_tunnels_are_one_sum(play: Play) -> None:
    scene = await play(f"workers: 2\n{CONFIG}")
    async with echoing(scene, compression=None) as (_, url):
        sockets = [await ws_connect(url, compression=None) for _ in range(8)]
        for socket in sockets:
            await _still_talks(socket)
        assert scene.balancer.metric("lb_tunnels", pool="greeter") == 8
        for socket in sockets:
            await socket.close()
        await scene.gone("lb_tunnels{")
        assert scene.balancer.metric("lb_tunnels_ended_total", pool="greeter") == 8
        # a client's frame has 6 bytes before its payload, a server's 2; and a close frame has a code
        sent, received = (
            scene.balancer.metric("lb_tunnel_bytes_total", direction=way) for way in ("sent", "received")
        )
        assert (sent, received) == (8 * (6 + 12 + 6 + 2), 8 * (2 + 12 + 2 + 2))
        assert scene.balancer.metric("lb_tunnel_seconds_total") > 0


@pytest.mark.parametrize(
    "request_line", ["CONNECT inside.test:22", "CONNECT /", "TRACE /", "TRACE *", "CONNECT http://a.example/"]
)
async def test_connect_and_trace_are_refused(scene: Scene, request_line: str) -> None:
    client = await scene.connect()
    await client.send(f"{request_line} HTTP/1.1\r\nHost: inside.test:22\r\nMax-Forwards: 0\r\n\r\n".encode())
    response = await client.response()
    assert response.status in (400, 405)
    if request_line in ("CONNECT inside.test:22", "TRACE /"):
        assert response.status == 405
    assert not scene.balancer.metric("lb_backend_connections")
