"""What the client sees when a backend, or the client itself, does wrong."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Play
from tests.e2e.scene import ONE_BACKEND, Scene
from tests.e2e.wire import GET, OK, answer, get, head, post

CUT = [
    head("HTTP/1.1 200 OK", "Content-Length: 100") + b"half",
    head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"4\r\nhalf\r\n",
    head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"9\r\nhalf",
    head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"4\r\nhalf\r\n0\r\n",
]
MALFORMED = [
    b"nonsense\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    head("HTTP/1.1 200 OK", "Content-Length: 5x"),
    head("HTTP/1.1 200 OK", "Content-Length: 5", "Content-Length: 6"),
    head("HTTP/1.1 200 OK", "Content-Length: 5", "Transfer-Encoding: chunked"),
    head("HTTP/1.1 200 OK", "Transfer-Encoding: gzip"),
    head("HTTP/1.1 200 OK", "No colon here"),
    b"HTTP/1.1 20",
    b"",
]


async def fails(scene: Scene, reply: bytes, request: bytes = GET) -> tuple[str, int]:
    """The failure's name and the status, as the record has them, and as the client sees them too."""
    client, backend = await scene.meet(request)
    await backend.send(reply)
    backend.close()
    response = await client.response()
    record = scene.balancer.record(response.get("x-request-id") or "")
    assert (record["status"], record["failure"]["fault"]) == (response.status, "backend")
    assert record["failure"]["name"].encode() in response.body
    return record["failure"]["name"], record["status"]


@pytest.mark.parametrize("reply", MALFORMED, ids=lambda reply: repr(reply[:60]))
async def test_a_response_that_is_none_becomes_a_502(scene: Scene, reply: bytes) -> None:
    name, status = await fails(scene, reply)
    assert status == 502
    assert name == ("bad_response" if reply else "reset")


async def test_a_reset_without_an_answer_becomes_a_502(scene: Scene) -> None:
    client, backend = await scene.meet()
    backend.reset()
    response = await client.response()
    assert (response.status, b"(reset, " in response.body) == (502, True)
    await client.send(GET)
    backend = await scene.backend.accept()  # the client's connection is kept
    await backend.request()
    await backend.send(OK)
    assert (await client.response()).status == 200


@pytest.mark.parametrize("pieces", [1, 10])
async def test_a_response_head_beyond_all_measure_becomes_a_502_however_it_is_cut(
    scene: Scene, pieces: int
) -> None:
    client, backend = await scene.meet()
    reply = head("HTTP/1.1 200 OK", "Content-Length: 0", "X: " + "x" * 200_000)
    size = len(reply) // pieces + 1
    for at in range(0, len(reply), size):
        backend.push(reply[at : at + size])
        await client.more(0.01)
    assert (await client.response()).status == 502


@pytest.mark.parametrize("abrupt", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("reply", CUT, ids=lambda reply: repr(reply[15:80]))
async def test_a_response_that_breaks_off_looks_broken_to_the_client(
    scene: Scene, reply: bytes, abrupt: bool
) -> None:
    client, backend = await scene.meet()
    await backend.send(reply)
    head_ = await client.until(b"\r\n\r\n")
    if abrupt:
        backend.reset()
    else:
        backend.close()
    client.received = head_ + client.received
    response = await client.rest()
    assert (response.status, response.complete) == (200, False)
    assert client.closed
    record = scene.balancer.record(response.get("x-request-id") or "")
    assert (record["failure"]["name"], record["status"]) == ("response_cut", 200)


@pytest.mark.parametrize("reply", CUT, ids=lambda reply: repr(reply[15:80]))
async def test_only_a_reset_tells_a_client_of_http_1_0_that_a_body_is_cut(scene: Scene, reply: bytes) -> None:
    client, backend = await scene.meet(get(version="1.0"))
    await backend.send(reply)
    await client.until(b"\r\n\r\n")
    backend.close()
    assert await client.gone() == ("rst" if b"chunked" in reply else "fin")


async def test_a_cut_that_only_a_reset_shows_is_passed_on_as_a_cut(scene: Scene) -> None:
    """The body ends with the backend's connection: a FIN is its end, a RST is not."""
    client, backend = await scene.meet()
    await backend.send(head("HTTP/1.1 200 OK") + b"half")
    await client.until(b"half")
    backend.reset()
    assert await client.gone()
    assert b"0\r\n\r\n" not in client.received


async def test_bytes_behind_a_response_reach_nobody(scene: Scene) -> None:
    client, backend = await scene.meet()
    await backend.send(OK + answer(b"poison"))
    assert (await client.response()).body == b"ok"
    await client.send(GET)
    backend = await scene.backend.accept()
    await backend.request()
    await backend.send(answer(b"good"))
    assert (await client.response()).body == b"good"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "text/plain"),
        ("*/*", "text/plain"),
        ("text/html, application/xhtml+xml", "text/plain"),
        ("application/json", "application/json"),
        ("application/problem+json; q=0.5, text/html", "application/json"),
    ],
)
async def test_a_failure_is_told_as_json_or_as_text(scene: Scene, accept: str | None, kind: str) -> None:
    client, backend = await scene.meet(get("/", *([f"Accept: {accept}"] if accept else [])))
    backend.reset()
    response = await client.response()
    request_id = response.get("x-request-id") or "?"
    assert (response.get("content-type") or "").startswith(kind)
    if kind == "application/json":
        said = json.loads(response.body)
        assert (said["status"], said["error"], said["request_id"]) == (502, "reset", request_id)
    else:
        assert response.body.startswith(b"502 Bad Gateway: ")
        assert b"reset" in response.body
        assert request_id.encode() in response.body
    for secret in (scene.backend.address, "Traceback", "127.0.0.1"):
        assert secret.encode() not in response.head + response.body


async def test_a_failure_asked_for_with_head_has_no_body(scene: Scene) -> None:
    client, backend = await scene.meet(head("HEAD / HTTP/1.1", "Host: a.example"))
    backend.reset()
    response = await client.response("HEAD")
    assert response.status == 502
    await client.send(GET)
    backend = await scene.backend.accept()
    await backend.request()
    await backend.send(OK)
    assert (await client.response()).body == b"ok"
    record = scene.balancer.record(response.get("x-request-id") or "")
    assert record["bytes_out"] == 0, "no body was sent"


MALFORMED_REQUESTS = [
    (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
    (b"GET\r\n\r\n", 400, "bad_request"),
    (b"GET / HTTP/3.1\r\nHost: a\r\n\r\n", 505, "bad_version"),
    (b"FROB / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "unknown_method"),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
    (get("/" + "x" * 20_000), 414, "uri_too_long"),
    (get("/", "X: " + "x" * 100_000), 431, "head_too_large"),
    (get("/", *[f"X-{number}: 1" for number in range(200)]), 431, "head_too_large"),
    (get("/", "Expect: miracles"), 417, "expectation_failed"),
    (get("/", "Transfer-Encoding: gzip, chunked"), 501, "unknown_coding"),
    (get("/", "Content-Length: 1", "Transfer-Encoding: chunked"), 400, "bad_request"),
]


@pytest.mark.parametrize(
    ("request_", "status", "name"), MALFORMED_REQUESTS, ids=lambda value: repr(value)[:40]
)
async def test_a_malformed_request_is_answered_logged_and_ends_the_connection(
    scene: Scene, request_: bytes, status: int, name: str
) -> None:
    client = await scene.connect()
    client.push(request_ + get("/smuggled"))
    response = await client.response()
    assert (response.status, response.get("connection")) == (status, "close")
    assert await client.gone()
    record = scene.balancer.record(response.get("x-request-id") or "")
    assert (record["failure"]["name"], record["failure"]["fault"]) == (name, "client")
    assert await scene.backend.no_more(0.05)


async def test_a_body_over_the_limit_is_413(play: Play) -> None:
    listeners = "listeners: [{bind: 127.0.0.1:0, limits: {body: 10}}]\nadmin: {bind: 127.0.0.1:0}\n"
    scene = await play(listeners + ONE_BACKEND)
    assert (await scene.ask(post(b"x" * 11))).status == 413
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked"), b"6\r\n123456\r\n")
    await client.send(b"6\r\n123456\r\n")
    assert (await client.response()).status == 413
    assert await client.gone()


@pytest.mark.parametrize("body", [b"", b"x" * 70_000])
async def test_a_backend_that_refuses_connections_is_a_502_and_the_client_may_go_on(
    play: Play, body: bytes
) -> None:
    scene = await play("access_log: off\npools: {greeter: {backends: [127.0.0.1:1], retries: off}}")
    client = await scene.connect()
    for _ in range(2):
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        client.push(head("POST / HTTP/1.1", "Host: a.example", "Transfer-Encoding: chunked") + chunks)
        response = await client.response()
        assert (response.status, b"connect_failed" in response.body) == (502, True)
        assert response.get("connection") is None
