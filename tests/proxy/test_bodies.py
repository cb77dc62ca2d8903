"""Bodies in both directions, however their length is told, and responses that have none."""

from __future__ import annotations

import pytest

from tests.e2e.scene import Scene
from tests.e2e.wire import GET, OK, answer, get, head, post

SIZES = [0, 1, 65535, 65536, 300_000, 3_000_000]


def pattern(size: int) -> bytes:
    """Bytes of which no piece can be lost, doubled or moved unnoticed."""
    return b"".join(b"%08x" % number for number in range(size // 8 + 1))[:size]


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


@pytest.mark.parametrize("size", SIZES)
async def test_a_request_body_with_a_length(scene: Scene, size: int) -> None:
    client = await scene.connect()
    sending = post(pattern(size))
    client.push(sending)
    backend = await scene.backend.accept()
    request = await backend.request()
    assert request.body == pattern(size)
    assert (request.get("content-length"), request.get("transfer-encoding")) == (str(size), None)
    await backend.send(OK)
    assert (await client.response()).status == 200


@pytest.mark.parametrize("size", SIZES)
async def test_a_chunked_request_body(scene: Scene, size: int) -> None:
    client = await scene.connect()
    start = head("POST / HTTP/1.1", "Host: a.example", "Transfer-Encoding: chunked")
    client.push(start + chunked(pattern(size), 70_000) + b"0\r\n\r\n")
    backend = await scene.backend.accept()
    request = await backend.request()
    assert request.body == pattern(size)
    assert (request.get("content-length"), request.get("transfer-encoding")) == (None, "chunked")
    await backend.send(OK)
    assert (await client.response()).status == 200


@pytest.mark.parametrize("size", SIZES)
async def test_a_response_body_with_a_length(scene: Scene, size: int) -> None:
    client, backend = await scene.meet()
    backend.push(answer(pattern(size)))
    response = await client.response()
    assert (response.body == pattern(size), response.get("content-length")) == (True, str(size))
    await client.send(GET)
    await backend.request()  # both connections are kept


@pytest.mark.parametrize("size", SIZES)
async def test_a_chunked_response_body(scene: Scene, size: int) -> None:
    client, backend = await scene.meet()
    start = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
    backend.push(start + chunked(pattern(size), 70_000) + b"0\r\n\r\n")
    response = await client.response()
    assert (response.body == pattern(size), response.get("transfer-encoding")) == (True, "chunked")
    await client.send(GET)
    await backend.request()


@pytest.mark.parametrize("size", SIZES)
async def test_a_response_body_that_ends_with_the_connection(scene: Scene, size: int) -> None:
    client, backend = await scene.meet()
    backend.push(head("HTTP/1.1 200 OK") + pattern(size))
    backend.close()
    response = await client.response()
    assert (response.body == pattern(size), response.get("transfer-encoding")) == (True, "chunked")
    await client.send(GET)
    await (await scene.backend.accept()).request()  # the client's connection is kept


@pytest.mark.parametrize("coding", [True, False])
async def test_a_client_of_http_1_0_gets_a_body_without_coding_that_ends_with_the_connection(
    scene: Scene, coding: bool
) -> None:
    client, backend = await scene.meet(get("/", "Connection: keep-alive", version="1.0"))
    if coding:
        await backend.send(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), b"5\r\nhello\r\n0\r\n\r\n")
    else:
        await backend.send(head("HTTP/1.1 200 OK") + b"hello")
        backend.close()
    response = await client.response()
    assert (response.body, response.get("transfer-encoding")) == (b"hello", None)
    assert (response.get("connection"), client.closed) == ("close", "fin")


async def test_trailers_pass_in_both_directions(scene: Scene) -> None:
    """To a client that has said it takes them; any other might read them as something else."""
    body = b"5\r\nhello\r\n0\r\nX-Checksum: 1\r\nContent-Length: 9\r\nX-Request-ID: forged-one\r\n\r\n"
    client = await scene.connect()
    backend = None
    for fields, wanted in ((["TE: trailers", "Connection: TE"], [("x-checksum", b"1")]), ([], [])):
        await client.send(
            head("POST / HTTP/1.1", "Host: a.example", "Transfer-Encoding: chunked", *fields), body
        )
        backend = backend or await scene.backend.accept()
        request = await backend.request()
        assert (request.body, request.trailers) == (b"hello", [("x-checksum", b"1")])
        await backend.send(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: X-Checksum"), body)
        response = await client.response()
        assert (response.body, response.trailers) == (b"hello", wanted)


async def test_the_first_bytes_of_a_body_do_not_wait_for_the_last(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a.example", "Content-Length: 10"), b"first")
    backend = await scene.backend.accept()
    await backend.until(b"first")
    await backend.send(head("HTTP/1.1 200 OK", "Content-Length: 10"), b"early")
    await client.until(b"early")
    await client.send(b" last")
    await backend.until(b" last")
    await backend.send(b" late")
    await client.until(b" late")


async def test_chunks_are_passed_on_as_they_come(scene: Scene) -> None:
    client, backend = await scene.meet()
    await backend.send(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"))
    await client.until(b"\r\n\r\n")
    for word in (b"one", b"two"):
        await backend.send(b"3\r\n" + word + b"\r\n")
        assert await client.until(b"\r\n" + word + b"\r\n") == b"3\r\n" + word + b"\r\n"
    await backend.send(b"0\r\n\r\n")
    await client.until(b"0\r\n\r\n")


@pytest.mark.parametrize(("field", "length"), [("Content-Length: 5", "5"), ("X-Length: unknown", None)])
async def test_head_gets_the_length_and_no_body(scene: Scene, field: str, length: str | None) -> None:
    client = await scene.connect()
    await client.send(head("HEAD / HTTP/1.1", "Host: a.example"))
    backend = await scene.backend.accept()
    assert (await backend.request()).method == "HEAD"
    await backend.send(head("HTTP/1.1 200 OK", field))
    response = await client.response("HEAD")
    assert (response.status, response.get("content-length")) == (200, length)
    await client.send(GET)
    assert (await backend.request()).method == "GET"
    await backend.send(OK)
    assert (await client.response()).body == b"ok"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_a_response_without_a_body_keeps_both_connections(scene: Scene, status: str) -> None:
    client = await scene.connect()
    await client.send(GET)
    backend = await scene.backend.accept()
    for _ in range(2):
        await backend.request()
        await backend.send(head(f"HTTP/1.1 {status}", 'ETag: "x"'))
        response = await client.response()
        assert (response.status, response.get("etag")) == (int(status[:3]), '"x"')
        assert (response.body, response.get("transfer-encoding")) == (b"", None)
        await client.send(GET)


async def test_304_may_tell_the_length_of_what_it_does_not_bring(scene: Scene) -> None:
    client, backend = await scene.meet(get("/", 'If-None-Match: "x"'))
    await backend.send(head("HTTP/1.1 304 Not Modified", "Content-Length: 100"))
    assert (await client.response()).get("content-length") == "100"
    await client.send(GET)
    await backend.request()
