"""Who the balancer is to the API server, and what it may do: Roles, tokens, namespaces."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.e2e.process import eventually
from tests.e2e.traffic import Traffic
from tests.kubernetes.controlplane import ControlPlane
from tests.kubernetes.place import (
    Place,
    members,
    must_be_well,
    place,
    quick,
    served,
    serving,
    settled,
    source,
    until_members,
)


async def test_a_role_that_is_missing_and_then_is_not(here: Place) -> None:
    await here.apply("base/greeter", quick)
    await here.kubectl("create", "serviceaccount", "lb")
    names = await here.ready(3)
    async with serving(here, await here.balancer()) as balancer:
        status, body = balancer.ask("/readyz")
        assert status == 503
        words = f"403 Forbidden: a Role in the namespace {here.namespace} must allow list and watch on"
        assert words in body
        assert words in balancer.said()
        assert f'User "system:serviceaccount:{here.namespace}:lb" cannot list' in balancer.said()
        await here.apply("access")
        await until_members(balancer, *names)
        assert balancer.ask("/readyz")[0] == 200
        # It is taken away again: the watch that runs goes on, but the next one is refused.
        async with Traffic(balancer.port) as traffic:
            await here.kubectl("delete", "rolebinding", "lb")
            here.plane.kill("kube-apiserver")
            await asyncio.to_thread(here.plane.start_api)
            await eventually(lambda: "403" in str(source(balancer)["error"]), "a refusal")
            await traffic.go_on()
            assert members(balancer) == names
            await here.apply("access")
            await here.kubectl("scale", "deployment/greeter", "--replicas=4")
            names = await here.ready(4)
            await until_members(balancer, *names)
            await served(traffic, *names)
        must_be_well(traffic, balancer)


async def test_the_role_allows_what_it_takes_and_nothing_else(here: Place) -> None:
    await here.apply("access")
    token = here.folder / "token"
    await here.token(token)
    account = f"--as=system:serviceaccount:{here.namespace}:lb"
    said = await here.kubectl("auth", "can-i", "--list", account)
    own = {line.split()[0]: line for line in said.splitlines() if ".k8s.io" in line.split("  ")[0]}
    others = {name for name in own if not name.startswith("self")}
    assert others == {"endpointslices.discovery.k8s.io"}, said
    assert "[list watch]" in own["endpointslices.discovery.k8s.io"]
    # What the docs say to look with.
    await here.kubectl("auth", "can-i", "watch", "endpointslices.discovery.k8s.io", account)
    slices = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
    await here.api.ask("GET", slices.format(here.namespace), token=token.read_text())
    await here.api.ask("GET", slices.format("default"), token=token.read_text(), well=[403])


async def test_a_token_that_expires_and_is_renewed(here: Place) -> None:
    """The first one is bound to a Secret, and is good as long as that is there."""
    names = await settled(here, 3)
    await here.kubectl("create", "secret", "generic", "life")
    secret = json.loads(await here.kubectl("get", "secret", "life", "-o", "json"))["metadata"]
    text = await here.balancer()
    path = here.folder / "token"
    bound = {"kind": "Secret", "apiVersion": "v1", "name": "life", "uid": secret["uid"]}
    await here.token(path, bound=bound)
    async with serving(here, text) as balancer:
        await until_members(balancer, *names)
        async with Traffic(balancer.port) as traffic:
            await here.kubectl("delete", "secret", "life")
            here.plane.kill("kube-apiserver")  # which ends the watch: a new one has to be begun
            await asyncio.to_thread(here.plane.start_api)
            await eventually(lambda: "401" in str(source(balancer)["error"]), "a refusal")
            words = f"401 Unauthorized: it does not know us; the token of {here.folder / 'kubeconfig'}"
            assert words in str(source(balancer)["error"])
            await traffic.go_on()
            assert members(balancer) == names
            await here.token(path)
            await here.kubectl("scale", "deployment/greeter", "--replicas=4")
            names = await here.ready(4)
            await until_members(balancer, *names)
            await served(traffic, *names)
        must_be_well(traffic, balancer)


async def test_a_namespace_that_is_deleted_and_comes_back(plane: ControlPlane, tmp_path: Path) -> None:
    """The greeters' one; the balancer is somebody of another."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with place(plane, tmp_path / "one") as own:
        await own.apply("access")
        text = await own.balancer()
        async with place(plane, tmp_path / "two") as other:

            def for_own(item: dict[str, Any]) -> None:
                if item["kind"] == "RoleBinding":
                    item["subjects"][0]["namespace"] = own.namespace

            text = text.replace("service: greeter", f"service: greeter, namespace: {other.namespace}")
            await other.apply("access", for_own)
            await other.apply("base/greeter", quick)
            names = await other.ready(3)
            async with serving(own, text) as balancer:
                await until_members(balancer, *names)
                await other.kubectl("delete", "namespace", other.namespace, "--wait=false")
                await until_members(balancer)
                assert balancer.ask("/readyz")[0] == 503
                await other.kubectl("wait", "--for=delete", f"namespace/{other.namespace}", "--timeout=60s")
                await other.kubectl("create", "namespace", other.namespace)
                await other.apply("access", for_own)
                await other.apply("base/greeter", quick)
                names = await other.ready(3)
                await until_members(balancer, *names)
                assert balancer.ask("/readyz")[0] == 200
