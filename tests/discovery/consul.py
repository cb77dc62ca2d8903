"""A Consul agent for tests: the part of its HTTP API that is asked for, with blocking queries.

After Consul's documentation alone ("Blocking queries", "Health: list nodes for service").
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


def instance(name: str, address: str, port: int, **more: Any) -> dict[str, Any]:
    """An entry as `/v1/health/service/NAME` has it."""
    service = {
        "ID": name,
        "Service": "greeter",
        "Tags": more.pop("tags", []),
        "Address": address,
        "Port": port,
        "Meta": more.pop("meta", {}),
        "Weights": more.pop("weights", {"Passing": 1, "Warning": 1}),
    }
    status = more.pop("status", "passing")
    node = {
        "Node": more.pop("node", "n1"),
        "Address": more.pop("node_address", "10.9.9.9"),
        "Datacenter": "dc1",
    }
    assert not more
    return {
        "Node": node,
        "Service": service,
        "Checks": [{"CheckID": "serfHealth", "Status": "passing"}, {"CheckID": "c", "Status": status}],
    }


class Consul:
    """The agent. `say` sets its table; `reply` takes the place of its answers while it is not None."""

    def __init__(self) -> None:
        self.index = 10
        self.instances: list[dict[str, Any]] = []
        self.reply: web.Response | None = None
        self.hangs = False
        self.token = ""
        self.asked: list[dict[str, str]] = []
        self.tags: list[str] = []
        self._changed = asyncio.Condition()

    async def say(self, *instances: dict[str, Any], index: int = 0) -> None:
        async with self._changed:
            self.instances = list(instances)
            self.index = index or self.index + 1
            self._changed.notify_all()

    async def interrupt(self) -> None:
        """Questions that wait are answered as they are now."""
        async with self._changed:
            self._changed.notify_all()

    async def health(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        self.asked.append(dict(query) | {"token": request.headers.get("X-Consul-Token", "")})
        self.tags = query.getall("tag", [])
        if self.hangs:
            await asyncio.sleep(3600)
        index = int(query.get("index", "0"))
        if index and self.reply is None:
            wait = float(query.get("wait", "300000ms").removesuffix("ms")) / 1000
            try:
                async with asyncio.timeout(wait), self._changed:
                    await self._changed.wait_for(lambda: self.index != index or self.reply is not None)
            except TimeoutError:
                pass
        if self.reply is not None:
            return web.Response(status=self.reply.status, body=self.reply.body, headers=self.reply.headers)
        if self.token and request.headers.get("X-Consul-Token") != self.token:
            return web.Response(status=403, text="Permission denied: token lacks 'service:read'")
        found = [each for each in self.instances if set(self.tags) <= set(each["Service"]["Tags"])]
        if "passing" in query:
            found = [each for each in found if {check["Status"] for check in each["Checks"]} == {"passing"}]
        return web.json_response(found, headers={"X-Consul-Index": str(self.index)})


@asynccontextmanager
async def consul(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Consul, str]]:
    """An agent, and its URL."""
    agent = Consul()
    app = web.Application()
    app.router.add_get("/v1/health/service/{name}", agent.health)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        scheme = "http" if tls is None else "https"
        yield agent, f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
