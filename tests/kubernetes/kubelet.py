"""Plays the scheduler and the kubelets for one namespace: pods run, as processes with a network of their own.

Each pod has a network namespace with an address, and its containers run in that: the programs of this
repository in place of their images, with the arguments, environment, volumes and probes that the pod's
manifest says. What a kubelet does in which order is from "Pod Lifecycle" in Kubernetes' documentation.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.process import ROOT
from tests.kubernetes.controlplane import Api, ControlPlane, ip

ZONES = {"node-a": "zone-a", "node-b": "zone-b"}  # the nodes, which pods come to in turns
IMAGES = {
    "lb:latest": [sys.executable, "-m", "lb"],
    "greeter:latest": [sys.executable, "-m", "lb.demo.greeter"],
}
COMMANDS = {"lb:latest": ["serve", "-c", "/etc/lb/lb.yaml"]}  # the image's own arguments
PLACES = {"/etc/lb": "config", "/run/secrets/lb": "token"}  # folders of volumes, by where they are mounted
NETWORK = "fd19:8"  # of the pods' second addresses
PROBE = 0.2  # seconds between two probes, whatever the manifest says: tests are in a hurry
TOKEN_LIFE = 600  # seconds, which is the least that the API server gives
_VOLUMES = """
mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io &&
if [ -e "$0/account" ]; then ln -s "$0/account" /run/secrets/kubernetes.io/serviceaccount; fi &&
if [ -e "$0/token" ]; then ln -s "$0/token" /run/secrets/lb; fi &&
exec "$@"
"""
"""Puts the volumes of a pod where its containers look for them, in a mount namespace of their own."""


class Pod:
    """One that runs here. `sick` has its readiness probes fail, whatever it answers."""

    def __init__(self, item: dict[str, Any], folder: Path, address: str, other: str, number: int) -> None:
        self.item = item
        self.name: str = item["metadata"]["name"]
        self.uid: str = item["metadata"]["uid"]
        self.folder = folder
        self.address = address
        self.other = other  # the one of IPv6
        self.device = f"pod{os.getpid() % 100000}-{number}"
        self.sick = False
        self.ready = False
        self.leaving = asyncio.Event()
        self.grace = 30.0
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    def told(self) -> str:
        """How it is, for people."""
        ended = {name: process.returncode for name, process in self.processes.items()}
        return (
            f"{self.name}: ready {self.ready}, leaving {self.leaving.is_set()}, ended {ended}, {self.said()}"
        )

    def said(self) -> str:
        """What its containers wrote."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


class Kubelet:
    """All pods of one namespace."""

    def __init__(self, plane: ControlPlane, api: Api, namespace: str, folder: Path) -> None:
        self.pods: dict[str, Pod] = {}  # by name
        self.namespace = namespace
        self.killed: list[str] = []  # pods that had not ended in time
        self._plane = plane
        self._api = api
        self._folder = folder
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._numbers = count(2)

    # --- what the API server says ---

    async def run(self) -> None:
        """Follows the pods of the namespace, and begins anew where the API server was away."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                found = await self._api.ask("GET", path)
                for item in found["items"]:
                    self._on_pod(item)
                for uid in {pod.uid for pod in self.pods.values()} - {
                    item["metadata"]["uid"] for item in found["items"]
                }:
                    self._on_deleted(uid)
                async for kind, item in self._api.watch(f"{path}?", found["metadata"]["resourceVersion"]):
                    if kind in ("ADDED", "MODIFIED"):
                        self._on_pod(item)
                    elif kind == "DELETED":
                        self._on_deleted(item["metadata"]["uid"])
            await asyncio.sleep(0.1)

    def _on_pod(self, item: dict[str, Any]) -> None:
        name, uid = item["metadata"]["name"], item["metadata"]["uid"]
        if uid not in self._lives:
            number = next(self._numbers)
            folder = self._folder / f"{name}-{number}"
            folder.mkdir()
            address = f"{self._plane.address.rpartition('.')[0]}.{number}"
            other = f"{NETWORK}:{self._plane.address.split('.')[2]}::{number}"
            self.pods[name] = Pod(item, folder, address, other, number)
            self._lives[uid] = asyncio.create_task(self._live(self.pods[name]))
        pod = self.pods.get(name)  # it may have ended by now
        if pod is None or pod.uid != uid or pod.leaving.is_set():
            return
        if item["metadata"].get("deletionTimestamp"):
            pod.grace = float(item["metadata"].get("deletionGracePeriodSeconds", 30))
            pod.leaving.set()

    def _on_deleted(self, uid: str) -> None:
        """The API server knows it no more: whoever still runs was deleted by force."""
        for pod in self.pods.values():
            if pod.uid == uid and not pod.leaving.is_set():
                pod.grace = 0.0
                pod.leaving.set()

    async def close(self) -> None:
        for task in self._lives.values():
            task.cancel()
        failed = await asyncio.gather(*self._lives.values(), return_exceptions=True)
        for pod in self.pods.values():
            await self._clear(pod)
        for each in failed:
            if isinstance(each, BaseException) and not isinstance(each, asyncio.CancelledError):
                raise each

    async def bring(self, name: str) -> None:
        """What the volumes of a pod hold by now, which kubelet looks at about once a minute."""
        await self._fill_volumes(self.pods[name])

    # --- the life of a pod ---

    async def _live(self, pod: Pod) -> None:
        node = [*ZONES][len(self._lives) % len(ZONES)]
        binding = {"metadata": {"name": pod.name}, "target": {"kind": "Node", "name": node}}
        await self._insist("POST", pod, "/binding", binding, well=(201, 404, 409))
        spec = pod.item["spec"]
        await self._give_network(pod)
        await self._fill_volumes(pod)
        sidecars = [each for each in spec.get("initContainers", ()) if each.get("restartPolicy") == "Always"]
        for each in sidecars:
            await self._start(pod, each)
            await self._report(pod, "Pending", False)
            while "startupProbe" in each:  # nobody tells us
                if await self._probe(pod, each, "startupProbe"):
                    break
                await asyncio.sleep(PROBE)
        for each in spec["containers"]:
            await self._start(pod, each)
        await self._follow(pod, [*sidecars, *spec["containers"]], pod.leaving.wait())
        ending = asyncio.create_task(self._end(pod, sidecars))
        await self._follow(pod, [*sidecars, *spec["containers"]], ending)
        await self._report(pod, "Succeeded", False)
        last = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
        await self._insist("DELETE", pod, "", last, well=(200, 404, 409))
        await self._clear(pod)
        if self.pods.get(pod.name) is pod:
            del self.pods[pod.name]

    async def _follow(self, pod: Pod, containers: Sequence[Any], end: Any) -> None:
        """Asks the probes for readiness again and again, and tells what has changed, until the end. They go
        on while the pod terminates."""
        ended = asyncio.ensure_future(end)
        first = not pod.leaving.is_set()
        try:
            while not ended.done():
                probed = [each for each in containers if "readinessProbe" in each]
                well = [await self._probe(pod, each, "readinessProbe") for each in probed]
                ready = all(well) and not pod.sick
                if ready is not pod.ready or first:
                    await self._report(pod, "Running", ready)
                    pod.ready, first = ready, False
                await asyncio.wait([ended], timeout=PROBE)
            await ended
        finally:
            ended.cancel()

    async def _end(self, pod: Pod, sidecars: Sequence[Any]) -> None:
        """The containers first, all at once, each behind its preStop; then the sidecars, the last one first.
        All of it within the grace."""
        try:
            async with asyncio.timeout(pod.grace):
                await asyncio.gather(*(self._stop(pod, each) for each in pod.item["spec"]["containers"]))
                for each in reversed(sidecars):
                    await self._stop(pod, each)
        except TimeoutError:
            self.killed.append(pod.name)
            for process in pod.processes.values():
                _kill(process)

    async def _stop(self, pod: Pod, container: Any) -> None:
        process = pod.processes[container["name"]]
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        await asyncio.sleep(pause)
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()

    async def _report(self, pod: Pod, phase: str, ready: bool) -> None:
        conditions = [
            {"type": kind, "status": str(ready)} for kind in ("PodScheduled", "ContainersReady", "Ready")
        ]
        status = {
            "phase": phase,
            "conditions": conditions,
            "hostIP": self._plane.address,
            "podIP": pod.address,
            "podIPs": [{"ip": pod.address}, {"ip": pod.other}],
        }
        await self._insist("PATCH", pod, "/status", {"status": status}, well=(200, 404))

    async def _insist(self, method: str, pod: Pod, path: str, body: Any, well: Sequence[int]) -> None:
        """Until the API server has heard it, which may be away just now."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod.name}{path}"
        while True:
            try:
                await self._api.ask(method, path, body, well)
                return
            except (aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(0.1)

    # --- probes ---

    async def _probe(self, pod: Pod, container: Any, kind: str) -> bool:
        probe = container[kind]
        try:
            async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
                if "tcpSocket" in probe:
                    port = _port(container, probe["tcpSocket"]["port"])
                    _, writer = await asyncio.open_connection(pod.address, port)
                    writer.close()
                    return True
                asked = probe["httpGet"]
                url = f"http://{pod.address}:{_port(container, asked['port'])}{asked['path']}"
                async with aiohttp.ClientSession() as session, session.get(url) as response:
                    return 200 <= response.status < 400
        except (OSError, TimeoutError, aiohttp.ClientError):
            return False

    # --- what a pod is made of ---

    async def _start(self, pod: Pod, container: Any) -> None:
        image = container["image"]
        command = container.get("command") or IMAGES[image]
        arguments = container.get("args") or ([] if "command" in container else COMMANDS.get(image, []))
        arguments = [each.replace("/etc/lb/", f"{pod.folder}/config/") for each in arguments]
        with (pod.folder / f"{container['name']}.log").open("ab") as log:
            pod.processes[container["name"]] = await asyncio.create_subprocess_exec(
                *("ip", "netns", "exec", pod.device),
                *("unshare", "-m", "--propagation", "private", "sh", "-c", _VOLUMES, str(pod.folder)),
                *(*command, *arguments),
                cwd=ROOT,
                env={**self._environment(), **_variables(pod, container)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        """What each container has; nothing of ours that says where a cluster is."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}
        return {
            **kept,
            "HOME": "/nonexistent",
            "KUBERNETES_SERVICE_HOST": self._plane.address,
            "KUBERNETES_SERVICE_PORT": str(self._plane.port),
        }

    async def _fill_volumes(self, pod: Pod) -> None:
        namespace = f"/api/v1/namespaces/{self.namespace}"
        for volume in pod.item["spec"].get("volumes", ()):
            if "configMap" in volume:
                found = await self._api.ask("GET", f"{namespace}/configmaps/{volume['configMap']['name']}")
                _write(pod.folder / _place(pod, volume), found["data"])
            elif "secret" in volume:
                found = await self._api.ask("GET", f"{namespace}/secrets/{volume['secret']['secretName']}")
                data = {name: b64decode(text).decode() for name, text in found["data"].items()}
                _write(pod.folder / _place(pod, volume), data)
            for source in volume.get("projected", {}).get("sources", ()):
                if "serviceAccountToken" in source:
                    await self._write_account(pod)

    async def _write_account(self, pod: Pod) -> None:
        """What a pod has of its ServiceAccount: a token that is bound to it, the authority, the namespace."""
        account = pod.item["spec"]["serviceAccountName"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod.name, "uid": pod.uid}
        namespace = f"/api/v1/namespaces/{self.namespace}"
        asked = {"spec": {"expirationSeconds": TOKEN_LIFE, "boundObjectRef": bound}}
        made = await self._api.ask("POST", f"{namespace}/serviceaccounts/{account}/token", asked)
        authority = await self._api.ask("GET", f"{namespace}/configmaps/kube-root-ca.crt")
        _write(
            pod.folder / "account",
            {"token": made["status"]["token"], "namespace": self.namespace, **authority["data"]},
        )

    async def _give_network(self, pod: Pod) -> None:
        """A network namespace with an address of each family, and a way to everybody here."""
        ours = self._plane.address
        gate = f"{pod.other}:1"
        await _ip("netns", "add", pod.device)
        await _ip(*f"link add {pod.device} type veth peer name eth0 netns {pod.device}".split())
        await _ip("link", "set", pod.device, "up")
        for line in (
            "link set lo up",
            "link set eth0 up",
            f"addr add {pod.address}/32 dev eth0",
            f"addr add {pod.other}/128 dev eth0 nodad",
            f"route add {ours} dev eth0",
            f"-6 route add {gate} dev eth0",
            f"route add default via {ours}",
        ):
            await _ip("-n", pod.device, *line.split())
        for line in (
            f"route add {pod.address}/32 dev {pod.device} src {ours}",
            f"addr add {gate}/128 dev {pod.device} nodad",
            f"-6 route add {pod.other}/128 dev {pod.device}",
        ):
            await _ip(*line.split())
        Path(f"/proc/sys/net/ipv4/conf/{pod.device}/forwarding").write_text("1")

    async def _clear(self, pod: Pod) -> None:
        for process in pod.processes.values():
            _kill(process)
            await process.wait()
        ip("link", "del", pod.device)
        ip("netns", "del", pod.device)


async def _ip(*arguments: str) -> None:
    done = await asyncio.to_thread(ip, *arguments)
    assert done.returncode == 0, (arguments, done.stderr)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _write(folder: Path, files: dict[str, str]) -> None:
    """As kubelet does it: whoever reads sees all of one version, since a link is turned at once."""
    fresh = folder.with_name(f"{folder.name}.{len([*folder.parent.iterdir()])}")
    fresh.mkdir()
    for name, text in files.items():
        (fresh / name).write_text(text)
    link = folder.with_name(f"{folder.name}.link")
    link.symlink_to(fresh)
    link.rename(folder)


def _place(pod: Pod, volume: Any) -> str:
    """The folder of a volume, by where containers look for it, whatever it is called."""
    spec = pod.item["spec"]
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        for mount in container.get("volumeMounts", ()):
            if mount["name"] == volume["name"]:
                return PLACES[mount["mountPath"]]
    raise AssertionError(f"nobody looks for {volume['name']}")


def _port(container: Any, port: int | str) -> int:
    named = {each["name"]: each["containerPort"] for each in container.get("ports", ()) if "name" in each}
    return int(named.get(port, port))


def _variables(pod: Pod, container: Any) -> dict[str, str]:
    found = {}
    for each in container.get("env", ()):
        path = each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        if path == "metadata.name":
            found[each["name"]] = pod.name
        elif path:
            label = path.partition("['")[2].rstrip("']")
            found[each["name"]] = pod.item["metadata"].get("labels", {}).get(label, "")
        else:
            found[each["name"]] = each["value"]
    return found


@asynccontextmanager
async def nodes(plane: ControlPlane, namespace: str, folder: Path) -> AsyncIterator[Kubelet]:
    """The nodes are there, and pods of this namespace run on them, for as long as the block lasts."""
    async with plane.api() as api:
        for name, zone in ZONES.items():
            labels = {"topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": name}
            item = {"metadata": {"name": name, "labels": labels}}
            await api.ask("POST", "/api/v1/nodes", item, well=(201, 409))
        kubelet = Kubelet(plane, api, namespace, folder)
        task = asyncio.create_task(kubelet.run())
        try:
            yield kubelet
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            await kubelet.close()
            if not isinstance(ended, asyncio.CancelledError):
                raise ended
