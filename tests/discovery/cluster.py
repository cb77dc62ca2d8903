"""A stand-in for the API server of a cluster that lives: EndpointSlices that come, change and go, lists of
them, and watches from any version that isn't forgotten.

`tests/discovery/apiserver.py` says what it is told to, and replays what a real one said; this one is for
tests that are about the balancer, and need a server that behaves.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

READY = {"ready": True, "serving": True, "terminating": False}
UNREADY = {"ready": False, "serving": False, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
"""The conditions of an endpoint: a pod that is well, one that isn't, and one that was deleted and drains."""


class Cluster:
    """The slices of one Service, `greeter`."""

    def __init__(self) -> None:
        self.url = ""
        self.forbidden = False
        self.listed = 0  # how often
        self._version = 100
        self._oldest = 100  # from here on, versions are known
        self._slices: dict[str, dict[str, Any]] = {}
        self._history: deque[tuple[int, bytes]] = deque(maxlen=1000)
        self._moved = asyncio.Event()

    # --- what happens in it ---

    def put(self, name: str, address: str, conditions: dict[str, bool]) -> None:
        """A pod of this name, in a slice of its own, as it is now. The address is host:port."""
        host, _, port = address.rpartition(":")
        item = {
            "metadata": {"name": f"greeter-{name}", "namespace": "default"},
            "addressType": "IPv4",
            "endpoints": [
                {
                    "addresses": [host],
                    "conditions": conditions,
                    "targetRef": {"kind": "Pod", "namespace": "default", "name": name},
                }
            ],
            "ports": [{"name": "http", "protocol": "TCP", "port": int(port)}],
        }
        self.tell_slice(name, item)

    def tell_slice(self, name: str, item: dict[str, Any]) -> None:
        """A slice as it is now."""
        self._tell("MODIFIED" if name in self._slices else "ADDED", item)
        self._slices[name] = item

    def remove(self, name: str) -> None:
        self._tell("DELETED", self._slices.pop(name))

    def forget(self) -> None:
        """All versions before now (what compaction does)."""
        self._oldest = self._version
        self._history.clear()

    def _tell(self, kind: str, item: dict[str, Any]) -> None:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        event = json.dumps({"type": kind, "object": item}, separators=(",", ":")).encode() + b"\n"
        self._history.append((self._version, event))
        self._moved.set()
        self._moved = asyncio.Event()

    # --- what it says ---

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices":
            return _status(404, "NotFound", "the server could not find the requested resource")
        if self.forbidden:
            return _status(
                403, "Forbidden", 'endpointslices.discovery.k8s.io is forbidden: User "lb" cannot list'
            )
        if request.query.get("labelSelector") != "kubernetes.io/service-name=greeter":
            return _status(400, "BadRequest", "another selector was expected")
        if "watch" in request.query:
            return await self._watch(request, int(request.query["resourceVersion"]))
        self.listed += 1
        metadata = {"resourceVersion": str(self._version)}
        items = list(self._slices.values())
        return web.json_response({"kind": "EndpointSliceList", "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request, version: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if version < self._oldest:
            text = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": text}).encode() + b"\n")
            return response
        with suppress(TimeoutError):
            async with asyncio.timeout(int(request.query["timeoutSeconds"])):
                await self._tell_on(response, version)
        return response

    async def _tell_on(self, response: web.StreamResponse, version: int) -> None:
        while True:
            moved = self._moved
            for number, event in list(self._history):
                if number > version:
                    version = number
                    await response.write(event)
            if moved is self._moved:
                await moved.wait()


def _status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(
        {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message},
        status=code,
    )


@asynccontextmanager
async def serving(cluster: Cluster, port: int = 0) -> AsyncIterator[None]:
    """Its API server runs, on a port that it may have had before."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", cluster.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    cluster.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await runner.cleanup()


def write_kubeconfig(path: Path, server: str) -> None:
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "lb"}}],
                "clusters": [{"name": "test", "cluster": {"server": server}}],
                "users": [{"name": "lb", "user": {"token": "secret"}}],
            }
        )
    )
