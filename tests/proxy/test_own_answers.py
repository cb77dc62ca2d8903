"""What a route answers itself, and what it changes in heads."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Play
from tests.e2e.scene import Scene
from tests.e2e.wire import Wire, answer, get, head, post
from tests.proxy.echo import by_proxy, echo, record

CONFIG = """
trusted_proxies: [127.0.0.2]
routes:
  - match: {path_prefix: /fixed}
    respond: {status: 418, body: "short and stout\\n", content_type: text/x-tea}
    headers: {response: {set: {x-by: "{client} {method} {scheme}://{host} {{}}"}, remove: [date]}}
  - {match: {path_prefix: /empty}, respond: {status: 204}}
  - match: {path_prefix: /secure, scheme: http}
    redirect: {to: "https://{host}{path}{query}", status: 308}
  - {match: {path_prefix: /secure, scheme: https}, respond: {body: you are}}
  - {match: {path_prefix: /moved}, redirect: "/new{path}"}
  - {match: {path_prefix: /here}, redirect: "{path}"}
  - match: {path_prefix: /heads}
    strip_prefix: /heads
    headers:
      request:
        set: {host: "b.example:81", x-real-ip: "{client}", x-path: "{path}{query}"}
        add: {x-more: [one, "{request_id}"]}
        remove: [Accept, x-gone]
      response:
        set: {Server: ours}
        add: {set-cookie: [a=1, b=2]}
        remove: [x-powered-by]
    pool: p
  - match: {path_prefix: /down}
    errors: {503: {body: '{"id": "{request_id}"}', content_type: application/json}}
    headers: {response: {set: {x-frame-options: DENY}}}
    pool: off
  - {match: {path_prefix: /off}, pool: off}
  - pool: p
errors:
  400-404: {body: "{status} {failure} {request_id}"}
  503: {body: "closed for lunch"}
pools:
  p: {backends: [$a], retries: off}
  off: {backends: [{address: "127.0.0.1:1", weight: 0}]}
"""


# --- answers of a route's own ---


async def test_a_fixed_answer(served: Scene) -> None:
    response = await served.ask(get("/fixed"))
    assert (response.status, response.body) == (418, b"short and stout\n")
    assert response.get("content-type") == "text/x-tea"
    assert response.get("x-by") == "127.0.0.1 GET http://a.example {}"
    assert response.get("date") is None
    known = record(served, response)
    assert (known["route"], known["pool"], known["failure"], known["attempts"]) == ("routes[0]", "", None, [])
    response = await served.ask(head("HEAD /fixed HTTP/1.1", "Host: a"), "HEAD")
    assert (response.status, response.body, response.get("content-length")) == (418, b"", "16")


async def test_an_answer_without_a_body(served: Scene) -> None:
    client = await served.connect()
    for _ in range(2):
        await client.send(get("/empty"))
        response = await client.response()
        assert (response.status, response.body) == (204, b"")
        assert response.get("content-length") is response.get("content-type") is None


async def test_a_fixed_answer_to_a_body_ends_the_connection(served: Scene) -> None:
    client = await served.connect()
    await client.send(head("POST /fixed HTTP/1.1", "Host: a", "Content-Length: 100"), b"some of it")
    response = await client.response()
    assert (response.status, response.get("connection")) == (418, "close")
    client.end()
    assert await client.ended() == "fin"
    assert (await served.ask(post(b"all of it", path="/fixed"))).get("connection") is None


@pytest.mark.parametrize(
    ("request_", "status", "location"),
    [
        (get("/secure/a?b=c"), 308, "https://a.example/secure/a?b=c"),
        (head("GET /secure HTTP/1.1", "Host: A.Example:8080"), 308, "https://a.example/secure"),
        (head("GET http://b.example/secure?x HTTP/1.1", "Host: a"), 308, "https://b.example/secure?x"),
        (head("GET /secure HTTP/1.1", "Host: [::1]:80"), 308, "https://[::1]/secure"),
        (post(b"x", path="/secure"), 308, "https://a.example/secure"),
        (get("/moved/a"), 302, "/new/moved/a"),
        (get("/here//evil.example"), 302, "/here//evil.example"),
        (get("/moved/a|b"), 302, "/new/moved/a%7Cb"),
    ],
    ids=repr,
)
async def test_a_redirect(served: Scene, request_: bytes, status: int, location: str) -> None:
    response = await served.ask(request_)
    assert (response.status, response.get("location"), response.body) == (status, location, b"")
    assert record(served, response)["pool"] == ""


async def test_by_https_it_is_another_route(served: Scene) -> None:
    secure = get("/secure", "X-Forwarded-Proto: https", "X-Forwarded-For: 1.2.3.4")
    assert (await by_proxy(served, secure)).body == b"you are"
    assert (await served.ask(secure)).status == 308, "who isn't trusted may say what he likes"


async def test_without_a_host_there_is_nowhere_to_send_to(served: Scene) -> None:
    response = await served.ask(b"GET /secure HTTP/1.0\r\n\r\n")
    assert (response.status, response.get("location")) == (400, None)
    assert record(served, response)["failure"]["name"] == "bad_host"


# --- heads ---


async def test_a_request_s_head_is_changed_for_the_backend(served: Scene) -> None:
    fields = (
        "Accept: */*",
        "ACCEPT: text/html",
        "X-Gone: 1",
        "X-Real-IP: 6.6.6.6",
        "x-more: zero",
        "X-Kept: 1",
    )
    response = await served.ask(get("/heads/a?b", *fields))
    first, *lines = response.body.decode().rstrip().split("\r\n")
    assert first == "GET /a?b HTTP/1.1"
    assert lines[0] == "Host: b.example:81"
    assert [line for line in lines if line.lower().startswith(("host:", "accept:", "x-gone:"))] == lines[:1]
    assert {"x-real-ip: 127.0.0.1", "x-path: /heads/a?b", "X-Kept: 1"} <= set(lines)
    request_id = response.get("x-request-id")
    assert [line for line in lines if line.startswith("x-more")] == [
        *("x-more: zero", "x-more: one", f"x-more: {request_id}")
    ]
    assert "X-Forwarded-Host: a.example" in lines


async def test_a_host_is_set_where_there_was_none(served: Scene) -> None:
    response = await served.ask(b"GET /heads HTTP/1.0\r\n\r\n")
    lines = response.body.decode().split("\r\n")
    assert [line for line in lines if line.lower().startswith("host:")] == ["Host: b.example:81"]


async def test_a_response_s_head_is_changed_for_the_client(served: Scene) -> None:
    response = await served.ask(get("/heads"))
    fields = response.head.decode()
    assert "X-Powered-By" not in fields
    assert [line for line in fields.split("\r\n") if line.lower().startswith(("server", "set-cookie"))] == [
        *("Set-Cookie: z=0", "Server: ours", "set-cookie: a=1", "set-cookie: b=2")
    ]
    assert len(response.get("x-request-id") or "") == 36


async def test_heads_are_changed_once_however_many_attempts_there_are(play: Play) -> None:
    scene = await play(
        "routes: [{pool: p, headers: {request: {add: {x-once: 1}}}}]\n"
        "pools: {p: {backends: [$a, $b], balancer: round_robin, outlier_detection: off}}\n"
    )

    async def refuse(wire: Wire) -> None:
        await wire.request()
        await wire.send(answer(b"", status="503 No"))

    scene.backends["a"].script, scene.backends["b"].script = refuse, echo
    for _ in range(2):
        response = await scene.ask(get("/"))
        assert response.body.decode().lower().count("x-once") == 1


async def test_trailers_pass_the_edits_of_a_route_too(play: Play) -> None:
    scene = await play(
        "routes: [{headers: {request: {set: {x-user: nobody}}, response: {remove: [x-inside]}}, pool: p}]\n"
        "pools: {p: {backends: [$a]}}\n"
    )
    client = await scene.connect()
    await client.send(
        head("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "TE: trailers"),
        b"0\r\nX_User: root\r\nX-Sum: 1\r\n\r\n",
    )
    backend = await scene.backend.accept()
    seen = await backend.until(b"\r\n0\r\n") + await backend.until(b"\r\n\r\n")
    assert b"root" not in seen
    assert seen.endswith(b"X-Sum: 1\r\n\r\n")
    await backend.send(
        head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"),
        b"0\r\nX-Inside: 10.0.0.1\r\nX-Sum: 2\r\n\r\n",
    )
    told = await client.until(b"\r\n0\r\n") + await client.until(b"\r\n\r\n")
    assert b"10.0.0.1" not in told
    assert told.endswith(b"X-Sum: 2\r\n\r\n")


# --- errors ---


async def test_an_error_has_the_route_s_body_or_that_of_the_top_level(served: Scene) -> None:
    response = await served.ask(get("/down", "Accept: application/json"))
    assert (response.status, response.get("content-type")) == (503, "application/json")
    assert response.body == b'{"id": "%s"}' % (response.get("x-request-id") or "").encode()
    assert response.get("x-frame-options") == "DENY"
    response = await served.ask(get("/off"))
    assert (response.body, response.get("x-frame-options")) == (b"closed for lunch", None)


async def test_what_was_no_request_gets_the_page_of_the_top_level(served: Scene) -> None:
    response = await served.ask(b"GET / HTTP/1.1\r\n\r\n")
    assert response.body.decode() == f"400 bad_host {response.get('x-request-id')}"


async def test_errors_of_backends_pass_as_they_are(served: Scene) -> None:
    async def no(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(answer(b"theirs", status="503 No"))

    served.backend.script = no
    assert (await served.ask(get("/"))).body == b"theirs"
