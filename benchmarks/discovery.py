"""What discovery costs: `python -m benchmarks.discovery [events] [churn]`.

events: from the moment when the API server tells of a new backend to the first request that reaches it, end
to end, while some clients ask without a pause. churn: the CPU time per request with many backends, of which
some change all the time, beside that of the same process when nothing changes, in turns. The backends are
named by a stand-in for a Kubernetes API server, over real HTTP, or name themselves at the balancer's registry
(`--source registry`: then what registering costs is in it as well); the balancer is a real `lb serve`.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import uvloop

from tests.discovery.cluster import READY, UNREADY, Cluster, serving, write_kubeconfig
from tests.e2e.process import Balancer, running

from . import load
from .cases import CASES
from .machine import cpu_seconds, free_ports, share_cores
from .machine import serving as process
from .responder import ANSWERS, Responder

CLIENTS = 8  # that ask without a pause
APART = 0.3  # seconds from one new backend to the next
SLICE = 100  # endpoints, as many as Kubernetes' controller puts into one
PORT = 8080  # of all backends
REQUEST = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.discovery", description=__doc__)
    parser.add_argument("what", nargs="*", default=["events", "churn"], help="events, churn")
    parser.add_argument("--events", type=int, default=50, help="new backends, one after the other (50)")
    parser.add_argument("--backends", type=int, default=5000, help="in the pool of churn (5000)")
    parser.add_argument("--source", choices=[*CROWDS], default="kubernetes", help="of churn (kubernetes)")
    parser.add_argument("--changes", type=int, default=100, help="a second (100)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of windows (5)")
    parser.add_argument("--seconds", type=int, default=5, help="of each window (5)")
    parser.add_argument("--serve", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def address(number: int) -> str:
    """The address of one of many backends, all on the loopback."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


def config(kubeconfig: Path) -> str:
    return (
        "access_log: off\npools: {greeter: {discovery: [{kubernetes: "
        f"{{service: greeter, port: http, kubeconfig: {kubeconfig}}}}}]}}}}\n"
    )


@asynccontextmanager
async def balancing(cluster: Cluster, directory: Path) -> AsyncIterator[Balancer]:
    """A balancer whose backends the cluster names."""
    async with serving(cluster):
        write_kubeconfig(directory / "kubeconfig", cluster.url)
        with ExitStack() as stack:
            yield await asyncio.to_thread(
                stack.enter_context, running(directory, config(directory / "kubeconfig"))
            )


# --- events ---


class Arrivals:
    """When each backend got its first request."""

    def __init__(self) -> None:
        self.first: dict[str, asyncio.Future[float]] = {}

    async def serve(self, name: str, host: str = "127.0.0.1", port: int = 0) -> asyncio.Server:
        self.first[name] = asyncio.get_running_loop().create_future()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readuntil(b"\r\n\r\n"):
                if not self.first[name].done():
                    self.first[name].set_result(time.perf_counter())
                writer.write(ANSWERS[b"/"])

        async def ignore_ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handle(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        return await asyncio.start_server(ignore_ends, host, port)


async def ask(port: int, failures: list[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            failures.append(head.split(b"\r\n")[0].decode())
        await reader.readexactly(len(ANSWERS[b"/"].partition(b"\r\n\r\n")[2]))


async def events(options: argparse.Namespace, directory: Path) -> None:
    cluster, arrivals = Cluster(), Arrivals()
    failures: list[str] = []
    took = []

    def at(server: asyncio.Server) -> str:
        return "{}:{}".format(*server.sockets[0].getsockname())

    servers = [await arrivals.serve(f"base-{number}") for number in range(3)]
    for number, server in enumerate(servers):
        cluster.put(f"base-{number}", at(server), READY)
    async with balancing(cluster, directory) as balancer:
        tasks = [asyncio.create_task(ask(balancer.port, failures)) for _ in range(CLIENTS)]
        for number in range(options.events):
            name = f"new-{number}"
            servers.append(await arrivals.serve(name))
            cluster.put(name, at(servers[-1]), UNREADY)
            await asyncio.sleep(APART)
            told = time.perf_counter()
            cluster.put(name, at(servers[-1]), READY)
            took.append((await asyncio.wait_for(arrivals.first[name], 10) - told) * 1e3)
            await asyncio.sleep(APART)
            cluster.remove(name)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for server in servers:
        server.close()
    ordered = sorted(took)
    print(
        f"from the event to the first request, {len(took)} times: median {statistics.median(took):.1f} ms, "
        f"p90 {ordered[int(len(ordered) * 0.9)]:.1f} ms, most {ordered[-1]:.1f} ms; "
        f"{len(failures)} requests failed"
    )


# --- churn ---


class Crowd(Protocol):
    """Many backends, and a way to say who of them is there."""

    def balancing(self, directory: Path) -> AbstractAsyncContextManager[Balancer]:
        """A balancer that knows all of them."""
        ...

    async def change(self) -> None:
        """One goes, or is back."""
        ...


class KubernetesCrowd(Cluster):
    """A Service of many endpoints, in slices as large as Kubernetes makes them."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self._at = 0
        for first in range(0, count, SLICE):
            self.tell_slice(f"crowd-{first // SLICE}", self.slice(first))

    def balancing(self, directory: Path) -> AbstractAsyncContextManager[Balancer]:
        return balancing(self, directory)

    def slice(self, first: int, unready: int = -1) -> dict[str, Any]:
        return {
            "metadata": {"name": f"crowd-{first // SLICE}", "namespace": "default"},
            "addressType": "IPv4",
            "endpoints": [
                {
                    "addresses": [address(number)],
                    "conditions": UNREADY if number == unready else READY,
                    "targetRef": {"kind": "Pod", "namespace": "default", "name": f"pod-{number}"},
                }
                for number in range(first, min(first + SLICE, self.count))
            ],
            "ports": [{"name": "http", "protocol": "TCP", "port": PORT}],
        }

    async def change(self) -> None:
        """An event brings both: one goes, and the one of its slice that went before is back."""
        self._at = (self._at + SLICE + 1) % self.count
        first = self._at // SLICE * SLICE
        self.tell_slice(f"crowd-{first // SLICE}", self.slice(first, self._at))


class RegisteredCrowd:
    """Instances that register at the balancer itself, and deregister."""

    TEXT = (
        "access_log: off\nregistry: {store: memory}\npools: {greeter: {discovery: [{registry: greeter}]}}\n"
    )

    def __init__(self, count: int) -> None:
        self.count = count
        self._at = 0
        self._gone = -1  # who is to be back next
        self._session: aiohttp.ClientSession | None = None
        self._agent = ""

    @asynccontextmanager
    async def balancing(self, directory: Path) -> AsyncIterator[Balancer]:
        with ExitStack() as stack:
            balancer = await asyncio.to_thread(stack.enter_context, running(directory, self.TEXT))
            self._agent = f"{balancer.admin}/v1/agent/service"
            async with aiohttp.ClientSession() as self._session:
                for number in range(self.count):
                    await self._register(number)
                yield balancer

    async def _register(self, number: int) -> None:
        instance = {"ID": f"pod-{number}", "Name": "greeter", "Address": address(number), "Port": PORT}
        await self._put("register", instance)

    async def _put(self, what: str, body: Any = None) -> None:
        assert self._session is not None
        async with self._session.put(f"{self._agent}/{what}", json=body) as response:
            assert response.status == 200, await response.text()

    async def change(self) -> None:
        if self._gone >= 0:
            await self._register(self._gone)
            self._gone = -1
        else:
            self._gone = self._at = (self._at + SLICE + 1) % self.count
            await self._put(f"deregister/pod-{self._at}")


CROWDS: dict[str, Callable[[int], Crowd]] = {"kubernetes": KubernetesCrowd, "registry": RegisteredCrowd}


async def changing(crowd: Crowd, changes: int) -> None:
    begun, done = time.monotonic(), 0
    while True:
        await crowd.change()
        done += 1
        await asyncio.sleep(max(0.0, begun + done / changes - time.monotonic()))


async def churn(options: argparse.Namespace, directory: Path) -> None:
    crowd, cores = CROWDS[options.source](options.backends), share_cores()
    (ready,) = free_ports(1)
    numbers = str(options.backends), str(ready)
    command = [sys.executable, "-m", "benchmarks.discovery", "--serve", *numbers]
    calm: list[float] = []
    busy: list[float] = []
    with process("backends", command, [ready], cores.backends, directory):
        async with crowd.balancing(directory) as balancer:
            pid = balancer.process.pid
            os.sched_setaffinity(pid, cores.proxy)
            os.sched_setaffinity(0, cores.load)  # who tells of changes is no neighbour of the balancer
            job = load.Job(balancer.port, CASES["few"], 64, options.seconds, directory)

            async def window() -> float:
                before = cpu_seconds(pid)
                seen = await asyncio.to_thread(load.run, load.default_generator(), job, cores.load)
                if seen.errors:
                    print(f"{seen.errors} errors")
                return (cpu_seconds(pid) - before) / seen.requests * 1e6

            await window()
            await window()  # every backend has been connected to by then
            for _ in range(options.rounds):
                calm.append(await window())
                task = asyncio.create_task(changing(crowd, options.changes))
                busy.append(await window())
                before = cpu_seconds(pid)
                await asyncio.sleep(options.seconds)
                alone = (cpu_seconds(pid) - before) / options.seconds
                task.cancel()
                await asyncio.wait([task])
                print(
                    f"calm {calm[-1]:.1f} µs a request, with {options.changes} changes a second "
                    f"{busy[-1]:.1f} µs; changes alone {alone * 100:.1f} % of a core"
                )
            state = balancer.api("/api/pools")["pools"][0]["sources"][0]
    ratio = statistics.median(b / a for a, b in zip(calm, busy, strict=True))
    print(
        f"{options.backends} backends: {statistics.median(calm):.1f} µs calm, "
        f"{statistics.median(busy):.1f} µs with changes, ratio {ratio:.3f} "
        f"(median of {options.rounds} pairs); {json.dumps(state['updates'])}"
    )


async def serve(count: int, ready: int) -> None:
    """All the backends of churn; the last port says that all of them are there."""
    loop = asyncio.get_running_loop()
    for number in range(count):
        await loop.create_server(Responder, address(number), PORT, backlog=64)
    await loop.create_server(Responder, "127.0.0.1", ready)
    await loop.create_future()


def main() -> None:
    options = arguments()
    if options.serve:
        return uvloop.run(serve(*options.serve))
    with tempfile.TemporaryDirectory() as directory:
        for name, run in (("events", events), ("churn", churn)):
            if name in options.what:
                place = Path(directory) / name
                place.mkdir()
                asyncio.run(run(options, place))
    return None


if __name__ == "__main__":
    main()
