"""Which backend serves a request: hosts, paths, methods, headers, shares; and what where none fits."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.e2e.conftest import Play
from tests.e2e.scene import Scene
from tests.e2e.wire import Script, Wire, answer, get, head

CONFIG = """
access_log: off
routes:
  - {match: {hosts: [api.example.com, "*.example.org"], path_prefix: /v1}, pool: api, strip_prefix: /v1}
  - {match: {path_prefix: /form, methods: [POST, PUT]}, pool: forms}
  - {match: {headers: {x-beta: "1", x-who: me}}, pool: beta}
  - {match: {path_prefix: /half}, split: {api: 3, beta: 1, forms: 0}}
  - {match: {path_prefix: /off}, pool: off}
pools:
  api: {backends: [$a]}
  forms: {backends: [$b]}
  beta: {backends: [$c]}
  off: {backends: [{address: "127.0.0.1:1", weight: 0}]}
"""


def who(name: str) -> Script:
    """A backend that says who it is, and what it was asked."""

    async def serve(wire: Wire) -> None:
        while True:
            request = await wire.request()
            await wire.send(answer(f"{name} {request.method} {request.target}".encode()))

    return serve


@pytest.fixture
def served(scene: Scene) -> Scene:
    for letter, name in (("a", "api"), ("b", "forms"), ("c", "beta")):
        scene.backends[letter].script = who(name)
    return scene


def request(start: str, host: str = "a.example", *fields: str) -> bytes:
    return head(f"{start} HTTP/1.1", f"Host: {host}", *fields)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (request("GET /v1/users?id=1", "api.example.com"), "api GET /users?id=1"),
        (request("GET /v1", "API.Example.COM:8080"), "api GET /"),
        (request("GET /v1?q", "www.example.org"), "api GET /?q"),
        (request("GET /v1/", "a.b.example.org."), "api GET /"),
        (request("GET http://api.example.com/v1/x", "other.example"), "api GET /x"),
        (request("GET /v10", "api.example.com"), None),
        (request("GET /V1/a", "api.example.com"), None),
        (request("GET /v1", "example.org"), None),
        (request("GET /v1", "notexample.org"), None),
        (request("GET /v1", "api.example.com.evil.example"), None),
        (request("POST /form"), "forms POST /form"),
        (request("PUT /form/a"), "forms PUT /form/a"),
        (request("GET /form"), None),
        (request("GET /format"), None),
        (request("GET /form", "a", "X-BETA: 1", "x-who: me"), "beta GET /form"),
        (request("GET /", "a", "X-Beta: 1"), None),
        (request("GET /", "a", "X-Beta: 10", "X-Who: me"), None),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_the_first_route_that_matches_wins(served: Scene, sent: bytes, expected: str | None) -> None:
    response = await served.ask(sent)
    if expected is None:
        assert (response.status, b"no_route" in response.body) == (404, True)
        record = served.balancer.record(response.get("x-request-id") or "")
        assert (record["pool"], record["attempts"], record["failure"]["name"]) == ("", [], "no_route")
    else:
        assert (response.status, response.body.decode()) == (200, expected)


async def test_a_connection_serves_one_route_after_the_other(served: Scene) -> None:
    client = await served.connect()
    for start, host, expected in (
        ("GET /v1/1", "api.example.com", b"api GET /1"),
        ("GET /nowhere", "api.example.com", b""),
        ("POST /form", "api.example.com", b"forms POST /form"),
    ):
        await client.send(request(start, host))
        response = await client.response()
        assert response.body == expected or response.status == 404


async def test_a_split_follows_its_shares(served: Scene) -> None:
    """Of 400 requests, 100 are expected at beta, give or take five standard deviations of 8.7."""
    client = await served.connect()
    found: Counter[str] = Counter()
    for _ in range(400):
        await client.send(get("/half"))
        found[(await client.response()).body.decode().split()[0]] += 1
    assert 56 <= found["beta"] <= 144
    assert found["api"] + found["beta"] == 400


async def test_no_eligible_backend_is_a_503_at_once(served: Scene) -> None:
    client = await served.connect()
    async with asyncio.timeout(0.5):
        for _ in range(2):
            await client.send(get("/off"))
            response = await client.response()
            assert (response.status, response.get("connection")) == (503, None)
    assert b"no_eligible_backend" in response.body
    record = served.balancer.record(response.get("x-request-id") or "")
    assert (record["pool"], record["failure"]["fault"]) == ("off", "balancer")
    assert served.balancer.metric("lb_pool_rejected_total", pool="off") >= 2


async def test_a_backend_is_taken_out_and_back_in_by_hand(play: Play) -> None:
    scene = await play("access_log: off\npools: {greeter: {balancer: round_robin, backends: [$a, $b]}}")
    for letter in "ab":
        scene.backends[letter].script = who(letter)
    path = f"/api/pools/greeter/backends/{scene.backends['a'].address}"

    async def who_serves() -> set[bytes]:
        return {(await scene.ask(get())).body[:1] for _ in range(4)}

    assert await who_serves() == {b"a", b"b"}
    for change in ({"state": "disabled"}, {"state": "draining"}, {"state": "active", "weight": 0}):
        assert scene.balancer.ask(path, "PATCH", change)[0] == 200
        assert await who_serves() == {b"b"}, change
    assert scene.balancer.ask(path, "PATCH", {"weight": 1})[0] == 200
    assert await who_serves() == {b"a", b"b"}
