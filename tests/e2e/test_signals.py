"""How the balancer goes: without losing what is under way, and without keeping anyone waiting."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.e2e.conftest import Play
from tests.e2e.process import until
from tests.e2e.scene import Scene
from tests.e2e.wire import GET, OK, Wire, answer, head

POOL = "access_log: off\npools: {greeter: {backends: [$a]}}\n"


async def in_flight(scene: Scene) -> tuple[Wire, Wire]:
    """A request that waits for its answer."""
    client, backend = await scene.meet()
    return client, backend


async def refused(scene: Scene) -> None:
    """Waits until new connections are refused."""
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", scene.balancer.port)
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.02)


async def ends(scene: Scene, patience: float = 5) -> int:
    return await asyncio.to_thread(scene.balancer.wait, patience)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_request_in_flight_is_answered_in_full_and_new_ones_are_refused(
    play: Play, number: signal.Signals
) -> None:
    scene = await play(POOL)
    client, backend = await in_flight(scene)
    scene.balancer.send(number)
    await refused(scene)
    assert scene.balancer.ask("/readyz")[0] == 503
    assert scene.balancer.ask("/livez")[0] == 200
    await backend.send(head("HTTP/1.1 200 OK", "Content-Length: 10"), b"first")
    await client.until(b"first")
    await backend.send(b" last")
    assert await client.until(b" last") == b" last"
    assert await client.ended() == "fin"
    assert await ends(scene) == 0


async def test_a_connection_in_use_is_told_that_it_closes(play: Play) -> None:
    scene = await play(POOL)
    client, backend = await in_flight(scene)
    scene.balancer.send(signal.SIGTERM)
    await refused(scene)
    await backend.send(OK)
    assert (await client.response()).get("connection") == "close"
    assert await client.ended() == "fin"
    assert await ends(scene) == 0


async def test_idle_connections_do_not_hold_it(play: Play) -> None:
    scene = await play(POOL)
    client, backend = await in_flight(scene)
    await backend.send(OK)
    await client.response()
    nothing_sent = await scene.connect()
    scene.balancer.send(signal.SIGTERM)
    assert await client.ended() == "fin"
    assert await nothing_sent.ended() == "fin"
    assert await ends(scene) == 0


async def test_an_idle_connection_may_still_bring_a_request_that_was_on_its_way(play: Play) -> None:
    scene = await play(POOL)
    client, backend = await in_flight(scene)
    await backend.send(OK)
    await client.response()
    scene.balancer.send(signal.SIGTERM)
    await refused(scene)
    await client.send(GET)
    await backend.request()
    await backend.send(answer(b"still"))
    response = await client.response()
    assert (response.body, response.get("connection")) == (b"still", "close")
    assert await ends(scene) == 0


async def test_during_the_delay_it_serves_on_but_is_not_ready(play: Play) -> None:
    scene = await play(POOL + "drain: {delay: 1s, timeout: 5s}\n")
    assert scene.balancer.ask("/readyz")[0] == 200
    scene.balancer.send(signal.SIGTERM)
    await asyncio.to_thread(until, lambda: scene.balancer.ask("/readyz")[0] == 503, "not ready", 1)
    client, backend = await in_flight(scene)
    await backend.send(OK)
    assert (await client.response()).status == 200
    client.close()
    await refused(scene)
    assert await ends(scene) == 0


async def test_a_second_signal_ends_it_at_once(play: Play) -> None:
    scene = await play(POOL)
    client, _ = await in_flight(scene)
    scene.balancer.send(signal.SIGTERM)
    await refused(scene)
    started = time.monotonic()
    scene.balancer.send(signal.SIGTERM)
    assert await ends(scene) == 0
    assert time.monotonic() - started < 2
    response = await client.response()
    assert (response.status, b"shutting_down" in response.body) == (503, True)


async def test_after_the_timeout_what_is_left_is_cut(play: Play) -> None:
    scene = await play(POOL + "drain: {timeout: 500ms}\n")
    waiting, _ = await in_flight(scene)
    reading, backend = await in_flight(scene)
    await backend.send(head("HTTP/1.1 200 OK", "Content-Length: 10"), b"half")
    await reading.until(b"half")
    started = time.monotonic()
    scene.balancer.send(signal.SIGTERM)
    assert await ends(scene) == 0
    assert 0.5 <= time.monotonic() - started < 3
    assert "2 requests" in scene.balancer.said()
    response = await waiting.response()
    assert (response.status, b"shutting_down" in response.body) == (503, True)
    assert await reading.ended(), "the head was out, so nothing could be said"
