"""Pods come, get ready, drain and go while requests pass, and the API server is not always there."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.e2e.process import Balancer, eventually
from tests.e2e.traffic import Traffic
from tests.e2e.wire import connect, get
from tests.kubernetes.controlplane import Relay, control_plane
from tests.kubernetes.place import (
    Place,
    members,
    must_be_well,
    place,
    served,
    serving,
    settled,
    source,
    until_members,
)

AWAY = float(os.environ.get("LB_AWAY", "3"))  # seconds that the API server is away
UNCACHED = ["--watch-cache=false"]
FORGETFUL = ["--etcd-compaction-interval=1s", "--watch-cache-sizes=endpointslices.discovery.k8s.io#1"]
TURNS = int(os.environ.get("LB_TURNS", "8"))  # things that happen at once
SIZE = 32 * 2**20  # bytes: more than all buffers on the way hold


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("check", ["", "health_check: {path: /healthz, interval: 200ms}, "])
async def test_scaled_up_and_down(here: Place, workers: int, check: str) -> None:
    names = await settled(here, 3)
    text = await here.balancer(more=f"workers: {workers}", pool=check)
    async with serving(here, text) as balancer:
        await until_members(balancer, *names)
        async with Traffic(balancer.port) as traffic:
            for count in (5, 1, 4):
                await here.kubectl("scale", "deployment/greeter", f"--replicas={count}")
                names = await here.ready(count)
                await until_members(balancer, *names)
                await served(traffic, *names)
        must_be_well(traffic, balancer)
        assert here.kubelet.killed == []


async def test_readiness_that_flaps(here: Place) -> None:
    names = await settled(here, 3)
    async with serving(here, await here.balancer()) as balancer:
        await until_members(balancer, *names)
        async with Traffic(balancer.port) as traffic:
            for turn in range(6):
                sick = here.kubelet.pods[names[turn % 3]]
                sick.sick = True
                await until_members(balancer, *(each for each in names if each != sick.name))
                await traffic.go_on()
                sick.sick = False
                await until_members(balancer, *names)
                await served(traffic, sick.name)
        must_be_well(traffic, balancer)
        for each in here.kubelet.pods.values():
            each.sick = True
        await until_members(balancer)
        assert balancer.ask("/readyz")[0] == 503, "nobody is ready, and that is believed"
        for each in here.kubelet.pods.values():
            each.sick = False
        await until_members(balancer, *names)
        async with Traffic(balancer.port) as traffic:
            await served(traffic, *names)
        must_be_well(traffic, balancer)


async def test_a_pod_that_is_deleted_finishes_what_it_has(here: Place) -> None:
    names = await settled(here, 2)
    async with serving(here, await here.balancer()) as balancer:
        await until_members(balancer, *names)
        async with Traffic(balancer.port) as traffic:
            # A download that takes longer than the drain delay, from each of both.
            wires = [await connect(balancer.port) for _ in names]
            for wire in wires:
                await wire.send(get(f"/bytes/{SIZE}"))
                await wire.until(b"\r\n\r\n")
                wire.stop_reading()
            await here.kubectl("delete", "pod", names[0], "--wait=false")
            await eventually(lambda: names[0] not in members(balancer), "its leave")
            await traffic.go_on()
            await asyncio.sleep(2)  # as the drain delay is over, it takes no new connections
            for wire in wires:
                wire.go_on_reading()
                assert await wire.count(SIZE) == SIZE
                wire.close()
            names = await here.ready(2)
            await until_members(balancer, *names)
            await served(traffic, *names)
        must_be_well(traffic, balancer)
        assert here.kubelet.killed == []


async def test_who_cannot_drain_pauses_before_it_ends(here: Place) -> None:
    """`preStop: {sleep: {seconds: 2}}`, and a greeter that closes all at SIGTERM."""

    def abrupt(item: dict[str, Any]) -> None:
        if item["kind"] == "Deployment":
            (container,) = item["spec"]["template"]["spec"]["containers"]
            container["args"] = ["--drain-delay=0s"]
            container["lifecycle"] = {"preStop": {"sleep": {"seconds": 2}}}

    await here.apply("access")
    await here.apply("base/greeter", abrupt)
    names = await here.ready(3)
    async with serving(here, await here.balancer()) as balancer:
        await until_members(balancer, *names)
        async with Traffic(balancer.port) as traffic:
            await here.kubectl("rollout", "restart", "deployment/greeter")
            await here.kubectl("rollout", "status", "deployment/greeter", "--timeout=60s")
            fresh = await here.ready(3)
            await until_members(balancer, *fresh)
            assert not {*names} & {*fresh}
            await served(traffic, *fresh)
        must_be_well(traffic, balancer)


async def test_terminating_ones_of_a_service_that_publishes_all(here: Place) -> None:
    """`publishNotReadyAddresses` has even those be ready that terminate; they are spared all the same."""
    names = await settled(here, 3)
    await here.service(
        clusterIP="None",
        publishNotReadyAddresses=True,
        ports=[{"name": "http", "port": 8080, "targetPort": "http"}],
    )
    async with serving(here, await here.balancer()) as balancer:
        await until_members(balancer, *names)
        async with Traffic(balancer.port) as traffic:
            await here.kubectl("rollout", "restart", "deployment/greeter")
            await here.kubectl("rollout", "status", "deployment/greeter", "--timeout=60s")
            names = await here.ready(3)
            await until_members(balancer, *names)
            await served(traffic, *names)
        assert (traffic.failures, set(traffic.answers)) == ([], {200})


async def test_the_api_server_is_killed_and_comes_back(here: Place) -> None:
    names = await settled(here, 3)
    async with serving(here, await here.balancer()) as balancer:
        await until_members(balancer, *names)
        async with Traffic(balancer.port) as traffic:
            here.plane.kill("kube-apiserver")
            try:
                await eventually(lambda: source(balancer)["error"], "the outage")
                error = str(source(balancer)["error"])
                assert error.startswith(f"no answer of the API server at {here.plane.server}"), error
                assert balancer.ask("/readyz")[0] == 200
                began = time.monotonic()
                while time.monotonic() - began < AWAY:
                    await traffic.go_on()
            finally:
                await asyncio.to_thread(here.plane.start_api)
            await here.kubectl("scale", "deployment/greeter", "--replicas=4")
            names = await here.ready(4)
            await until_members(balancer, *names)
            await served(traffic, *names)
        must_be_well(traffic, balancer)
        assert source(balancer)["error"] is None
        assert "its last 3 backends stay" in balancer.said()
        assert "answers again" in balancer.said()


async def test_an_expired_watch(here: Place) -> None:
    """Nobody hears of changes for a while, and then the API server has forgotten that they were."""
    names = await settled(here, 3)
    async with (
        Relay(here.plane.address, here.plane.port) as relay,
        serving(here, await here.balancer(relay.url)) as balancer,
    ):
        await until_members(balancer, *names)
        then = (await here.slices())[0]["metadata"]["resourceVersion"]
        async with Traffic(balancer.port) as traffic:
            relay.cut()
            await here.kubectl("scale", "deployment/greeter", "--replicas=5")
            names = await here.ready(5)
            here.plane.kill("kube-apiserver")
            here.plane.compact()
            await asyncio.to_thread(here.plane.start_api)
            assert await forgotten(here, then)
            await traffic.go_on()
            relay.mend()
            await until_members(balancer, *names)
            await served(traffic, *names)
            # The next change comes by the new watch.
            await here.kubectl("scale", "deployment/greeter", "--replicas=2")
            names = await here.ready(2)
            await until_members(balancer, *names)
        must_be_well(traffic, balancer)


async def forgotten(here: Place, version: str) -> bool:
    """Whether the API server tells no more what was since that version."""
    url = f"/apis/discovery.k8s.io/v1/namespaces/{here.namespace}/endpointslices?"
    async for kind, item in here.api.watch(url, version):
        return (kind, item.get("code")) == ("ERROR", 410)
    return False


@pytest.mark.parametrize("options", [UNCACHED, FORGETFUL], ids=["no-watch-cache", "small"])
async def test_servers_that_forget_early(tmp_path: Path, options: list[str]) -> None:
    folder = tmp_path / "plane"
    folder.mkdir()
    scope = control_plane(folder, *options)
    plane = await asyncio.to_thread(scope.__enter__)
    try:
        async with place(plane, tmp_path) as here:
            await test_an_expired_watch(here)
    finally:
        await asyncio.to_thread(scope.__exit__, None, None, None)


async def test_pods_that_end_without_a_warning(here: Place) -> None:
    """Deleted by force: the endpoint goes, and the process with it, whatever it was about to answer. What can
    be asked again is."""
    names = await settled(here, 4)
    async with serving(here, await here.balancer()) as balancer:
        await until_members(balancer, *names)
        async with Traffic(balancer.port) as traffic:
            for name in names[:2]:
                await here.kubectl("delete", "pod", name, "--force", "--grace-period=0")
                await eventually(functools.partial(is_gone, balancer, name), "its leave")
                await traffic.go_on()
            names = await here.ready(4)
            await until_members(balancer, *names)
            await served(traffic, *names)
        assert (traffic.failures, set(traffic.answers)) == ([], {200}), traffic.answers


def is_gone(balancer: Balancer, name: str) -> bool:
    return name not in members(balancer)


async def test_everything_at_once(here: Place) -> None:
    """Scaled, replaced, unready, cut off, the API server killed, in an order drawn by chance: whatever was
    missed meanwhile, the set is right in the end, and nothing has failed."""
    rng = Random(6)
    names = await settled(here, 3)
    async with (
        Relay(here.plane.address, here.plane.port) as relay,
        serving(here, await here.balancer(relay.url)) as balancer,
    ):
        await until_members(balancer, *names)
        async with Traffic(balancer.port) as traffic:
            for _ in range(TURNS):
                step = rng.choice(["scale", "restart", "flap", "cut", "kill", "compact"])
                if step == "scale":
                    count = rng.randint(2, 5)
                    await here.kubectl("scale", "deployment/greeter", f"--replicas={count}")
                elif step == "restart":
                    await here.kubectl("rollout", "restart", "deployment/greeter")
                elif step == "flap":
                    pod = rng.choice(sorted(here.kubelet.pods.values(), key=lambda each: each.name))
                    pod.sick = True
                    await traffic.go_on()
                    pod.sick = False
                elif step == "cut":
                    relay.cut()
                    relay.mend()
                elif step == "kill":
                    here.plane.kill("kube-apiserver")
                    await asyncio.to_thread(here.plane.start_api)
                else:
                    here.plane.compact()
                await traffic.go_on(200)
            await here.kubectl("scale", "deployment/greeter", "--replicas=3")
            await here.kubectl("rollout", "status", "deployment/greeter", "--timeout=90s")
            names = await here.ready(3)
            await until_members(balancer, *names)
            await served(traffic, *names)
        assert (traffic.failures, set(traffic.answers)) == ([], {200}), traffic.answers
