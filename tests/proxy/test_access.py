"""What a route asks before it lets a request on, what it answers itself, and what it changes in heads."""

from __future__ import annotations

import asyncio
from base64 import b64encode

import bcrypt
import pytest

from tests.conformance.strict import Response
from tests.e2e.conftest import Play
from tests.e2e.process import eventually
from tests.e2e.scene import Scene
from tests.e2e.wire import Wire, answer, get, head, post


def hashed(cost: int) -> str:
    """As it is written in the configuration of a stage, where $ begins a name."""
    return bcrypt.hashpw(b"secret", b"$2b$%02d$sixteenBytesOfSaltAre." % cost).decode().replace("$", "$$")


QUICK, SLOW = hashed(4), hashed(12)  # a millisecond or two, some 0.2 s
CONFIG = """
trusted_proxies: [127.0.0.2]
routes:
  - {match: {path_prefix: /inside}, allow: [10.0.0.0/8, "2001:db8::/32"], deny: [10.1.0.0/16], pool: p}
  - match: {path_prefix: /outside}
    deny: [127.0.0.0/8]
    rate_limit: {requests: 1, per: 1h, burst: 3}
    pool: p
  - match: {path_prefix: /private}
    basic_auth: {realm: the staff, users: {alice: "QUICK", bob: "QUICK"}}
    headers: {request: {set: {x-user: "{user}"}}}
    limits: {body: 100}
    pool: p
  - match: {path_prefix: /told}
    basic_auth: {users: {alice: "QUICK"}, pass_on: true}
    pool: p
  - match: {path_prefix: /slow}
    basic_auth: {users: {alice: "SLOW"}}
    pool: p
  - {match: {path_prefix: /small}, limits: {body: 10}, pool: p}
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
""".replace("QUICK", QUICK).replace("SLOW", SLOW)


ONE_USER = """
routes: [{basic_auth: {users: {alice: HASH}}, pool: p}]
pools: {p: {backends: [$a]}}
"""


def login(name: str = "alice", password: str = "secret") -> str:
    return "Authorization: Basic " + b64encode(f"{name}:{password}".encode()).decode()


async def echo(wire: Wire) -> None:
    """A backend that answers with the head that it got."""
    while True:
        request = await wire.request()
        await wire.send(answer(request.head, "X-Powered-By: echo", "Server: theirs", "Set-Cookie: z=0"))


@pytest.fixture
def served(scene: Scene) -> Scene:
    scene.backend.script = echo
    return scene


def record(scene: Scene, response: Response) -> dict:
    return scene.balancer.record(response.get("x-request-id") or "")


async def by_proxy(scene: Scene, request: bytes) -> Response:
    """The response that a client gets who comes from a trusted proxy."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", scene.balancer.port, local_addr=("127.0.0.2", 0)
    )
    wire = Wire(reader, writer)
    await wire.send(request)
    response = await wire.response()
    wire.close()
    return response


# --- addresses ---


@pytest.mark.parametrize(
    ("client", "status"),
    [
        ("10.2.0.1", 200),
        ("10.1.0.1", 403),
        ("11.0.0.1", 403),
        ("2001:db8::1", 200),
        ("2001:db9::1", 403),
        ("::ffff:10.2.0.1", 200),
        ("1.2.3.4, 10.2.0.1", 200),
        ("10.2.0.1, 1.2.3.4", 403),
    ],
)
async def test_the_client_is_judged_and_not_the_proxy(served: Scene, client: str, status: int) -> None:
    response = await by_proxy(served, get("/inside", f"X-Forwarded-For: {client}"))
    assert response.status == status


async def test_who_is_not_trusted_cannot_say_who_he_is(served: Scene) -> None:
    response = await served.ask(get("/inside", "X-Forwarded-For: 10.2.0.1"))
    assert response.status == 403
    known = record(served, response)
    assert (known["failure"]["name"], known["failure"]["fault"]) == ("forbidden", "client")
    assert (known["route"], known["pool"], known["attempts"]) == ("routes[0]", "", [])
    _, text = served.balancer.ask(f"/api/requests/{known['id']}")
    assert "forbidden" in text


async def test_the_rate_comes_before_the_address(served: Scene) -> None:
    found = [(await served.ask(get("/outside"))).status for _ in range(4)]
    assert found == [403, 403, 403, 429]


# --- names and passwords ---


async def test_without_a_login_the_client_is_asked_for_one(served: Scene) -> None:
    before = served.balancer.metric("lb_client_requests_total", code="401")
    for fields in (
        (),
        (login(password="Secret"),),
        (login("eve"),),
        ("Authorization: Bearer x",),
        (login(), login()),
    ):
        response = await served.ask(get("/private", *fields))
        assert response.status == 401
        assert response.get("www-authenticate") == 'Basic realm="the staff", charset="UTF-8"'
        known = record(served, response)
        assert (known["failure"]["name"], known["user"]) == ("unauthorized", None)
        assert response.body == f"401 unauthorized {known['id']}".encode(), "the page of the top level"
    assert served.balancer.metric("lb_client_requests_total", code="401") == before + 5


async def test_who_has_logged_in_comes_in_and_the_backend_learns_the_name(served: Scene) -> None:
    for name in ("alice", "bob", "alice"):
        response = await served.ask(get("/private", login(name), "X-User: root"))
        assert response.status == 200
        text = response.body.decode().lower()
        assert f"x-user: {name}\r\n" in text
        assert "root" not in text
        assert "authorization" not in text
        assert record(served, response)["user"] == name
    lines = [line for line in served.balancer.printed().splitlines() if '"user":"bob"' in line]
    await eventually(lambda: '"user":"bob"' in served.balancer.printed(), f"a line with the user {lines}")


async def test_the_backend_gets_the_login_where_that_is_said(served: Scene) -> None:
    response = await served.ask(get("/told", login()))
    assert login() in response.body.decode()


async def test_a_connection_goes_on_after_a_401(served: Scene) -> None:
    client = await served.connect()
    for fields, status in (((), 401), ((login(),), 200), ((), 401), ((login(),), 200)):
        await client.send(get("/private", *fields))
        assert (await client.response()).status == status


async def test_a_body_waits_while_the_password_is_checked(served: Scene) -> None:
    """What comes meanwhile, and how much of it may: nothing is lost, and the limit holds."""

    async def whole(wire: Wire) -> None:
        while True:
            request = await wire.request()
            await wire.send(answer(request.body))

    served.backend.script = whole
    for number, (pieces, status) in enumerate(((2, 200), (20, 413))):
        client = await served.connect()
        fields = login("alice" if not number else "bob")
        start = head("POST /private HTTP/1.1", "Host: a", fields, "Transfer-Encoding: chunked")
        await client.send(start, *[b"a\r\n0123456789\r\n"] * pieces, b"0\r\n\r\n")
        response = await client.response()
        assert response.status == status
        if status == 200:
            assert response.body == b"0123456789" * pieces


async def test_others_are_served_while_passwords_are_checked(served: Scene) -> None:
    """Eight clients with one login each, which takes two threads a good second: the event loop is free."""
    asked = [
        asyncio.ensure_future(served.ask(get("/slow", login(password=f"wrong{number}"))))
        for number in range(4)
    ]
    client = await served.connect()
    count = 0
    while not all(each.done() for each in asked):
        await client.send(get("/"))
        assert (await client.response()).status == 200
        count += 1
    assert [each.result().status for each in asked] == [401] * 4
    assert count > 20


async def test_requests_with_the_same_login_share_one_check(play: Play) -> None:
    scene = await play(ONE_USER.replace("HASH", SLOW))
    scene.backend.script = echo
    answers = await asyncio.gather(*(scene.ask(get("/", login())) for _ in range(20)))
    assert {response.status for response in answers} == {200}, "more than a client may have checked at once"
    for _ in range(50):  # as many as take ten seconds of hashing
        assert (await scene.ask(get("/", login()))).status == 200


async def test_who_is_wrong_too_often_has_to_wait(play: Play) -> None:
    scene = await play(ONE_USER.replace("HASH", QUICK))
    scene.backend.script = echo
    assert (await scene.ask(get("/", login()))).status == 200
    found = []
    while 429 not in found:
        response = await scene.ask(get("/", login(password=str(len(found)))))
        found.append(response.status)
        assert len(found) < 50
    assert found.count(401) >= 9
    assert record(scene, response)["failure"]["name"] == "login_limited"
    assert int(response.get("retry-after") or "") >= 1
    assert (await scene.ask(get("/", login("bob")))).status == 429
    assert (await scene.ask(get("/", login()))).status == 200, "who is known is not held up by others"


async def test_a_client_that_leaves_meanwhile_is_no_trouble(served: Scene) -> None:
    for _ in range(3):
        client = await served.connect()
        await client.send(get("/slow", login(password="gone")))
        client.reset()
    assert (await served.ask(get("/"))).status == 200


# --- bodies ---


async def test_a_body_is_refused_by_its_length_before_it_comes(served: Scene) -> None:
    client = await served.connect()
    await client.send(head("POST /small HTTP/1.1", "Host: a", "Content-Length: 11", "Expect: 100-continue"))
    response = await client.response()
    assert (response.status, response.get("connection")) == (413, "close")
    assert record(served, response)["failure"]["name"] == "body_too_large"
    assert (await served.ask(post(b"0123456789", path="/small"))).status == 200


async def test_a_body_is_refused_in_its_midst(served: Scene) -> None:
    client = await served.connect()
    await client.send(
        head("POST /small HTTP/1.1", "Host: a", "Transfer-Encoding: chunked"), b"6\r\n012345\r\n"
    )
    assert await client.quiet(0.1)
    await client.send(b"5\r\n67890\r\n")
    response = await client.response()
    assert (response.status, response.get("connection")) == (413, "close")
    chunks = b"5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"
    start = head("POST /small HTTP/1.1", "Host: a", "Transfer-Encoding: chunked")
    assert (await served.ask(start + chunks)).status == 200
    assert (
        await served.ask(start.replace(b"/small", b"/large") + b"b\r\n0123456789a\r\n0\r\n\r\n")
    ).status == 200


async def test_one_request_s_limit_is_not_the_next_one_s(served: Scene) -> None:
    client = await served.connect()
    chunks = b"14\r\n01234567890123456789\r\n0\r\n\r\n"
    start = head("POST /small HTTP/1.1", "Host: a", "Transfer-Encoding: chunked")
    for piece in (start + b"1\r\n0\r\n0\r\n\r\n", start.replace(b"/small", b"/large") + chunks):
        await client.send(piece)
        assert (await client.response()).status == 200


# --- answers of a route's own ---


async def test_a_fixed_answer(served: Scene) -> None:
    response = await served.ask(get("/fixed"))
    assert (response.status, response.body) == (418, b"short and stout\n")
    assert response.get("content-type") == "text/x-tea"
    assert response.get("x-by") == "127.0.0.1 GET http://a.example {}"
    assert response.get("date") is None
    known = record(served, response)
    assert (known["route"], known["pool"], known["failure"], known["attempts"]) == ("routes[6]", "", None, [])
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


# --- ways around the rules ---


@pytest.mark.parametrize(
    "path", ["/%70rivate", "//private", "/small/../private", "/a/..;/inside/x", "/outside%2fx", "/inside;a=b"]
)
async def test_no_way_around_a_guard_by_another_spelling(served: Scene, path: str) -> None:
    response = await served.ask(get(path))
    assert response.status == 400
    assert record(served, response)["failure"]["name"] == "ambiguous_path"
    assert (await served.ask(get("/other/%C3%A4/../b//c;d"))).status == 200


async def test_what_a_route_sets_comes_in_no_trailer(served: Scene) -> None:
    """Nor by another name that a backend may take for it."""
    client = await served.connect()
    for _ in range(2):  # the second time the login is known
        await client.send(
            head(
                "POST /private HTTP/1.1",
                "Host: a.example",
                login(),
                "X_User: root",
                "Transfer-Encoding: chunked",
                "TE: trailers",
            ),
            b"1\r\na\r\n0\r\nX-User: root\r\nx_user: root\r\nX-Sum: 1\r\n\r\n",
        )
        assert b"root" not in (response := await client.response("POST")).body
        assert b"x-user: alice" in response.body


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
