"""Backends in a cluster: pods come, get ready, drain and go while requests pass; and the API server is not
always there, and not always willing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.discovery.cluster import LEAVING, READY, UNREADY, Cluster, serving, write_kubeconfig
from tests.e2e.conftest import Play
from tests.e2e.process import eventually
from tests.e2e.scene import Scene
from tests.e2e.test_discovery import eligible, pool, serves, sign_all, until_members
from tests.e2e.traffic import Traffic
from tests.e2e.wire import GET

CHECK = "health_check: {path: /healthz, interval: 200ms}, "


class ApiServer:
    """The API server of the cluster, which can go and come back."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._running = AsyncExitStack()
        self._port = 0

    async def start(self) -> None:
        await self._running.enter_async_context(serving(self.cluster, self._port))
        self._port = int(self.cluster.url.rpartition(":")[2])

    async def stop(self) -> None:
        await self._running.aclose()


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    server = ApiServer(Cluster())
    await server.start()
    write_kubeconfig(tmp_path / "kubeconfig", server.cluster.url)
    yield server
    await server.stop()


def config(tmp_path: Path, workers: int = 1, check: str = "") -> str:
    return (
        f"# $a $b $c $d $e $f\nworkers: {workers}\naccess_log: off\npools: {{greeter: {{{check}discovery: "
        f"[{{kubernetes: {{service: greeter, port: http, kubeconfig: {tmp_path}/kubeconfig}}}}]}}}}\n"
    )


def put(server: ApiServer, scene: Scene, name: str, conditions: dict[str, bool]) -> None:
    server.cluster.put(name, scene.backends[name].address, conditions)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("check", ["", CHECK])
async def test_a_rolling_update_under_load(
    play: Play, server: ApiServer, tmp_path: Path, workers: int, check: str
) -> None:
    """One pod more, one pod less, three times: what `maxSurge: 1, maxUnavailable: 0` does."""
    scene = await play(config(tmp_path, workers, check))
    sign_all(scene)
    for each in "abc":
        put(server, scene, each, READY)
    await eventually(lambda: eligible(scene) == 3, "the first backends")
    assert scene.balancer.ask("/readyz")[0] == 200  # by then all workers know of them
    there = ["a", "b", "c"]
    async with Traffic(scene.balancer.port) as traffic:
        for old, new in (("a", "d"), ("b", "e"), ("c", "f")):
            put(server, scene, new, UNREADY)
            await traffic.go_on()
            assert traffic.bodies[new.encode()] == 0, "it was not ready"
            put(server, scene, new, READY)
            there.append(new)
            await serves(traffic, new)
            put(server, scene, old, LEAVING)
            there.remove(old)
            await until_members(scene, *there)
            await traffic.go_on()
            await scene.backends[old].close()
            scene.backends[old].listening.close()
            server.cluster.remove(old)
            await traffic.go_on()
    assert (traffic.failures, set(traffic.answers)) == ([], {200})
    assert scene.balancer.metric("lb_backend_retries_total") == 0
    assert server.cluster.listed == 1, "all the rest came by the watch"


async def test_where_all_leave_they_serve_to_the_end(play: Play, server: ApiServer, tmp_path: Path) -> None:
    scene = await play(config(tmp_path))
    sign_all(scene)
    put(server, scene, "a", READY)
    await until_members(scene, "a")
    async with Traffic(scene.balancer.port) as traffic:
        put(server, scene, "a", LEAVING)
        await traffic.go_on(500)
        put(server, scene, "b", READY)
        await until_members(scene, "b")
        server.cluster.remove("a")
        await traffic.go_on()
    assert (traffic.failures, set(traffic.answers)) == ([], {200})
    server.cluster.remove("b")
    await until_members(scene)
    assert (await scene.ask(GET)).status == 503, "an empty Service is believed"
    assert scene.balancer.ask("/readyz")[0] == 503


async def test_the_api_server_goes_and_comes_back(play: Play, server: ApiServer, tmp_path: Path) -> None:
    scene = await play(config(tmp_path))
    sign_all(scene)
    put(server, scene, "a", READY)
    put(server, scene, "b", READY)
    await until_members(scene, "a", "b")
    async with Traffic(scene.balancer.port) as traffic:
        await server.stop()
        await eventually(lambda: pool(scene)["sources"][0]["error"], "the outage")
        await traffic.go_on()
        status, body = scene.balancer.ask("/readyz")
        source = json.loads(body)["pools"]["greeter"]["sources"][0]
        assert (status, source["backends"]) == (200, 2)
        assert "no answer of the API server" in source["error"]
        failures = {"source": "kubernetes", "result": "failure"}
        assert scene.balancer.metric("lb_discovery_updates_total", **failures) >= 1
        # Things happen while we are away, and nobody remembers what.
        server.cluster.remove("a")
        put(server, scene, "c", READY)
        server.cluster.forget()
        await server.start()
        await until_members(scene, "b", "c")
        await serves(traffic, "c")
    assert (traffic.failures, set(traffic.answers)) == ([], {200})
    assert pool(scene)["sources"][0]["error"] is None
    assert scene.balancer.metric("lb_discovery_last_success_timestamp_seconds", source="kubernetes") > 1e9
    assert "its last 2 backends stay" in scene.balancer.said()
    assert "answers again" in scene.balancer.said()


async def test_a_role_that_is_missing_and_then_is_not(play: Play, server: ApiServer, tmp_path: Path) -> None:
    server.cluster.forbidden = True
    scene = await play(config(tmp_path))
    sign_all(scene)
    put(server, scene, "a", READY)
    status, body = scene.balancer.ask("/readyz")
    assert status == 503
    for words in ("a Role in the namespace default", "list and watch on endpointslices", "RoleBinding"):
        assert words in body
        assert words in scene.balancer.said()
    server.cluster.forbidden = False
    await until_members(scene, "a")
    assert scene.balancer.ask("/readyz")[0] == 200
