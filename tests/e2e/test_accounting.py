"""Every request is named, counted and explained: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from itertools import pairwise

import pytest

from tests.e2e.conftest import Play
from tests.e2e.process import run, until
from tests.e2e.scene import Scene
from tests.e2e.wire import GET, Script, Wire, answer

REQUESTS, CONNECTIONS, KEPT = 20_000, 16, 10_000
BATCH = 50  # requests that a client pipelines

UUID7 = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").fullmatch
_id = re.compile(rb"\r\nX-Request-ID: (\S+)\r\n", re.I)
_who = re.compile(rb"\r\nX-Who: (\S+)\r\n")


def signed(name: str) -> Script:
    """A fast backend that says who it is. It reads no more than the ends of the heads."""
    reply = answer(b"hello", f"X-Who: {name}")

    async def serve(wire: Wire) -> None:
        while wire.received or await wire.read():
            count = wire.received.count(b"\r\n\r\n")
            wire.received = wire.received.rpartition(b"\r\n\r\n")[2]
            await wire.send(reply * count)

    return serve


async def ask_many(scene: Scene, count: int) -> list[tuple[bytes, bytes]]:
    """The ID of each request, and who served it, in the order of the answers."""
    client = await scene.connect()
    found: list[tuple[bytes, bytes]] = []
    for _ in range(count // BATCH):
        await client.send(GET * BATCH)
        text = b""
        while text.count(b"\r\n\r\nhello") < BATCH:
            assert await client.read()
            text, client.received = text + client.received, b""
        found += zip(_id.findall(text), _who.findall(text), strict=True)
    return found


async def test_twenty_thousand_requests(play: Play) -> None:
    scene = await play(
        f"access_log: off\nrequest_records: {KEPT}\npools: {{greeter: {{backends: [$a, $b, $c]}}}}"
    )
    for name, backend in scene.backends.items():
        backend.script = signed(name)
    each = REQUESTS // CONNECTIONS
    answers = await asyncio.gather(*(ask_many(scene, each) for _ in range(CONNECTIONS)))
    served = dict(pair for found in answers for pair in found)

    # every one has an ID of its own, a UUIDv7, so that they sort by time
    assert len(served) == REQUESTS
    assert all(UUID7(request_id) for request_id in served)
    for found in answers:
        assert all(earlier[0][:13] <= later[0][:13] for earlier, later in pairwise(found))

    # the counters add up to what was sent, in all and for each backend
    until(lambda: scene.balancer.metric("lb_backend_in_flight") == 0, "the end of all requests")
    addresses = {backend.address: name for name, backend in scene.backends.items()}
    assert scene.balancer.metric("lb_backend_requests_total") == REQUESTS
    assert scene.balancer.metric("lb_client_requests_total", code="200") == REQUESTS
    assert scene.balancer.metric("lb_backend_request_duration_seconds_count") == REQUESTS
    for address, count in Counter(served.values()).items():
        name = next(key for key, value in addresses.items() if value == address.decode())
        assert scene.balancer.metric("lb_backend_requests_total", backend=name, code="200") == count

    # the last 10,000 can be looked up, and tell the backend that really served them
    newest = sorted(served)[-(KEPT - CONNECTIONS * BATCH) :]  # in flight at the same time end in any order
    for request_id in [newest[0], *newest[:: len(newest) // 200], newest[-1]]:
        record = scene.balancer.api(f"/api/requests/{request_id.decode()}")
        assert addresses[record["attempts"][-1]["backend"]] == served[request_id].decode()
        assert record["attempts"][-1]["pick"]["candidates_total"] == 3
    assert not is_known(scene, min(served))


def is_known(scene: Scene, request_id: bytes) -> bool:
    return scene.balancer.ask(f"/api/requests/{request_id.decode()}")[0] == 200


async def test_exactly_the_last_so_many_requests_are_known(play: Play) -> None:
    scene = await play("access_log: off\nrequest_records: 100\npools: {greeter: {backends: [$a]}}")
    scene.backend.script = signed("a")
    served = [request_id for request_id, _ in await ask_many(scene, 150)]
    scene.balancer.record(served[-1].decode())
    assert [is_known(scene, request_id) for request_id in served] == [False] * 50 + [True] * 100
    listed = scene.balancer.api("/api/requests?limit=1000")["requests"]
    assert [each["id"].encode() for each in listed] == served[:49:-1]


async def test_records_can_be_off(play: Play) -> None:
    scene = await play("access_log: off\nrequest_records: off\npools: {greeter: {backends: [$a]}}")
    scene.backend.script = signed("a")
    response = await scene.ask(GET)
    status, body = scene.balancer.ask(f"/api/requests/{response.get('x-request-id')}")
    assert (status, "request_records" in body) == (404, True)


@pytest.mark.parametrize(
    ("weights", "expected"), [((5, 1, 1), [5000, 1000, 1000]), ((1, 1, 1), [2334, 2333, 2333])]
)
async def test_round_robin_is_exact(play: Play, weights: tuple[int, ...], expected: list[int]) -> None:
    backends = ", ".join(
        f"{{id: {name}, address: ${name}, weight: {weight}}}"
        for name, weight in zip("abc", weights, strict=True)
    )
    scene = await play(
        f"access_log: off\npools: {{greeter: {{balancer: round_robin, backends: [{backends}]}}}}"
    )
    for name, backend in scene.backends.items():
        backend.script = signed(name)
    served = [who for _, who in await ask_many(scene, 7000)]
    assert sorted(Counter(served).values(), reverse=True) == expected
    if weights == (5, 1, 1):
        assert b"".join(served[:7]) == b"aabacaa"
    for name, count in Counter(served).items():
        assert scene.balancer.metric("lb_backend_requests_total", backend=name.decode()) == count


@pytest.mark.parametrize("policy", ["random", "least_request", "p2c"])
async def test_the_other_policies_serve_from_every_backend(play: Play, policy: str) -> None:
    scene = await play(f"access_log: off\npools: {{greeter: {{balancer: {policy}, backends: [$a, $b, $c]}}}}")
    for name, backend in scene.backends.items():
        backend.script = signed(name)
    found = await asyncio.gather(*(ask_many(scene, 200) for _ in range(4)))
    counts = Counter(who for each in found for _, who in each)
    assert sum(counts.values()) == 800
    assert min(counts[name] for name in (b"a", b"b", b"c")) > 800 / 3 / 3


async def test_explain_names_the_backend_that_really_served(play: Play) -> None:
    scene = await play(
        "access_log: off\npools: {greeter: {backends: "
        "[{id: first, address: $a}, {id: second, address: $b}, {id: third, address: $c, weight: 0}]}}"
    )
    names = dict(zip("abc", ("first", "second", "third"), strict=True))
    for letter, backend in scene.backends.items():
        backend.script = signed(names[letter])
    for _ in range(3):
        response = await scene.ask(GET)
        request_id, who = response.get("x-request-id") or "", response.get("x-who") or ""
        scene.balancer.record(request_id)
        told = run("explain", request_id, "--admin", scene.balancer.admin)
        assert told.returncode == 0, told.stderr
        assert f"Picked {who}:" in told.stdout
        assert "2 candidates" in told.stdout
        assert "third" in told.stdout.partition("Left out:")[2]
    unknown = run("explain", "01234567-89ab-7def-8123-456789abcdef", "--admin", scene.balancer.admin)
    assert (unknown.returncode, unknown.stdout, "Traceback" in unknown.stderr) == (1, "", False)


async def test_a_failure_is_found_by_its_name(play: Play) -> None:
    scene = await play("access_log: off\npools: {greeter: {backends: [127.0.0.1:1], retries: off}}")
    response = await scene.ask(GET)
    found = scene.balancer.api("/api/requests?failure=connect_failed&status=502")["requests"]
    assert [each["id"] for each in found] == [response.get("x-request-id")]
    assert scene.balancer.metric("lb_backend_failures_total", failure="connect_failed") == 1
    assert scene.balancer.metric("lb_client_requests_total", code="502") == 1
