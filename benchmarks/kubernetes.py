"""How soon a pod serves, with a real API server: `python -m benchmarks.kubernetes`.

From the moment when a second watch beside the balancer's, on a connection and a thread of its own, has read
the event that says that a pod is ready, to the first request that reaches the pod, end to end, while some
clients ask without a pause. Also from the moment when the pod's readiness is told to the API server, which
has the endpoint-slice controller on its way. What it takes is in tests/kubernetes/controlplane.py.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Sequence
from http.client import HTTPSConnection
from itertools import count, islice
from pathlib import Path

import pytest

from tests.e2e.process import eventually, running
from tests.kubernetes.controlplane import ADMIN, Api, ControlPlane, control_plane, ip
from tests.kubernetes.kubelet import ZONES
from tests.kubernetes.place import MANIFESTS

from .discovery import APART, CLIENTS, Arrivals, ask

PORT = 8080
PODS = "/api/v1/namespaces/default/pods"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
SELECTED = "labelSelector=kubernetes.io/service-name%3Dgreeter"
LATE = 10.0  # seconds that anything may take


class Watch(threading.Thread):
    """Another one who watches, and notes when each pod was told to be ready."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(daemon=True)
        self.told: dict[str, float] = {}
        context = ssl.create_default_context(cafile=plane.ca)
        self._connection = HTTPSConnection(plane.address, plane.port, context=context)

    def run(self) -> None:
        self._connection.request(
            "GET",
            f"{SLICES}?{SELECTED}&watch=1&timeoutSeconds=3600",
            headers={"Authorization": f"Bearer {ADMIN}"},
        )
        answer = self._connection.getresponse()
        with contextlib.suppress(OSError, ValueError):
            while line := answer.readline():
                now = time.perf_counter()
                for each in json.loads(line)["object"].get("endpoints") or ():
                    if each["conditions"]["ready"]:
                        self.told.setdefault(each["targetRef"]["name"], now)


async def add_pod(api: Api, name: str) -> None:
    container = {"name": "greeter", "image": "greeter"}
    item = {"metadata": {"name": name, "labels": {"app": "greeter"}}, "spec": {"containers": [container]}}
    await api.ask("POST", PODS, item)
    target = {"metadata": {"name": name}, "target": {"kind": "Node", "name": next(iter(ZONES))}}
    await api.ask("POST", f"{PODS}/{name}/binding", target)


async def tell(api: Api, name: str, address: str, ready: bool) -> None:
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }
    await api.ask("PATCH", f"{PODS}/{name}/status", {"status": status})


@contextlib.asynccontextmanager
async def pod(api: Api, arrivals: Arrivals, name: str, address: str) -> AsyncIterator[None]:
    """One that is there and not ready yet."""
    ip("addr", "add", f"{address}/32", "dev", "lo")
    try:
        async with await arrivals.serve(name, address, PORT):
            await add_pod(api, name)
            await tell(api, name, address, False)
            yield
            await api.ask("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
            await asyncio.sleep(APART)
    finally:
        ip("addr", "del", f"{address}/32", "dev", "lo")


async def measure(plane: ControlPlane, directory: Path, options: argparse.Namespace) -> None:
    arrivals, failures = Arrivals(), list[str]()
    from_event, from_status = [], []
    network = plane.address.rpartition(".")[0]
    service = (MANIFESTS / "base/greeter/service.yaml").read_text()
    plane.kubectl("apply", "-f", "-", stdin=service.replace("targetPort: http", f"targetPort: {PORT}"))
    watch = Watch(plane)
    watch.start()
    text = (
        f"workers: {options.workers}\n"
        "access_log: off\npools: {greeter: {discovery: [{kubernetes: "
        f"{{service: greeter, port: http, kubeconfig: {plane.kubeconfig}}}}}]}}}}\n"
    )
    async with plane.api() as api, contextlib.AsyncExitStack() as stack:
        await api.ask("POST", "/api/v1/nodes", {"metadata": {"name": next(iter(ZONES))}})
        account = {"metadata": {"name": "default"}}
        await api.ask("POST", "/api/v1/namespaces/default/serviceaccounts", account, (201, 409))
        for number in range(3):
            await stack.enter_async_context(pod(api, arrivals, f"base-{number}", f"{network}.{number + 2}"))
            await tell(api, f"base-{number}", f"{network}.{number + 2}", True)
        scope = running(directory, text)
        balancer = await asyncio.to_thread(scope.__enter__)
        stack.callback(scope.__exit__, None, None, None)
        await eventually(lambda: balancer.ask("/readyz")[0] == 200, "the first backends")
        tasks = [asyncio.create_task(ask(balancer.port, failures)) for _ in range(CLIENTS)]
        numbers = count(10)
        for _ in range(options.events // options.together):
            group = {
                f"new-{number}": f"{network}.{number % 200 + 10}"
                for number in islice(numbers, options.together)
            }
            async with contextlib.AsyncExitStack() as pods:
                for name, address in group.items():
                    await pods.enter_async_context(pod(api, arrivals, name, address))
                await asyncio.sleep(APART)
                began = time.perf_counter()
                await asyncio.gather(*(tell(api, name, address, True) for name, address in group.items()))
                for name in group:
                    first = await asyncio.wait_for(arrivals.first[name], LATE)
                    await eventually(functools.partial(watch.told.get, name), "the event")
                    from_event.append((first - watch.told[name]) * 1e3)
                    from_status.append((first - began) * 1e3)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        failures += [repr(each) for each in ended if isinstance(each, Exception)]
    show("from the API server's event to the first request", from_event)
    show("from the pod's status to the first request", from_status)
    print(f"{len(failures)} requests failed")


def show(what: str, took: Sequence[float]) -> None:
    ordered = sorted(took)
    print(
        f"{what}, {len(took)} times: median {statistics.median(took):.1f} ms, "
        f"p90 {ordered[int(len(ordered) * 0.9)]:.1f} ms, most {ordered[-1]:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kubernetes", description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="of the balancer (1)")
    parser.add_argument("--events", type=int, default=50, help="new pods (50)")
    parser.add_argument("--together", type=int, default=1, help="of which so many get ready at once (1)")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as directory, control_plane(Path(directory)) as plane:
            asyncio.run(measure(plane, Path(directory), options))
    except pytest.skip.Exception as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
