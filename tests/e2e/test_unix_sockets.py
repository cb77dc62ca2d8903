"""Listeners on unix sockets: their files, their clients, and what the backend is told of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e.conftest import Play
from tests.e2e.process import eventually, lives
from tests.e2e.scene import Scene
from tests.e2e.wire import GET, Wire, always, answer, get


@pytest.fixture
def path() -> Iterator[Path]:
    """Where a socket can be: tmp_path is longer than the path of one may be."""
    with TemporaryDirectory(prefix="lb-") as directory:
        yield Path(directory) / "lb.sock"


def config(path: Path, more: str = "") -> str:
    return f"""
listeners: [{{bind: 127.0.0.1:0}}, {{bind: "unix:{path}"}}]
admin: {{bind: 127.0.0.1:0}}
pools: {{greeter: {{backends: [$a]}}}}
{more}"""


async def connect(path: Path) -> Wire:
    return Wire(*await asyncio.open_unix_connection(str(path)))


async def ask(path: Path, request: bytes = GET) -> int:
    wire = await connect(path)
    await wire.send(request)
    response = await wire.response()
    wire.close()
    return response.status


async def test_requests_come_in(play: Play, path: Path) -> None:
    scene = await play(config(path))
    assert f"lb: listening on unix:{path}\n" in scene.balancer.said()
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    client = await connect(path)
    await client.send(get("/", "X-Forwarded-For: 192.0.2.1"))
    backend = await scene.backend.accept()
    request = await backend.request()
    assert (request.get("x-forwarded-for"), request.get("x-forwarded-proto")) == ("unix:", "http")
    await backend.send(answer(b"x" * 1_000_000))
    response = await client.response()
    assert len(response.body) == 1_000_000
    record = scene.balancer.record(str(response.get("x-request-id")))
    assert (record["client"], record["listener"]) == ("unix", f"unix:{path}")
    assert scene.balancer.metric("lb_client_connections", listener=f"unix:{path}") == 1
    await eventually(scene.balancer.printed, "the log")
    line = json.loads(scene.balancer.printed())
    assert (line["client"], line["listener"]) == ("unix", f"unix:{path}")
    client.close()


async def test_a_client_that_leaves_is_noticed(play: Play, path: Path) -> None:
    scene = await play(config(path))
    client = await connect(path)
    await client.send(GET)
    backend = await scene.backend.accept()
    await backend.request()
    client.close()
    assert await backend.gone()


async def test_the_file_goes_with_the_process(play: Play, path: Path) -> None:
    scene = await play(config(path))
    scene.backend.script = always()
    assert await ask(path) == 200
    scene.balancer.send(signal.SIGTERM)
    assert await asyncio.to_thread(scene.balancer.wait) == 0
    assert not path.exists()


async def test_a_file_of_someone_else_stays(play: Play, path: Path) -> None:
    scene = await play(config(path))
    path.unlink()
    path.write_text("someone else's")
    scene.balancer.send(signal.SIGTERM)
    assert await asyncio.to_thread(scene.balancer.wait) == 0
    assert path.read_text() == "someone else's"


async def test_what_a_dead_process_has_left_is_replaced(play: Play, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    scene = await play(config(path))
    scene.backend.script = always()
    assert await ask(path) == 200


@pytest.mark.parametrize("there", ["a process", "a file", "no directory"])
async def test_where_it_cannot_be_nothing_is_changed(play: Play, path: Path, there: str) -> None:
    scene = await play("access_log: off\npools: {greeter: {backends: [$a]}}\n")
    wanted = path.parent / "none" / "lb.sock" if there == "no directory" else path
    with socket.socket(socket.AF_UNIX) as living:
        if there == "a process":
            living.bind(str(path))
            living.listen()
        elif there == "a file":
            path.write_text("not yours")
        inode = os.stat(path).st_ino if path.exists() else None
        scene.balancer.config.write_text(config(wanted).replace("$a", f"'{scene.backend.address}'"))
        status, body = scene.balancer.ask("/api/reload", "POST")
        words = {
            "a process": "address already in use",
            "a file": "file exists",
            "no directory": "no such file or directory",
        }
        assert (status, json.loads(body)["problems"]) == (422, [f"listener unix:{wanted}: {words[there]}"])
        assert (os.stat(path).st_ino if path.exists() else None) == inode


async def test_it_comes_and_goes_with_a_reload(play: Play, path: Path) -> None:
    plain = "access_log: off\npools: {greeter: {backends: [$a]}}\n"
    scene = await play(plain)
    scene.backend.script = always()
    address = f"'{scene.backend.address}'"
    before = scene.balancer.config.read_text()
    scene.balancer.config.write_text(config(path).replace("$a", address))
    assert scene.balancer.ask("/api/reload", "POST")[0] == 200
    inode = path.stat().st_ino
    assert await ask(path) == 200
    assert scene.balancer.ask("/api/reload", "POST")[0] == 200
    assert path.stat().st_ino == inode, "it is not made anew"
    scene.balancer.config.write_text(before)
    assert scene.balancer.ask("/api/reload", "POST")[0] == 200
    assert not path.exists()


async def test_the_next_process_takes_it(play: Play, path: Path, processes: list[int]) -> None:
    scene: Scene = await play(config(path))
    scene.backend.script = always()
    scene.balancer.send(signal.SIGUSR2)
    processes.append(await scene.balancer.successor())
    assert await asyncio.to_thread(scene.balancer.wait) == 0
    assert await ask(path) == 200
    assert lives(processes[0])
