"""Limits on requests and connections, the queue behind them, and rates."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.process import until
from tests.e2e.scene import Scene
from tests.e2e.wire import OK, Wire, answer, get, head

CONFIG = """
access_log: off
admin: {bind: 127.0.0.1:0}
listeners: [{bind: 127.0.0.1:0}]
routes:
  - {match: {path_prefix: /rated}, pool: free, rate_limit: {requests: 2, per: 1m}}
  - {match: {path_prefix: /keyed}, pool: free, rate_limit: {requests: 1, per: 1m, key: "header:x-user"}}
  - {match: {path_prefix: /free}, pool: free}
  - {match: {path_prefix: /few}, pool: few}
  - {match: {path_prefix: /again}, pool: again}
  - {match: {path_prefix: /short}, pool: one, timeouts: {total: 300ms}}
  - {pool: one}
pools:
  one:
    outlier_detection: off
    limits: {requests_per_backend: 1, queue: 2, queue_timeout: 800ms}
    backends: [{id: a, address: $a}]
  few:
    balancer: round_robin
    limits: {connections: 2, queue: off}
    backends: [{id: a, address: $a}, {id: b, address: $b}]
  again:
    balancer: round_robin
    outlier_detection: off
    limits: {requests: 1, queue_timeout: 3s}
    retries: {min_per_second: 1000}
    backends: [{id: a, address: $a}, {id: b, address: $b}]
  free:
    backends: [{id: a, address: $a}]
"""


async def asking(scene: Scene, request: bytes) -> Wire:
    """A client that waits for its answer."""
    client = await scene.connect()
    await client.send(request)
    return client


async def queued(scene: Scene, number: int) -> None:
    """Waits until so many are in the queue."""

    def there() -> bool:
        return scene.balancer.metric("lb_pool_queue_length") == number

    await asyncio.to_thread(until, there, f"{number} in the queue", 5)


async def test_who_waits_gets_the_next_free_place_in_turn(scene: Scene) -> None:
    first = await asking(scene, get("/1"))
    backend = await scene.backends["a"].accept()
    assert (await backend.request()).target == "/1"
    waiting = []
    for number in (2, 3):
        waiting.append(await asking(scene, get(f"/{number}")))
        await queued(scene, number - 1)
    for client, path in zip([first, *waiting], ["/2", "/3", ""], strict=True):
        await backend.send(OK)
        assert (await client.response()).status == 200
        if path:
            assert (await backend.request()).target == path
    assert scene.backends["a"].connections == 1


async def test_no_place_in_the_queue(scene: Scene) -> None:
    first = await asking(scene, get("/1"))
    backend = await scene.backends["a"].accept()
    await backend.request()
    waiting = []
    for number in (2, 3):
        waiting.append(await asking(scene, get(f"/{number}")))
        await queued(scene, number - 1)
    response = await scene.ask(get("/4"))
    assert (response.status, response.get("retry-after")) == (503, "1")
    assert scene.balancer.record(response.get("x-request-id") or "")["failure"]["name"] == "overloaded"
    assert scene.balancer.metric("lb_pool_rejected_total", failure="overloaded") >= 1
    await backend.send(OK)
    assert (await first.response()).status == 200


async def test_the_wait_has_an_end(scene: Scene) -> None:
    await asking(scene, get("/1"))
    backend = await scene.backends["a"].accept()
    await backend.request()
    late = await asking(scene, get("/2"))
    response = await late.response()
    assert (response.status, response.get("retry-after")) == (503, "1")
    record = scene.balancer.record(response.get("x-request-id") or "")
    assert (record["failure"]["name"], record["attempts"]) == ("queue_timeout", [])
    await queued(scene, 0)


async def test_the_total_time_counts_in_the_queue(scene: Scene) -> None:
    await asking(scene, get("/1"))
    backend = await scene.backends["a"].accept()
    await backend.request()
    response = await scene.ask(get("/short"))
    assert response.status == 504
    assert scene.balancer.record(response.get("x-request-id") or "")["failure"]["name"] == "timeout"


async def test_who_goes_leaves_the_queue(scene: Scene) -> None:
    first = await asking(scene, get("/1"))
    backend = await scene.backends["a"].accept()
    await backend.request()
    gone = await asking(scene, get("/2"))
    await queued(scene, 1)
    stays = await asking(scene, get("/3"))
    await queued(scene, 2)
    gone.reset()
    await queued(scene, 1)
    await backend.send(OK)
    assert (await first.response()).status == 200
    assert (await backend.request()).target == "/3"
    await backend.send(OK)
    assert (await stays.response()).status == 200


async def test_a_body_waits_too(scene: Scene) -> None:
    first = await asking(scene, get("/1"))
    backend = await scene.backends["a"].accept()
    await backend.request()
    client = await scene.connect()
    await client.send(head("PUT /2 HTTP/1.1", "Host: a.example", "Content-Length: 300000"), bytes(100_000))
    await queued(scene, 1)
    await backend.send(OK)
    assert (await first.response()).status == 200
    await client.send(bytes(200_000))
    assert len((await backend.request()).body) == 300_000
    await backend.send(OK)
    assert (await client.response()).status == 200


async def test_who_goes_leaves_the_queue_though_its_body_is_here(scene: Scene) -> None:
    """It came at once, and filled what is kept of a body meanwhile."""
    first = await asking(scene, get("/1"))
    backend = await scene.backends["a"].accept()
    await backend.request()
    gone = await asking(scene, head("PUT /2 HTTP/1.1", "Host: a.example", "Content-Length: 100000"))
    await queued(scene, 1)
    await gone.send(bytes(1000))
    await asyncio.sleep(0.1)
    gone.reset()
    started = asyncio.get_running_loop().time()
    await queued(scene, 0)
    assert asyncio.get_running_loop().time() - started < 0.4, "it went when its time was over"
    await backend.send(OK)
    assert (await first.response()).status == 200


async def test_who_waits_is_not_let_in_beside_a_request_that_is_sent_again(scene: Scene) -> None:
    """Its idle connection was closed under it: that frees no place at the backend."""
    first = await asking(scene, get("/1"))
    backend = await scene.backends["a"].accept()
    await backend.request()
    await backend.send(OK)
    await first.response()
    await first.send(get("/2"))
    await backend.request()
    waits = await asking(scene, get("/3"))
    await queued(scene, 1)
    backend.reset()
    backend = await scene.backends["a"].accept()
    assert (await backend.request()).target == "/2"
    assert await scene.backends["a"].no_more()
    await backend.send(OK)
    assert (await first.response()).status == 200
    assert (await backend.request()).target == "/3"
    await backend.send(OK)
    assert (await waits.response()).status == 200


async def test_who_waits_gets_the_place_of_a_request_that_is_not_sent_again(scene: Scene) -> None:
    first = await asking(scene, get("/1"))
    backend = await scene.backends["a"].accept()
    await backend.request()
    await backend.send(OK)
    await first.response()
    await first.send(get("/2").replace(b"GET", b"POST", 1))
    await backend.request()
    waits = await asking(scene, get("/3"))
    await queued(scene, 1)
    backend.reset()
    backend = await scene.backends["a"].accept()
    assert (await backend.request()).target == "/3"
    await backend.send(OK)
    assert (await waits.response()).status == 200
    assert (await first.response()).status == 502


@pytest.mark.parametrize(
    "failure",
    [b"nonsense\r\n\r\n", answer(status="503 Service Unavailable")],
)
async def test_another_attempt_goes_before_those_who_wait(scene: Scene, failure: bytes) -> None:
    first = await asking(scene, get("/again/1"))
    failing = await scene.first()
    await failing.request()
    await asking(scene, get("/again/2"))
    await queued(scene, 1)
    await failing.send(failure)
    other = await scene.first()
    assert (await other.request()).target == "/again/1"
    await queued(scene, 1)
    await other.send(OK)
    assert (await first.response()).status == 200
    await queued(scene, 0)


async def test_an_error_that_is_passed_on_frees_its_place(scene: Scene) -> None:
    first = await asking(scene, get("/1"))
    backend = await scene.backends["a"].accept()
    await backend.request()
    waits = await asking(scene, get("/2"))
    await queued(scene, 1)
    await backend.send(answer(b"no", status="404 Not Found"))
    assert (await first.response()).status == 404
    assert (await backend.request()).target == "/2"
    await backend.send(head("HTTP/1.1 500 Internal Server Error", "Content-Length: 4"))
    last = await asking(scene, get("/3"))
    await queued(scene, 1)
    await backend.send(b"oops")
    assert (await waits.response()).status == 500
    assert (await backend.request()).target == "/3"
    await backend.send(OK)
    assert (await last.response()).status == 200


async def test_connections_of_a_pool(scene: Scene) -> None:
    """An idle one makes room for one to another backend."""
    for round_ in range(6):
        client = await asking(scene, get(f"/few/{round_}"))
        wire = await scene.first()
        await wire.request()
        await wire.send(OK)
        assert (await client.response()).status == 200
        client.close()
        wire.close()
    scene.backends["a"].serve(OK)
    scene.backends["b"].serve(OK)
    for _ in range(6):
        assert (await scene.ask(get("/few"))).status == 200
    assert scene.balancer.metric("lb_backend_connections", pool="few") <= 2


async def test_a_rate_per_client(scene: Scene) -> None:
    scene.backends["a"].serve(OK)
    responses = [await scene.ask(get("/rated")) for _ in range(3)]
    assert [response.status for response in responses] == [200, 200, 429]
    assert 25 <= int(responses[2].get("retry-after") or "0") <= 30
    record = scene.balancer.record(responses[2].get("x-request-id") or "")
    assert record["failure"]["name"] == "rate_limited"
    assert (await scene.ask(get("/free"))).status == 200


async def test_a_rate_per_value_of_a_header(scene: Scene) -> None:
    scene.backends["a"].serve(OK)
    statuses = [
        (await scene.ask(get("/keyed", f"X-User: {user}"))).status for user in ("ann", "bob", "ann", "bob")
    ]
    assert statuses == [200, 200, 429, 429]
