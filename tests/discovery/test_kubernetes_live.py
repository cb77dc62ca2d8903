"""The source `kubernetes` against a real cluster: the one that KUBECONFIG names, in a namespace of our own.

It needs the rights to make namespaces, EndpointSlices and Roles there, and to be taken for somebody else
(`impersonate`). No controller and no node: the slices are made by hand.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import pytest_asyncio
import yaml

from lb.discovery import kubernetes
from lb.discovery.base import SourceError
from lb.discovery.kubernetes import KubernetesSource, Service
from lb.discovery.kubernetes_access import Access, from_kubeconfig
from tests.e2e.process import eventually, running

ROLE = Path(__file__).parents[2] / "deploy" / "kubernetes" / "access" / "role.yaml"
PATIENCE = 20.0  # seconds for anything that should come soon
NOBODY = "lb-live-test-nobody"

READY = {"ready": True, "serving": True, "terminating": False}
UNREADY = {"ready": False, "serving": False, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}


class Cluster:
    """A namespace of a cluster, with a Service that is nothing but its slices."""

    def __init__(self, access: Access, session: aiohttp.ClientSession) -> None:
        self.access = access
        self.namespace = f"lb-test-{uuid4().hex[:8]}"
        self._session = session
        self._slices = f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
        self._roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}"

    async def ask(self, method: str, path: str, body: Any = None, well: tuple[int, ...] = (200, 201)) -> Any:
        async with self._session.request(
            method,
            self.access.server + path,
            json=body,
            headers=self.access.headers(),
            server_hostname=self.access.server_name or None,
        ) as response:
            said = await response.json()
            assert response.status in well, (method, path, said)
            return said

    async def open(self) -> None:
        await self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})

    async def close(self) -> None:
        """Leaves nothing behind; also where no controller is there to finish it."""
        await self.ask("DELETE", self._slices)
        for what in ("rolebindings", "roles"):
            await self.ask("DELETE", f"{self._roles}/{what}")
        path = f"/api/v1/namespaces/{self.namespace}"
        await self.ask("DELETE", path, well=(200, 202))
        for _ in range(20):
            left = await self.ask("GET", path, well=(200, 404))
            if left.get("code") == 404:
                return
            await asyncio.sleep(0.5)
        left["spec"]["finalizers"] = []
        await self.ask("PUT", f"{path}/finalize", left, well=(200, 404))

    async def put(self, name: str, *endpoints: tuple[str, dict[str, bool]]) -> None:
        """A slice, with these addresses in these conditions."""
        item = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "greeter"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": each} for address, each in endpoints],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        }
        said = await self.ask("PUT", f"{self._slices}/{name}", item, (200, 201, 404))
        if said.get("code") == 404:
            await self.ask("POST", self._slices, item)

    async def remove(self, name: str) -> None:
        await self.ask("DELETE", f"{self._slices}/{name}")

    async def allow(self, user: str) -> None:
        """What deploy/kubernetes gives the balancer's ServiceAccount, for a user of this name."""
        role, binding = yaml.safe_load_all(ROLE.read_text())
        binding["subjects"] = [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}]
        await self.ask("POST", f"{self._roles}/roles", role)
        await self.ask("POST", f"{self._roles}/rolebindings", binding)

    def source(self, access: Access | None = None) -> KubernetesSource:
        return KubernetesSource(Service("greeter", self.namespace, "http"), lambda: access or self.access)


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[Cluster]:
    path = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    if not path:
        pytest.skip("no KUBECONFIG: the source kubernetes is NOT tested against a real API server")
    access = from_kubeconfig(Path(path))
    connector = aiohttp.TCPConnector(ssl=access.tls if access.tls is not None else True)
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        cluster = Cluster(access, session)
        await cluster.open()
        try:
            yield cluster
        finally:
            await cluster.close()


async def until(sets: Any, *addresses: str) -> None:
    """Waits for a set of just these. There may be others before it: two changes may make one set, or two."""
    found: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE):
            async for specs in sets:
                found = [spec.address for spec in specs]
                if found == [f"{each}:8080" for each in addresses]:
                    return
    except TimeoutError:
        pytest.fail(f"the last set was {found}, and not {addresses}")


async def test_slices_come_change_and_go(cluster: Cluster) -> None:
    async with aclosing(cluster.source().watch()) as sets:
        await until(sets)
        await cluster.put("one", ("10.77.9.1", READY), ("10.77.9.2", UNREADY))
        await until(sets, "10.77.9.1")
        await cluster.put("two", ("10.77.9.3", {}))
        await until(sets, "10.77.9.1", "10.77.9.3")  # where nobody said, it is ready
        await cluster.put("one", ("10.77.9.1", READY), ("10.77.9.2", READY))
        await until(sets, "10.77.9.1", "10.77.9.2", "10.77.9.3")
        await cluster.put("one", ("10.77.9.1", LEAVING), ("10.77.9.2", READY))
        await until(sets, "10.77.9.2", "10.77.9.3")
        await cluster.remove("two")
        await until(sets, "10.77.9.2")
        await cluster.put("one", ("10.77.9.1", LEAVING), ("10.77.9.2", LEAVING))
        await until(sets, "10.77.9.1", "10.77.9.2")  # nobody else is left
        await cluster.remove("one")
        await until(sets)


async def test_slices_that_were_there_before(cluster: Cluster) -> None:
    await cluster.put("one", ("10.77.9.1", READY))
    await cluster.put("two", ("10.77.9.2", READY))
    async with aclosing(cluster.source().watch()) as sets:
        first = await asyncio.wait_for(anext(sets), PATIENCE)
        assert [spec.address for spec in first] == ["10.77.9.1:8080", "10.77.9.2:8080"]


async def test_without_a_role_it_says_which_one(cluster: Cluster) -> None:
    await cluster.put("one", ("10.77.9.1", READY))
    nobody = replace(cluster.access, instead_of_us=(("Impersonate-User", NOBODY),))
    refused = await refusal(cluster, nobody)
    if not refused:
        pytest.skip("this API server allows everything to everybody (no RBAC)")
    assert f"a Role in the namespace {cluster.namespace} must allow list and watch" in refused
    await cluster.allow(NOBODY)
    for _ in range(50):  # until the server has heard of the role itself
        if not await refusal(cluster, nobody):
            break
        await asyncio.sleep(0.2)
    async with aclosing(cluster.source(nobody).watch()) as sets:
        await until(sets, "10.77.9.1")
        await cluster.put("one", ("10.77.9.2", READY))
        await until(sets, "10.77.9.2")


async def refusal(cluster: Cluster, access: Access) -> str:
    """Why the server says nothing of its slices to whoever this is; empty where it does."""
    try:
        async with aclosing(cluster.source(access).watch()) as sets:
            await asyncio.wait_for(anext(sets), PATIENCE)
    except SourceError as error:
        return str(error)
    return ""


async def test_a_wrong_token(cluster: Cluster) -> None:
    stranger = replace(cluster.access, token=lambda: "wrong", tls=without_certificate(cluster.access))
    async with aclosing(cluster.source(stranger).watch()) as sets:
        with pytest.raises(SourceError, match="401"):
            await asyncio.wait_for(anext(sets), PATIENCE)


def without_certificate(access: Access) -> ssl.SSLContext | None:
    """The same trust, and nothing that says who we are."""
    if access.tls is None:
        return None
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = access.tls.check_hostname, access.tls.verify_mode
    for each in access.tls.get_ca_certs(binary_form=True):
        tls.load_verify_locations(cadata=each)
    return tls


@pytest.mark.parametrize("version", ["1", str(2**60)], ids=["long-ago", "not-yet"])
async def test_a_version_that_the_server_does_not_know(
    cluster: Cluster, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that it has forgotten, or has never had, as after a restored backup: there it is silent."""
    monkeypatch.setattr(kubernetes, "WATCH", (2, 3))
    await cluster.put("one", ("10.77.9.1", READY))
    source = cluster.source()
    async with aclosing(source.watch()) as sets:
        await until(sets, "10.77.9.1")
        source._version = version
        await cluster.put("one", ("10.77.9.2", READY))
        await until(sets, "10.77.9.2")


async def test_a_balancer_with_it(cluster: Cluster, tmp_path: Path) -> None:
    path = Path(os.environ["KUBECONFIG"].split(os.pathsep)[0]).resolve()
    text = (
        "access_log: off\npools: {greeter: {discovery: [{kubernetes: {service: greeter, port: http, "
        f"namespace: {cluster.namespace}, kubeconfig: '{path}'}}}}]}}}}\n"
    )
    await cluster.put("one", ("10.77.9.1", READY))
    with running(tmp_path, text) as balancer:

        def members() -> list[str]:
            return [each["address"] for each in balancer.api("/api/pools")["pools"][0]["backends"]]

        await eventually(lambda: members() == ["10.77.9.1:8080"], "the first backend")
        await cluster.put("one", ("10.77.9.1", LEAVING), ("10.77.9.2", READY))
        await eventually(lambda: members() == ["10.77.9.2:8080"], "the other backend")
