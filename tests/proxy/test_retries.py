"""Another attempt at another backend: what may be hidden from the client, and what may not."""

from __future__ import annotations

import pytest

from tests.e2e.scene import Scene
from tests.e2e.wire import OK, Wire, answer, get, head, post

CONFIG = """
access_log: off
admin: {bind: 127.0.0.1:0}
listeners: [{bind: 127.0.0.1:0}]
routes:
  - {match: {path_prefix: /dead}, pool: half_dead}
  - {match: {path_prefix: /never}, pool: pair, retries: off}
  - {match: {path_prefix: /short}, pool: pair, timeouts: {total: 500ms}}
  - {match: {path_prefix: /poor}, pool: poor}
  - {match: {path_prefix: /twice}, pool: pair, retries: {attempts: 2}}
  - {pool: pair}
pools:
  pair:
    balancer: round_robin
    outlier_detection: off
    timeouts: {response_header: 1s}
    retries: {min_per_second: 1000}
    backends: [{id: a, address: $a}, {id: b, address: $b}]
  poor:
    balancer: round_robin
    outlier_detection: off
    retries: {budget: 0%, min_per_second: 0}
    backends: [{id: a, address: $a}, {id: b, address: $b}]
  half_dead:
    balancer: round_robin
    outlier_detection: off
    retries: {min_per_second: 1000}
    backends: [{id: dead, address: "127.0.0.1:1"}, {id: b, address: $b}]
"""

GARBAGE = b"nonsense\r\n\r\n"


async def other_than(scene: Scene, first: Wire) -> Wire:
    """The connection at the other backend, where the second attempt comes."""
    names = [name for name, backend in scene.backends.items() if first not in backend.wires]
    assert len(names) == 1
    return await scene.backends[names[0]].accept()


async def reset(wire: Wire) -> None:
    wire.reset()


async def talk_nonsense(wire: Wire) -> None:
    await wire.send(GARBAGE)


async def say_nothing(wire: Wire) -> None:
    pass


async def be_unavailable(wire: Wire) -> None:
    await wire.send(answer(b"later", status="503 Service Unavailable"))


async def be_unavailable_at_length(wire: Wire) -> None:
    """A head, and a body that is still to come."""
    await wire.send(head("HTTP/1.1 503 Service Unavailable", "Content-Length: 1000"), b"begun")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
@pytest.mark.parametrize(
    ("fail", "failure"),
    [
        (reset, "reset"),
        (talk_nonsense, "bad_response"),
        (say_nothing, "response_timeout"),
        (be_unavailable, None),
        (be_unavailable_at_length, None),
    ],
)
async def test_an_idempotent_request_goes_to_the_other_one(scene, method, fail, failure) -> None:
    client, first = await scene.meet(get("/").replace(b"GET", method.encode(), 1))
    await fail(first)
    second = await other_than(scene, first)
    assert (await second.request()).method == method
    await second.send(head("HTTP/1.1 200 OK", "Content-Length: 0"))
    response = await client.response(method)
    assert response.status == 200
    attempts = scene.balancer.record(response.get("x-request-id"))["attempts"]
    assert len({attempt["backend"] for attempt in attempts}) == 2
    assert (attempts[0]["failure"] or {}).get("name") == failure
    assert attempts[1]["status"] == 200


@pytest.mark.parametrize(
    ("fail", "status"), [(reset, 502), (talk_nonsense, 502), (say_nothing, 504), (be_unavailable, 503)]
)
async def test_a_post_that_has_been_sent_does_not(scene: Scene, fail, status) -> None:
    client, first = await scene.meet(post(b"order"))
    await fail(first)
    response = await client.response()
    assert response.status == status
    assert len(scene.balancer.record(response.get("x-request-id") or "")["attempts"]) == 1


async def test_a_post_goes_on_where_nothing_could_be_sent(scene: Scene) -> None:
    scene.backends["b"].serve(OK)
    for _ in range(4):
        response = await scene.ask(post(b"order", path="/dead"))
        assert response.status == 200
        attempts = scene.balancer.record(response.get("x-request-id") or "")["attempts"]
        if len(attempts) == 2:
            assert attempts[0]["failure"]["name"] == "connect_failed"
            break
    else:
        raise AssertionError("nobody ever tried the dead one")
    assert scene.balancer.metric("lb_backend_retries_total", backend="dead") > 0


@pytest.mark.parametrize("size", [1, 65536])
async def test_a_body_is_kept_for_the_second_attempt(scene: Scene, size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    client = await scene.connect()
    await client.send(post(body).replace(b"POST", b"PUT", 1))
    first = await scene.first()
    assert (await first.request()).body == body
    first.reset()
    second = await other_than(scene, first)
    assert (await second.request()).body == body
    await second.send(OK)
    assert (await client.response()).status == 200


async def test_a_body_that_still_comes_goes_on_at_the_other_one(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(
        head("PUT / HTTP/1.1", "Host: a.example", "Transfer-Encoding: chunked"), b"3\r\nabc\r\n"
    )
    first = await scene.first()
    await first.until(b"abc")
    first.reset()
    second = await other_than(scene, first)
    await client.send(b"3\r\ndef\r\n0\r\nX-Sum: 6\r\n\r\n")
    request = await second.request()
    assert (request.body, request.trailers) == (b"abcdef", [("x-sum", b"6")])
    await second.send(OK)
    assert (await client.response()).status == 200


async def test_a_longer_body_is_not_kept(scene: Scene) -> None:
    client, first = await scene.meet(post(bytes(65537)).replace(b"POST", b"PUT", 1))
    first.reset()
    assert (await client.response()).status == 502


async def test_both_fail(scene: Scene) -> None:
    """The client is told of the last failure, and the limit holds."""
    client, first = await scene.meet()
    first.reset()
    second = await other_than(scene, first)
    await second.request()
    await second.send(GARBAGE)
    response = await client.response()
    assert response.status == 502
    record = scene.balancer.record(response.get("x-request-id") or "")
    assert record["failure"]["name"] == "bad_response"
    assert [attempt["failure"]["name"] for attempt in record["attempts"]] == ["reset", "bad_response"]


async def test_both_are_unavailable(scene: Scene) -> None:
    """The second one's answer is what the client gets."""
    client, first = await scene.meet()
    await be_unavailable(first)
    second = await other_than(scene, first)
    await second.request()
    await second.send(answer(b"me neither", status="503 Service Unavailable"))
    assert (await client.response()).body == b"me neither"


async def test_an_answer_that_has_begun_is_not_begun_again(scene: Scene) -> None:
    client, first = await scene.meet()
    await first.send(head("HTTP/1.1 200 OK", "Content-Length: 10"), b"half")
    await client.until(b"half")
    first.reset()
    assert await client.ended() == "fin"
    assert all([await backend.no_more(0.1) for backend in scene.backends.values()])


@pytest.mark.parametrize("path", ["/never", "/poor"])
async def test_no_second_attempt_where_the_route_or_the_budget_has_none(scene: Scene, path: str) -> None:
    client, first = await scene.meet(get(path))
    first.reset()
    assert (await client.response()).status == 502


async def test_a_third_attempt_takes_a_tried_one_where_there_is_no_other(scene: Scene) -> None:
    client, first = await scene.meet(get("/twice"))
    first.reset()
    second = await other_than(scene, first)
    await second.request()
    second.reset()
    third = await scene.first()
    await third.request()
    await third.send(OK)
    response = await client.response()
    assert response.status == 200
    assert len(scene.balancer.record(response.get("x-request-id") or "")["attempts"]) == 3


async def test_the_total_time_ends_it_all(scene: Scene) -> None:
    client, first = await scene.meet(get("/short"))
    response = await client.response()
    assert response.status == 504
    assert scene.balancer.record(response.get("x-request-id") or "")["failure"]["name"] == "timeout"
    assert await first.gone()


async def test_the_total_time_ends_a_download_too(scene: Scene) -> None:
    client, first = await scene.meet(get("/short"))
    await first.send(head("HTTP/1.1 200 OK", "Content-Length: 10"), b"half")
    await client.until(b"half")
    assert await client.ended() == "fin"


async def test_a_client_that_goes_between_two_attempts(scene: Scene) -> None:
    client, first = await scene.meet()
    first.reset()
    second = await other_than(scene, first)
    await second.request()
    client.reset()
    assert await second.gone()
