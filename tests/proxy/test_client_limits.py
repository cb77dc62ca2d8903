"""What one client may take: requests on a connection, connections, and time for a body."""

from __future__ import annotations

import asyncio
from pathlib import Path

import trustme

from tests.certificates import client_context, write_pair
from tests.e2e.conftest import Play
from tests.e2e.process import eventually
from tests.e2e.scene import Scene
from tests.e2e.wire import GET, Wire, always, answer, get, head


def config(limits: str = "", timeouts: str = "", more: str = "") -> str:
    return (
        f"listeners: [{{bind: 127.0.0.1:0, limits: {{{limits}}}, timeouts: {{{timeouts}}}}}]\n"
        f"admin: {{bind: 127.0.0.1:0}}\naccess_log: off\n{more}"
        "pools: {p: {backends: [$a]}}\n"
    )


async def connect_from(scene: Scene, address: str) -> Wire:
    return Wire(*await asyncio.open_connection("127.0.0.1", scene.balancer.port, local_addr=(address, 0)))


# --- requests of a connection ---


async def test_the_last_request_of_a_connection_closes_it(play: Play) -> None:
    scene = await play(config("requests_per_connection: 3"))
    scene.backend.script = always()
    client = await scene.connect()
    for number in (1, 2, 3):
        await client.send(GET)
        response = await client.response()
        assert (response.status, response.get("connection")) == (200, "close" if number == 3 else None)
    assert await client.ended() == "fin"


async def test_what_was_sent_ahead_costs_no_answer(play: Play) -> None:
    """Five requests at once where three are served: all three answers arrive, though more was on its way."""
    scene = await play(config("requests_per_connection: 3"))
    scene.backend.script = always(answer(b"x" * 100_000))
    for _ in range(5):
        client = await scene.connect()
        await client.send(GET * 5)
        for _ in range(3):
            assert (await client.response()).status == 200
            await client.send(GET * 50)
        assert not client.received
        client.end()
        assert await client.ended() == "fin"
    assert scene.backend.connections >= 1
    assert scene.balancer.metric("lb_client_requests_total", code="200") == 15


async def test_a_request_that_fails_counts_too(play: Play) -> None:
    scene = await play(
        config("requests_per_connection: 2", more="routes: [{match: {path_prefix: /a}, pool: p}]\n")
    )
    client = await scene.connect()
    for close in (None, "close"):
        await client.send(get("/b"))
        response = await client.response()
        assert (response.status, response.get("connection")) == (404, close)
    assert await client.ended() == "fin"


async def test_one_that_asks_only_us_counts_too(play: Play) -> None:
    scene = await play(config("requests_per_connection: 2"))
    client = await scene.connect()
    for close in (None, "close"):
        await client.send(head("OPTIONS * HTTP/1.1", "Host: a.example", "Max-Forwards: 0"))
        response = await client.response("OPTIONS")
        assert (response.status, response.get("connection")) == (200, close)
    assert await client.ended() == "fin"


async def test_one_request_each(play: Play) -> None:
    scene = await play(config("requests_per_connection: 1"))
    scene.backend.script = always()
    for _ in range(3):
        client = await scene.connect()
        await client.send(GET)
        assert (await client.response()).get("connection") == "close"
        assert await client.ended() == "fin"


# --- connections of a client ---


async def test_a_client_has_so_many_connections_and_others_have_theirs(play: Play) -> None:
    scene = await play(config("connections_per_client: 3", more="trusted_proxies: [127.0.0.9]\n"))
    scene.backend.script = always()
    mine = [await scene.connect() for _ in range(3)]
    for client in mine:
        await client.send(GET)
        assert (await client.response()).status == 200
    for _ in range(5):
        too_many = await scene.connect()
        assert await too_many.ended() in ("fin", "rst")
    theirs = [await connect_from(scene, "127.0.0.2") for _ in range(3)]
    proxies = [await connect_from(scene, "127.0.0.9") for _ in range(10)]
    for client in (*mine, *theirs, *proxies):
        await client.send(GET)
        assert (await client.response()).status == 200
    said = scene.balancer.said()
    assert said.count("127.0.0.1 has 3 connections, and gets no more") == 1, "not for each of them"
    mine[0].close()
    await eventually(lambda: scene.balancer.metric("lb_client_connections") == 15, "the end of one")
    again = await scene.connect()
    await again.send(GET)
    assert (await again.response()).status == 200
    for client in (*theirs, *proxies):
        client.reset()


async def test_none_is_forgotten_however_they_end(play: Play) -> None:
    scene = await play(config("connections_per_client: 2"))
    scene.backend.script = always()
    for number in range(20):
        clients = [await scene.connect(), await scene.connect()]
        await clients[0].send(GET)
        await clients[0].response()
        await clients[1].send(b"GET /")
        if number % 2:
            refused = await scene.connect()
            assert await refused.gone() in ("fin", "rst")
        clients[0].close()
        clients[1].reset()
        await eventually(lambda: scene.balancer.metric("lb_client_connections") == 0, "their end")


async def test_the_clients_of_a_unix_socket_are_not_one(play: Play, tmp_path) -> None:
    path = tmp_path / "s"
    text = config("connections_per_client: 1").replace("[{bind: 127.0.0.1:0,", f"[{{bind: unix:{path},")
    scene = await play(text.replace("listeners: [", "listeners: [{bind: 127.0.0.1:0}, "))
    scene.backend.script = always()
    clients = [Wire(*await asyncio.open_unix_connection(path)) for _ in range(5)]
    for client in clients:
        await client.send(GET)
        assert (await client.response()).status == 200
        client.close()


async def test_who_a_header_names_is_counted_though_it_comes_by_a_unix_socket(
    play: Play, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    text = config("connections_per_client: 1").replace(
        "[{bind: 127.0.0.1:0,", f"[{{bind: 127.0.0.1:0}}, {{bind: unix:{path}, proxy_protocol: true,"
    )
    scene = await play(text)
    scene.backend.script = always()
    clients = []
    for source in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        client = Wire(*await asyncio.open_unix_connection(path))
        clients.append(client)
        await client.send(f"PROXY TCP4 {source} 192.0.2.99 1000 80\r\n".encode() + GET)
        if len(clients) == 3:
            assert await client.ended() in ("fin", "rst")
        else:
            assert (await client.response()).status == 200
    for client in clients:
        client.close()


async def test_a_handshake_is_a_connection(play: Play, tmp_path: Path) -> None:
    """Else who never finishes one could have any number of them."""
    authority = trustme.CA()
    cert, key = write_pair(tmp_path, authority, "localhost", "localhost")
    tls = f"connections_per_client: 3}}, tls: {{certificates: [{{cert: {cert}, key: {key}}}]"
    scene = await play(config(tls, more="trusted_proxies: [127.0.0.9]\n"))
    scene.backend.script = always()
    for _ in range(3):
        halting = [await scene.connect() for _ in range(2)]
        client = await scene.connect(scene.balancer.port, client_context(authority))
        await client.send(GET)
        assert (await client.response()).status == 200
        for _ in range(3):
            too_many = await scene.connect()
            assert await too_many.gone() in ("fin", "rst")
        theirs = await connect_from(scene, "127.0.0.9")
        assert await theirs.quiet(0.1), "a trusted proxy may have any number"
        for each in (*halting, client, theirs):
            each.reset()
        await eventually(lambda: scene.balancer.metric("lb_client_connections") == 0, "their end")


# --- bodies that come too slowly ---

POST = head("POST / HTTP/1.1", "Host: a", "Content-Length: 100000")


async def trickle(client: Wire, pieces: int, size: int, gap: float) -> bool:
    """Sends so many pieces, or as many as it may; whether all of them were taken."""
    for _ in range(pieces):
        client.push(b"x" * size)
        if await client.more(gap):
            return False
    return True


async def test_a_body_that_trickles_is_bounded_and_an_honest_one_is_not(play: Play) -> None:
    """No gap is as long as the timeout: without a rate, the first one would go on for hours."""
    scene = await play(config("body_rate: 1000", "request_body: 1s"))

    async def read_all(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        while await wire.read():
            wire.received = b""

    scene.backend.script = read_all
    slow, honest = await scene.connect(), await scene.connect()
    for client in (slow, honest):
        await client.send(POST)
    taken = await asyncio.gather(trickle(slow, 100, 1, 0.2), trickle(honest, 15, 400, 0.2))
    assert taken == [False, True]
    response = await slow.response()
    assert (response.status, response.get("connection")) == (408, "close")
    record = scene.balancer.record(response.get("x-request-id") or "")
    assert record["failure"]["name"] == "request_timeout"


async def test_without_a_rate_only_gaps_count(play: Play) -> None:
    scene = await play(config("body_rate: off", "request_body: 1s"))
    client = await scene.connect()
    await client.send(POST)
    assert await trickle(client, 15, 1, 0.2)
    response = await client.response()
    assert response.status == 408


async def test_a_burst_buys_no_more_than_the_timeout(play: Play) -> None:
    scene = await play(config("body_rate: 1000", "request_body: 1s"))
    client = await scene.connect()
    await client.send(POST, b"x" * 50_000)
    assert not await trickle(client, 20, 1, 0.2)
    assert (await client.response()).status == 408


async def test_a_backend_that_is_slow_is_not_held_against_the_client(play: Play) -> None:
    """For longer than the timeout nothing is read from the client, whose rate is none of its making."""
    scene = await play(config("body_rate: 1MiB", "request_body: 500ms"))
    size = 16 << 20
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a", f"Content-Length: {size}"))
    pouring = asyncio.ensure_future(client.pour(size, 20))
    backend = await scene.backend.accept()
    backend.stop_reading()
    await asyncio.sleep(1.5)  # three times the timeout
    backend.go_on_reading()
    await backend.until(b"\r\n\r\n")
    assert await backend.count(size) == size
    assert await pouring == size
    await backend.send(answer())
    assert (await client.response()).status == 200


# --- the head ---


async def test_what_is_too_long_or_too_much_has_its_own_status(play: Play) -> None:
    scene = await play(config("request_line: 300, header_bytes: 500, header_count: 10, body: 100"))
    scene.backend.script = always()
    many = [f"X-{number}: 1" for number in range(10)]
    for request, status, failure in (
        (get("/" + "a" * 300), 414, "uri_too_long"),
        (b"GET /" + b"a" * 400, 414, "uri_too_long"),
        (get("/", "X-Long: " + "a" * 500), 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 900, 431, "head_too_large"),
        (get("/", *many), 431, "head_too_large"),
        (head("POST / HTTP/1.1", "Host: a", "Content-Length: 101"), 413, "body_too_large"),
        (
            head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked") + b"65\r\n" + b"a" * 101,
            *(413, "body_too_large"),
        ),
        (get("/", *many[:9]), 200, None),
    ):
        client = await scene.connect()
        await client.send(request)
        response = await client.response()
        assert (response.status, failure is None or failure.encode() in response.body) == (status, True)
        assert response.get("connection") == (None if status == 200 else "close")
