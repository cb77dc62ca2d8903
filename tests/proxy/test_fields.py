"""Header fields: what ends at this hop, what we add, and whom we believe."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

from tests.conformance.strict import Request, Response
from tests.e2e.conftest import Play
from tests.e2e.scene import ONE_BACKEND, Scene
from tests.e2e.wire import OK, answer, get, head

FORGED = (
    "X-Forwarded-For: 203.0.113.7",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.example",
    "Forwarded: for=203.0.113.7",
    "X-Request-ID: forged-by-the-client",
)
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").fullmatch
HOP_BY_HOP = ("keep-alive", "proxy-connection", "te", "upgrade", "x-named", "x-also-named")


async def passed(scene: Scene, request: bytes, reply: bytes = OK) -> tuple[Request, Response]:
    """What the backend gets of a request, and the client of the reply."""
    client = await scene.connect()
    await client.send(request)
    backend = await scene.backend.accept()
    arrived = await backend.request()
    await backend.send(reply)
    return arrived, await client.response()


async def test_fields_pass_as_they_came_and_in_their_order(scene: Scene) -> None:
    fields = ("User-Agent: x/1", "aCCept: */*", "Cookie: a=1; b=\xe4", "X-Twice: 1", "X-Twice: 2", "X-Empty:")
    request, response = await passed(scene, get("/?q=%20&q", *fields), answer(b"", "Set-Cookie: a", *fields))
    expected = head(*fields)[:-2]
    assert expected in request.head
    assert expected in response.head
    assert request.target == "/?q=%20&q"


async def test_what_concerns_one_connection_ends_there_in_both_directions(scene: Scene) -> None:
    fields = (
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "TE: trailers",
        "Upgrade: h2c",
        "X-Named: 1",
        "Connection: x-NAMED, upgrade, TE",
        "X-Also-Named: 2",
        "Connection: keep-alive, X-Also-Named",
        "X-Stays: 3",
    )
    request, response = await passed(scene, get("/", *fields), answer(b"", *fields))
    for message in (request, response):
        assert message.get("x-stays") == "3"
        assert [name for name, _ in message.headers if name in HOP_BY_HOP] == []
    assert request.get("connection") is None
    assert response.get("connection") in (None, "keep-alive")


async def test_the_backend_is_told_of_the_client(scene: Scene) -> None:
    request, response = await passed(scene, get())
    assert request.get("x-forwarded-for") == "127.0.0.1"
    assert request.get("x-forwarded-proto") == "http"
    assert request.get("x-forwarded-host") == "a.example"
    assert request.get("via") == "1.1 lb"
    assert request.get("x-request-id") == response.get("x-request-id")
    assert request.get("host") == "a.example"


async def test_nobody_is_believed_who_is_not_trusted(scene: Scene) -> None:
    request, response = await passed(scene, get("/", *FORGED, "X_Forwarded_For: 203.0.113.8"))
    assert request.get("x-forwarded-for") == "127.0.0.1"
    assert request.get("x-forwarded-proto") == "http"
    assert request.get("x-forwarded-host") == "a.example"
    assert request.get("forwarded") is None
    assert request.get("x_forwarded_for") is None
    assert "forged" not in (request.get("x-request-id") or "")
    assert response.get("x-request-id") == request.get("x-request-id")


async def test_a_trusted_proxy_is_continued(play: Play) -> None:
    scene = await play(ONE_BACKEND + "trusted_proxies: [127.0.0.0/8]\n")
    request, response = await passed(scene, get("/", *FORGED, "Via: 1.1 edge"))
    assert request.get("x-forwarded-for") == "203.0.113.7, 127.0.0.1"
    assert request.get("x-forwarded-proto") == "https"
    assert request.get("x-forwarded-host") == "evil.example"
    assert request.get("via") == "1.1 edge, 1.1 lb"
    assert request.get("x-request-id") == "forged-by-the-client"
    assert response.get("x-request-id") == "forged-by-the-client"
    assert scene.balancer.record("forged-by-the-client")["client"] == "203.0.113.7"


async def test_an_id_that_is_not_well_formed_is_replaced_even_from_a_trusted_proxy(play: Play) -> None:
    scene = await play(ONE_BACKEND + "trusted_proxies: [127.0.0.1]\n")
    last = answer(b"", "Connection: close")  # so that each request comes on a connection of its own
    for given in ("short", "x" * 129, "with space in it", '"quoted-id"', "\xe4\xf6\xfc-is-not-ascii", ""):
        request, response = await passed(scene, get("/", f"X-Request-ID: {given}"), last)
        assert UUID7(request.get("x-request-id") or ""), given
        assert response.get("x-request-id") == request.get("x-request-id")


async def test_the_header_of_the_id_can_have_another_name(play: Play) -> None:
    scene = await play(ONE_BACKEND + "request_id: {header: X-Trace}\nexpose_backend: true\n")
    request, response = await passed(
        scene,
        get("/", "X-Trace: forged-id", "X-Request-ID: theirs"),
        answer(b"", "X-Backend: no", "X-Trace: no", "Connection: close"),
    )
    assert request.get("x-request-id") == "theirs"
    assert request.get("x-trace") == response.get("x-trace") != "forged-id"
    assert response.get("x-backend") == scene.backend.address
    trailers = b"0\r\nX_Trace: forged-id\r\nx-backend: no\r\nX-Request-ID: no\r\nX-Sum: 1\r\n\r\n"
    fields = ("Transfer-Encoding: chunked", "TE: trailers")
    request, response = await passed(
        scene,
        head("POST / HTTP/1.1", "Host: a.example", *fields) + trailers,
        head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Connection: close") + trailers,
    )
    assert request.trailers == response.trailers == [("x-sum", b"1")]


async def test_the_backend_stays_hidden_unless_told_otherwise(scene: Scene) -> None:
    _, response = await passed(scene, get())
    assert scene.backend.address.encode() not in response.head
    assert response.get("x-backend") is None


async def test_a_response_has_one_id_which_is_ours(scene: Scene) -> None:
    request, response = await passed(scene, get(), answer(b"", "X-Request-ID: of-the-backend"))
    assert response.all("x-request-id") == request.all("x-request-id")


async def test_options_that_may_go_no_further_are_answered_here(scene: Scene) -> None:
    client = await scene.connect()
    for target in ("/a", "*"):
        await client.send(head(f"OPTIONS {target} HTTP/1.1", "Host: a.example", "Max-Forwards: 0"))
        response = await client.response("OPTIONS")
        assert (response.status, response.body, response.get("content-length")) == (200, b"", "0")
        assert "GET" in (response.get("allow") or "")
        assert UUID7(response.get("x-request-id") or "")
        assert response.get("date")
    await client.send(head("OPTIONS /b HTTP/1.1", "Host: a.example", "Max-Forwards: 2"))
    backend = await scene.backend.accept()
    request = await backend.request()
    assert (request.target, request.all("max-forwards")) == ("/b", ["1"])
    await backend.send(OK)
    assert (await client.response()).status == 200
    record = scene.balancer.record(response.get("x-request-id") or "")
    assert (record["status"], record["attempts"]) == (200, [])


async def test_options_for_this_hop_with_a_body_end_the_connection(scene: Scene) -> None:
    client = await scene.connect()
    fields = ("Host: a.example", "Max-Forwards: 0", "Content-Length: 5")
    await client.send(head("OPTIONS * HTTP/1.1", *fields) + b"hello" + get("/behind"))
    response = await client.response("OPTIONS")
    assert (response.status, response.get("connection")) == (200, "close")
    assert await client.ended() == "fin"
    assert await scene.backend.no_more()


async def test_a_response_without_a_date_gets_one(scene: Scene) -> None:
    before = int(time.time())
    _, response = await passed(scene, get(), answer(b"", "Connection: close"))
    [date] = response.all("date")
    assert before <= parsedate_to_datetime(date).timestamp() <= time.time()
    theirs = "Thu, 01 Jan 1970 00:00:00 GMT"
    _, response = await passed(scene, get(), answer(b"", f"Date: {theirs}"))
    assert response.all("date") == [theirs]


async def test_a_request_that_comes_around_again_and_again_is_stopped(scene: Scene) -> None:
    """Each turn adds to Via. A few balancers in a row are nothing odd."""
    client = await scene.connect()
    await client.send(get("/", "Via: " + ", ".join(["1.1 lb"] * 15)))
    backend = await scene.backend.accept()
    request = await backend.request()
    assert (request.get("via") or "").count("lb") == 16
    await backend.send(OK)
    assert (await client.response()).status == 200
    await client.send(get("/", f"Via: {request.get('via')}", "Accept: application/json"))
    response = await client.response()
    assert (response.status, response.get("connection")) == (508, "close")
    assert b"(loop, " in response.body
