"""A client that goes away, in any phase and any way, frees its backend at once."""

from __future__ import annotations

import pytest

from tests.e2e.scene import Scene
from tests.e2e.wire import GET, OK, Wire, get, head, post

SOON = 1.5  # seconds

WAYS = pytest.mark.parametrize("leave", [Wire.close, Wire.reset], ids=["close", "reset"])


async def is_free(scene: Scene, backend: Wire) -> None:
    """The backend sees its connection end, and the exchange is told as the client's doing."""
    assert await backend.gone(SOON)
    record = scene.balancer.api("/api/requests?limit=1")["requests"][0]
    assert record["failure"]["name"] == "client_gone"


@WAYS
async def test_while_it_waits_for_the_answer(scene: Scene, leave: object) -> None:
    client, backend = await scene.meet()
    leave(client)  # type: ignore[operator]
    await is_free(scene, backend)
    assert (scene.balancer.api("/api/requests?limit=1"))["requests"][0]["status"] == 499


@WAYS
async def test_while_it_waits_with_more_requests_in_the_queue(scene: Scene, leave: object) -> None:
    client, backend = await scene.meet(GET * 3)
    leave(client)  # type: ignore[operator]
    await is_free(scene, backend)
    assert await scene.backend.no_more()


@WAYS
async def test_in_the_midst_of_a_download(scene: Scene, leave: object) -> None:
    client, backend = await scene.meet()
    await backend.send(head("HTTP/1.1 200 OK", "Content-Length: 100000000"))
    await client.until(b"\r\n\r\n")
    backend.push(bytes(1_000_000))
    leave(client)  # type: ignore[operator]
    await is_free(scene, backend)


@WAYS
async def test_in_the_midst_of_a_download_that_it_did_not_read(scene: Scene, leave: object) -> None:
    client = await scene.connect()
    client.stop_reading()
    await client.send(GET)
    backend = await scene.backend.accept()
    await backend.request()
    backend.push(head("HTTP/1.1 200 OK", "Content-Length: 100000000") + bytes(20_000_000))
    assert await backend.quiet(0.5)
    leave(client)  # type: ignore[operator]
    await is_free(scene, backend)


@WAYS
async def test_in_the_midst_of_an_upload(scene: Scene, leave: object) -> None:
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a", "Content-Length: 1000000") + b"start")
    backend = await scene.backend.accept()
    await backend.until(b"start")
    leave(client)  # type: ignore[operator]
    await is_free(scene, backend)


async def test_in_the_midst_of_an_upload_that_the_backend_does_not_read(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a", "Content-Length: 100000000"))
    backend = await scene.backend.accept()
    await backend.until(b"\r\n\r\n")
    backend.stop_reading()
    await client.pour(20_000_000, 0.3)
    client.reset()
    backend.go_on_reading()
    await is_free(scene, backend)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_client_that_only_says_that_it_sends_no_more_gets_its_answer(
    scene: Scene, version: str
) -> None:
    client = await scene.connect()
    await client.send(get(version=version))
    client.end()
    backend = await scene.backend.accept()
    await backend.request()
    assert await backend.quiet(0.7)
    await backend.send(OK)
    response = await client.response()
    assert (response.status, response.body) == (200, b"ok")
    assert await client.ended() == "fin"


async def test_half_closed_with_a_body_and_a_queue(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(post(b"hello") + get("/2") + get("/3"))
    client.end()
    backend = await scene.backend.accept()
    for _ in range(3):
        await backend.request()
        await backend.send(OK)
    for _ in range(3):
        assert (await client.response()).status == 200
    assert await client.ended() == "fin"


async def test_half_closed_in_the_midst_of_a_body_is_gone(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a", "Content-Length: 10") + b"half")
    backend = await scene.backend.accept()
    await backend.until(b"half")
    client.end()
    await is_free(scene, backend)


async def test_nothing_but_an_end(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(b"GET / HT")
    client.end()
    assert await client.ended() == "fin"
    assert await scene.backend.no_more(0.1)


@WAYS
async def test_from_a_stream_that_is_silent(scene: Scene, leave: object) -> None:
    """A FIN might be a half-close, but hardly behind a response that has begun and says nothing."""
    client, backend = await scene.meet()
    await backend.send(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"5\r\nevent\r\n")
    await client.until(b"event")
    leave(client)  # type: ignore[operator]
    assert await backend.gone(3 * SOON)
    assert scene.balancer.api("/api/requests?limit=1")["requests"][0]["failure"]["name"] == "client_gone"
