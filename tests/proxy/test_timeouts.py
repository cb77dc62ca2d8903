"""Everything that takes too long: who is told, with which status, and who is not blamed for another."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from lb.proxy.timeouts import NEVER, TICK, Sweeper
from tests.e2e.scene import Scene
from tests.e2e.wire import GET, OK, Wire, get, head

CONFIG = """
listeners:
  - bind: 127.0.0.1:0
    timeouts: {request_header: 500ms, request_body: 800ms, keepalive: 1s}
    limits: {body_rate: off} # tests/proxy/test_client_limits.py has it
  - bind: 127.0.0.1:0
    timeouts: {request_body: 1500ms}
admin: {bind: 127.0.0.1:0}
access_log: off
routes:
  - {match: {path_prefix: /slow}, pool: slow}
  - {match: {path_prefix: /patient}, pool: patient}
  - {match: {path_prefix: /unreachable}, pool: unreachable}
pools:
  slow: {backends: [$a], timeouts: {response_header: 500ms, idle: 600ms}, retries: off}
  patient: {backends: [$b]}
  unreachable: {backends: [$c], timeouts: {connect: 500ms}, retries: off}
"""


async def failure(scene: Scene, request_id: str | None) -> str:
    return str(scene.balancer.record(request_id or "")["failure"]["name"])


async def test_a_backend_that_does_not_answer_is_a_504(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(get("/slow"))
    backend = await scene.backends["a"].accept()
    await backend.request()
    response = await client.response()
    assert response.status == 504
    assert await failure(scene, response.get("x-request-id")) == "response_timeout"
    assert await backend.ended()
    await client.send(get("/patient"))  # the client is not to blame, and may go on
    backend = await scene.backends["b"].accept()
    await backend.request()
    await backend.send(OK)
    assert (await client.response()).status == 200


async def test_a_backend_that_stops_in_its_answer_is_cut(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(get("/slow"))
    backend = await scene.backends["a"].accept()
    await backend.request()
    await backend.send(head("HTTP/1.1 200 OK", "Content-Length: 10") + b"half")
    response = await client.rest()
    assert (response.status, response.complete, response.body) == (200, False, b"half")
    assert await failure(scene, response.get("x-request-id")) == "stalled"
    assert await backend.ended()


async def test_a_slow_answer_that_keeps_coming_is_not_cut(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(get("/slow"))
    backend = await scene.backends["a"].accept()
    await backend.request()
    await backend.send(head("HTTP/1.1 200 OK", "Content-Length: 5"))
    for _ in range(5):
        assert await backend.quiet(0.3)
        await backend.send(b"x")
    assert (await client.response()).body == b"xxxxx"


async def test_a_backend_that_cannot_be_reached_in_time_is_a_504(scene: Scene) -> None:
    """Its queue of connections is full, so that the kernel ignores new ones."""
    await scene.backends["c"].close()
    listening = scene.backends["c"].listening
    listening.listen(0)
    waiting = [_start_connecting(listening) for _ in range(3)]
    try:
        client = await scene.connect()
        await client.send(get("/unreachable"))
        response = await client.response()
        assert response.status == 504
        assert await failure(scene, response.get("x-request-id")) == "connect_timeout"
    finally:
        for each in waiting:
            each.close()


def _start_connecting(listening: socket.socket) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(listening.getsockname())
    return client


@pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r\nHost: a.exam"])
async def test_a_head_that_does_not_end_is_a_408(scene: Scene, start: bytes) -> None:
    client = await scene.connect()
    await client.send(start)
    response = await client.response()
    assert (response.status, response.get("connection")) == (408, "close")
    assert await failure(scene, response.get("x-request-id")) == "request_timeout"
    assert await client.ended() == "fin"


async def test_a_head_that_trickles_is_a_408(scene: Scene) -> None:
    """Each byte comes in time, but the whole does not."""
    client = await scene.connect()
    started = time.monotonic()
    for octet in GET:
        await client.send(bytes([octet]))
        if not await client.quiet(0.1):
            break
    assert 0.4 < time.monotonic() - started < 1.5
    assert (await client.response()).status == 408


async def test_a_second_head_that_trickles_is_a_408_too(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(get("/patient"))
    backend = await scene.backends["b"].accept()
    await backend.request()
    await client.send(b"GET")  # pipelined, and then nothing
    assert await client.quiet(0.1)
    await backend.send(OK)
    assert (await client.response()).status == 200
    started = time.monotonic()
    assert (await client.response()).status == 408
    assert time.monotonic() - started < 0.9, "that was the time for an idle connection, not for a head"


async def test_a_client_that_sends_nothing_at_all_is_closed_quietly(scene: Scene) -> None:
    client = await scene.connect()
    assert await client.ended(2) == "fin"


async def test_an_idle_connection_is_closed_quietly(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(get("/patient"))
    backend = await scene.backends["b"].accept()
    await backend.request()
    await backend.send(OK)
    await client.response()
    assert await client.quiet(0.7)
    assert await client.ended(2) == "fin"


async def test_a_body_that_stops_is_a_408_and_frees_the_backend(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(head("POST /patient HTTP/1.1", "Host: a", "Content-Length: 10") + b"half")
    backend = await scene.backends["b"].accept()
    await backend.until(b"half")
    response = await client.response()
    assert (response.status, response.get("connection")) == (408, "close")
    assert await backend.ended()
    assert await client.ended() == "fin"
    assert scene.balancer.metric("lb_backend_failures_total", pool="patient") == 0


async def test_a_body_that_trickles_is_taken(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(head("POST /patient HTTP/1.1", "Host: a", "Content-Length: 5"))
    backend = await scene.backends["b"].accept()
    for octet in b"hello":
        assert await client.quiet(0.4)
        await client.send(bytes([octet]))
    await backend.until(b"hello")
    await backend.send(OK)
    assert (await client.response()).status == 200


async def test_a_backend_is_not_blamed_for_a_client_that_pauses_in_its_upload(scene: Scene) -> None:
    """The time for the response's head begins with the end of the request."""
    client = await scene.connect(int(scene.balancer.addresses[1].rpartition(":")[2]))
    await client.send(head("POST /slow HTTP/1.1", "Host: a", "Content-Length: 10") + b"first")
    backend = await scene.backends["a"].accept()
    await backend.until(b"first")
    assert await client.quiet(1.1)
    await client.send(b" last")
    await backend.until(b" last")
    await backend.send(OK)
    assert (await client.response()).status == 200


async def test_a_client_is_not_blamed_for_a_backend_that_pauses_in_reading(scene: Scene) -> None:
    """It would like to send on, but we don't read: the time for its body stands still."""
    size = 40_000_000
    client = await scene.connect()
    client.push(head("POST /patient HTTP/1.1", "Host: a", f"Content-Length: {size}"))
    backend = await scene.backends["b"].accept()
    await backend.until(b"\r\n\r\n")
    backend.stop_reading()
    client.push(bytes(size))
    assert await client.quiet(2), client.received
    backend.go_on_reading()
    assert await backend.count(size) == size
    await backend.send(OK)
    assert (await client.response()).status == 200


class Late:
    """Something whose time is over, and whose end gives the others more time."""

    def __init__(self, all_of_them: list[Late]) -> None:
        self.deadline = time.monotonic()
        self.told = 0
        self._all = all_of_them

    def on_deadline(self, now: float) -> None:
        self.told += 1
        for each in self._all:
            each.deadline = NEVER


async def test_who_gets_more_time_within_a_sweep_is_not_late() -> None:
    """A request whose time in the queue is over just as the end of another one gives it its turn, say, or
    the idle connection that it then takes."""
    late: list[Late] = []
    late += [Late(late), Late(late)]
    sweeper = Sweeper(asyncio.get_running_loop())
    for each in late:
        sweeper.watch(each)
    sweeper.start()
    await asyncio.sleep(2 * TICK)
    sweeper.stop()
    assert sum(each.told for each in late) == 1


async def both_ways(scene: Scene) -> tuple[Wire, Wire, int]:
    """A response that comes while the request's body still does, and whose client does not read on. And how
    much of it the backend could send."""
    client = await scene.connect()
    await client.send(
        head("PUT /slow HTTP/1.1", "Host: a.example", "Transfer-Encoding: chunked"), b"1\r\na\r\n"
    )
    backend = await scene.backends["a"].accept()
    await backend.until(b"a\r\n")
    client.stop_reading()
    await backend.send(head("HTTP/1.1 200 OK", "Content-Length: 100000000"))
    return client, backend, await backend.pour(100_000_000, 0.2)


async def test_an_upload_goes_on_behind_a_response_that_had_to_wait(scene: Scene) -> None:
    client, backend, sent = await both_ways(scene)
    client.go_on_reading()
    reading = asyncio.ensure_future(client.count(sent))
    for _ in range(6):
        await client.send(b"3\r\nxyz\r\n")
        await backend.until(b"xyz\r\n")
        await asyncio.sleep(0.2)
    assert await reading >= sent


async def test_and_it_must_not_stop_there(scene: Scene) -> None:
    client, backend, sent = await both_ways(scene)
    client.go_on_reading()
    await client.count(sent)
    assert await backend.gone()  # by the time that the listener has for request bodies
    record = scene.balancer.api("/api/requests?failure=request_timeout")["requests"][0]
    assert record["status"] == 200


async def test_a_client_that_reads_slowly_is_no_stall_of_the_backend(scene: Scene) -> None:
    client, _, sent = await both_ways(scene)
    await client.send(b"0\r\n\r\n")
    await asyncio.sleep(1.2)
    client.go_on_reading()
    assert await client.count(sent) >= sent
