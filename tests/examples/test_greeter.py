"""The greeter and its twin in Go: one suite, so that they stay alike."""

import asyncio
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.tools import need

GREETER = Path(__file__).parents[2] / "examples" / "greeter"
Start = Callable[..., "Replica"]


@dataclass
class Replica:
    """A running greeter."""

    process: subprocess.Popen[str]
    line: str  # what it said when it started

    @property
    def url(self) -> str:
        return self.line.rpartition(" ")[2]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@pytest.fixture(scope="module")
def go_greeter(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = tmp_path_factory.mktemp("go") / "greeter"
    subprocess.run([need("go", "golang-go"), "build", "-o", str(program), "."], cwd=GREETER, check=True)
    return str(program)


@pytest.fixture(scope="module", params=["python", "go"])
def command(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "go":
        return [request.getfixturevalue("go_greeter")]
    return [sys.executable, str(GREETER / "greeter.py")]


@pytest.fixture(scope="module")
def start(command: list[str]) -> Iterator[Start]:
    processes: list[subprocess.Popen[str]] = []

    def start(*options: str, **environment: str) -> Replica:
        process = subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(GREETER.parents[1]), **environment},
        )
        processes.append(process)
        assert process.stdout is not None
        return Replica(process, process.stdout.readline().strip())

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def greeter(start: Start) -> Replica:
    return start("--id", "greeter-a", "--bind", "127.0.0.1:0")


async def fetch(method: str, url: str, data: bytes = b"") -> tuple[int, aiohttp.ClientResponse, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=io.BytesIO(data) if data else None) as response,
    ):
        return response.status, response, await response.read()


def test_tells_its_address_when_it_listens(greeter: Replica) -> None:
    assert greeter.line == f"greeter-a listening on http://127.0.0.1:{greeter.port}"


@pytest.mark.parametrize("path", ["/", "/v1/any/thing", "/bytes/x", "/bytes/-1"])
async def test_says_hello_and_who_it_is(greeter: Replica, path: str) -> None:
    status, response, body = await fetch("GET", greeter.url + path)
    assert (status, body) == (200, b"Hello, World! I am greeter-a.\n")
    assert response.headers["X-Greeter"] == "greeter-a"


async def test_takes_its_name_and_port_from_the_environment(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    replica = start(GREETER_ID="greeter-b", PORT=str(port))
    assert (await fetch("GET", f"http://127.0.0.1:{port}/"))[2] == b"Hello, World! I am greeter-b.\n"
    assert replica.line.startswith("greeter-b listening on ")


async def test_reads_an_upload_to_its_end(greeter: Replica) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.post(greeter.url, data=io.BytesIO(bytes(3_000_000))) as response:
                assert response.status == 200


async def test_echoes_the_request(greeter: Replica) -> None:
    headers = [("X-Twice", "1"), ("X-Twice", "2")]
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"{greeter.url}/echo?a=1", data=b"ping \xff", headers=headers) as response,
    ):
        seen = await response.json()
    assert {key: seen[key] for key in ("greeter", "method", "path", "body", "length")} == {
        "greeter": "greeter-a",
        "method": "PUT",
        "path": "/echo?a=1",
        "body": "ping �",
        "length": 6,
    }
    assert seen["headers"]["x-twice"] == ["1", "2"]
    assert seen["headers"]["host"] == [f"127.0.0.1:{greeter.port}"]


async def test_echo_takes_no_more_than_16_mib(greeter: Replica) -> None:
    assert (await fetch("POST", f"{greeter.url}/echo", bytes(16 * 2**20)))[0] == 200
    assert (await fetch("POST", f"{greeter.url}/echo", bytes(16 * 2**20 + 1)))[0] == 413


@pytest.mark.parametrize("size", [0, 1, 65536, 1_000_001])
async def test_streams_bytes(greeter: Replica, size: int) -> None:
    status, response, body = await fetch("GET", f"{greeter.url}/bytes/{size}")
    assert (status, len(body), response.headers["Content-Length"]) == (200, size, str(size))
    status, response, body = await fetch("HEAD", f"{greeter.url}/bytes/{size}")
    assert (status, len(body), response.headers["Content-Length"]) == (200, 0, str(size))


async def test_works_as_long_as_it_is_told(start: Start) -> None:
    replica = start("--bind", "127.0.0.1:0", "--delay", "80ms")
    loop = asyncio.get_running_loop()
    before = loop.time()
    await fetch("GET", replica.url)
    assert loop.time() - before >= 0.08


async def test_fails_every_nth_but_no_health_check(start: Start) -> None:
    replica = start("--bind", "127.0.0.1:0", "--fail-every", "3")
    statuses = []
    for _ in range(6):
        assert (await fetch("GET", f"{replica.url}/healthz"))[0] == 200
        statuses.append((await fetch("GET", replica.url))[0])
    assert statuses == [200, 200, 500, 200, 200, 500]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_drains(start: Start, number: signal.Signals) -> None:
    replica = start("--bind", "127.0.0.1:0", "--drain-delay", "300ms")
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert b" 100 " in await reader.readline()  # it is being served

    replica.process.send_signal(number)
    async with asyncio.timeout(10):
        while (await fetch("GET", f"{replica.url}/healthz"))[0] == 200:
            pass
    assert (await fetch("GET", replica.url))[0] == 200  # still served, for whoever hasn't heard

    writer.write(b"ping")
    answer = await reader.read()
    assert b" 200 " in answer
    assert b"I am " in answer
    writer.close()
    assert await asyncio.to_thread(replica.process.wait, 10) == 0


async def test_an_upload_that_takes_longer_than_the_delay_is_finished(start: Start) -> None:
    replica = start("--bind", "127.0.0.1:0")
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n")
    assert b" 100 " in await reader.readline()
    replica.process.terminate()
    async with asyncio.timeout(10):
        with contextlib.suppress(OSError):
            while True:  # until it listens no more
                socket.create_connection(("127.0.0.1", replica.port)).close()
                await asyncio.sleep(0.01)
    for piece in (b"ping", b"pong"):
        writer.write(piece)
        await asyncio.sleep(0.2)
    answer = await reader.read()
    assert b" 200 " in answer
    assert b"connection: close" in answer.lower()
    assert b"pingpong" in answer
    writer.close()
    await writer.wait_closed()
    assert await asyncio.to_thread(replica.process.wait, 10) == 0


async def test_a_request_that_never_ends_is_waited_for_as_long_as_it_is_told(start: Start) -> None:
    replica = start("--bind", "127.0.0.1:0", "--drain-timeout", "300ms")
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n")
    assert b" 100 " in await reader.readline()
    replica.process.terminate()
    await asyncio.to_thread(replica.process.wait, 10)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    replica = start("--bind", "127.0.0.1:0", "--drain-delay", "1m")
    replica.process.terminate()
    async with asyncio.timeout(10):
        while (await fetch("GET", f"{replica.url}/healthz"))[0] == 200:
            pass
    replica.process.terminate()
    assert await asyncio.to_thread(replica.process.wait, 10) != 0


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--bind", "nowhere"], "must be host:port"), (["--delay", "5"], "must be a duration")],
)
def test_a_wrong_option_is_told_in_words(options: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lb.demo.greeter", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert words in done.stderr


def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "lb.demo.greeter", "--id", "greeter-a", "--bind", bind]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"greeter-a can't listen on {bind}: ")
    assert done.stderr.count("\n") == 1


def test_the_go_twin_passes_its_own_tests() -> None:
    go = need("go", "golang-go")
    done = subprocess.run([go, "test", "./..."], cwd=GREETER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
