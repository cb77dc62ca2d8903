"""deploy/kubernetes, applied: the API server takes it in a namespace that is `restricted`, the controllers
make pods of it, these run, and what is balanced by them loses no request while all of them are replaced."""

from __future__ import annotations

import re

import pytest

from tests.e2e.process import eventually
from tests.e2e.traffic import Traffic
from tests.kubernetes.place import (
    MANIFESTS,
    Place,
    must_be_well,
    served,
    serving,
    until_members,
)

FOLDERS = [".", "access", "base/greeter", "base/balancer", "sidecar-server", "sidecar-client", "prometheus"]
SECRET = ["create", "secret", "generic", "lb-admin", "--from-literal=token=open-sesame"]
MONITOR = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: ServiceMonitor, plural: servicemonitors}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
"""As the operator brings it along, without what it says about the fields."""


@pytest.mark.parametrize("folder", FOLDERS)
async def test_the_api_server_takes_them(here: Place, folder: str) -> None:
    """With each field known, by what the server itself says, from where it is and from where it was."""
    await here.kubectl(*SECRET)
    if folder == "prometheus":
        await here.kubectl("apply", "-f", "-", stdin=MONITOR)
        await here.kubectl("wait", "--for=condition=Established", "crd/servicemonitors.monitoring.coreos.com")
    path = str(MANIFESTS / folder)
    for more in (["--server-side", "--dry-run=server"], ["--dry-run=server"], []):
        said = await here.kubectl("apply", "-k", path, "--validate=strict", *more)
        assert "Warning" not in said
    await here.kubectl("diff", "-k", path)  # fails where there would be another thing to do


async def answering(here: Place, app: str, count: int) -> list[str]:
    """So many pods of this Deployment are ready, as the API server sees it; their names."""
    await here.kubectl("rollout", "status", f"deployment/{app}", "--timeout=90s")
    return await here.ready(count, app)


async def test_the_balancer_in_front(here: Place) -> None:
    """All greeters and all balancers are replaced, under load. The clients come by another balancer, which
    goes by the Service `lb`, as an ingress does."""
    await here.kubectl(*SECRET)
    await here.kubectl("apply", "-k", str(MANIFESTS))
    await here.kubectl("scale", "deployment/lb", "--replicas=2")
    greeters = await answering(here, "greeter", 3)
    balancers = await answering(here, "lb", 2)
    text = (await here.balancer()).replace("service: greeter", "service: lb")
    async with serving(here, text) as outer:
        await until_members(outer, *balancers)
        async with Traffic(outer.port) as traffic:
            await served(traffic, *greeters)
            for each in ("greeter", "lb"):
                await here.kubectl("rollout", "restart", f"deployment/{each}")
                await traffic.go_on()
            fresh = await answering(here, "greeter", 3)
            replaced = await answering(here, "lb", 2)
            await until_members(outer, *replaced)
            await served(traffic, *fresh)
        must_be_well(traffic, outer)
        assert not {*greeters} & {*fresh}
        assert not {*balancers} & {*replaced}
        assert here.kubelet.killed == [], "the grace was long enough"
        for name in replaced:
            assert "WARNING" not in here.kubelet.pods[name].said()


async def test_the_sidecar_of_the_server(here: Place) -> None:
    await here.kubectl(*SECRET)
    await here.apply("access")
    await here.kubectl("apply", "-k", str(MANIFESTS / "sidecar-server"))
    names = await answering(here, "greeter", 3)
    async with serving(here, await here.balancer()) as outer:
        await until_members(outer, *names)
        async with Traffic(outer.port) as traffic:
            await served(traffic, *names)
            await here.kubectl("rollout", "restart", "deployment/greeter")
            fresh = await answering(here, "greeter", 3)
            await until_members(outer, *fresh)
            await served(traffic, *fresh)
        must_be_well(traffic, outer)
        assert not {*names} & {*fresh}
        assert here.kubelet.killed == [], "the grace was long enough"


async def test_the_sidecar_of_the_client(here: Place) -> None:
    await here.kubectl(*SECRET)
    await here.kubectl("apply", "-k", str(MANIFESTS / "sidecar-client"))
    greeters = await answering(here, "greeter", 3)
    (client,) = await answering(here, "client", 1)
    pod = here.kubelet.pods[client]

    def heard() -> set[str]:
        return set(re.findall(r"Hello, World! I am (\S+)\.\n", (pod.folder / "client.log").read_text()))

    await eventually(lambda: heard() == {*greeters}, "an answer of each greeter")
