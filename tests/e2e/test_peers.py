"""Clients and servers of others on both ends, so that our own misreading can't agree with itself."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import h11
import pytest
import pytest_asyncio
from aiohttp import web

from tests.e2e.scene import Scene
from tests.e2e.wire import Wire
from tests.tools import need


async def echo(request: web.Request) -> web.StreamResponse:
    """Answers with a digest of the body, or with the body itself; chunked where the query says so."""
    body = await request.read()
    response = web.StreamResponse(headers={"X-Digest": hashlib.sha256(body).hexdigest()})
    if "chunked" in request.query:
        response.enable_chunked_encoding()
    else:
        response.content_length = len(body)
    await response.prepare(request)
    for at in range(0, len(body), 50_000):
        await response.write(body[at : at + 50_000])
    await response.write_eof()
    return response


@pytest_asyncio.fixture
async def aiohttp_backend(scene: Scene) -> AsyncIterator[Scene]:
    """The scene with aiohttp's server as the backend."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await scene.backend.close()
    await runner.setup()
    await web.SockSite(runner, scene.backend.listening.dup()).start()
    yield scene
    await runner.cleanup()


def pieces(body: bytes, size: int = 30_000) -> AsyncIterator[bytes]:
    async def generate() -> AsyncIterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    return generate()


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
@pytest.mark.parametrize("up", ["length", "chunked"])
@pytest.mark.parametrize("down", ["length", "chunked"])
async def test_aiohttp_to_aiohttp(aiohttp_backend: Scene, size: int, up: str, down: str) -> None:
    body = (b"0123456" * size)[:size]
    async with (
        aiohttp.ClientSession(f"http://{aiohttp_backend.balancer.address}") as session,
        session.post(f"/?{down}", data=pieces(body) if up == "chunked" else io.BytesIO(body)) as response,
    ):
        assert response.status == 200
        assert await response.read() == body
        assert response.headers["X-Digest"] == hashlib.sha256(body).hexdigest()
        assert ("Content-Length" in response.headers) == (down == "length")


async def test_many_at_a_time_each_gets_its_own_answer(aiohttp_backend: Scene) -> None:
    async with aiohttp.ClientSession(f"http://{aiohttp_backend.balancer.address}") as session:

        async def one(number: int) -> None:
            body = b"%d," % number * (number * 7)
            async with session.put("/?chunked" if number % 2 else "/", data=body) as response:
                assert await response.read() == body

        await asyncio.gather(*(one(number) for number in range(300)))


async def test_methods_and_head_with_aiohttp(aiohttp_backend: Scene) -> None:
    async with aiohttp.ClientSession(f"http://{aiohttp_backend.balancer.address}") as session:
        for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PATCH", "PUT"):
            async with session.request(method, "/a%20b?c=%2F") as response:
                assert (response.status, await response.read()) == (200, b"")


async def test_expect_100_continue_with_aiohttp(aiohttp_backend: Scene) -> None:
    async with (
        aiohttp.ClientSession(f"http://{aiohttp_backend.balancer.address}") as session,
        session.post("/", data=b"hello", expect100=True) as response,
    ):
        assert await response.read() == b"hello"


# --- h11 ---


async def serve_h11(wire: Wire) -> None:
    """A server made of h11: answers chunked, with early hints before and trailers behind."""
    connection = h11.Connection(h11.SERVER)
    while True:
        body, chunked = b"", False
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if not wire.received and not await wire.read():
                    return
                connection.receive_data(wire.received)
                wire.received = b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                trailers = list(event.headers)
                break
            elif isinstance(event, h11.Request):
                chunked = (b"transfer-encoding", b"chunked") in event.headers
        out = [h11.InformationalResponse(status_code=103, headers=[("Link", "</a.css>")])]
        headers = [("Transfer-Encoding", "chunked"), ("X-Was-Chunked", str(chunked))]
        for each in (*out, h11.Response(status_code=200, headers=headers), h11.Data(data=body)):
            await wire.send(connection.send(each) or b"")
        await wire.send(connection.send(h11.EndOfMessage(headers=trailers)) or b"")
        connection.start_next_cycle()


async def test_h11_to_h11(scene: Scene) -> None:
    scene.backend.script = serve_h11
    wire = await scene.connect()
    client = h11.Connection(h11.CLIENT)
    for number in range(5):
        body = b"x" * 10_000 * number
        headers = [("Host", "a.example"), ("Transfer-Encoding", "chunked"), ("TE", "trailers")]
        for event in (
            h11.Request(method="POST", target="/", headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(headers=[("X-Checksum", str(number))]),
        ):
            await wire.send(client.send(event) or b"")
        seen: list[h11.Event] = []
        while not seen or not isinstance(seen[-1], h11.EndOfMessage):
            event = client.next_event()
            if event is h11.NEED_DATA:
                assert wire.received or await wire.read()
                client.receive_data(wire.received)
                wire.received = b""
            else:
                seen.append(event)
        assert isinstance(seen[0], h11.InformationalResponse)
        assert isinstance(seen[1], h11.Response)
        assert (seen[0].status_code, seen[1].status_code) == (103, 200)
        assert (b"x-was-chunked", b"True") in seen[1].headers
        assert b"".join(bytes(event.data) for event in seen if isinstance(event, h11.Data)) == body
        assert list(seen[-1].headers) == [(b"x-checksum", b"%d" % number)]
        client.start_next_cycle()


# --- curl ---


async def curl(scene: Scene, *arguments: str) -> tuple[int, str]:
    command = [need("curl"), "-sS", "--max-time", "10", "-w", "\n%{json}", *arguments]
    command.append(f"http://{scene.balancer.address}/?chunked")
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    body, _, told = done.stdout.rpartition("\n")
    return int(json.loads(told)["response_code"]), body


async def test_curl(aiohttp_backend: Scene, tmp_path: Path) -> None:
    assert await curl(aiohttp_backend, "-d", "hello") == (200, "hello")
    assert await curl(aiohttp_backend, "--http1.0", "-d", "hello") == (200, "hello")
    assert (await curl(aiohttp_backend, "-I"))[0] == 200
    upload = tmp_path / "upload"
    upload.write_text("x" * 2_000_000)
    assert await curl(aiohttp_backend, "-T", str(upload), "-H", "Transfer-Encoding: chunked") == (
        200,
        "x" * 2_000_000,
    )
    assert await curl(aiohttp_backend, "-T", str(upload), "-H", "Expect: 100-continue") == (
        200,
        "x" * 2_000_000,
    )
