"""1xx responses, Expect: 100-continue, and answers that come before the request has ended."""

from __future__ import annotations

from tests.e2e.scene import Scene
from tests.e2e.wire import GET, OK, Wire, answer, get, head

EXPECTING = head("POST / HTTP/1.1", "Host: a.example", "Content-Length: 5", "Expect: 100-continue")
HINTS = head("HTTP/1.1 103 Early Hints", "Link: </a.css>; rel=preload")


async def test_early_hints_are_passed_on_before_the_answer(scene: Scene) -> None:
    client, backend = await scene.meet()
    await backend.send(HINTS)
    assert b"Link: </a.css>; rel=preload\r\n" in await client.until(b"\r\n\r\n")
    await backend.send(HINTS + HINTS + OK)
    response = await client.response()
    assert (response.status, response.interim) == (200, [103, 103])


async def test_a_client_of_http_1_0_gets_no_interim_response(scene: Scene) -> None:
    client, backend = await scene.meet(get(version="1.0"))
    await backend.send(HINTS + OK)
    response = await client.response()
    assert (response.status, response.interim) == (200, [])


async def test_the_backend_decides_on_100_continue(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(EXPECTING)
    backend = await scene.backend.accept()
    assert b"Expect: 100-continue" in await backend.until(b"\r\n\r\n")
    assert await client.quiet(0.2), "nobody but the backend may say 100"
    await backend.send(head("HTTP/1.1 100 Continue"))
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    await client.send(b"hello")
    await backend.until(b"hello")
    await backend.send(OK)
    assert (await client.response()).status == 200
    await client.send(GET)
    assert (await backend.request()).method == "GET"


async def test_a_final_answer_instead_of_100_continue(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(EXPECTING)
    backend = await scene.backend.accept()
    await backend.until(b"\r\n\r\n")
    await backend.send(answer(b"no", status="403 Forbidden"))
    response = await client.response()
    assert (response.status, response.body, response.get("connection")) == (403, b"no", "close")
    assert await client.ended() == "fin"
    assert await backend.ended(), "a body is owed on it, so it can't be used again"


async def test_a_100_that_nobody_asked_for_is_passed_on_too(scene: Scene) -> None:
    """RFC 9110, section 15.2: unless we had asked for it. Clients have to be ready for it."""
    client, backend = await scene.meet()
    await backend.send(head("HTTP/1.1 100 Continue") + OK)
    response = await client.response()
    assert (response.status, response.interim) == (200, [100])


async def test_an_early_answer_reaches_a_client_that_still_sends(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a.example", "Content-Length: 100000000"), b"x" * 1000)
    backend = await scene.backend.accept()
    await backend.until(b"x" * 1000)
    await backend.send(answer(b"too large", status="413 Content Too Large"))
    await client.pour(1_000_000, 1)
    response = await client.response()
    assert (response.status, response.body, response.get("connection")) == (413, b"too large", "close")
    assert await backend.gone()


async def test_an_early_answer_may_still_go_on_while_the_upload_does(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a.example", "Transfer-Encoding: chunked"))
    backend = await scene.backend.accept()
    await backend.until(b"\r\n\r\n")
    await backend.send(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"))
    await client.until(b"\r\n\r\n")
    for word in (b"one", b"two", b"six"):
        await client.send(b"3\r\n" + word + b"\r\n")
        await backend.send(await backend.until(word + b"\r\n"))
        await client.until(word + b"\r\n")
    await client.send(b"0\r\n\r\n")
    await backend.send(await backend.until(b"0\r\n\r\n"))
    await client.until(b"0\r\n\r\n")


async def test_the_connection_goes_on_after_an_answer_that_came_before_its_body_was_read(
    scene: Scene,
) -> None:
    """The backend answers without reading; the end of the body lies in our buffers, and blocks no one."""
    size = await _largest_body_that_is_taken(scene)
    client, backend = await _answered_unread(scene, size)
    await client.send(get("/next"))
    backend.go_on_reading()
    await backend.until(b"GET /next ")
    await backend.until(b"\r\n\r\n")
    await backend.send(answer(b"next"))
    assert (await client.response()).body == b"next"


async def _largest_body_that_is_taken(scene: Scene) -> int:
    """By bisection: how much fits into the buffers between a client and a backend that doesn't read."""
    taken, refused = 0, 1 << 24
    while refused - taken > 1 << 16:
        size = (taken + refused) // 2
        client, backend = await _answered_unread(scene, size)
        if await client.quiet(0.2):
            taken = size
        else:
            refused = size
        client.reset()
        backend.reset()
        await scene.gone("lb_backend_connections")
    return taken * 3 // 4  # the kernel makes its buffers larger and smaller as it likes


async def _answered_unread(scene: Scene, size: int) -> tuple[Wire, Wire]:
    client = await scene.connect()
    client.push(head("POST / HTTP/1.1", "Host: a.example", f"Content-Length: {size}"))
    backend = await scene.backend.accept()
    await backend.until(b"\r\n\r\n")
    backend.stop_reading()
    client.push(bytes(size))
    await client.quiet(0.1)
    await backend.send(OK)
    assert (await client.response()).status == 200
    return client, backend
