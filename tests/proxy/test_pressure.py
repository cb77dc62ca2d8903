"""Back-pressure: who reads slowly holds who sends, and nothing piles up in between."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.e2e.scene import Scene
from tests.e2e.wire import GET, OK, Wire, head

MEGABYTE = 1 << 20
MEMORY = 100 * MEGABYTE
BIG = (1024 if os.environ.get("SOAK") else 200) * MEGABYTE
"""SOAK=1 sends a gigabyte, which takes some seconds more."""

BUFFERS = 32 * MEGABYTE  # what the kernels of three sockets may hold, and the balancer with them


class Highest:
    """Watches the memory of the balancer while something goes on."""

    def __init__(self, scene: Scene) -> None:
        self.memory = 0
        self._scene = scene

    async def __aenter__(self) -> Highest:
        self._task = asyncio.ensure_future(self._watch())
        return self

    async def _watch(self) -> None:
        while True:
            self.memory = max(self.memory, self._scene.balancer.memory())
            await asyncio.sleep(0.02)

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()


async def stands_still(counted: list[int]) -> int:
    """Waits until a counter doesn't change for a while, and returns where it stands."""
    async with asyncio.timeout(20):
        while True:
            before = counted[0]
            await asyncio.sleep(0.4)
            if before and counted[0] == before:
                return before


async def download(scene: Scene, coding: str) -> tuple[Wire, Wire]:
    client = await scene.connect()
    client.stop_reading()
    await client.send(GET)
    backend = await scene.backend.accept()
    await backend.request()
    await backend.send(head("HTTP/1.1 200 OK", coding))
    return client, backend


@pytest.mark.parametrize("coding", [f"Content-Length: {BIG}", "X-Length: up to the end"])
async def test_a_client_that_reads_nothing_holds_the_backend(scene: Scene, coding: str) -> None:
    client, backend = await download(scene, coding)
    sent = [0]
    sending = asyncio.ensure_future(backend.pour(BIG, 60, sent))
    async with Highest(scene) as highest:
        assert await stands_still(sent) < BUFFERS
        client.go_on_reading()
        assert len(await client.until(b"\r\n\r\n")) < 1000
        received = asyncio.ensure_future(client.count(BIG))
        assert await sending == BIG
        if "Length:" in coding and str(BIG) not in coding:
            backend.close()
            await asyncio.wait_for(received, 60)
            assert received.result() >= BIG
        assert await received >= BIG
    assert highest.memory < MEMORY


async def test_a_backend_that_reads_nothing_holds_the_client(scene: Scene) -> None:
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a.example", f"Content-Length: {BIG}"))
    backend = await scene.backend.accept()
    await backend.until(b"\r\n\r\n")
    backend.stop_reading()
    sent = [0]
    sending = asyncio.ensure_future(client.pour(BIG, 60, sent))
    async with Highest(scene) as highest:
        assert await stands_still(sent) < BUFFERS
        backend.go_on_reading()
        assert await backend.count(BIG) == BIG
        assert await sending == BIG
    assert highest.memory < MEMORY
    await backend.send(OK)
    assert (await client.response()).status == 200


async def test_a_chunked_upload_is_held_too(scene: Scene) -> None:
    """In chunks of 16 bytes, which is the most that anyone can ask of the reader of chunks."""
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a.example", "Transfer-Encoding: chunked"))
    backend = await scene.backend.accept()
    await backend.until(b"\r\n\r\n")
    backend.stop_reading()
    chunks = b"10\r\n0123456789abcdef\r\n" * 20_000
    client.push(chunks * 40)
    async with Highest(scene) as highest:
        assert await client.quiet(1)
        backend.go_on_reading()
        client.push(b"0\r\n\r\n")
        body = await backend.until(b"\r\n0\r\n\r\n")
    assert highest.memory < MEMORY
    assert body.count(b"0123456789abcdef") > 700_000
    await backend.send(OK)
    assert (await client.response()).status == 200


async def test_a_body_goes_up_and_down_at_the_same_time_in_flat_memory(scene: Scene) -> None:
    async def echo(wire: Wire) -> None:
        await wire.until(b"\r\n\r\n")
        await wire.send(head("HTTP/1.1 200 OK", f"Content-Length: {BIG}"))
        left = BIG
        while left:
            data, wire.received = wire.received, b""
            left -= len(data)
            await wire.send(data)
            if left:
                await wire.read()

    scene.backend.script = echo
    client = await scene.connect()
    await client.send(head("POST / HTTP/1.1", "Host: a.example", f"Content-Length: {BIG}"))
    async with Highest(scene) as highest:
        sending = asyncio.ensure_future(client.pour(BIG, 60))
        await client.until(b"\r\n\r\n")
        assert await client.count(BIG) == BIG
        assert await sending == BIG
    assert highest.memory < MEMORY


async def test_a_client_that_never_reads_its_many_answers_holds_only_itself(scene: Scene) -> None:
    async def large(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(head("HTTP/1.1 200 OK", f"Content-Length: {MEGABYTE}") + bytes(MEGABYTE))

    scene.backend.script = large
    greedy = await scene.connect()
    greedy.stop_reading()
    greedy.push(GET * 500)
    async with Highest(scene) as highest:
        for _ in range(20):
            assert len((await scene.ask(GET)).body) == MEGABYTE
    assert highest.memory < MEMORY
