"""Clients that are slow on purpose: `slowhttptest`, while ordinary requests are served.

`make soak` does the same with 2,000 connections.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Play
from tests.e2e.process import eventually
from tests.e2e.scene import Scene
from tests.e2e.wire import always, get
from tests.tools import need

CONNECTIONS = int(os.environ.get("LB_SLOW_CONNECTIONS", "200"))
SECONDS = int(os.environ.get("LB_SLOW_SECONDS", "5"))
CONFIG = """
listeners: [{bind: 127.0.0.1:0, timeouts: {request_header: 3s, request_body: 3s, write: 3s}}]
admin: {bind: 127.0.0.1:0}
access_log: off
request_records: off
routes:
  - {match: {path_prefix: /slow}, pool: attacked}
  - {pool: p}
pools:
  p: {backends: [$a], retries: off, outlier_detection: off}
  attacked: {backends: [ADDRESS], retries: off, outlier_detection: off}
"""
ATTACKS = {
    "slow headers": ["-H", "-i", "1"],
    "slow body": ["-B", "-i", "1", "-s", "100000"],
    "slow read": ["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "1"],
}


# In a process of its own: it has much to say at once, and the test's clients must not wait for that.
BACKEND = """
import asyncio
LARGE = b"HTTP/1.1 200 OK\\r\\nContent-Length: 1048576\\r\\n\\r\\n" + bytes(1 << 20)

async def serve(reader, writer):
    try:
        while True:
            request = await reader.readuntil(b"\\r\\n\\r\\n")
            if b"Content-Length" in request:
                while await reader.read(65536):
                    pass
            writer.write(LARGE)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture
def backend() -> Iterator[str]:
    """The address of what the slow ones ask."""
    process = subprocess.Popen([sys.executable, "-c", BACKEND], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


async def ordinary(scene: Scene, stop: asyncio.Event) -> list[float]:
    """Asks again and again, over new connections and old ones, and how long each answer took."""
    took = []
    kept = await scene.connect()
    while not stop.is_set():
        for client in (kept, await scene.connect()):
            began = time.monotonic()
            await client.send(get("/"))
            response = await client.response(patience=60)
            assert (response.status, response.body) == (200, b"ok")
            took.append(time.monotonic() - began)
            if client is not kept:
                client.close()
        await asyncio.sleep(0.02)
    return took


@pytest.mark.parametrize("attack", ATTACKS)
async def test_ordinary_requests_are_served_meanwhile(
    play: Play, attack: str, backend: str, tmp_path: Path
) -> None:
    program = need("slowhttptest")
    scene = await play(CONFIG.replace("ADDRESS", backend))
    scene.backend.script = always()
    before = scene.balancer.memory()
    attacker = await asyncio.create_subprocess_exec(
        *(program, *ATTACKS[attack], "-c", str(CONNECTIONS), "-r", str(max(CONNECTIONS // 5, 100))),
        *("-l", str(SECONDS), "-p", "5", "-v", "1", "-u", f"http://{scene.balancer.address}/slow"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=tmp_path,
    )
    stop = asyncio.Event()
    asking = asyncio.ensure_future(ordinary(scene, stop))
    most, peak = 0.0, 0
    try:
        while attacker.returncode is None and not asking.done():
            most = max(most, await asyncio.to_thread(scene.balancer.metric, "lb_client_connections"))
            peak = max(peak, scene.balancer.memory())
            await asyncio.sleep(0.2)
    finally:
        if attacker.returncode is None:
            attacker.kill()
        await attacker.wait()
    stop.set()
    took = sorted(await asking)
    assert len(took) >= 10, "ordinary requests"
    assert most > CONNECTIONS / 4, "slow ones, all at once"
    print(
        f"{attack}: up to {most:.0f} connections, {len(took)} ordinary requests, median "
        f"{took[len(took) // 2]:.4f} s, slowest {took[-1]:.3f} s, memory {before >> 20} to {peak >> 20} MiB"
    )
    await eventually(lambda: scene.balancer.metric("lb_client_connections") <= 2, "the end of the slow ones")
    assert scene.balancer.metric("lb_backend_in_flight") == 0
