"""A namespace of a real Kubernetes, with the nodes' part played, and what tests do in it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from tests.e2e.process import ROOT, Balancer, running, until
from tests.e2e.traffic import Traffic
from tests.kubernetes.controlplane import Api, ControlPlane
from tests.kubernetes.kubelet import Kubelet, nodes

MANIFESTS = ROOT / "deploy" / "kubernetes"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PATIENCE = 60.0  # seconds for the controllers, the pods and us
QUICK = ["--drain-delay=1s", "--drain-timeout=5s"]  # where draining isn't the point


class Place:
    """One namespace."""

    def __init__(self, plane: ControlPlane, api: Api, kubelet: Kubelet, folder: Path) -> None:
        self.plane = plane
        self.api = api
        self.kubelet = kubelet
        self.namespace = kubelet.namespace
        self.folder = folder

    async def kubectl(self, *arguments: str, stdin: str = "", program: str = "") -> str:
        return await asyncio.to_thread(
            self.plane.kubectl, "-n", self.namespace, *arguments, stdin=stdin, program=program
        )

    async def apply(self, folder: str, change: Callable[[dict[str, Any]], None] | None = None) -> None:
        """The manifests of a folder of deploy/kubernetes, each of them changed by this."""
        text = await self.kubectl("kustomize", str(MANIFESTS / folder))
        items = [each for each in yaml.safe_load_all(text) if each]
        for each in items:
            if change is not None:
                change(each)
        await self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(items))

    async def token(self, path: Path, account: str = "lb", bound: dict[str, Any] | None = None) -> None:
        """Writes a token of a ServiceAccount there, as kubelet would."""
        asked = {"spec": {"expirationSeconds": 600, **({"boundObjectRef": bound} if bound else {})}}
        url = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        made = await self.api.ask("POST", url, asked)
        fresh = path.with_suffix(".new")
        fresh.write_text(made["status"]["token"])
        fresh.rename(path)

    async def balancer(self, server: str = "", more: str = "", pool: str = "", port: str = "http") -> str:
        """The configuration of a balancer that is the ServiceAccount `lb` to the API server."""
        await self.token(self.folder / "token")
        config = self.folder / "kubeconfig"
        self.plane.write_kubeconfig(config, {"tokenFile": "token"}, server, namespace=self.namespace)
        wanted = f", port: '{port}'" if port else ""
        return (
            f"access_log: off\n{more}\npools: {{greeter: {{{pool}discovery: [{{kubernetes: "
            f"{{service: greeter{wanted}, kubeconfig: '{config}'}}}}]}}}}\n"
        )

    async def service(self, **spec: Any) -> None:
        """The Service `greeter`, with this in its spec."""
        item = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "greeter"},
            "spec": {"selector": {"app": "greeter"}, **spec},
        }
        await self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(item))

    async def slices(self) -> list[dict[str, Any]]:
        """The EndpointSlices of the Service."""
        url = f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
        found = await self.api.ask("GET", f"{url}?labelSelector=kubernetes.io/service-name%3Dgreeter")
        return list(found["items"])

    async def until_slices(self, good: Callable[[dict[str, Any]], object]) -> None:
        """Waits until the controller has done its work: there are slices, and this is true of each."""
        deadline = time.monotonic() + PATIENCE
        while not (found := await self.slices()) or not all(map(good, found)):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.1)

    async def ready(self, count: int, app: str = "greeter") -> list[str]:
        """Waits until so many pods of a Deployment are ready, and no other ones are there; their names."""
        deadline = time.monotonic() + PATIENCE
        while True:
            there = [each for each in self.kubelet.pods.values() if each.name.startswith(f"{app}-")]
            if len(there) == count and all(each.ready and not each.leaving.is_set() for each in there):
                return sorted(each.name for each in there)
            if time.monotonic() > deadline:
                raise AssertionError(f"not just {count} ready pods: {[each.told() for each in there]}")
            await asyncio.sleep(0.05)


def quick(item: dict[str, Any]) -> None:
    """A greeter that doesn't take its time to drain."""
    if (item["kind"], item["metadata"]["name"]) == ("Deployment", "greeter"):
        item["spec"]["template"]["spec"]["containers"][0]["args"] = QUICK


@asynccontextmanager
async def place(plane: ControlPlane, folder: Path, **labels: str) -> AsyncIterator[Place]:
    """A namespace of its own, which goes when the block ends."""
    namespace = f"lb-test-{uuid4().hex[:8]}"
    path = f"/api/v1/namespaces/{namespace}"
    metadata = {"name": namespace, "labels": {**RESTRICTED, **labels}}
    async with plane.api() as api:
        await api.ask("POST", "/api/v1/namespaces", {"metadata": metadata})
        try:
            async with nodes(plane, namespace, folder) as kubelet:
                yield Place(plane, api, kubelet, folder)
        finally:
            await api.ask("DELETE", path, well=(200, 202, 404, 409))
            await api.ask("DELETE", f"{path}/pods", {"gracePeriodSeconds": 0}, well=(200, 404))


# --- a balancer in front of it ---


@asynccontextmanager
async def serving(here: Place, text: str) -> AsyncIterator[Balancer]:
    """A balancer, for as long as the block lasts."""
    folder = here.folder / "balancer"
    folder.mkdir()
    scope = running(folder, text)
    balancer = await asyncio.to_thread(scope.__enter__)
    try:
        yield balancer
    except BaseException as error:
        if not await asyncio.to_thread(scope.__exit__, type(error), error, error.__traceback__):
            raise
    else:
        await asyncio.to_thread(scope.__exit__, None, None, None)


def members(balancer: Balancer) -> list[str]:
    """Who is there, and well as far as anyone knows."""
    backends = balancer.api("/api/pools")["pools"][0]["backends"]
    return sorted(each["id"] for each in backends if each["healthy"])


async def until_members(balancer: Balancer, *names: str) -> None:
    await asyncio.to_thread(until, lambda: members(balancer) == sorted(names), f"just {names}", PATIENCE)


def source(balancer: Balancer) -> dict[str, object]:
    found: dict[str, object] = json.loads(balancer.ask("/readyz")[1])["pools"]["greeter"]["sources"][0]
    return found


async def served(traffic: Traffic, *names: str) -> None:
    """Waits until each of these has answered again, from now on."""
    bodies = [f"Hello, World! I am {name}.\n".encode() for name in names]
    before = {each: traffic.bodies[each] for each in bodies}
    async with asyncio.timeout(20):
        while not all(traffic.bodies[each] > before[each] for each in bodies):
            await traffic.go_on(1)
            assert not traffic.failures, traffic.failures


def must_be_well(traffic: Traffic, balancer: Balancer) -> None:
    """No request failed, and none was even tried again."""
    assert (traffic.failures, set(traffic.answers)) == ([], {200}), traffic.answers
    assert balancer.metric("lb_backend_retries_total") == 0, balancer.said()


async def settled(here: Place, count: int) -> list[str]:
    """The greeters of deploy/kubernetes, and who may ask for them."""
    await here.apply("access")
    await here.apply("base/greeter", quick)
    if count != 3:
        await here.kubectl("scale", "deployment/greeter", f"--replicas={count}")
    return await here.ready(count)
