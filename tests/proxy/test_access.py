"""What a route asks before it lets a request on: of the client's address, its login, its body."""

from __future__ import annotations

import asyncio
from base64 import b64encode

import bcrypt
import pytest

from tests.e2e.conftest import Play
from tests.e2e.process import eventually
from tests.e2e.scene import Scene
from tests.e2e.wire import Wire, answer, get, head, post
from tests.proxy.echo import by_proxy, echo, record


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
  - pool: p
errors:
  400-404: {body: "{status} {failure} {request_id}"}
pools:
  p: {backends: [$a], retries: off}
""".replace("QUICK", QUICK).replace("SLOW", SLOW)


ONE_USER = """
routes: [{basic_auth: {users: {alice: HASH}}, pool: p}]
pools: {p: {backends: [$a]}}
"""


def login(name: str = "alice", password: str = "secret") -> str:
    return "Authorization: Basic " + b64encode(f"{name}:{password}".encode()).decode()


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
