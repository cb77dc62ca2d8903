"""A fleet is replaced one by one while all kinds of requests are under way, with each kind of source.

Short requests on connections that stay are the easy ones (test_discovery.py). Here are also those that take
two seconds, uploads and answers that take as long, and uploads which the balancer doesn't keep for a second
attempt. The servers are aiohttp's, and go as a program does: they finish what they have begun, close what
is idle, and are gone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.control.waiting import until
from tests.discovery.cluster import READY
from tests.discovery.consul import consul
from tests.discovery.dnsmasq import dnsmasq
from tests.e2e.process import LISTENERS, Balancer, eventually, running
from tests.e2e.scene import Scene
from tests.e2e.test_discovery import ConsulNames, DnsNames, Names, eligible, until_members
from tests.e2e.test_kubernetes import ApiServer, write_kubeconfig
from tests.e2e.test_kubernetes import Cluster as Pods
from tests.e2e.test_registry import put

LONG = 2.0  # seconds that a long request takes
PIECES = 20
CHECK = "health_check: {path: /healthz, interval: 200ms}, "
PIECE = bytes(8000)


class Replica:
    """A server that tells its name with each answer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = ""
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=4 * LONG)
        self._site: web.TCPSite | None = None
        self._working = 0

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=2 * PIECES * len(PIECE), middlewares=[self._count])
        app.router.add_get("/", self._quick)
        app.router.add_get("/healthz", self._quick)
        app.router.add_get("/slow", self._slow)
        app.router.add_get("/stream", self._stream)
        app.router.add_post("/upload", self._upload)
        return app

    async def start(self) -> None:
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await self._site.start()
        self.address = "{}:{}".format(*self._runner.addresses[0])

    async def leave(self) -> None:
        """Takes no more connections, ends what it has begun, and closes the idle ones."""
        assert self._site is not None
        await self._site.stop()
        await until(lambda: not self._working, 4 * LONG)  # aiohttp itself would drop the rest of an upload
        await self._runner.cleanup()

    async def end(self) -> None:
        await self._runner.cleanup()

    @web.middleware
    async def _count(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self._working += 1
        try:
            return await handler(request)
        finally:
            self._working -= 1

    async def _quick(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=self.name)

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(LONG)
        return web.Response(text=self.name)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(PIECES):
            await response.write(PIECE)
            await asyncio.sleep(LONG / PIECES)
        await response.write(self.name.encode())
        return response

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        assert body == PIECE * PIECES
        return web.Response(text=self.name)


class Fleet:
    """The replicas by their names, and the balancer in front. What sources' names need of a scene."""

    def __init__(self, balancer: Balancer, backends: dict[str, Replica]) -> None:
        self.balancer = balancer
        self.backends = backends

    @property
    def scene(self) -> Scene:
        return cast(Scene, self)


class RegistryNames(Names):
    """Each of them registers at the balancer, and deregisters."""

    source = "registry: greeter"

    def __init__(self) -> None:
        self._there: set[str] = set()

    async def names(self, scene: Scene, *backends: str) -> None:
        for each in backends:
            port = int(scene.backends[each].address.rpartition(":")[2])
            body = {"Name": "greeter", "ID": each, "Address": "127.0.0.1", "Port": port}
            assert await asyncio.to_thread(put, scene.balancer.admin, "service/register", body) == 200
        for each in self._there - {*backends}:
            assert await asyncio.to_thread(put, scene.balancer.admin, f"service/deregister/{each}") == 200
        self._there = {*backends}


class KubernetesNames(Names):
    """Pods that come and go."""

    def __init__(self, server: ApiServer, kubeconfig: Path) -> None:
        self._pods = server.cluster
        self._there: set[str] = set()
        self.source = f"kubernetes: {{service: greeter, port: http, kubeconfig: {kubeconfig}}}"

    async def names(self, scene: Scene, *backends: str) -> None:
        for each in backends:
            if each not in self._there:
                self._pods.put(each, scene.backends[each].address, READY)
        for each in self._there - {*backends}:
            self._pods.remove(each)
        self._there = {*backends}


@pytest_asyncio.fixture
async def naming(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Names]:
    async with AsyncExitStack() as stack:
        if request.param == "file":
            yield Names()
        elif request.param == "dns":
            yield DnsNames(await stack.enter_async_context(dnsmasq(tmp_path)))
        elif request.param == "consul":
            yield ConsulNames(*await stack.enter_async_context(consul()))
        elif request.param == "registry":
            yield RegistryNames()
        else:
            server = ApiServer(Pods())
            await server.start()
            stack.push_async_callback(server.stop)
            write_kubeconfig(tmp_path / "kubeconfig", server.cluster.url)
            yield KubernetesNames(server, tmp_path / "kubeconfig")


class Work:
    """Clients that ask for all kinds of things without a pause, and look closely at the answers."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._stopping = False
        self.failures: list[str] = []
        self.done: Counter[tuple[str, str]] = Counter()  # by kind, and who answered

    async def __aenter__(self) -> Work:
        kinds: Sequence[tuple[Callable[[aiohttp.ClientSession], Awaitable[str]], int]] = [
            *((self._quick, 4), (self._slow, 6), (self._stream, 6)),
            *((self._upload, 6), (self._whole_upload, 3)),
        ]
        self._tasks = [asyncio.create_task(self._run(kind)) for kind, times in kinds for _ in range(times)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _run(self, kind: Callable[[aiohttp.ClientSession], Awaitable[str]]) -> None:
        name = kind.__name__.strip("_")
        # A session each, with a connection that stays; and without aiohttp's own second attempts.
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(self._url, connector=connector) as session:
            session._retry_connection = False
            while not self._stopping and not self.failures:
                try:
                    async with asyncio.timeout(10 * LONG):
                        self.done[name, await kind(session)] += 1
                except (aiohttp.ClientError, OSError, TimeoutError, AssertionError) as error:
                    self.failures.append(f"{name}: {error!r}")

    async def _quick(self, session: aiohttp.ClientSession) -> str:
        async with session.get("/") as response:
            return await self._good(response)

    async def _slow(self, session: aiohttp.ClientSession) -> str:
        async with session.get("/slow") as response:
            return await self._good(response)

    async def _stream(self, session: aiohttp.ClientSession) -> str:
        async with session.get("/stream") as response:
            text = await self._good(response)
        assert len(text) == PIECES * len(PIECE) + 1
        return text[-1]

    async def _upload(self, session: aiohttp.ClientSession) -> str:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(PIECES):
                yield PIECE
                await asyncio.sleep(LONG / PIECES)

        async with session.post("/upload", data=pieces()) as response:
            return await self._good(response)

    async def _whole_upload(self, session: aiohttp.ClientSession) -> str:
        async with session.post("/upload", data=PIECE * PIECES) as response:
            return await self._good(response)

    async def _good(self, response: aiohttp.ClientResponse) -> str:
        text = await response.text()
        assert response.status == 200, (response.status, text)
        return text

    async def until(self, *done: tuple[str, str]) -> None:
        """Until each of these kinds has been done by that backend once more."""
        before = dict(self.done)

        def is_done() -> bool:
            return bool(self.failures) or all(self.done[each] > before.get(each, 0) for each in done)

        await until(is_done, 60)


@pytest.mark.parametrize(
    ("naming", "workers", "check"),
    [
        *(("file", 1, ""), ("file", 2, CHECK), ("dns", 1, CHECK), ("consul", 2, "")),
        *(("registry", 1, CHECK), ("registry", 2, ""), ("kubernetes", 1, ""), ("kubernetes", 2, CHECK)),
    ],
    indirect=["naming"],
)
async def test_a_fleet_is_replaced_under_all_kinds_of_requests(
    naming: Names, tmp_path: Path, workers: int, check: str
) -> None:
    config = (
        f"{LISTENERS}workers: {workers}\naccess_log: off\npools: {{greeter: {{{check}retries: off, "
        f"outlier_detection: off, discovery: [{{{naming.source}}}]}}}}\n"
    )
    (tmp_path / "balancer").mkdir()
    async with AsyncExitStack() as stack:
        replicas = {name: Replica(name) for name in "abcdef"}
        for replica in replicas.values():
            await replica.start()
            stack.push_async_callback(replica.end)
        balancer = stack.enter_context(await _started(tmp_path / "balancer", config))
        fleet = Fleet(balancer, replicas)
        there = ["a", "b", "c"]
        await naming.names(fleet.scene, *there)
        await eventually(lambda: eligible(fleet.scene) == 3, "the first backends")
        async with Work(balancer.port) as work:
            for old, new in (("a", "d"), ("b", "e"), ("c", "f")):
                there.append(new)
                await naming.names(fleet.scene, *there)
                await work.until(("quick", new), ("slow", new), ("stream", new), ("upload", new))
                there.remove(old)
                await naming.names(fleet.scene, *there)
                await until_members(fleet.scene, *there)
                await fleet.backends[old].leave()
        failures = {
            key: value
            for each in balancer.api("/api/pools/greeter")["backends"]
            for key, value in each["failures"].items()
        }
    assert work.failures == []
    assert failures == {}
    assert {kind for kind, _ in work.done} == {"quick", "slow", "stream", "upload", "whole_upload"}


async def _started(directory: Path, config: str) -> Any:
    """In a thread, so that whom it asks when it starts can answer."""
    found = running(directory, config)
    entered = await asyncio.to_thread(found.__enter__)

    class Entered:
        def __enter__(self) -> Balancer:
            return entered

        def __exit__(self, *error: Any) -> bool | None:
            return found.__exit__(*error)

    return Entered()
