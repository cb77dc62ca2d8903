"""From one process to the next: on the same sockets, so that nobody is refused in between."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Play
from tests.e2e.process import PATIENCE, ROOT, eventually, lives, until
from tests.e2e.traffic import Traffic
from tests.e2e.wire import GET, always, answer

ONE = "access_log: off\npools: {greeter: {backends: [$a]}}\n"


# --- SIGUSR2 ---


@pytest.mark.parametrize("check", ["", "health_check: {path: /healthz, interval: 30s}, "])
async def test_under_load_no_request_fails(play: Play, processes: list[int], check: str) -> None:
    scene = await play(ONE.replace("backends", check + "backends"))
    scene.backend.script = always()
    await eventually(lambda: scene.balancer.metric("lb_pool_backends", state="eligible") == 1, "the backend")
    async with Traffic(scene.balancer.port) as traffic:
        scene.balancer.send(signal.SIGUSR2)
        processes.append(await scene.balancer.successor())
        await traffic.go_on()
        assert await asyncio.to_thread(scene.balancer.wait) == 0
        await traffic.go_on()
        # and once more, so that what was passed on can be passed on again
        os.kill(processes[0], signal.SIGUSR2)
        await eventually(lambda: scene.balancer.said().count("has taken over") == 2, "the third process")
        processes.append(await scene.balancer.successor())
        await traffic.go_on()
        await eventually(lambda: not lives(processes[0]), "the end of the second process")
        await traffic.go_on()
    assert (traffic.failures, set(traffic.answers)) == ([], {200})
    assert scene.balancer.ask("/readyz")[0] == 200, "the admin server is at the same address"
    os.kill(processes[1], signal.SIGTERM)
    await eventually(lambda: not lives(processes[1]), "the end of the third process")
    with pytest.raises(ConnectionRefusedError):
        await scene.connect()
    assert scene.balancer.said().count("lb: stopped") == 3


async def test_who_waits_to_be_accepted_is_accepted_by_the_next_one(play: Play, processes: list[int]) -> None:
    """Connections that come while the old process accepts no more, and the new one doesn't yet."""
    scene = await play(ONE)
    scene.backend.script = always()
    scene.balancer.send(signal.SIGUSR2)
    processes.append(await scene.balancer.successor())
    await asyncio.to_thread(scene.balancer.wait)
    os.kill(processes[0], signal.SIGSTOP)
    waiting = [await scene.connect() for _ in range(20)]
    for client in waiting:
        await client.send(GET)
    os.kill(processes[0], signal.SIGCONT)
    assert {(await client.response()).status for client in waiting} == {200}


async def test_what_runs_is_finished_by_the_old_process(play: Play, processes: list[int]) -> None:
    scene = await play(ONE + "drain: {delay: 30s}\n")
    client, backend = await scene.meet()
    scene.balancer.send(signal.SIGUSR2)
    processes.append(await scene.balancer.successor())
    await backend.send(answer(b"late"))
    response = await client.response()
    assert (response.body, response.get("connection")) == (b"late", "close")
    assert await asyncio.to_thread(scene.balancer.wait, 5) == 0, "nobody has to notice, so there is no delay"


async def test_a_successor_that_fails_changes_nothing(play: Play) -> None:
    scene = await play(ONE)
    scene.backend.script = always()
    good = scene.balancer.config.read_text()
    scene.balancer.config.write_text("pools: 3\n")
    async with Traffic(scene.balancer.port) as traffic:
        scene.balancer.send(signal.SIGUSR2)
        words = (
            "the next process failed, and this one goes on: it ended before it was ready, with exit code 2"
        )
        await eventually(lambda: words in scene.balancer.said(), "the words")
        assert "lb.yaml:1:8: pools: must be a mapping" in scene.balancer.said()
        await traffic.go_on()
    assert traffic.failures == []
    scene.balancer.config.write_text(good)
    assert scene.balancer.ask("/api/reload", "POST")[0] == 200


async def test_the_end_of_the_old_process_ends_one_that_is_not_ready(play: Play, tmp_path: Path) -> None:
    """The next one waits for a backend that says nothing, and so isn't ready."""
    scene = await play(ONE)
    check = "pools: {greeter: {health_check: {timeout: 20s}, backends: [$a]}}"
    text = scene.balancer.config.read_text().partition("pools:")[0]
    scene.balancer.config.write_text(text + check.replace("$a", f"'{scene.backend.address}'"))
    scene.balancer.send(signal.SIGUSR2)
    await scene.backend.accept()
    children = Path(f"/proc/{scene.balancer.process.pid}/task/{scene.balancer.process.pid}/children")
    (child,) = map(int, children.read_text().split())
    scene.balancer.send(signal.SIGTERM)
    assert await asyncio.to_thread(scene.balancer.wait) == 0
    await eventually(lambda: not lives(child), "the end of the child")


# --- systemd ---

ACTIVATE = """
import fcntl, os, sys
given = [int(each) for each in sys.argv[1].split(",")]
copies = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 100) for each in given]
for each in given:
    os.close(each)
for place, each in enumerate(copies, 3):
    os.dup2(each, place)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.executable, [sys.executable, "-m", "lb", "serve", "-c", sys.argv[3]])
"""


@contextmanager
def activated(
    directory: Path, config: str, sockets: list[socket.socket], names: str, manager: str = ""
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`lb serve` as systemd starts it with these sockets, and the file of what it says."""
    (directory / "lb.yaml").write_text(config)
    said = directory / "said"
    given = [sock.fileno() for sock in sockets]
    arguments = [",".join(map(str, given)), names, str(directory / "lb.yaml")]
    with said.open("wb") as error:
        process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, *arguments],
            cwd=ROOT,
            env={**os.environ, **({"NOTIFY_SOCKET": manager} if manager else {})},
            pass_fds=given,
            stderr=error,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield process, said
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, said.read_text()
        assert "Traceback" not in said.read_text()
    finally:
        process.kill()
        process.wait()


def address(sock: socket.socket) -> str:
    return "{}:{}".format(*sock.getsockname()[:2])


def exchange(sock: socket.socket) -> bytes:
    sock.sendall(GET)
    return sock.recv(1000)


def test_inherited_sockets_are_used_and_unwanted_ones_closed(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as admin,
        socket.create_server(("127.0.0.1", 0)) as unwanted,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as no_listener,
        socket.create_connection(first.getsockname()) as early,
    ):
        early.settimeout(PATIENCE)
        config = f"""
listeners: [{{bind: "{address(first)}"}}, {{bind: 127.0.0.1:0}}]
admin: {{bind: "{address(admin)}"}}
access_log: off
pools: {{greeter: {{backends: [127.0.0.1:1]}}}}
"""
        places = [sock.getsockname() for sock in (first, admin, unwanted)]
        sockets = [unwanted, admin, no_listener, first]
        with activated(tmp_path, config, sockets, "x:admin:x:x") as (_, said):
            for sock in (first, admin, unwanted):
                sock.close()
            assert exchange(early).startswith(b"HTTP/1.1 502 "), "it came before the process was there"
            until(lambda: "admin on" in said.read_text(), "the process")
            assert f"listening on http://{places[0][0]}:{places[0][1]}\n" in said.read_text()
            assert f"admin on http://{places[1][0]}:{places[1][1]}\n" in said.read_text()
            closed = f"the socket at {places[2][0]}:{places[2][1]}, which was given to us, is closed"
            until(lambda: closed in said.read_text(), "a warning")
            assert "is no socket that listens" in said.read_text()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(places[2])


def test_sockets_of_another_process_are_left_alone(tmp_path: Path) -> None:
    config = "listeners: [{bind: 127.0.0.1:0}]\nadmin: off\npools: {greeter: {backends: [127.0.0.1:1]}}\n"
    (tmp_path / "lb.yaml").write_text(config)
    process = subprocess.Popen(
        [sys.executable, "-m", "lb", "serve", "-c", str(tmp_path / "lb.yaml")],
        cwd=ROOT,
        env={**os.environ, "LISTEN_PID": "1", "LISTEN_FDS": "2"},
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    with process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"lb: listening on")
        process.send_signal(signal.SIGTERM)
        assert b"given to us" not in process.stderr.read()


async def test_the_manager_is_told(tmp_path: Path, processes: list[int]) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.create_server(("127.0.0.1", 0)) as sock,
    ):
        manager.bind("\0lb-test-" + str(os.getpid()))
        manager.settimeout(PATIENCE)

        async def told() -> str:
            return (await asyncio.to_thread(manager.recv, 1000)).decode()

        config = f"""
listeners: [{{bind: "{address(sock)}"}}]
admin: off
pools: {{greeter: {{backends: [127.0.0.1:1]}}}}
"""
        name = "@lb-test-" + str(os.getpid())
        with activated(tmp_path, config, [sock], "lb", name) as (process, said):
            assert await told() == "READY=1"
            process.send_signal(signal.SIGHUP)
            assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", await told())
            assert await told() == "READY=1"
            process.send_signal(signal.SIGUSR2)
            match = re.fullmatch(r"MAINPID=(\d+)\nREADY=1", await told())
            assert match, said.read_text()
            processes.append(int(match[1]))
            assert await asyncio.to_thread(process.wait, PATIENCE) == 0
            os.kill(processes[0], signal.SIGTERM)
            assert await told() == "STOPPING=1"
