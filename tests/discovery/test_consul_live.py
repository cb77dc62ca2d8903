"""The source `consul` against a real Consul."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lb.core.backend import BackendSpec
from lb.discovery.base import SourceError
from lb.discovery.consul import ConsulSource, Service
from tests.discovery.real_consul import RealConsul, real_consul
from tests.e2e.process import eventually, running

TTL = {"TTL": "60s", "Status": "passing"}


@pytest_asyncio.fixture
async def agent(tmp_path: Path) -> AsyncIterator[RealConsul]:
    async with real_consul(tmp_path) as found:
        yield found


class Following:
    """What a source says, as it says it."""

    def __init__(self, sets: Any) -> None:
        self._sets = sets
        self.last: Sequence[BackendSpec] = ()

    async def until(self, right: Callable[[list[str]], bool]) -> Sequence[BackendSpec]:
        """The first set whose IDs are right."""
        async with asyncio.timeout(20):
            while True:
                self.last = await anext(self._sets)
                if right([each.id for each in self.last]):
                    return self.last

    async def names(self, *wanted: str) -> Sequence[BackendSpec]:
        return await self.until(lambda ids: ids == sorted(wanted))


@contextlib.asynccontextmanager
async def following(agent: RealConsul, wait: float = 30.0, **more: Any) -> AsyncIterator[Following]:
    source = ConsulSource(Service(agent.url, "greeter", **more), lambda: agent.token, wait=wait)
    async with contextlib.aclosing(source.watch()) as sets:
        yield Following(sets)


async def test_everything_that_an_instance_can_be(agent: RealConsul) -> None:
    await agent.register("passing", Address="10.0.0.1", Port=80, Check=TTL, Meta={"zone": "z1"})
    await agent.register("unchecked", Address="10.0.0.2", Port=80, Weights={"Passing": 5, "Warning": 2})
    warning = {"TTL": "60s", "Status": "warning"}
    await agent.register(
        "warning", Address="10.0.0.3", Port=80, Check=warning, Weights={"Passing": 5, "Warning": 2}
    )
    await agent.register("critical", Address="10.0.0.4", Port=80, Check={"TTL": "60s"})
    await agent.register("one-critical", Address="10.0.0.5", Port=80, Checks=[TTL, {"TTL": "60s"}])
    await agent.register("six", Address="2001:db8::0:7", Port=80)
    await agent.register("here", Port=81)  # at the address of its node
    await agent.register("named", Address="Greeter.Example.", Port=80)
    await agent.register("no-port", Address="10.0.0.6")
    async with following(agent) as found:
        specs = await found.names("here", "named", "passing", "six", "unchecked")
        assert {each.id: (each.address, each.weight, each.zone) for each in specs} == {
            "here": ("127.0.0.1:81", 1, ""),
            "named": ("greeter.example.:80", 1, ""),
            "passing": ("10.0.0.1:80", 1, "z1"),
            "six": ("[2001:db8::7]:80", 1, ""),
            "unchecked": ("10.0.0.2:80", 5, ""),
        }
    async with following(agent, passing=False) as found:
        specs = await found.names("here", "named", "passing", "six", "unchecked", "warning")
        assert specs[-1].weight == 2


async def test_tags_and_the_datacenter(agent: RealConsul) -> None:
    await agent.register("a", Port=80, Tags=["blue", "v2"])
    await agent.register("b", Port=81, Tags=["blue"])
    async with following(agent, tags=("blue", "v2"), datacenter="dc1") as found:
        await found.names("a")
    async with following(agent, datacenter="elsewhere") as found:
        with pytest.raises(SourceError, match=r"status 500 .*No path to datacenter"):
            await found.names("a")


async def test_each_change_is_told(agent: RealConsul) -> None:
    """A heartbeat that comes, one that stays away, maintenance of an instance and of a node, and the end."""
    async with following(agent) as found:
        await found.names()
        await agent.register("a", Port=80, Check={"TTL": "1s"})
        await agent.put("/v1/agent/check/pass/service:a")
        await found.names("a")
        await found.names()  # TTL expired
        await agent.register("b", Port=81)
        await found.names("b")
        await agent.put("/v1/agent/service/maintenance/b?enable=true&reason=disk")
        await found.names()
        await agent.put("/v1/agent/service/maintenance/b?enable=false")
        await found.names("b")
        await agent.put("/v1/agent/maintenance?enable=true")
        await found.names()
        await agent.put("/v1/agent/maintenance?enable=false")
        await found.names("b")
        await agent.deregister("b")
        await found.names()


async def test_the_same_id_on_two_nodes(agent: RealConsul) -> None:
    for number in (1, 2):
        service = {"ID": "web", "Service": "greeter", "Port": 80}
        node = {"Node": f"other-{number}", "Address": f"10.0.0.{number}", "Service": service}
        await agent.put("/v1/catalog/register", node)
    async with following(agent) as found:
        specs = await found.names("web.other-1", "web.other-2")
        assert [each.address for each in specs] == ["10.0.0.1:80", "10.0.0.2:80"]


async def test_a_question_that_waits_for_nothing(agent: RealConsul) -> None:
    await agent.register("a", Port=80)
    async with following(agent, wait=0.2) as found:
        for _ in range(4):
            await found.names("a")


async def test_killed_and_back_with_nothing_and_an_index_that_went_backwards(
    agent: RealConsul, tmp_path: Path
) -> None:
    """While it is away the last set stays; what it says afterwards holds."""
    for number in range(20):
        await agent.register("a", Port=80 + number)
    pool = f"pools: {{greeter: {{discovery: [{{consul: {{url: '{agent.url}', service: greeter}}}}]}}}}\n"
    folder = tmp_path / "lb"
    folder.mkdir()
    with running(folder, pool) as balancer:

        def there() -> list[str]:
            return [each["address"] for each in balancer.api("/api/pools/greeter")["backends"]]

        def error() -> str:
            return str(balancer.api("/api/pools/greeter")["sources"][0]["error"] or "")

        await eventually(lambda: there() == ["127.0.0.1:99"], "the instance")
        agent.kill()
        await eventually(lambda: "can't be asked" in error(), "the error")
        assert there() == ["127.0.0.1:99"]
        await asyncio.to_thread(agent.start)
        await agent.register("b", Port=7)
        await eventually(lambda: there() == ["127.0.0.1:7"], "what it knows now")
        await eventually(lambda: error() == "", "the end of the error")
        await agent.register("c", Port=8)
        await eventually(lambda: there() == ["127.0.0.1:7", "127.0.0.1:8"], "the next one")


async def test_tokens(tmp_path: Path) -> None:
    async with real_consul(tmp_path, acls=True) as agent:
        await agent.register("a", Port=80)
        async with following(agent) as found:
            await found.names("a")
        agent.token = "99999999-2222-3333-4444-555555555555"
        async with following(agent) as found:
            with pytest.raises(
                SourceError, match=r"status 403 .*ACL not found; the token needs service:read"
            ):
                await found.names("a")
