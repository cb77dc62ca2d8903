"""Several workers are one balancer to everybody outside."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Play
from tests.e2e.process import eventually, lives, run
from tests.e2e.scene import Scene
from tests.e2e.test_reload import free_port, reload, two_listeners, write
from tests.e2e.test_signals import refused
from tests.e2e.traffic import Traffic
from tests.e2e.wire import GET, Script, Wire, answer, get

POOL = """
workers: 2
access_log: off
pools: {greeter: {balancer: least_request, backends: [{id: a, address: $a}, {id: b, address: $b}]}}
"""


def workers(scene: Scene) -> list[int]:
    """The IDs of the worker processes, in the order in which they were started."""
    process = scene.balancer.process.pid
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(each) for each in children if lives(int(each))]


class Replica:
    """A backend that answers with its name, or as it is told, and not before it may."""

    def __init__(self, name: str) -> None:
        self.reply = self.usual = answer(name.encode())
        self.may = asyncio.Event()
        self.may.set()

    async def serve(self, wire: Wire) -> None:
        while True:
            await wire.request()
            await self.may.wait()
            await wire.send(self.reply)


def replicas(scene: Scene) -> dict[str, Replica]:
    made = {name: Replica(name) for name in scene.backends}
    for name, backend in scene.backends.items():
        backend.script = made[name].serve
    return made


async def in_flight(scene: Scene, there: dict[str, Replica], count: int) -> list[Wire]:
    """Clients that wait for an answer, a connection each, so that all workers have some."""
    for replica in there.values():
        replica.may.clear()
    clients = [await scene.connect() for _ in range(count)]
    for client in clients:
        await client.send(GET)
    await eventually(lambda: scene.balancer.metric("lb_backend_in_flight") >= count, "the requests")
    return clients


async def answers(scene: Scene, count: int = 40) -> set[bytes]:
    """The different bodies that so many new clients get."""
    return {(await scene.ask(GET)).body for _ in range(count)}


# --- one balancer ---


async def test_counts_add_up_and_each_request_is_found(play: Play) -> None:
    scene = await play(POOL)
    replicas(scene)
    ids = []
    clients = [await scene.connect() for _ in range(30)]
    for _ in range(4):
        for client in clients:
            await client.send(GET)
        for client in clients:
            response = await client.response()
            assert response.status == 200
            ids.append(response.get("x-request-id"))
    balancer = scene.balancer
    assert len(workers(scene)) == 2
    assert balancer.metric("lb_client_requests_total", code="200") == 120
    assert balancer.metric("lb_backend_requests_total", code="200") == 120
    assert balancer.metric("lb_backend_request_duration_seconds_count") == 120
    assert balancer.metric("lb_client_connections") == 30
    assert balancer.metric("lb_backend_in_flight") == 0
    (pool,) = balancer.api("/api/pools")["pools"]
    assert sum(backend["requests"]["200"] for backend in pool["backends"]) == 120
    for each in ids:
        assert balancer.ask(f"/api/requests/{each}")[0] == 200
    found = balancer.api("/api/requests?limit=1000&status=2xx")
    assert (found["held"], {each["id"] for each in found["requests"]}) == (120, set(ids))
    assert str(ids[-1]) in run("explain", "--admin", balancer.admin, str(ids[-1])).stdout
    assert balancer.ask("/api/requests/nobody-knows-it")[0] == 404
    assert "lb: 2 workers\n" in balancer.said()


async def test_auto_is_one_for_each_core(play: Play) -> None:
    scene = await play(POOL.replace("workers: 2", "workers: auto"))
    cores = len(os.sched_getaffinity(0))
    assert len(workers(scene)) == (cores if cores > 1 else 0)
    replicas(scene)
    assert await answers(scene, 4) <= {b"a", b"b"}


async def test_what_is_changed_by_hand_holds_at_once_in_all(play: Play) -> None:
    scene = await play(POOL)
    replicas(scene)
    path = "/api/pools/greeter/backends/a"
    for change in ({"state": "draining"}, {"state": "active", "weight": 0}, {"state": "disabled"}):
        status, body = scene.balancer.ask(path, "PATCH", change)
        assert (status, json.loads(body) | change) == (200, json.loads(body))
        assert await answers(scene) == {b"b"}
        scene.balancer.ask(path, "PATCH", {"state": "active", "weight": 1})
        assert await answers(scene) == {b"a", b"b"}


async def test_what_probes_find_holds_in_all(play: Play) -> None:
    check = "health_check: {path: /healthz, interval: 100ms, fall: 1, rise: 1}, balancer:"
    scene = await play(POOL.replace("balancer:", check))
    there = replicas(scene)
    await eventually(lambda: scene.balancer.metric("lb_backend_up") == 2, "both backends")
    assert await answers(scene) == {b"a", b"b"}
    for ill, well in ("ab", "ba"):
        there[ill].reply = answer(status="503 Service Unavailable")
        await eventually(
            lambda ill=ill: not scene.balancer.metric("lb_backend_up", backend=ill), "a bad probe"
        )  # type: ignore[misc]
        assert await answers(scene) == {well.encode()}
        there[ill].reply = there[ill].usual
        await eventually(lambda: scene.balancer.metric("lb_backend_up") == 2, "a good probe")
    probes = scene.balancer.metric("lb_backend_health_checks_total")
    assert scene.balancer.metric("lb_backend_requests_total") == 120
    assert probes < 200, "each is probed once, and not by each worker"


async def test_they_balance_as_one(play: Play) -> None:
    """Requests come many at a time, and end in another order."""
    alone = await spread(play, 1)
    assert alone <= 1
    assert await spread(play, 2) <= alone + 1


async def spread(play: Play, count: int) -> int:
    """How far apart the busiest and the idlest backend are, right after 21 requests came at once."""
    scene = await play(
        f"workers: {count}\naccess_log: off\n"
        "pools: {greeter: {balancer: least_request, backends: [$a, $b, $c, $d]}}\n"
    )
    held: dict[str, list[asyncio.Event]] = {name: [] for name in scene.backends}

    def hold(name: str) -> Script:
        async def serve(wire: Wire) -> None:
            while True:
                await wire.request()
                held[name].append(asyncio.Event())
                await held[name][-1].wait()
                await wire.send(answer(name.encode()))

        return serve

    for name, backend in scene.backends.items():
        backend.script = hold(name)
    clients = [await scene.connect() for _ in range(42)]
    idle, rng, worst = list(clients), random.Random(1), 0

    async def all_there() -> None:
        async with asyncio.timeout(5):
            while sum(map(len, held.values())) < len(clients) - len(idle):  # noqa: ASYNC110 - it's a test
                await asyncio.sleep(0.005)

    for _ in range(12):
        rng.shuffle(idle)
        for client in [idle.pop() for _ in range(21)]:
            client.push(GET)
        await all_there()
        worst = max(worst, max(map(len, held.values())) - min(map(len, held.values())))
        for _ in range(min(21, 42 - len(idle))):  # of whichever backends, so that some have none any more
            waiting = held[rng.choice([name for name, each in held.items() if each])]
            waiting.pop(rng.randrange(len(waiting))).set()
        busy = [client for client in clients if client not in idle]
        done = await asyncio.gather(*(answered(client) for client in busy))
        idle += [client for client, is_done in zip(busy, done, strict=True) if is_done]
    return worst


async def answered(client: Wire) -> bool:
    """Whether the answer comes, so soon that it is one that has been let go."""
    try:
        async with asyncio.timeout(0.2):
            await client.response()
    except TimeoutError:
        return False
    return True


async def test_limits_hold_for_all_together(play: Play) -> None:
    limits = "limits: {requests: 8, queue: 4, queue_timeout: 10s}, balancer:"
    scene = await play(POOL.replace("balancer:", limits) + "max_connections: 40\n")
    there = replicas(scene)
    for replica in there.values():
        replica.may.clear()
    clients = [await scene.connect() for _ in range(36)]
    for client in clients:
        await client.send(GET)
    await eventually(lambda: scene.balancer.metric("lb_pool_rejected_total") == 24, "the refusals")
    assert scene.balancer.metric("lb_backend_in_flight") == 8
    assert scene.balancer.metric("lb_pool_queue_length") == 4
    (pool,) = scene.balancer.api("/api/pools")["pools"]
    assert (pool["in_flight"], pool["waiting"]) == (8, 4)
    for replica in there.values():
        replica.may.set()
    statuses = [(await client.response()).status for client in clients]
    assert (statuses.count(200), statuses.count(503)) == (12, 24)


async def test_a_backend_is_shown_as_ejected_when_it_is_for_all(play: Play) -> None:
    rules = "outlier_detection: {consecutive_failures: 1, ejection: 300ms, statuses: [500]}, balancer:"
    scene = await play(POOL.replace("balancer:", rules))
    there = replicas(scene)
    balancer = scene.balancer

    async def ejected(count: int) -> None:
        async with asyncio.timeout(10):
            while balancer.metric("lb_pool_backends", state="ejected") != count:
                await answers(scene, 4)

    there["a"].reply = answer(status="500 Internal Server Error")
    await ejected(1)
    a, b = balancer.api("/api/pools/greeter")["backends"]
    assert (a["ejection"]["reason"], b["ejection"]) == ("ejected (by 2 of 2 workers)", None)
    assert balancer.metric("lb_backend_ejections_total", backend="a") >= 2
    there["a"].reply = there["a"].usual
    await ejected(0)


async def test_on_a_unix_socket_too(play: Play, tmp_path: Path) -> None:
    path = tmp_path / "lb.sock"
    scene = await play(
        f"listeners: [{{bind: 127.0.0.1:0}}, {{bind: 'unix:{path}'}}]\nadmin: {{bind: 127.0.0.1:0}}\n" + POOL
    )
    replicas(scene)
    for _ in range(20):
        client = Wire(*await asyncio.open_unix_connection(str(path)))
        await client.send(GET)
        assert (await client.response()).status == 200
        client.close()
    await reload(scene, "listeners: [{bind: 127.0.0.1:0}]\nadmin: {bind: 127.0.0.1:0}\n" + POOL)
    assert not path.exists()


# --- the end of a worker ---


async def test_with_a_worker_only_its_own_requests_are_lost(play: Play) -> None:
    scene = await play(POOL)
    there = replicas(scene)
    waiting = await in_flight(scene, there, 24)
    victim, other = workers(scene)
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    await eventually(
        lambda: len(workers(scene)) == 2 and "is back" in scene.balancer.said(), "another worker"
    )
    assert time.monotonic() - began < 3  # a machine that has nothing else to do: 0.6 s
    assert other in workers(scene)
    left = [client for client in waiting if not await lost(client)]
    assert 0 < len(left) < 24
    assert scene.balancer.metric("lb_backend_in_flight") == len(left)
    assert scene.balancer.metric("lb_client_connections") == len(left)
    for replica in there.values():
        replica.may.set()
    for client in left:
        assert (await client.response()).status == 200
    assert await answers(scene) == {b"a", b"b"}


async def lost(client: Wire) -> bool:
    try:
        async with asyncio.timeout(0.05):
            return bool(await client.ended())
    except (TimeoutError, AssertionError):
        return False


async def test_under_load_counts_only_grow_though_a_worker_is_killed(play: Play) -> None:
    scene = await play(POOL)
    replicas(scene)
    seen: list[float] = []
    ending = asyncio.Event()

    async def look() -> None:
        while not ending.is_set():
            seen.append(
                await asyncio.to_thread(scene.balancer.metric, "lb_client_requests_total", code="200")
            )

    looking = asyncio.create_task(look())
    async with Traffic(scene.balancer.port, clients=16) as traffic:
        os.kill(workers(scene)[1], signal.SIGKILL)
        await eventually(lambda: "is back" in scene.balancer.said(), "another worker")
    ending.set()
    await looking
    assert len(traffic.failures) < 16
    assert seen == sorted(seen)
    assert seen[-1] > 0
    async with Traffic(scene.balancer.port, clients=8) as traffic:
        pass
    assert not traffic.failures
    await scene.gone("lb_backend_in_flight")


# --- another configuration ---


async def test_a_reload_under_load_fails_no_request(play: Play) -> None:
    scene = await play(POOL + "watch: true\n# $c\n")
    replicas(scene)
    text = scene.balancer.config.read_text()
    a, c = (scene.backends[name].address for name in "ac")

    def reloads() -> float:
        return scene.balancer.metric("lb_config_reloads_total", result="success")

    async with Traffic(scene.balancer.port) as traffic:
        scene.balancer.config.write_text(text.replace(a, c))
        await eventually(lambda: reloads() == 1, "a reload since the file has changed")
        await eventually(lambda: scene.balancer.ask("/api/pools/greeter/backends/a")[0] != 200, "it")
        assert await answers(scene) == {b"c", b"b"}
        scene.balancer.config.write_text(text.replace("watch: true", "watch: false"))
        scene.balancer.send(signal.SIGHUP)
        await eventually(lambda: reloads() >= 2, "a reload by SIGHUP")
        assert await answers(scene) == {b"a", b"b"}
        for config in (POOL.replace("least_request", "p2c"), POOL + "request_id: {header: X-Trace}\n", POOL):
            await reload(scene, config)
            await traffic.go_on()
        said = await reload(scene, "pools: {greeter: {backends: [here]}}", 422)
        assert len(said["problems"]) == 1
        assert await answers(scene) == {b"a", b"b"}
    assert (traffic.failures, set(traffic.answers)) == ([], {200})
    assert len(workers(scene)) == 2
    assert scene.balancer.metric("lb_config_reloads_total", result="failure") == 1


async def test_the_number_of_workers_takes_a_restart(play: Play) -> None:
    scene = await play(POOL)
    said = await reload(scene, POOL.replace("workers: 2", "workers: 3"))
    assert said["kept"] == ["workers is still 2: it takes a restart"]
    assert len(workers(scene)) == 2


async def test_listeners_come_and_go(play: Play) -> None:
    first, second = free_port(), free_port()
    scene = await play("workers: 2\n" + two_listeners(first, 0))
    replicas(scene)
    before = [await scene.connect(first) for _ in range(6)]
    for client in before:
        await client.send(GET)
        await client.response()
    said = await reload(scene, "workers: 2\n" + two_listeners(first, second))
    assert said["changed"] == ["listeners"]
    there = [await scene.connect(second) for _ in range(6)]
    for client in there:
        await client.send(GET)
        assert (await client.response()).status == 200
    page = f'lb_client_requests_total{{listener="127.0.0.1:{second}",code="200"}} 6'
    assert page in scene.balancer.ask("/metrics")[1]
    await reload(scene, "workers: 2\n" + two_listeners(first, 0))
    with pytest.raises(ConnectionRefusedError):
        await scene.connect(second)
    for client in there:
        assert await client.ended() == "fin"
    for client in before:
        await client.send(GET)
        assert (await client.response()).status == 200, "the other listener's connections notice nothing"
    await eventually(lambda: f":{second}" not in scene.balancer.ask("/metrics")[1], "the end of the series")
    await reload(scene, "workers: 2\n" + two_listeners(0, second))
    assert (await scene.connect(second)) is not None


async def test_a_worker_that_comes_after_a_reload_goes_by_it(play: Play) -> None:
    scene = await play(POOL)
    replicas(scene)
    await reload(scene, POOL.replace("greeter", "other").replace("{id: a, address: $a}, ", "") + "# $a\n")
    scene.balancer.ask("/api/pools/other/backends/b", "PATCH", {"weight": 5})
    write(scene, "this is no configuration")
    for victim in workers(scene):
        os.kill(victim, signal.SIGKILL)
    await eventually(lambda: scene.balancer.said().count("is back") == 2, "both workers")
    assert await answers(scene) == {b"b"}
    (pool,) = scene.balancer.api("/api/pools")["pools"]
    assert (pool["name"], pool["backends"][0]["weight"]) == ("other", 5)


# --- the end of all ---


async def test_sigterm_under_load_fails_no_request(play: Play) -> None:
    scene = await play(POOL)

    async def slow(wire: Wire) -> None:
        while True:
            await wire.request()
            await asyncio.sleep(0.02)
            await wire.send(answer())

    for backend in scene.backends.values():
        backend.script = slow
    there = workers(scene)
    async with Traffic(scene.balancer.port, clients=24) as traffic:
        scene.balancer.send(signal.SIGTERM)
        assert await asyncio.to_thread(scene.balancer.wait) == 0
    assert set(traffic.answers) == {200}
    assert {each.partition("(")[0] for each in traffic.failures} == {"ConnectionRefusedError"}
    assert not any(map(lives, there))


async def test_a_request_in_flight_is_answered_in_full_before_the_end(play: Play) -> None:
    scene = await play(POOL)
    there = replicas(scene)
    waiting = await in_flight(scene, there, 8)
    scene.balancer.send(signal.SIGTERM)
    await refused(scene)
    assert scene.balancer.ask("/readyz")[0] == 503
    for replica in there.values():
        replica.may.set()
    for client in waiting:
        assert (await client.response()).body in (b"a", b"b")
    assert await asyncio.to_thread(scene.balancer.wait, 5) == 0


async def test_a_second_signal_ends_it_at_once(play: Play) -> None:
    scene = await play(POOL)
    there = replicas(scene)
    waiting = await in_flight(scene, there, 8)
    processes = workers(scene)
    scene.balancer.send(signal.SIGTERM)
    await refused(scene)
    began = time.monotonic()
    scene.balancer.send(signal.SIGTERM)
    assert await asyncio.to_thread(scene.balancer.wait, 5) == 0
    assert time.monotonic() - began < 2
    assert not any(map(lives, processes))
    for client in waiting:
        response = await client.response()
        assert (response.status, b"shutting_down" in response.body) == (503, True)


async def test_without_their_supervisor_workers_finish_and_end(play: Play) -> None:
    scene = await play(POOL)
    there = replicas(scene)
    waiting = await in_flight(scene, there, 8)
    processes = workers(scene)
    scene.balancer.send(signal.SIGKILL)
    await asyncio.to_thread(scene.balancer.wait)
    await refused(scene)
    assert all(map(lives, processes))
    for replica in there.values():
        replica.may.set()
    for client in waiting:
        assert (await client.response()).body in (b"a", b"b")
    await eventually(lambda: not any(map(lives, processes)), "the end of the workers")


async def test_the_next_process_takes_over(play: Play, processes: list[int]) -> None:
    scene = await play(POOL)
    replicas(scene)
    there = workers(scene)
    async with Traffic(scene.balancer.port) as traffic:
        scene.balancer.send(signal.SIGUSR2)
        processes.append(await scene.balancer.successor())
        await traffic.go_on()
        assert await asyncio.to_thread(scene.balancer.wait) == 0
        await traffic.go_on()
    assert (traffic.failures, set(traffic.answers)) == ([], {200})
    assert not any(map(lives, there))
    os.kill(processes[0], signal.SIGTERM)
    await eventually(lambda: not lives(processes[0]), "its end")


# --- the log ---


async def test_one_access_log_of_whole_lines(play: Play, tmp_path: Path) -> None:
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    scene = await play(POOL.replace("access_log: off", f"access_log: {{path: {path}}}"))
    replicas(scene)

    async def send(number: int, count: int) -> None:
        client = await scene.connect()
        for each in range(count):
            await client.send(get(f"/{number}/{each}?{'x' * 900}"))
            assert (await client.response()).status == 200
        client.close()

    def paths(*files: Path) -> list[str]:
        lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return sorted(line["path"].partition("?")[0] for line in lines)

    await asyncio.gather(*(send(number, 20) for number in range(16)))
    expected = sorted(f"/{number}/{each}" for number in range(16) for each in range(20))
    await eventually(lambda: len(paths(path)) >= len(expected), "all lines")
    assert paths(path) == expected
    for again, number in enumerate((signal.SIGUSR1, signal.SIGHUP), 2):
        path.rename(moved)
        scene.balancer.send(number)
        await eventually(path.exists, "the new file")
        scene.balancer.api("/api/pools")  # so that all have heard of it
        before = paths(moved)
        await asyncio.gather(*(send(number, again) for number in range(16)))
        await eventually(lambda again=again: len(paths(path)) == 16 * again, "the new lines")  # type: ignore[misc]
        assert paths(moved) == before
