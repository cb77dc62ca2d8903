"""The registry in a running balancer: greeters come, beat, go, die; and the balancer itself does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lb.registry import register
from tests.control.registry.scene import Etcd, free_port, running_etcd
from tests.e2e.process import LISTENERS, ROOT, Balancer, eventually, running, until
from tests.e2e.traffic import Traffic
from tests.tools import need

POOL = "pools: {greeter: {discovery: [{registry: greeter}]}}\n"
IN_A_FILE = f"registry: {{store: {{file: registry}}}}\n{POOL}"
A = {"Name": "greeter", "ID": "a", "Port": 9001}
PYTHON = [sys.executable, str(ROOT / "examples" / "greeter" / "greeter.py")]
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def put(url: str, path: str, body: Any = None, token: str = "") -> int:
    data = b"" if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v1/agent/{path}", data, {"X-Consul-Token": token}, method="PUT")
    try:
        with OPENER.open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def instances(url: str) -> set[str]:
    with OPENER.open(f"{url}/v1/agent/services", timeout=10) as answer:
        return set(json.load(answer))


def members(balancer: Balancer) -> list[str]:
    return sorted(each["id"] for each in balancer.api("/api/pools/greeter")["backends"])


def at(port: int, text: str) -> str:
    """The configuration with the admin API at this port."""
    return f"listeners: [{{bind: 127.0.0.1:0}}]\nadmin: {{bind: 127.0.0.1:{port}}}\n{text}"


class Greeter:
    """A greeter in a process of its own, which registers."""

    def __init__(self, command: list[str], name: str, url: str) -> None:
        dash = "--" if command == PYTHON else "-"
        options = {"id": name, "bind": "127.0.0.1:0", "registry": url, "ttl": "2s", "drain-delay": "500ms"}
        written = [part for key, value in options.items() for part in (dash + key, value)]
        self.process = subprocess.Popen(
            [*command, *written], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(15)


@contextmanager
def greeters(command: list[str], url: str, *names: str) -> Iterator[dict[str, Greeter]]:
    with ExitStack() as stack:
        there = {}
        for name in names:
            there[name] = Greeter(command, name, url)
            stack.callback(there[name].process.wait)
            stack.callback(there[name].process.kill)
        yield there


@pytest.fixture(scope="module", params=["python", "go"])
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if request.param == "python":
        return PYTHON
    binary = tmp_path_factory.mktemp("go") / "greeter"
    folder = ROOT / "examples" / "greeter"
    subprocess.run([need("go", "golang-go"), "build", "-o", binary, "."], cwd=folder, check=True)
    return [str(binary)]


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_fleet_that_registers_itself_is_replaced_under_load(
    command: list[str], tmp_path: Path, workers: int
) -> None:
    with (
        running(tmp_path, f"workers: {workers}\n{LISTENERS}{POOL}") as balancer,
        greeters(command, balancer.admin, *"abcdef") as there,
    ):
        await eventually(lambda: members(balancer) == list("abcdef"), "all of them")
        async with Traffic(balancer.port) as traffic:
            await traffic.go_on()
            for name in "abc":
                await asyncio.to_thread(there[name].stop)
                await traffic.go_on()
        assert members(balancer) == list("def")
        assert (traffic.failures, set(traffic.answers)) == ([], {200})


async def test_who_dies_is_out_within_its_ttl(tmp_path: Path) -> None:
    with running(tmp_path, POOL) as balancer, greeters(PYTHON, balancer.admin, "a", "b") as there:
        await eventually(lambda: members(balancer) == ["a", "b"], "both")
        there["a"].stop(signal.SIGKILL)
        await eventually(lambda: members(balancer) == ["b"], "its end")
        assert instances(balancer.admin) == {"a", "b"}  # critical, and not forgotten yet


async def test_the_helper_comes_back_when_the_registry_does(tmp_path: Path) -> None:
    port = free_port()
    async with register("greeter", port=9001, id="a", url=f"http://127.0.0.1:{port}", ttl=1.0) as mine:
        for number in range(2):  # the second one is of a registry that has forgotten everyone
            folder = tmp_path / str(number)
            folder.mkdir()
            with running(folder, at(port, POOL)) as balancer:
                await eventually(lambda: members(balancer) == ["a"], "the helper")
                await mine.registered.wait()
        with running(tmp_path, at(port, POOL)) as balancer:
            await eventually(lambda: members(balancer) == ["a"], "the helper")
            await mine.close()
            await eventually(lambda: instances(balancer.admin) == set(), "its end")


async def test_a_balancer_that_is_killed_has_lost_nothing_it_acknowledged(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    acknowledged: set[str] = set()

    def register_all(start: int) -> None:
        for number in range(start, 1000, 4):
            try:
                if (
                    put(url, "service/register", {"Name": "greeter", "ID": f"g{number}", "Port": number + 1})
                    == 200
                ):
                    acknowledged.add(f"g{number}")
            except OSError:
                return

    balancer = Balancer(tmp_path, at(port, IN_A_FILE))
    balancer.start()
    work = [asyncio.create_task(asyncio.to_thread(register_all, start)) for start in range(4)]
    await eventually(lambda: len(acknowledged) > 200, "some registrations")
    balancer.send(signal.SIGKILL)
    balancer.wait()
    await asyncio.gather(*work)
    assert 200 < len(acknowledged) < 1000
    with running(tmp_path, at(port, IN_A_FILE)) as balancer:
        found = instances(url)
        assert acknowledged <= found
        assert len(found - acknowledged) <= 4  # those that had not heard yet
        await eventually(lambda: set(members(balancer)) == found, "the pool")


async def test_the_next_process_takes_the_registry_over(tmp_path: Path) -> None:
    with running(tmp_path, IN_A_FILE) as balancer:
        url = balancer.admin
        done: list[int] = []
        stop = asyncio.Event()

        async def register_on() -> None:
            while not stop.is_set():
                body = {"Name": "greeter", "ID": f"g{len(done)}", "Port": len(done) + 1}
                done.append(await asyncio.to_thread(put, url, "service/register", body))

        work = asyncio.create_task(register_on())
        await eventually(lambda: len(done) > 20, "some registrations")
        balancer.send(signal.SIGUSR2)
        successor = await balancer.successor()
        before = len(done)
        await eventually(lambda: len(done) > before + 50, "more registrations")
        stop.set()
        await work
        assert set(done) == {200}
        assert instances(url) == {f"g{number}" for number in range(len(done))}
        await asyncio.to_thread(balancer.wait)
        os.kill(successor, signal.SIGTERM)
        await eventually(lambda: balancer.said().count("lb: stopped") == 2, "its end")


def test_an_address_and_a_token_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    port = free_port()
    own = f"http://127.0.0.1:{port}"
    text = f"registry: {{bind: 127.0.0.1:{port}, token: {{file: {tmp_path}/token}}}}\n{POOL}"
    with running(tmp_path, text) as balancer:
        assert f"registry on {own}" in balancer.said()
        for url in (own, balancer.admin):
            assert put(url, "service/register", A) == 403
            assert put(url, "service/register", A, "s3cret") == 200
        assert instances(own) == {"a"}
        until(lambda: members(balancer) == ["a"], "the pool")


def test_a_reload_brings_a_registry_and_takes_it_away(tmp_path: Path) -> None:
    static = "pools: {greeter: {backends: [127.0.0.1:9001]}}\n"
    with running(tmp_path, static) as balancer:
        assert put(balancer.admin, "service/register", A) == 404
        balancer.config.write_text(LISTENERS + POOL)
        assert balancer.ask("/api/reload", "POST")[0] == 200
        assert put(balancer.admin, "service/register", A) == 200
        until(lambda: members(balancer) == ["a"], "the pool")
        balancer.config.write_text(LISTENERS + IN_A_FILE)
        status, said = balancer.ask("/api/reload", "POST")
        assert (status, "registry.store" in said) == (200, True)
        assert members(balancer) == ["a"]
        balancer.config.write_text(LISTENERS + static)
        assert balancer.ask("/api/reload", "POST")[0] == 200
        assert put(balancer.admin, "service/register", A) == 404


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "registry").write_bytes(b"no journal\nat all\n")
    balancer = Balancer(tmp_path, IN_A_FILE)
    assert balancer.wait() != 0
    assert "registry:1: this line is damaged" in balancer.said()
    assert "Traceback" not in balancer.said()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with running_etcd(tmp_path) as etcd:
        yield etcd


async def test_two_balancers_on_one_etcd(etcd: Etcd, tmp_path: Path) -> None:
    text = f"registry: {{store: {{etcd: ['{etcd.url}']}}}}\n{POOL}"
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with running(folders[0], text) as one, running(folders[1], text) as two:
        assert put(one.admin, "service/register", A) == 200
        await eventually(lambda: members(one) == members(two) == ["a"], "both pools")
        etcd.kill()
        assert put(two.admin, "service/register", {**A, "ID": "b", "Port": 9002}) == 500
        await eventually(
            lambda: "etcd is away" in (one.api("/api/pools/greeter")["sources"][0]["error"] or ""),
            "the error",
        )
        assert members(one) == members(two) == ["a"]
        etcd.start()
        assert put(two.admin, "service/register", {**A, "ID": "b", "Port": 9002}) == 200
        await eventually(lambda: members(one) == members(two) == ["a", "b"], "both pools")
        assert put(one.admin, "service/deregister/a") == 200
        await eventually(lambda: members(one) == members(two) == ["b"], "both pools")
