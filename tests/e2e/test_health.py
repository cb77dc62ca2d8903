"""Health checks: who gets requests, from when on, and until when."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable

import pytest

from tests.e2e.conftest import Play
from tests.e2e.process import Balancer, until
from tests.e2e.scene import Scene
from tests.e2e.wire import GET, Backend, Wire, answer, connect, get

CHECKED = """
access_log: off
pools:
  greeter:
    backends: [{id: a, address: $a}, {id: b, address: $b}]
    health_check: {path: "/health?deep=1", expect: "200,204", interval: 100ms, timeout: 200ms, fall: 2}
"""


class Patient:
    """A backend whose health checks get the answer that it has at the moment."""

    def __init__(self, scene: Scene, name: str, health: bytes | None) -> None:
        self.health = health  # None: it says nothing
        self.probes: list[bytes] = []
        self._name = name
        scene.backends[name].script = self._serve

    async def _serve(self, wire: Wire) -> None:
        while True:
            request = await wire.request()
            if not request.target.startswith("/health"):
                await wire.send(answer(self._name.encode()))
                continue
            self.probes.append(request.head)
            if self.health is None:
                await wire.gone(60)
            await wire.send(self.health or b"")


WELL, ILL = answer(), answer(status="503 Service Unavailable")


async def becomes(scene: Scene, name: str, up: bool) -> None:
    """Waits until the balancer holds a backend for well, or for ill."""

    def judged() -> bool:
        return scene.balancer.metric("lb_backend_up", backend=name) == up

    await asyncio.to_thread(until, judged, f"{name} {'up' if up else 'down'}", 5)


async def who_serves(scene: Scene) -> set[bytes]:
    return {(await scene.ask(GET)).body for _ in range(20)}


async def test_a_backend_goes_out_when_it_is_ill_and_comes_back_when_it_is_well(play: Play) -> None:
    scene = await play(CHECKED)
    a, b = Patient(scene, "a", WELL), Patient(scene, "b", WELL)
    await becomes(scene, "a", True)
    await becomes(scene, "b", True)
    assert await who_serves(scene) == {b"a", b"b"}
    for sickness in (ILL, None, b"nonsense\r\n\r\n", answer(status="302 Found")):
        a.health = sickness
        await becomes(scene, "a", False)
        assert await who_serves(scene) == {b"b"}
        a.health = answer(b"", status="204 No Content")
        await becomes(scene, "a", True)
        assert await who_serves(scene) == {b"a", b"b"}
    assert b.probes[0].startswith(b"GET /health?deep=1 HTTP/1.1\r\n")
    assert re.search(rb"\r\nUser-Agent: lb", b.probes[0])
    assert scene.balancer.metric("lb_backend_health_checks_total", backend="a", result="failure") >= 8


async def test_with_a_check_nobody_serves_before_the_first_success(play: Play) -> None:
    scene = await play(CHECKED)
    a, _ = Patient(scene, "a", ILL), Patient(scene, "b", ILL)
    await asyncio.to_thread(until, lambda: a.probes, "a probe")
    response = await scene.ask(GET)
    assert (response.status, b"no_eligible_backend" in response.body) == (503, True)
    assert scene.balancer.ask("/readyz")[0] == 503
    assert scene.balancer.ask("/livez")[0] == 200
    a.health = WELL
    await becomes(scene, "a", True)
    assert await who_serves(scene) == {b"a"}
    assert scene.balancer.ask("/readyz")[0] == 200
    record = scene.balancer.record((await scene.ask(GET)).get("x-request-id") or "")
    assert [each["id"] for each in record["attempts"][0]["pick"]["excluded"]] == ["b"]


async def test_whoever_comes_first_waits_for_the_first_probe(
    balancer: Callable[[str], Balancer], unused_tcp_port_factory: Callable[[], int]
) -> None:
    """A start isn't told by answers that nobody can serve."""
    probed, port = asyncio.Event(), unused_tcp_port_factory()
    text = (
        f"listeners: [{{bind: 127.0.0.1:{port}}}]\nadmin: {{bind: 127.0.0.1:0}}\naccess_log: off\n"
        "pools: {greeter: {backends: [127.0.0.1:%d], health_check: {path: /health}}}\n"
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if request.startswith(b"GET /health"):
            probed.set()
            await waits.wait()
        writer.write(WELL)
        writer.close()

    waits = asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        starting = asyncio.create_task(asyncio.to_thread(balancer, text % server.sockets[0].getsockname()[1]))
        await asyncio.wait_for(probed.wait(), 15)
        client = await connect(port)
        await client.send(GET)
        with pytest.raises(TimeoutError):  # without the patience it has got its 503 by then
            await asyncio.wait_for(client.response("GET"), 0.3)
        waits.set()
        assert (await client.response("GET")).status == 200
        client.close()
        await starting


async def test_without_a_check_a_backend_serves_at_once_and_stays_in(play: Play) -> None:
    scene = await play("access_log: off\npools: {greeter: {backends: [127.0.0.1:1], retries: off}}")
    for _ in range(5):
        assert (await scene.ask(GET)).status == 502
    assert scene.balancer.ask("/readyz")[0] == 200


async def test_a_request_in_flight_ends_well_though_its_backend_is_ill(play: Play) -> None:
    scene = await play(CHECKED)
    go_on = asyncio.Event()
    asked = asyncio.Event()
    health = WELL

    async def slow(wire: Wire) -> None:
        while True:
            if (await wire.request()).target.startswith("/health"):
                await wire.send(health)
                continue
            asked.set()
            await go_on.wait()
            await wire.send(answer(b"at last"))

    scene.backends["a"].script = slow
    Patient(scene, "b", ILL)
    await becomes(scene, "a", True)
    client = await scene.connect()
    await client.send(GET)
    await asked.wait()
    health = ILL
    await becomes(scene, "a", False)
    go_on.set()
    assert (await client.response()).body == b"at last"


@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_a_backend_that_takes_no_connections_is_out_until_it_does(play: Play, kind: str) -> None:
    scene = await play(
        "access_log: off\npools: {greeter: {backends: [{id: a, address: $a}], "
        f"health_check: {{type: {kind}, interval: 100ms, rise: 1, fall: 1}}}}}}"
    )
    backend = scene.backends["a"]
    backend.script = _only_healthz  # which is the default path
    await becomes(scene, "a", True)
    assert (await scene.ask(get("/healthz"))).status == 200
    address = backend.listening.getsockname()
    await backend.close()
    backend.listening.close()
    await becomes(scene, "a", False)
    assert (await scene.ask(GET)).status == 503
    with socket.create_server(address) as listening:
        scene.backends["a"] = again = Backend(listening)
        again.script = _only_healthz
        await again.start()
        await becomes(scene, "a", True)
        assert (await scene.ask(get("/healthz"))).status == 200


async def _only_healthz(wire: Wire) -> None:
    while True:
        good = (await wire.request()).target == "/healthz"
        await wire.send(WELL if good else ILL)
