"""For services in Python: be in the registry for as long as you serve.

    async with lb.registry.register("greeter", port=9001):
        ...  # serve

It speaks the part of Consul's API that lb's registry has, so it works with a real Consul as well.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from random import uniform
from typing import Any
from urllib.parse import quote

import aiohttp

log = logging.getLogger("lb.registry")

DEFAULT_URL = "http://127.0.0.1:9901"
ANSWER_WITHIN = 5.0  # seconds that the registry has for an answer
_AGAIN = (0.25, 5.0)  # seconds until it is asked again where it fails: at first, and at most


class Registration:
    """An instance in a registry. Heartbeats three times in each TTL, and registers anew where the registry
    has forgotten it; while the registry is away it goes on trying."""

    def __init__(self, url: str, body: Mapping[str, Any], ttl: float, token: str | None) -> None:
        self.id: str = body["ID"]
        self.registered = asyncio.Event()
        self._url = url.rstrip("/")
        self._body = body
        self._ttl = ttl
        self._headers = {"X-Consul-Token": token} if token else {}
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        timeout = aiohttp.ClientTimeout(total=min(ANSWER_WITHIN, max(1.0, self._ttl / 3)))
        self._session = aiohttp.ClientSession(timeout=timeout, headers=self._headers)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Deregisters. Where the registry is away the heartbeats stop, and say the same."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        try:
            await self._put(f"service/deregister/{quote(self.id, safe='')}")
        except _TROUBLE as error:
            log.warning("%s could not be deregistered at %s: %s", self.id, self._url, error)
        finally:
            if self._session is not None:
                await self._session.close()

    async def _run(self) -> None:
        wait, well = _AGAIN[0], True
        check = quote(str(self._body["Check"]["CheckID"]), safe="")
        while True:
            try:
                if not self.registered.is_set():
                    await self._put("service/register", self._body)
                    self.registered.set()
                    log.info("%s is registered at %s", self.id, self._url)
                await self._put(f"check/pass/{check}")
            except _Forgotten:
                self.registered.clear()
                continue
            except _TROUBLE as error:
                if well:
                    log.warning("the registry at %s does not take %s: %s", self._url, self.id, error)
                well = False
                await asyncio.sleep(uniform(wait / 2, wait))
                wait = min(2 * wait, _AGAIN[1], self._ttl / 3)
                continue
            wait, well = _AGAIN[0], True
            await asyncio.sleep(self._ttl / 3)

    async def _put(self, path: str, body: object = None) -> None:
        assert self._session is not None
        async with self._session.put(f"{self._url}/v1/agent/{path}", json=body) as response:
            if response.status == 404 or (response.status == 500 and "check/pass" in path):
                raise _Forgotten  # an older Consul says 500
            if response.status != 200:
                raise aiohttp.ClientError(f"{response.status} {(await response.text()).strip()}")


class _Forgotten(aiohttp.ClientError):
    """The registry doesn't know it."""


_TROUBLE = (aiohttp.ClientError, TimeoutError, OSError)


@asynccontextmanager
async def register(
    service: str,
    *,
    port: int,
    address: str = "",
    id: str = "",
    url: str = "",
    token: str = "",
    ttl: float = 10.0,
    tags: Sequence[str] = (),
    meta: Mapping[str, str] | None = None,
    weight: int = 1,
    forget_after: float = 60.0,
) -> AsyncIterator[Registration]:
    """Registers an instance of a service that is ready to serve, and deregisters it at the end.

    `address` is where it is reached: without one, where the registry sees it come from. `id` is unique among
    all instances: without one, service, host and port. `url` is the registry's, else `LB_REGISTRY_URL`, else
    the admin address on this machine; `token` likewise `LB_REGISTRY_TOKEN`. Without a heartbeat for `ttl`
    seconds nobody is sent here any more, and `forget_after` seconds later it is forgotten.

    Nobody waits for the registry: where it is away, the instance comes in when it is back. Balancers hear of
    the end within milliseconds, so go on serving for a moment behind the block.
    """
    name = id or f"{service}-{socket.gethostname()}-{port}"
    body: dict[str, Any] = {
        "Name": service,
        "ID": name,
        "Port": port,
        "Tags": list(tags),
        "Meta": dict(meta or {}),
        "Weights": {"Passing": weight, "Warning": weight},
        "Check": {
            "CheckID": f"service:{name}",
            "TTL": f"{round(ttl * 1000)}ms",
            "Status": "passing",
            "DeregisterCriticalServiceAfter": f"{round(forget_after * 1000)}ms",
        },
    }
    if address:
        body["Address"] = address
    where = url or os.environ.get("LB_REGISTRY_URL") or DEFAULT_URL
    registration = Registration(where, body, ttl, token or os.environ.get("LB_REGISTRY_TOKEN"))
    await registration.start()
    try:
        yield registration
    finally:
        await registration.close()
