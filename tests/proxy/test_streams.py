"""Server-sent events and long polls: what the backend says is heard at once, however little, however late."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.strict import Request
from tests.e2e.conftest import Play
from tests.e2e.scene import Scene
from tests.e2e.wire import OK, Wire, get, head

EVENTS = ("Content-Type: text/event-stream", "Cache-Control: no-cache")
FORMS = {
    "chunked": ("1.1", ("Transfer-Encoding: chunked",)),
    "until the connection ends": ("1.1", ()),
    "chunked, to HTTP/1.0": ("1.0", ("Transfer-Encoding: chunked",)),
    "until the connection ends, to HTTP/1.0": ("1.0", ()),
}


def coded(data: bytes, fields: tuple[str, ...]) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if fields else data


async def stream(
    scene: Scene, version: str, fields: tuple[str, ...], line: str = "HTTP/1.1 200 OK"
) -> tuple[Wire, Wire, Request]:
    """A stream that has begun: the client, the backend, and what was asked."""
    client = await scene.connect()
    await client.send(get("/events", "Accept: text/event-stream", version=version))
    backend = await scene.backend.accept()
    request = await backend.request()
    await backend.send(head(line, *EVENTS, *fields))
    begun = await client.until(b"\r\n\r\n")
    assert b"Content-Type: text/event-stream" in begun
    assert (b"chunked" in begun) == (version == "1.1")
    return client, backend, request


async def heard(client: Wire, data: bytes, version: str) -> None:
    """These bytes come, and no other, before the backend says any more."""
    expected = coded(data, ("chunked",) if version == "1.1" else ())
    assert await client.until(expected) == expected


@pytest.mark.parametrize(("version", "fields"), FORMS.values(), ids=list(FORMS))
async def test_each_event_is_heard_before_the_next(
    scene: Scene, version: str, fields: tuple[str, ...]
) -> None:
    client, backend, _ = await stream(scene, version, fields)
    for number in range(50):
        event = b"id: %d\ndata: %b\n\n" % (number, b"x" * (number % 7))
        await backend.send(coded(event, fields))
        await heard(client, event, version)
    if fields:
        await backend.send(b"0\r\n\r\n")
    else:
        backend.end()
    if version == "1.1":
        assert await client.until(b"0\r\n\r\n") == b"0\r\n\r\n"
    else:
        assert await client.ended() == "fin"


async def test_every_byte_is_passed_on_by_itself(scene: Scene) -> None:
    client, backend, _ = await stream(scene, "1.1", ("Transfer-Encoding: chunked",))
    event = b": comment\n\ndata: \xe2\x82\xac\n\n"
    for byte in event:
        await backend.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        await heard(client, bytes([byte]), "1.1")


async def test_a_chunk_that_is_not_complete_does_not_wait_for_its_end(scene: Scene) -> None:
    """The coding is read on the way: its borders are no borders for the data."""
    client, backend, _ = await stream(scene, "1.1", ("Transfer-Encoding: chunked",))
    await backend.send(b"400\r\ndata: a")
    await heard(client, b"data: a", "1.1")
    await backend.send(b"bc")
    await heard(client, b"bc", "1.1")


async def test_a_body_of_a_length_comes_byte_by_byte_too(scene: Scene) -> None:
    client, backend = await scene.meet(get("/poll"))
    await backend.send(head("HTTP/1.1 200 OK", "Content-Length: 10"))
    await client.until(b"\r\n\r\n")
    for digit in b"0123456789":
        await backend.send(bytes([digit]))
        assert await client.until(bytes([digit])) == bytes([digit])
    await client.send(get("/next"))
    assert (await backend.request()).target == "/next"
    await backend.send(OK)
    assert (await client.response()).body == b"ok"


@pytest.mark.parametrize(("version", "fields"), FORMS.values(), ids=list(FORMS))
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_goes_is_gone_at_the_backend(
    scene: Scene, version: str, fields: tuple[str, ...], how: str
) -> None:
    client, backend, _ = await stream(scene, version, fields)
    await backend.send(coded(b"data: 1\n\n", fields))
    await heard(client, b"data: 1\n\n", version)
    if how == "close":
        client.close()
    else:
        client.reset()
    assert await backend.ended()


async def test_a_stream_that_breaks_off_does_not_end_well(scene: Scene) -> None:
    client, backend, _ = await stream(scene, "1.1", ("Transfer-Encoding: chunked",))
    await backend.send(coded(b"data: 1\n\n", ("chunked",)))
    await heard(client, b"data: 1\n\n", "1.1")
    backend.close()
    assert await client.ended()


IDLE = """
access_log: off
pools: {greeter: {backends: [$a], retries: off, outlier_detection: off,
  timeouts: {response_header: 2s, idle: 2s}}}
"""


async def test_silence_within_the_timeouts_harms_nobody(play: Play) -> None:
    """A long poll is quiet before its head, a stream between its events. Each event begins the time anew."""
    scene = await play(IDLE)
    client, backend = await scene.meet(get("/poll"))
    assert await client.quiet(1.2)
    await backend.send(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *EVENTS))
    await client.until(b"\r\n\r\n")
    for _ in range(2):
        assert await client.quiet(1.2)
        await backend.send(coded(b":\n\n", ("chunked",)))
        await heard(client, b":\n\n", "1.1")


async def test_longer_silence_ends_it(play: Play) -> None:
    scene = await play(IDLE)
    client, backend, _ = await stream(scene, "1.1", ("Transfer-Encoding: chunked",))
    assert await client.ended()
    assert await backend.ended()


async def test_many_streams_are_heard_at_the_same_time(scene: Scene) -> None:
    streams = [await stream(scene, "1.1", ("Transfer-Encoding: chunked",)) for _ in range(50)]
    for number in range(3):
        event = b"data: %d\n\n" % number
        await asyncio.gather(*(backend.send(coded(event, ("chunked",))) for _, backend, _ in streams))
        await asyncio.gather(*(heard(client, event, "1.1") for client, _, _ in streams))


async def test_a_stream_of_a_backend_of_http_1_0(scene: Scene) -> None:
    client, backend, _ = await stream(scene, "1.1", (), "HTTP/1.0 200 OK")
    await backend.send(b"data: 1\n\n")
    await heard(client, b"data: 1\n\n", "1.1")
    backend.end()
    assert await client.until(b"0\r\n\r\n") == b"0\r\n\r\n"
