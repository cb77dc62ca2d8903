"""The registry beside a real Consul: one that was asked once (recorded), and one that is here."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.control.registry.beside_consul import CALLS, Answer, answers, differences, recorded
from tests.control.registry.scene import served
from tests.control.registry.test_api import install_node_client, use_node_client, use_python_client
from tests.discovery.real_consul import real_consul


def compare(theirs: list[Answer], ours: list[Answer]) -> None:
    assert len(theirs) == len(ours) == len(CALLS)
    found = [
        f"{their.method} {their.path} {their.sent}: {each}"
        for their, our in zip(theirs, ours, strict=True)
        for each in differences(their, our)
    ]
    assert not found, "\n".join(found)


async def ours() -> list[Answer]:
    async with served() as client:
        return await asyncio.to_thread(answers, str(client.make_url("/")))


async def test_answers_are_like_those_that_consul_gave() -> None:
    compare(recorded(), await ours())


async def test_answers_are_like_those_of_a_consul_that_is_here(tmp_path: Path) -> None:
    async with real_consul(tmp_path) as agent:
        theirs = await asyncio.to_thread(answers, agent.url)
    compare(theirs, await ours())


def test_a_difference_is_noticed() -> None:
    their = next(
        each
        for each in recorded()
        if each.path == "/v1/health/service/greeter?passing=1&tag=blue" and each.body
    )
    for change in (
        lambda body: body[0].pop("Checks"),
        lambda body: body[0]["Service"].update(Tags=None),
        lambda body: body[0]["Service"].update(Port="9001"),
        lambda body: body[0]["Service"]["Weights"].update(Passing=1),
        lambda body: body[0]["Node"].update(Address=5),
        lambda body: body.append(body[0]),
        lambda body: body.clear(),
    ):
        body = json.loads(json.dumps(their.body))
        assert differences(their, Answer(their.method, their.path, "", 200, their.fields, body)) == []
        change(body)
        assert differences(their, Answer(their.method, their.path, "", 200, their.fields, body))


# --- waiting, and clients: the same of both ---


@pytest_asyncio.fixture(params=["ours", "consul"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "ours":
        async with served() as client:
            yield str(client.make_url("")).rstrip("/")
    else:
        async with real_consul(tmp_path) as agent:
            yield agent.url


class Asking:
    """A client that counts how long it waits."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session

    async def get(self, path: str) -> tuple[Any, int, float]:
        """The body, the index, and the seconds that it took."""
        began = time.monotonic()
        async with self._session.get(self._url + path) as response:
            assert response.status == 200, await response.text()
            body = await response.json()
            return body, int(response.headers.get("X-Consul-Index", 0)), time.monotonic() - began

    async def put(self, path: str, data: Any = None) -> None:
        async with self._session.put(f"{self._url}/v1/agent/{path}", json=data) as response:
            assert response.status == 200, await response.text()

    async def register(self, name: str, service: str = "greeter", **more: Any) -> None:
        await self.put("service/register", {"Name": service, "ID": name, "Port": 80, **more})


@pytest_asyncio.fixture
async def asking(url: str) -> AsyncIterator[Asking]:
    async with aiohttp.ClientSession() as session:
        yield Asking(url, session)


async def test_a_question_waits_for_its_time_and_a_sixteenth_at_most(asking: Asking) -> None:
    await asking.register("a")
    path = "/v1/health/service/greeter"
    _, index, _ = await asking.get(path)
    assert index > 0
    body, again, took = await asking.get(f"{path}?index={index}&wait=1s")
    assert (len(body), again) == (1, index)
    assert 1 <= took < 5
    for query in ("index=0&wait=60s", "wait=60s", "index=1&wait=60s"):
        assert (await asking.get(f"{path}?{query}"))[2] < 30


async def test_what_is_waited_for_is_told_and_nothing_else(asking: Asking) -> None:
    await asking.register("a", Check={"TTL": "60s"})
    path = "/v1/health/service/greeter"
    for change in (
        lambda: asking.put("check/pass/service:a"),
        lambda: asking.put("check/warn/service:a"),
        lambda: asking.register("a", Check={"TTL": "60s"}, Tags=["blue"]),
        lambda: asking.register("b"),
        lambda: asking.put("service/maintenance/b?enable=true"),
        lambda: asking.put("service/deregister/b"),
        lambda: asking.put("service/deregister/a"),
    ):
        before, index, _ = await asking.get(path)
        waiting = asyncio.ensure_future(asking.get(f"{path}?index={index}&wait=60s"))
        await asyncio.sleep(0.2)
        await asking.register("x", "other", Meta={"at": str(index)})
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await change()
        body, newer, took = await waiting
        assert newer > index
        assert body != before
        assert took < 30
    assert body == []


async def test_who_asks_for_passing_ones_waits_for_them(asking: Asking) -> None:
    await asking.register("a", Check={"TTL": "1s"})
    path = "/v1/health/service/greeter?passing"
    body, index, _ = await asking.get(path)
    await asking.put("check/pass/service:a?note=well")
    body, index, _ = await asking.get(f"{path}&index={index}&wait=60s")
    assert len(body) == 1
    while body:  # the TTL, which is a change that nobody makes
        body, index, took = await asking.get(f"{path}&index={index}&wait=60s")
        assert took < 30
    checks, _, _ = await asking.get("/v1/health/checks/greeter")
    assert checks[0]["Output"] == "TTL expired (last output before timeout follows): well"


async def test_services_are_told_as_they_come_and_go(asking: Asking) -> None:
    _, index, _ = await asking.get("/v1/catalog/services")
    waiting = asyncio.ensure_future(asking.get(f"/v1/catalog/services?index={index}&wait=60s"))
    await asyncio.sleep(0.2)
    await asking.register("a")
    body, index, _ = await waiting
    assert "greeter" in body
    waiting = asyncio.ensure_future(asking.get(f"/v1/catalog/services?index={index}&wait=60s"))
    await asyncio.sleep(0.2)
    await asking.put("service/deregister/a")
    assert "greeter" not in (await waiting)[0]


async def test_one_instance_is_waited_for_by_its_hash(asking: Asking) -> None:
    await asking.register("a", Check={"TTL": "60s"})
    body, _, _ = await asking.get("/v1/agent/service/a")
    path = f"/v1/agent/service/a?hash={body['ContentHash']}"
    again, _, took = await asking.get(f"{path}&wait=1s")
    assert again == body
    assert 1 <= took < 5
    waiting = asyncio.ensure_future(asking.get(f"{path}&wait=60s"))
    await asyncio.sleep(0.2)
    await asking.put("check/pass/service:a")
    await asyncio.sleep(0.2)
    assert not waiting.done(), "a heartbeat is none of its content"
    await asking.register("a", Check={"TTL": "60s"}, Tags=["blue"])
    again, _, took = await waiting
    assert again["Tags"] == ["blue"]
    assert again["ContentHash"] != body["ContentHash"]
    assert took < 30


async def test_a_client_in_python(url: str) -> None:
    await asyncio.to_thread(use_python_client, int(url.rpartition(":")[2]))


async def test_another_client_in_python(url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """python-consul2, unchanged. Its module has the name of that of py-consul, and so its own process."""
    folder = tmp_path_factory.getbasetemp() / "python-consul2"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "python-consul2"]
        done = await asyncio.to_thread(subprocess.run, pip, capture_output=True, text=True)
        if done.returncode and os.environ.get("CI") != "true":
            pytest.skip(f"pip can't install python-consul2: {done.stderr[-200:]}")
        assert done.returncode == 0, done.stderr
    program = (
        f"import sys; sys.path[:0] = [{str(folder)!r}, {str(Path(__file__).parents[3])!r}]\n"
        "import consul; assert 'python-consul2' in consul.__file__, consul.__file__\n"
        "from tests.control.registry.test_api import use_python_client\n"
        f"use_python_client({url.rpartition(':')[2]})\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


async def test_a_client_in_javascript(url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    module = await asyncio.to_thread(install_node_client, tmp_path_factory)
    await asyncio.to_thread(use_node_client, module, int(url.rpartition(":")[2]))
