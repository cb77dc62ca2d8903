"""More clients than there is room for: they wait, or those go that ask for nothing. Nobody is refused."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

from tests.e2e.conftest import Play
from tests.e2e.process import eventually
from tests.e2e.scene import Scene
from tests.e2e.wire import GET, Script, Wire, always, answer

POOL = "access_log: off\npools: {greeter: {backends: [$a]}}\n"
BEGINS, ENDS = "there is room for no more", "there is room again"


def clients(scene: Scene) -> float:
    return scene.balancer.metric("lb_client_connections")


def processor_time(process: int) -> float:
    """Seconds that it has worked so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def behind(gate: asyncio.Event) -> Script:
    """A backend that answers when the gate is open."""

    async def serve(wire: Wire) -> None:
        while True:
            await wire.request()
            await gate.wait()
            await wire.send(answer(b"at last"))

    return serve


async def asking(scene: Scene) -> Wire:
    client = await scene.connect()
    await client.send(GET)
    return client


async def test_who_asks_for_nothing_makes_room_the_quietest_first(play: Play) -> None:
    scene = await play("max_connections: 3\n" + POOL)
    scene.backend.script = always()
    there = []
    for _ in range(3):
        there.append(await asking(scene))
        await there[-1].response()
    assert await there[0].ended() == "fin", "the third one took the last place"
    await there[1].send(GET)
    await there[1].response()
    there.append(await asking(scene))
    assert (await there[3].response()).status == 200
    assert await there[2].ended() == "fin", "the second one has asked since"
    assert scene.balancer.said().count(BEGINS) == 1


async def test_where_all_ask_new_ones_wait_until_one_has_gone(play: Play) -> None:
    scene = await play("max_connections: 4\n" + POOL)
    gate = asyncio.Event()
    scene.backend.script = behind(gate)
    inside = [await asking(scene) for _ in range(4)]
    await eventually(lambda: scene.balancer.metric("lb_backend_in_flight") == 4, "four requests")
    outside = [await asking(scene) for _ in range(4)]
    before = processor_time(scene.balancer.process.pid)
    assert not await outside[0].more(0.5)
    assert processor_time(scene.balancer.process.pid) - before < 0.2, "waiting is no work"
    assert (clients(scene), scene.balancer.metric("lb_backend_in_flight")) == (4, 4)
    inside[0].reset()
    await eventually(lambda: scene.backend.connections == 5, "the request of the first one outside")
    gate.set()
    for client in (*inside[1:], *outside):
        assert (await client.response()).body == b"at last"
    assert scene.balancer.said().count(BEGINS) == 1
    for client in (*inside, *outside):
        client.reset()
    await eventually(lambda: ENDS in scene.balancer.said(), "the end of it")
    assert scene.balancer.said().count(ENDS) == 1


async def test_a_reload_makes_room(play: Play) -> None:
    scene = await play("max_connections: 2\n" + POOL)
    gate = asyncio.Event()
    scene.backend.script = behind(gate)
    all_of_them = [await asking(scene) for _ in range(4)]
    await eventually(lambda: scene.balancer.metric("lb_backend_in_flight") == 2, "two requests")
    text = scene.balancer.config.read_text()
    scene.balancer.config.write_text(text.replace("max_connections: 2", "max_connections: 5"))
    assert scene.balancer.ask("/api/reload", "POST")[0] == 200
    await eventually(lambda: scene.balancer.metric("lb_backend_in_flight") == 4, "all four")
    gate.set()
    for client in all_of_them:
        assert (await client.response()).status == 200


async def test_a_listener_that_comes_while_it_is_full_waits_too(play: Play) -> None:
    scene = await play("max_connections: 1\n" + POOL)
    gate = asyncio.Event()
    scene.backend.script = behind(gate)
    first = await asking(scene)
    await eventually(lambda: scene.balancer.metric("lb_backend_in_flight") == 1, "a request")
    text = scene.balancer.config.read_text()
    scene.balancer.config.write_text(text.replace("127.0.0.1:0}]", "127.0.0.1:0}, {bind: 127.0.0.1:0}]", 1))
    assert scene.balancer.ask("/api/reload", "POST")[0] == 200
    listeners = {
        line.partition('"')[2].partition('"')[0]
        for line in scene.balancer.ask("/metrics")[1].splitlines()
        if line.startswith("lb_client_connections{")
    }
    (other,) = listeners - {scene.balancer.address}
    second = await scene.connect(int(other.rpartition(":")[2]))
    await second.send(GET)
    assert not await second.more(0.3)
    gate.set()
    assert (await first.response()).status == 200
    assert (await second.response()).status == 200


async def test_more_clients_than_descriptors(play: Play) -> None:
    scene = await play(POOL, files=160)
    scene.backend.script = always()
    there = await asyncio.gather(*(asking(scene) for _ in range(200)))
    answers = await asyncio.gather(*(client.response(patience=20) for client in there))
    assert {response.status for response in answers} == {200}
    assert clients(scene) < 80
    said = scene.balancer.said()
    assert (said.count(BEGINS), said.count("\n")) == (1, 3), said
    for client in there:
        client.reset()
    await eventually(lambda: ENDS in scene.balancer.said(), "the end of it")


async def test_more_requests_at_a_time_than_descriptors(play: Play) -> None:
    scene = await play(POOL, files=160)
    gate = asyncio.Event()
    scene.backend.script = behind(gate)
    there = await asyncio.gather(*(asking(scene) for _ in range(150)))
    await eventually(lambda: BEGINS in scene.balancer.said(), "the words")
    await eventually(
        lambda: scene.balancer.metric("lb_backend_in_flight") == clients(scene), "all requests inside"
    )
    gate.set()
    answers = await asyncio.gather(*(client.response(patience=20) for client in there))
    assert {response.status for response in answers} == {200}


async def test_more_room_is_asked_for_than_there_is(play: Play) -> None:
    scene = await play("max_connections: 5000\n" + POOL, files=200)
    assert "max_connections: 200 descriptors are enough for 42 clients, not for 5000" in scene.balancer.said()


async def test_descriptors_that_are_taken_away_cost_only_who_comes_then(play: Play) -> None:
    """The event loop closes who comes where there is none left, since it would be called for ever else."""
    scene = await play(POOL)
    scene.backend.script = always()
    process = scene.balancer.process.pid
    there = await asking(scene)
    await there.response()
    before = resource.prlimit(process, resource.RLIMIT_NOFILE)
    open_now = max(int(path.name) for path in Path(f"/proc/{process}/fd").iterdir()) + 1
    resource.prlimit(process, resource.RLIMIT_NOFILE, (open_now, before[1]))
    worked = processor_time(process)
    late = [await scene.connect() for _ in range(20)]
    for client in late:
        assert await client.ended() in ("fin", "rst")
    await there.send(GET)
    assert (await there.response()).status == 200
    assert processor_time(process) - worked < 0.2
    resource.prlimit(process, resource.RLIMIT_NOFILE, before)
    assert (await scene.ask(GET)).status == 200
    assert len(scene.balancer.said().splitlines()) == 2, "and there is no word of it"
