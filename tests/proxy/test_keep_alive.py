"""Connections on both sides: who keeps them, in which order answers come, what a dead one costs."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.e2e.scene import Scene
from tests.e2e.wire import GET, OK, Wire, always, answer, get, head, post


async def test_one_connection_on_each_side_serves_many_requests(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(GET)
    backend = await scene.backend.accept()
    for number in range(20):
        await backend.request()
        await backend.send(answer(b"%d" % number))
        assert (await client.response()).body == b"%d" % number
        await client.send(GET)
    assert scene.backend.connections == 1


async def test_clients_one_after_the_other_share_a_connection_to_the_backend(scene: Scene) -> None:
    scene.backend.script = always()
    for _ in range(5):
        assert (await scene.ask(GET)).status == 200
    assert scene.backend.connections == 1


async def test_requests_at_the_same_time_have_connections_of_their_own(scene: Scene) -> None:
    clients = [await scene.connect() for _ in range(3)]
    for client in clients:
        await client.send(GET)
    backends = [await scene.backend.accept() for _ in clients]
    for backend in reversed(backends):
        await backend.request()
        await backend.send(OK)
    for client in clients:
        assert (await client.response()).status == 200


async def test_pipelined_requests_are_answered_in_order(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(get("/1") + post(b"two", path="/2") + get("/3"))
    backend = await scene.backend.accept()
    for path, body in (("/1", b""), ("/2", b"two"), ("/3", b"")):
        request = await backend.request()
        assert (request.target, request.body) == (path, body)
        await backend.send(answer(path.encode()))
    assert [(await client.response()).body for _ in range(3)] == [b"/1", b"/2", b"/3"]
    assert scene.backend.connections == 1


async def test_a_pipelined_request_waits_for_the_answer_before_it(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(get("/1") + get("/2"))
    backend = await scene.backend.accept()
    assert (await backend.request()).target == "/1"
    assert await backend.quiet(0.2)
    await backend.send(OK)
    assert (await backend.request()).target == "/2"


async def test_a_thousand_pipelined_requests(scene: Scene) -> None:
    async def echo(wire: Wire) -> None:
        while True:
            await wire.send(answer((await wire.request()).target.encode()))

    scene.backend.script = echo
    client = await scene.connect()
    await client.send(b"".join(get(f"/{number}") for number in range(1000)))
    for number in range(1000):
        assert (await client.response()).body == b"/%d" % number


async def test_close_asked_by_the_client_closes_its_connection_only(scene: Scene) -> None:
    scene.backend.script = always()
    client = await scene.connect()
    await client.send(get("/", "Connection: close") + get("/never"))
    response = await client.response()
    assert response.get("connection") == "close"
    assert await client.ended() in ("fin", "rst")  # a reset, because there is a request that nobody read
    assert (await scene.ask(GET)).status == 200
    assert scene.backend.connections == 1


async def test_close_asked_by_the_backend_closes_its_connection_only(scene: Scene) -> None:
    client = await scene.connect()
    for _ in range(2):
        await client.send(GET)
        backend = await scene.backend.accept()
        await backend.request()
        await backend.send(answer(b"bye", "Connection: close"))
        response = await client.response()
        assert (response.body, response.get("connection")) == (b"bye", None)
        assert await backend.ended()
    assert scene.backend.connections == 2


@pytest.mark.parametrize(("fields", "kept"), [((), False), (("Connection: keep-alive",), True)])
async def test_a_client_of_http_1_0(scene: Scene, fields: tuple[str, ...], kept: bool) -> None:
    scene.backend.script = always()
    client = await scene.connect()
    for _ in range(2 if kept else 1):
        await client.send(get("/", *fields, version="1.0"))
        response = await client.response()
        assert (response.status, response.body) == (200, b"ok")
        assert response.get("connection") == ("keep-alive" if kept else "close")
    if not kept:
        assert await client.ended() == "fin"


async def test_http_1_0_without_a_host_reaches_the_backend_as_1_1_with_one(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(head("GET / HTTP/1.0"))
    backend = await scene.backend.accept()
    request = await backend.request()
    assert (request.version, request.get("host")) == ("HTTP/1.1", scene.backend.address)
    await backend.send(OK)
    assert (await client.response()).status == 200


async def test_a_backend_of_http_1_0_is_asked_on_a_new_connection_each_time(scene: Scene) -> None:
    client = await scene.connect()
    for _ in range(2):
        await client.send(GET)
        backend = await scene.backend.accept()
        await backend.request()
        await backend.send(b"HTTP/1.0 200 OK\r\n\r\nup to the end")
        backend.close()
        response = await client.response()
        assert (response.body, response.version) == (b"up to the end", "HTTP/1.1")


async def test_an_idle_connection_that_the_backend_closed_is_not_used(scene: Scene) -> None:
    client, backend = await scene.acquainted()
    backend.end()
    assert await backend.ended()  # the balancer has noticed
    await client.send(post(b"not to be tried twice"))
    backend = await scene.backend.accept()
    assert (await backend.request()).body == b"not to be tried twice"
    await backend.send(OK)
    assert (await client.response()).status == 200


async def test_a_backend_that_speaks_unasked_loses_its_connection(scene: Scene) -> None:
    client, backend = await scene.acquainted()
    await backend.send(answer(b"poison"))
    assert await backend.ended()
    await client.send(GET)
    backend = await scene.backend.accept()
    await backend.request()
    await backend.send(answer(b"good"))
    assert (await client.response()).body == b"good"


async def test_no_get_is_lost_to_a_backend_that_closes_connections_as_it_likes(scene: Scene) -> None:
    """Each connection ends after 1 to 10 answers, without notice, which races with the next request."""
    rng = random.Random(7)

    async def moody(wire: Wire) -> None:
        for _ in range(rng.randint(1, 10)):
            await wire.request()
            await wire.send(OK)

    async def ask(times: int) -> list[int | None]:
        client = await scene.connect()
        statuses = []
        for _ in range(times):
            await client.send(GET)
            statuses.append((await client.response()).status)
        return statuses

    scene.backend.script = moody
    found = await asyncio.gather(*(ask(300) for _ in range(10)))
    assert [status for statuses in found for status in statuses] == [200] * 3000
    assert scene.backend.connections >= 300


async def test_a_post_is_never_sent_twice(scene: Scene) -> None:
    client, backend = await scene.acquainted()
    await client.send(post(b"once"))
    assert (await backend.request()).body == b"once"
    backend.close()
    assert (await client.response()).status == 502
    assert await scene.backend.no_more()


async def test_a_request_may_come_in_any_two_pieces(scene: Scene) -> None:
    scene.backend.script = always()
    request = post(b"hello")
    client = await scene.connect()
    for cut in range(1, len(request)):
        await client.send(request[:cut])
        assert await client.quiet(0.003), cut
        await client.send(request[cut:])
        assert (await client.response()).status == 200, (request[:cut], request[cut:])


async def test_a_response_may_come_in_any_two_pieces(scene: Scene) -> None:
    reply = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\nX-Last: 1\r\n\r\n"
    client = await scene.connect()
    await client.send(get("/", "TE: trailers"))
    backend = await scene.backend.accept()
    for cut in range(1, len(reply)):
        await backend.request()
        await backend.send(reply[:cut])
        assert await backend.quiet(0.003), cut
        await backend.send(reply[cut:])
        response = await client.response()
        assert (response.body, response.trailers) == (b"hello", [("x-last", b"1")]), cut
        await client.send(get("/", "TE: trailers"))
