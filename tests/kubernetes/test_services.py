"""The ways in which a Service may be written, and what the controller makes of it."""

from __future__ import annotations

import functools
import json
import socket
from typing import Any

import pytest

from tests.e2e.process import eventually
from tests.e2e.traffic import Traffic
from tests.kubernetes.place import (
    Place,
    must_be_well,
    quick,
    served,
    serving,
    settled,
    source,
    until_members,
)


@pytest.mark.parametrize("port", ["http", "8080"])
async def test_a_service_with_two_ports(here: Place, port: str) -> None:
    names = await settled(here, 3)
    await here.service(
        ports=[
            {"name": "metrics", "port": 9000, "targetPort": 9000},
            {"name": "http", "port": 80, "targetPort": "http"},
        ]
    )
    async with serving(here, await here.balancer(port=port)) as balancer:
        await until_members(balancer, *names)
        async with Traffic(balancer.port) as traffic:
            await served(traffic, *names)
        must_be_well(traffic, balancer)


@pytest.mark.parametrize(
    ("port", "words"),
    [
        ("grpc", "the Service has no port called grpc (there is: "),
        ("", "the Service has several ports ("),
    ],
)
async def test_a_port_that_is_not_clear(here: Place, port: str, words: str) -> None:
    await settled(here, 3)
    await here.service(
        ports=[
            {"name": "metrics", "port": 9000, "targetPort": 9000},
            {"name": "http", "port": 80, "targetPort": "http"},
        ]
    )
    await here.until_slices(lambda each: len(each["ports"]) == 2)
    async with serving(here, await here.balancer(port=port)) as balancer:
        assert words in str(source(balancer)["error"])
        assert "http" in str(source(balancer)["error"])
        # Mended in the Service, and nowhere else.
        await here.service(ports=[{"name": port or "http", "port": 80, "targetPort": "http"}])
        await until_members(balancer, *await here.ready(3))


async def test_a_service_whose_only_port_has_no_name(here: Place) -> None:
    names = await settled(here, 3)
    await here.kubectl("delete", "service", "greeter")
    await here.service(ports=[{"port": 80, "targetPort": 8080}])
    async with serving(here, await here.balancer(port="")) as balancer:
        await until_members(balancer, *names)
        async with Traffic(balancer.port) as traffic:
            await served(traffic, *names)
        must_be_well(traffic, balancer)


@pytest.mark.parametrize("wish", ["PreferSameZone", "PreferSameNode", "PreferClose"])
async def test_the_zones_that_endpoints_are_hinted_to(here: Place, wish: str) -> None:
    names = await settled(here, 4)
    change = json.dumps({"spec": {"trafficDistribution": wish}})
    await here.kubectl("patch", "service", "greeter", "-p", change)
    await here.until_slices(lambda each: all(endpoint.get("hints") for endpoint in each["endpoints"]))
    zones = {each["targetRef"]["name"]: each["zone"] for each in (await here.slices())[0]["endpoints"]}
    assert set(zones.values()) == {"zone-a", "zone-b"}
    async with serving(here, await here.balancer(more="zone: zone-a")) as balancer:
        await until_members(balancer, *names)
        backends = balancer.api("/api/pools")["pools"][0]["backends"]
        assert {each["id"]: each["zone"] for each in backends} == zones
        async with Traffic(balancer.port) as traffic:
            near = [name for name, zone in zones.items() if zone == "zone-a"]
            await served(traffic, *near)
        must_be_well(traffic, balancer)


@pytest.mark.parametrize("families", [["IPv4", "IPv6"], ["IPv6", "IPv4"], ["IPv6"]], ids="-".join)
async def test_a_service_of_both_families(here: Place, families: list[str]) -> None:
    """A pod that has both addresses is one backend, by IPv4 where there is one."""

    def by_family(item: dict[str, Any]) -> None:
        quick(item)
        if item["kind"] == "Deployment" and "IPv4" not in families:
            item["spec"]["template"]["spec"]["containers"][0]["args"].append("--bind=[::]:8080")
            del item["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]  # they come by IPv4

    await here.apply("access")
    await here.apply("base/greeter", by_family)
    names = await here.ready(3)
    await here.kubectl("delete", "service", "greeter")
    await here.service(
        ipFamilies=families,
        ipFamilyPolicy="RequireDualStack" if len(families) > 1 else "SingleStack",
        ports=[{"name": "http", "port": 80, "targetPort": "http"}],
    )
    await here.until_slices(lambda each: len(each["endpoints"] or ()) == 3)
    if "IPv4" not in families:
        for name in names:
            await eventually(functools.partial(listens, here.kubelet.pods[name].other), "a greeter")
    assert {each["addressType"] for each in await here.slices()} == {*families}
    async with serving(here, await here.balancer()) as balancer:
        await until_members(balancer, *names)
        hosts = {backend["address"][0] for backend in balancer.api("/api/pools")["pools"][0]["backends"]}
        assert hosts == ({"1"} if "IPv4" in families else {"["})
        async with Traffic(balancer.port) as traffic:
            await served(traffic, *names)
        assert (traffic.failures, set(traffic.answers)) == ([], {200})


def listens(address: str) -> bool:
    try:
        with socket.create_connection((address, 8080), 1):
            return True
    except OSError:
        return False
