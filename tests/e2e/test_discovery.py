"""Backends that come and go while requests pass: whatever names them, nothing fails."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from tests.control.waiting import until
from tests.discovery.consul import Consul, consul, instance
from tests.discovery.dnsmasq import Dnsmasq, dnsmasq
from tests.discovery.real_consul import RealConsul, real_consul
from tests.e2e.conftest import Play
from tests.e2e.process import eventually
from tests.e2e.scene import Scene
from tests.e2e.test_reload import reload, signed, write
from tests.e2e.traffic import Traffic
from tests.e2e.wire import GET, answer

ALL = "# $a $b $c $d $e $f\naccess_log: off\n"
POOL = ALL + "pools: {greeter: {discovery: [{file: backends.yaml}]}}\n"


def name(scene: Scene, *backends: str) -> None:
    """The file names these backends, from one moment to the next."""
    path = scene.balancer.config.parent / "backends.yaml"
    lines = [f"- {{id: {each}, address: '{scene.backends[each].address}'}}\n" for each in backends]
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(lines) or "[]")
    fresh.rename(path)


def sign_all(scene: Scene) -> None:
    for each, backend in scene.backends.items():
        backend.script = signed(each)


class Names:
    """Whoever tells the balancer where the backends are. `source` is how the configuration says so."""

    source = "file: backends.yaml"

    async def names(self, scene: Scene, *backends: str) -> None:
        """These, and no others, from one moment to the next."""
        name(scene, *backends)


class DnsNames(Names):
    """dnsmasq with SRV records."""

    def __init__(self, server: Dnsmasq) -> None:
        self._server = server
        self.source = (
            "dns: {name: _http._tcp.greeter.test, type: SRV, min_ttl: 100ms, "
            f"resolver: ['127.0.0.1:{server.port}']}}"
        )

    async def names(self, scene: Scene, *backends: str) -> None:
        ports = [scene.backends[each].address.rpartition(":")[2] for each in backends]
        records = [f"srv-host=_http._tcp.greeter.test,host.test,{port},0,1" for port in ports]
        await self._server.say("host-record=host.test,127.0.0.1", *records)


class ConsulNames(Names):
    """An agent of Consul."""

    def __init__(self, agent: Consul, url: str) -> None:
        self._agent = agent
        self.source = f"consul: {{url: '{url}', service: greeter}}"

    async def names(self, scene: Scene, *backends: str) -> None:
        there = [(each, scene.backends[each].address.rpartition(":")[2]) for each in backends]
        await self._agent.say(*(instance(each, "127.0.0.1", int(port)) for each, port in there))


class RealConsulNames(Names):
    """A real Consul. Who comes is there before somebody else goes."""

    def __init__(self, agent: RealConsul) -> None:
        self._agent = agent
        self._there: set[str] = set()
        self.source = f"consul: {{url: '{agent.url}', service: greeter}}"

    async def names(self, scene: Scene, *backends: str) -> None:
        for each in backends:
            port = int(scene.backends[each].address.rpartition(":")[2])
            await self._agent.register(each, Address="127.0.0.1", Port=port)
        for each in self._there - {*backends}:
            await self._agent.deregister(each)
        self._there = {*backends}


@pytest_asyncio.fixture(params=["file", "dns", "consul", "real consul"])
async def naming(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Names]:
    if request.param == "file":
        yield Names()
    elif request.param == "dns":
        async with dnsmasq(tmp_path) as server:
            yield DnsNames(server)
    elif request.param == "consul":
        async with consul() as (agent, url):
            yield ConsulNames(agent, url)
    else:
        async with real_consul(tmp_path) as real:
            yield RealConsulNames(real)


def pool(scene: Scene) -> dict[str, Any]:
    return dict(scene.balancer.api("/api/pools")["pools"][0])


def members(scene: Scene) -> list[str]:
    """The letters of the backends that are in the pool."""
    letters = {backend.address: letter for letter, backend in scene.backends.items()}
    return sorted(letters[each["address"]] for each in pool(scene)["backends"])


def eligible(scene: Scene) -> int:
    return int(pool(scene)["eligible"])


async def until_members(scene: Scene, *backends: str) -> None:
    await eventually(lambda: members(scene) == sorted(backends), f"the members {backends}")


async def serves(traffic: Traffic, backend: str) -> None:
    """Waits until a backend has answered one of the requests from now on."""
    before = traffic.bodies[backend.encode()]
    await until(lambda: traffic.failures or traffic.bodies[backend.encode()] > before)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("check", ["", "health_check: {path: /healthz, interval: 200ms}, "])
async def test_all_are_replaced_one_by_one_under_load(
    play: Play, naming: Names, workers: int, check: str
) -> None:
    config = POOL.replace("discovery:", check + "discovery:").replace("file: backends.yaml", naming.source)
    scene = await play(f"workers: {workers}\n" + config)
    sign_all(scene)
    await naming.names(scene, "a", "b", "c")
    await eventually(lambda: eligible(scene) == 3, "the first backends")
    assert scene.balancer.ask("/readyz")[0] == 200  # by then all workers know of them
    there = ["a", "b", "c"]
    async with Traffic(scene.balancer.port) as traffic:
        for old, new in (("a", "d"), ("b", "e"), ("c", "f")):
            there.append(new)
            await naming.names(scene, *there)
            await serves(traffic, new)
            there.remove(old)
            await naming.names(scene, *there)
            await until_members(scene, *there)
            await traffic.go_on()
            await scene.backends[old].close()
            scene.backends[old].listening.close()
            await traffic.go_on()
    assert (traffic.failures, set(traffic.answers)) == ([], {200})
    assert scene.balancer.metric("lb_backend_retries_total") == 0


async def test_all_are_replaced_at_once_under_load(play: Play, naming: Names) -> None:
    """Where health checks decide who serves, the old ones stay until one of the new ones is found well."""
    config = POOL.replace("discovery:", "health_check: {interval: 200ms}, discovery:")
    scene = await play(config.replace("file: backends.yaml", naming.source))
    sign_all(scene)
    await naming.names(scene, "a", "b")
    await eventually(lambda: eligible(scene) == 2, "the first backends")
    async with Traffic(scene.balancer.port) as traffic:
        await naming.names(scene, "c", "d")
        await until_members(scene, "c", "d")
        await serves(traffic, "c")
        await serves(traffic, "d")
    assert (traffic.failures, set(traffic.answers)) == ([], {200})


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_pool_begins_without_backends(play: Play, workers: int) -> None:
    scene = await play(f"workers: {workers}\n" + POOL)
    sign_all(scene)
    response = await scene.ask(GET)
    assert (response.status, b"no_backends" in response.body) == (503, True)
    status, body = scene.balancer.ask("/readyz")
    assert status == 503
    assert "there is no such file" in body
    name(scene, "a")
    await until_members(scene, "a")
    assert scene.balancer.ask("/readyz")[0] == 200
    assert (await scene.ask(GET)).body == b"a"


async def test_what_a_leaver_has_begun_it_finishes(play: Play) -> None:
    scene = await play(POOL)
    name(scene, "a")
    await until_members(scene, "a")
    client = await scene.connect()
    await client.send(GET)
    wire = await scene.backends["a"].accept()
    await wire.request()
    scene.backends["b"].script = signed("b")
    name(scene, "b")
    await until_members(scene, "b")
    assert (await scene.ask(GET)).body == b"b"
    await wire.send(answer(b"finished"))
    assert (await client.response()).body == b"finished"


async def test_static_ones_and_sources_together(play: Play) -> None:
    scene = await play(
        ALL + "pools: {greeter: {backends: [{id: a, address: $a}], discovery: [{file: backends.yaml}, "
        "{file: more.yaml}]}}\n"
    )
    name(scene, "b", "a")
    (scene.balancer.config.parent / "more.yaml").write_text(f"['{scene.backends['c'].address}']")
    await until_members(scene, "a", "b", "c")
    found = pool(scene)
    assert [each["source"] for each in found["backends"]] == ["static", "file-1", "file-2"]
    assert [(each["name"], each["backends"], each["error"]) for each in found["sources"]] == [
        ("file-1", 2, None),
        ("file-2", 1, None),
    ]
    assert scene.balancer.metric("lb_discovery_updates_total", source="file-1", result="success") == 1
    assert scene.balancer.metric("lb_discovery_last_success_timestamp_seconds", source="file-2") > 1e9


async def test_what_is_set_by_hand_stays(play: Play) -> None:
    scene = await play(POOL)
    name(scene, "a", "b")
    await until_members(scene, "a", "b")
    for change in ({"state": "draining"}, {"weight": 7}):
        assert scene.balancer.ask("/api/pools/greeter/backends/a", "PATCH", change)[0] == 200
    name(scene, "a", "b", "c")
    await until_members(scene, "a", "b", "c")
    first = pool(scene)["backends"][0]
    assert (first["state"], first["weight"]) == ("draining", 7)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_reload_leaves_a_source_alone_that_is_the_same(play: Play, workers: int) -> None:
    scene = await play(f"workers: {workers}\n" + POOL)
    sign_all(scene)
    name(scene, "a", "b")
    await until_members(scene, "a", "b")
    updates = pool(scene)["sources"][0]["updates"]
    async with Traffic(scene.balancer.port) as traffic:
        await reload(
            scene, f"workers: {workers}\n" + POOL.replace("greeter: {", "greeter: {slow_start: 1s, ")
        )
        await traffic.go_on()
    assert (traffic.failures, set(traffic.answers)) == ([], {200})
    assert pool(scene)["sources"][0]["updates"] == updates
    assert pool(scene)["backends"][0]["requests"]["200"] > 0
    name(scene, "c")
    await until_members(scene, "c")


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_reload_to_another_source_leaves_no_gap(play: Play, workers: int) -> None:
    scene = await play(f"workers: {workers}\n" + POOL)
    sign_all(scene)
    name(scene, "a", "b")
    await until_members(scene, "a", "b")
    another = f"workers: {workers}\n" + POOL.replace("backends.yaml", "others.yaml")
    static = f"workers: {workers}\n{ALL}pools: {{greeter: {{backends: [{{id: a, address: $a}}]}}}}\n"
    async with Traffic(scene.balancer.port) as traffic:
        result = await reload(scene, another)  # that file isn't there yet
        assert result["changed"] == ["pools.greeter.discovery"]
        assert members(scene) == ["a", "b"]
        await traffic.go_on()
        others = scene.balancer.config.parent / "others.yaml"
        others.write_text(f"[{{id: b, address: '{scene.backends['b'].address}'}}]")
        await until_members(scene, "b")
        assert pool(scene)["backends"][0]["requests"]["200"] > 0, "it was the same backend all along"
        await reload(scene, static)
        assert members(scene) == ["a"]
        assert pool(scene)["sources"] == []
        await reload(scene, another)
        await until_members(scene, "b")
        await traffic.go_on()
    assert (traffic.failures, set(traffic.answers)) == ([], {200})


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_next_process_knows_the_backends_before_it_accepts(
    play: Play, naming: Names, processes: list[int], workers: int
) -> None:
    scene = await play(f"workers: {workers}\n" + POOL.replace("file: backends.yaml", naming.source))
    sign_all(scene)
    await naming.names(scene, "a", "b")
    await until_members(scene, "a", "b")
    async with Traffic(scene.balancer.port) as traffic:
        scene.balancer.send(signal.SIGUSR2)
        processes.append(await scene.balancer.successor())
        await asyncio.to_thread(scene.balancer.wait)
        await traffic.go_on()
    assert (traffic.failures, set(traffic.answers)) == ([], {200})


async def test_the_next_process_knows_them_though_the_source_is_gone(
    play: Play, processes: list[int]
) -> None:
    scene = await play(POOL)
    sign_all(scene)
    name(scene, "a", "b")
    await until_members(scene, "a", "b")
    (scene.balancer.config.parent / "backends.yaml").unlink()
    async with Traffic(scene.balancer.port) as traffic:
        scene.balancer.send(signal.SIGUSR2)
        processes.append(await scene.balancer.successor())
        await asyncio.to_thread(scene.balancer.wait)
        await traffic.go_on()
        assert members(scene) == ["a", "b"]
        assert "no such file" in str(pool(scene)["sources"][0]["error"])
    assert (traffic.failures, set(traffic.answers)) == ([], {200})


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_source_that_is_down_keeps_nobody_from_starting(play: Play, workers: int) -> None:
    scene = await play(
        f"workers: {workers}\n{ALL}pools: {{greeter: {{backends: [{{id: a, address: $a}}], discovery: ["
        "{consul: {url: 'http://127.0.0.1:1', service: greeter}}, "
        "{dns: {name: greeter.test, port: 80, resolver: ['127.0.0.1:1'], timeout: 1s}}]}}\n"
    )
    sign_all(scene)
    assert (await scene.ask(GET)).body == b"a"
    await eventually(lambda: all(each["error"] for each in pool(scene)["sources"]), "both errors")
    first, second = pool(scene)["sources"]
    assert "http://127.0.0.1:1 can't be asked" in first["error"]
    assert "greeter.test" in second["error"]
    assert (first["backends"], first["last_success"]) == (None, None)
    assert scene.balancer.metric("lb_discovery_updates_total", source="consul", result="failure") >= 1


async def test_who_goes_away_for_a_while_changes_nothing(play: Play) -> None:
    async with consul() as (agent, url):
        naming = ConsulNames(agent, url)
        scene = await play(POOL.replace("file: backends.yaml", naming.source))
        sign_all(scene)
        await naming.names(scene, "a", "b")
        await until_members(scene, "a", "b")
        async with Traffic(scene.balancer.port) as traffic:
            agent.reply = web.Response(status=500, text="No cluster leader")
            await agent.interrupt()
            await eventually(lambda: "No cluster leader" in str(pool(scene)["sources"]), "the error")
            await traffic.go_on()
            assert members(scene) == ["a", "b"]
            agent.reply = None
            await naming.names(scene, "b", "c")
            await until_members(scene, "b", "c")
            await serves(traffic, "c")
    assert (traffic.failures, set(traffic.answers)) == ([], {200})


def swap(directory: Path, number: int, text: str) -> None:
    """As the kubelet updates a ConfigMap's volume: files in a new directory, and `..data` points there."""
    fresh = directory / f"..{number}"
    fresh.mkdir()
    (fresh / "backends.yaml").write_text(text)
    link = directory / "..data_tmp"
    link.symlink_to(fresh.name)
    os.rename(link, directory / "..data")


async def test_a_volume_of_kubernetes(play: Play) -> None:
    scene = await play(POOL.replace("backends.yaml", "volume/backends.yaml"))
    volume = scene.balancer.config.parent / "volume"
    volume.mkdir()
    address: Sequence[str] = [scene.backends[each].address for each in "abc"]
    swap(volume, 1, f"['{address[0]}']")
    (volume / "backends.yaml").symlink_to("..data/backends.yaml")
    await until_members(scene, "a")
    swap(volume, 2, f"['{address[1]}', '{address[2]}']")
    await until_members(scene, "b", "c")


async def test_a_wrong_file_is_told_and_changes_nothing(play: Play) -> None:
    scene = await play(POOL)
    name(scene, "a", "b")
    await until_members(scene, "a", "b")
    path = scene.balancer.config.parent / "backends.yaml"
    path.write_text("- 127.0.0.1:9001\n- {address: 127.0.0.1:9002, wieght: 3}\n- http://x\n")
    wrong = f"{path}:2:29: backends[1].wieght: unknown key (did you mean weight?) (and 1 more problem"
    await eventually(lambda: str(pool(scene)["sources"][0]["error"]).startswith(wrong), "the error")
    assert wrong in scene.balancer.said()
    assert members(scene) == ["a", "b"]
    path.unlink()
    await eventually(lambda: "no such file" in str(pool(scene)["sources"][0]["error"]), "another error")
    assert members(scene) == ["a", "b"]
    name(scene, "c")
    await until_members(scene, "c")
    assert pool(scene)["sources"][0]["error"] is None


async def test_an_empty_file_list_as_configured(play: Play) -> None:
    scene = await play(POOL)
    name(scene, "a")
    await until_members(scene, "a")
    name(scene)
    await eventually(lambda: pool(scene)["sources"][0]["updates"]["kept"], "the empty answer")
    assert members(scene) == ["a"]
    write(scene, POOL.replace("file: backends.yaml", "file: {path: backends.yaml, on_empty: accept}"))
    await reload(scene)
    name(scene, "a", "b")
    await until_members(scene, "a", "b")
    name(scene)
    await until_members(scene)
    assert (await scene.ask(GET)).status == 503


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_source_that_is_silent_does_not_keep_others_waiting(
    play: Play, tmp_path: Path, workers: int
) -> None:
    """Not the start, where there are backends without it, and not a reload."""
    async with dnsmasq(tmp_path) as server:
        await server.say()
        server.freeze()
        silent = (
            f"{{dns: {{name: greeter.test, port: 80, resolver: ['127.0.0.1:{server.port}'], timeout: 30s}}}}"
        )
        config = (
            f"workers: {workers}\n{ALL}pools: {{greeter: {{backends: [{{id: a, address: $a}}], "
            f"discovery: [{silent}]}}}}\n"
        )
        scene = await play(config)
        assert "has not answered yet; going on without it for now" in scene.balancer.said()
        sign_all(scene)
        assert (await scene.ask(GET)).body == b"a"
        source = pool(scene)["sources"][0]
        assert (source["backends"], source["error"], source["last_success"]) == (None, None, None)
        assert scene.balancer.ask("/readyz")[0] == 200
        began = time.monotonic()
        await reload(scene, config.replace("timeout: 30s", "timeout: 20s"))
        assert time.monotonic() - began < 4.5
