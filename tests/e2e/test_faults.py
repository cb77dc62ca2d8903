"""Backends that die, hang, restart and talk nonsense while clients ask without a pause."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.e2e.process import Balancer, until
from tests.e2e.scene import Scene
from tests.e2e.traffic import Traffic
from tests.e2e.wire import OK, Wire, head

POOL = """
access_log: off
pools:
  greeter:
    timeouts: {{connect: 500ms, response_header: 500ms}}
    backends: [{backends}]
"""


class Replica:
    """A greeter process at a port of its own, which can be stopped and started again."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self.start()

    def start(self) -> None:
        bind = f"127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "lb.demo.greeter", "--id", "greeter", "--bind", bind]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._listens, f"a greeter at {bind}", 10)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(10)


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    with ExitStack() as stack:
        yield [stack.enter_context(_running()) for _ in range(3)]


@contextmanager
def _running() -> Iterator[Replica]:
    replica = Replica()
    try:
        yield replica
    finally:
        replica.process.kill()
        replica.process.wait()


@pytest.fixture
def front(balancer, replicas: list[Replica]) -> Balancer:
    return balancer(POOL.format(backends=", ".join(f"127.0.0.1:{each.port}" for each in replicas)))


async def test_one_is_killed(front: Balancer, replicas: list[Replica]) -> None:
    async with Traffic(front.port) as traffic:
        await asyncio.to_thread(replicas[0].end, signal.SIGKILL)
        await traffic.go_on(1000)
    assert traffic.failures == []
    assert set(traffic.answers) == {200}
    assert front.metric("lb_backend_retries_total") > 0
    assert front.metric("lb_backend_ejections_total") == 1


async def test_one_hangs_and_comes_back(front: Balancer, replicas: list[Replica]) -> None:
    async with Traffic(front.port) as traffic:
        replicas[0].process.send_signal(signal.SIGSTOP)
        address = f"127.0.0.1:{replicas[0].port}"

        def ejected() -> bool:
            return front.metric("lb_backend_ejections_total", backend=address) > 0

        await asyncio.to_thread(until, ejected, "the ejection", 10)
        await traffic.go_on(500)
        replicas[0].process.send_signal(signal.SIGCONT)
        await traffic.go_on(500)
    assert traffic.failures == []
    assert set(traffic.answers) == {200}


async def test_each_is_restarted_in_turn(front: Balancer, replicas: list[Replica]) -> None:
    async with Traffic(front.port) as traffic:
        for replica in replicas:
            await asyncio.to_thread(replica.end, signal.SIGTERM)
            await traffic.go_on(300)
            await asyncio.to_thread(replica.start)
            await traffic.go_on(300)
    assert traffic.failures == []
    assert set(traffic.answers) == {200}


TWO = """
access_log: off
pools: {greeter: {balancer: round_robin, backends: [{id: a, address: $a}, {id: b, address: $b}]}}
"""


async def faulty(scene: Scene, reply: bytes) -> list[int]:
    """Backend a is well; b gives this and resets. How often it did."""
    times: list[int] = []

    async def serve(wire: Wire) -> None:
        await wire.request()
        times.append(1)
        await wire.send(reply)
        wire.reset()

    scene.backends["a"].serve(OK)
    scene.backends["b"].script = serve
    return times


@pytest.mark.parametrize("reply", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_what_is_no_answer_is_hidden(play, reply: bytes) -> None:
    scene = await play(TWO)
    times = await faulty(scene, reply)
    async with Traffic(scene.balancer.port) as traffic:
        await traffic.go_on(500)
    assert traffic.failures == []
    assert set(traffic.answers) == {200}
    assert times


async def test_what_was_cut_in_its_midst_is_all_that_is_lost(play) -> None:
    scene = await play(TWO)
    times = await faulty(scene, head("HTTP/1.1 200 OK", "Content-Length: 10") + b"half")
    lost = 0
    for _ in range(40):
        client = await scene.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        try:
            await client.response()
        except AssertionError:
            lost += 1
        client.close()
    assert lost == len(times) > 0
    assert scene.balancer.metric("lb_backend_ejections_total", backend="b") == 1
