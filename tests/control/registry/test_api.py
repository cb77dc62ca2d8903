"""The API over real HTTP: as Consul's clients use it, blocking queries, tokens, and bad input."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import consul
import pytest

from lb.control.registry import api as api_module
from lb.control.registry import blocking
from lb.control.registry.views import health_service
from tests.control.registry.scene import Client, served
from tests.tools import need

A = {"ID": "a", "Name": "greeter", "Address": "127.0.0.1", "Port": 9001, "Tags": ["blue"],
     "Check": {"TTL": "10s"}}  # fmt: skip


async def put(client: Client, path: str, data: Any = None, **more: Any) -> tuple[int, str]:
    async with client.put(path, data=None if data is None else json.dumps(data), **more) as response:
        return response.status, await response.text()


async def get(client: Client, path: str) -> tuple[Any, int]:
    async with client.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json(), int(response.headers.get("X-Consul-Index", 0))


async def register(client: Client, name: str = "a", **more: Any) -> None:
    data = {**A, "ID": name, **more}
    assert await put(client, "/v1/agent/service/register", data) == (200, "")


async def test_from_registering_to_leaving() -> None:
    async with served() as client:
        await register(client)
        found, _ = await get(client, "/v1/health/service/greeter")
        assert [(each["Service"]["ID"], each["Checks"][0]["Status"]) for each in found] == [("a", "critical")]
        assert (await get(client, "/v1/health/service/greeter?passing"))[0] == []
        assert await put(client, "/v1/agent/check/pass/service:a?note=well") == (200, "")
        found, _ = await get(client, "/v1/health/service/greeter?passing=1&tag=blue")
        service = found[0]["Service"]
        assert (service["Address"], service["Port"], service["Weights"]["Passing"]) == ("127.0.0.1", 9001, 1)
        assert found[0]["Checks"][0]["Output"] == "well"
        assert (await get(client, "/v1/health/service/greeter?tag=red"))[0] == []
        assert (await get(client, "/v1/catalog/services"))[0] == {"greeter": ["blue"]}
        catalog, _ = await get(client, "/v1/catalog/service/greeter")
        assert (catalog[0]["ServiceID"], catalog[0]["ServicePort"]) == ("a", 9001)
        assert (await get(client, "/v1/agent/services"))[0]["a"]["Service"] == "greeter"
        assert (await get(client, "/v1/agent/service/a"))[0]["ID"] == "a"
        assert (await get(client, "/v1/agent/checks"))[0]["service:a"]["Status"] == "passing"
        assert len((await get(client, "/v1/health/state/passing"))[0]) == 1
        assert len((await get(client, "/v1/health/checks/greeter"))[0]) == 1
        await put(client, "/v1/agent/service/maintenance/a?enable=true&reason=disk")
        assert (await get(client, "/v1/health/service/greeter?passing"))[0] == []
        await put(client, "/v1/agent/service/maintenance/a?enable=false")
        assert len((await get(client, "/v1/health/service/greeter?passing"))[0]) == 1
        assert await put(client, "/v1/agent/service/deregister/a") == (200, "")
        assert (await get(client, "/v1/catalog/service/greeter"))[0] == []


async def test_a_heartbeat_that_stays_away() -> None:
    async with served() as client:
        await register(client, Check={"TTL": "200ms", "Status": "passing"})
        _, index = await get(client, "/v1/health/service/greeter?passing")
        found, _ = await get(client, f"/v1/health/service/greeter?passing&index={index}&wait=10s")
        assert found == []


async def test_who_waits_hears_at_once_and_only_of_what_was_asked_for() -> None:
    async with served() as client:
        await register(client)
        _, index = await get(client, "/v1/health/service/greeter")
        waiting = asyncio.ensure_future(get(client, f"/v1/health/service/greeter?index={index}&wait=10s"))
        await register(client, "x", Name="other")
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await put(client, "/v1/agent/check/pass/service:a")
        found, newer = await waiting
        assert found[0]["Checks"][0]["Status"] == "passing"
        assert newer > index
        assert (await get(client, f"/v1/health/service/greeter?index={newer}&wait=10ms"))[1] == newer
        # Who brings an index from before a restart gets an answer, and begins anew.
        assert (await get(client, "/v1/health/service/greeter?index=999999&wait=10s"))[1] == newer


async def test_changes_need_the_token_and_look_ups_do_not() -> None:
    async with served(token="s3cret") as client:
        for headers in ({}, {"X-Consul-Token": "wrong"}, {"Authorization": "Basic s3cret"}):
            status, words = await put(client, "/v1/agent/service/register", A, headers=headers)
            assert status == 403
            assert "token" in words
        assert (await get(client, "/v1/agent/services"))[0] == {}
        for headers in ({"X-Consul-Token": "s3cret"}, {"Authorization": "Bearer s3cret"}):
            assert (await put(client, "/v1/agent/service/register", A, headers=headers))[0] == 200


@pytest.mark.parametrize(
    ("path", "data", "status", "words"),
    [
        ("/v1/agent/service/register", {"Name": "a b"}, 400, "Name: must be"),
        ("/v1/agent/service/register", {"Name": "a", "Check": {"HTTP": "http://x"}}, 400, "only TTL checks"),
        ("/v1/agent/check/update/service:a", {"Status": "fine"}, 400, "Status: must be"),
        ("/v1/agent/service/maintenance/a?enable=perhaps", None, 400, "enable: must be"),
        ("/v1/agent/service/deregister/x", None, 404, 'Unknown service ID "x"'),
        ("/v1/agent/check/pass/x", None, 404, 'Unknown check ID "x"'),
        ("/v1/agent/service/register", {"Name": "x" * 200_000}, 413, "too large"),
    ],
)
async def test_bad_input_is_told_and_changes_nothing(path: str, data: Any, status: int, words: str) -> None:
    async with served() as client:
        await register(client)
        before = await get(client, "/v1/health/state/any")
        found = await put(client, path, data)
        assert found[0] == status
        assert words in found[1]
        assert await get(client, "/v1/health/state/any") == before


@pytest.mark.parametrize("query", ["index=-1", "index=x", "wait=soon&index=1", "passing=perhaps"])
async def test_bad_queries_are_told(query: str) -> None:
    async with served() as client, client.get(f"/v1/health/service/greeter?{query}") as response:
        assert response.status == 400


@pytest.mark.parametrize("host", ["evil.example.com", "a.b:80", "x.internal.example.com"])
async def test_pages_of_the_internet_cannot_come_by_their_own_name(host: str) -> None:
    async with served() as client, client.get("/v1/agent/services", headers={"Host": host}) as response:
        assert response.status == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8500", "localhost", "[::1]:1", "registry", "lb.default.svc"])
async def test_names_of_the_inside_are_meant(host: str) -> None:
    async with served() as client, client.get("/v1/agent/services", headers={"Host": host}) as response:
        assert response.status == 200


def use_python_client(port: int) -> None:
    """Of py-consul and of python-consul2."""
    agent = consul.Consul(host="127.0.0.1", port=port)
    with agent if hasattr(agent, "__enter__") else contextlib.nullcontext():
        service = agent.agent.service
        assert service.register(
            "greeter", service_id="a", address="127.0.0.1", port=9001, tags=["blue"],
            check=consul.Check.ttl("10s"),
        )  # fmt: skip
        index, found = agent.health.service("greeter", passing=True)
        assert found == []
        assert agent.agent.check.ttl_pass("service:a", "well")
        index, found = agent.health.service("greeter", index=index, wait="10s", passing=True)
        assert [each["Service"]["ID"] for each in found] == ["a"]
        assert agent.catalog.services()[1]["greeter"] == ["blue"]
        assert agent.catalog.service("greeter")[1][0]["ServiceAddress"] == "127.0.0.1"
        assert agent.agent.check.ttl_warn("service:a")
        assert agent.agent.check.ttl_fail("service:a")
        assert agent.agent.services()["a"]["Port"] == 9001
        assert agent.agent.checks()["service:a"]["Status"] == "critical"
        assert service.maintenance("a", True, "disk")
        assert service.deregister("a")
        assert agent.agent.services() == {}
        assert "127.0.0.1" in agent.status.leader()


NODE_PROGRAM = """
const Consul = require(process.argv[2]);
(async () => {
  const consul = new Consul({host: '127.0.0.1', port: Number(process.argv[3])});
  await consul.agent.service.register(
    {name: 'greeter', id: 'n', address: '127.0.0.1', port: 9002, check: {ttl: '10s'}});
  await consul.agent.check.pass({id: 'service:n', note: 'well'});
  const found = await consul.health.service({service: 'greeter', passing: true});
  if (found.length !== 1 || found[0].Service.ID !== 'n') throw new Error(JSON.stringify(found));
  const watch = consul.watch({method: consul.health.service, options: {service: 'greeter', passing: true}});
  const gone = new Promise((resolve, reject) => {
    watch.on('change', (data) => { if (data.length === 0) resolve(); });
    watch.on('error', reject);
  });
  await consul.agent.check.fail('service:n');
  await gone;
  watch.end();
  await consul.agent.service.deregister('n');
  const services = await consul.agent.services();
  if (Object.keys(services).length !== 0) throw new Error(JSON.stringify(services));
  console.log('well');
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
"""


def install_node_client(folders: pytest.TempPathFactory) -> Path:
    """npm's `consul`, once for all tests."""
    npm = need("npm")
    folder = folders.getbasetemp() / "npm"
    module = folder / "node_modules" / "consul"
    if not module.exists():
        folder.mkdir(exist_ok=True)
        environment = {**os.environ, "npm_config_update_notifier": "false"}
        installed = subprocess.run(
            [npm, "install", "--silent", "--no-audit", "--no-fund", "consul@2"],
            cwd=folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        if installed.returncode and os.environ.get("CI") != "true":
            pytest.skip(f"npm can't install consul: {installed.stderr}")
        assert installed.returncode == 0, installed.stderr
    return module


def use_node_client(module: Path, port: int) -> None:
    program = module.parents[1] / "use.js"
    program.write_text(NODE_PROGRAM)
    done = subprocess.run(
        [need("node", "nodejs"), program, str(module), str(port)], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


async def test_many_wait_and_the_server_goes_at_once() -> None:
    async with served() as client:
        await register(client)
        _, index = await get(client, "/v1/health/service/greeter")
        waiting = [
            asyncio.ensure_future(get(client, f"/v1/health/service/greeter?index={index}&wait=5m"))
            for _ in range(50)
        ]
        await asyncio.sleep(0.2)
        assert not any(each.done() for each in waiting)
        began = time.monotonic()
    assert time.monotonic() - began < 30
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_waits_leaves_places_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a connection of the server, which has only so many, also for probes."""
    monkeypatch.setattr(blocking, "WAITING", 3)
    async with served() as client:
        await register(client)
        _, index = await get(client, "/v1/health/service/greeter")
        path = f"/v1/health/service/greeter?index={index}&wait=5m"
        waiting = []
        for _ in range(5):
            waiting.append(asyncio.ensure_future(get(client, path)))
            await asyncio.sleep(0.1)
        async with asyncio.timeout(5):
            assert [(await each)[1] for each in waiting[:2]] == [index, index]
        assert not any(each.done() for each in waiting[2:])
        await register(client, "b")
        async with asyncio.timeout(5):
            assert all([(await each)[1] > index for each in waiting[2:]])


async def test_an_answer_is_made_once_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    def counted(*arguments: Any) -> Any:
        nonlocal made
        made += 1
        return health_service(*arguments)

    monkeypatch.setattr(api_module, "health_service", counted)
    async with served() as client:
        await register(client)
        _, index = await get(client, "/v1/health/service/greeter")
        path = f"/v1/health/service/greeter?index={index}&wait=5m"
        waiting = [asyncio.ensure_future(get(client, path)) for _ in range(50)]
        await asyncio.sleep(0.2)
        made = 0
        await register(client, "b")
        answers = await asyncio.gather(*waiting)
        assert all(answer == answers[0] for answer in answers)
        assert [each["Service"]["ID"] for each in answers[0][0]] == ["a", "b"]
        assert made == 2
        # What a check says is told at once, also where it is no change that anybody waits for.
        await put(client, "/v1/agent/check/pass/service:a?note=first")
        await put(client, "/v1/agent/check/pass/service:a?note=second")
        found, _ = await get(client, "/v1/health/service/greeter")
        assert found[0]["Checks"][0]["Output"] == "second"


async def test_answers_to_changes_that_never_end_are_made_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each costs 20 ms here, which is a twentieth of 400."""

    def slow(*arguments: Any) -> Any:
        time.sleep(0.02)
        return health_service(*arguments)

    monkeypatch.setattr(api_module, "health_service", slow)
    async with served() as client:
        await register(client)
        answers, index, began = 0, 1, time.monotonic()
        while answers < 5:
            await register(client, Meta={"at": str(answers)})
            path = f"/v1/health/service/greeter?index={index}&wait=5m"
            found, index = await get(client, path)
            assert found[0]["Service"]["Meta"] == {"at": str(answers)}
            answers += 1
        assert time.monotonic() - began > 4 * 0.4


async def test_an_index_of_another_registry_is_not_waited_for() -> None:
    """Of one before a restart, say, with as many changes."""
    async with served() as client:
        await register(client)
        _, index = await get(client, "/v1/health/service/greeter")
    await asyncio.sleep(0.01)
    async with served() as client:
        await register(client, "b")
        async with asyncio.timeout(5):
            found, newer = await get(client, f"/v1/health/service/greeter?index={index}&wait=5m")
        assert [each["Service"]["ID"] for each in found] == ["b"]
        assert newer > index


@pytest.mark.parametrize(
    ("query", "status"),
    [
        *(("filter=Service.Port==80", 400), ("node-meta=a:b", 400), ("ns=team", 400), ("partition=p", 400)),
        *(
            ("dc=elsewhere", 500),
            ("dc=dc1", 200),
            ("ns=default", 200),
            ("near=_agent", 200),
            ("filter=", 200),
        ),
    ],
)
async def test_less_than_everything_is_not_answered_with_everything(query: str, status: int) -> None:
    async with served() as client:
        await register(client)
        for path in (
            "health/service/greeter",
            "catalog/service/greeter",
            "catalog/services",
            "health/state/any",
        ):
            async with client.get(f"/v1/{path}?{query}") as response:
                assert response.status == status, await response.text()


async def test_a_body_must_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "BODY_WITHIN", 0.1)
    async with served() as client:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(
            b"PUT /v1/agent/service/register HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n{"
        )
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n")).split()[1] == b"400"
        writer.transport.abort()


def test_the_pages_say_which_paths_there_are() -> None:
    page = Path(__file__).parents[3] / "docs" / "registry.md"
    source = Path(__file__).parents[3] / "lb" / "control" / "registry" / "api.py"
    paths = {line.split('"')[1].split("{")[0].rstrip("/") for line in source.read_text().splitlines()
             if "web.put(" in line or "web.get(" in line}  # fmt: skip
    text = page.read_text()
    assert [path for path in sorted(paths) if path not in text] == []
