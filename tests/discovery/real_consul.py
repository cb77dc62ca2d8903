"""A real Consul, for tests: a server of its own, in development mode or with access control.

Debian has none any more. The program is `consul` on the PATH, or what LB_TEST_CONSUL names.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.control.registry.scene import free_port
from tests.e2e.process import until

PATIENCE = 30.0  # seconds until it has elected itself
ROOT_TOKEN = "11111111-2222-3333-4444-555555555555"

_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def need_consul() -> str:
    """The path of the program. Where there is none the test is skipped."""
    path = os.environ.get("LB_TEST_CONSUL") or shutil.which("consul")
    if path is None:
        pytest.skip("there is no Consul here: neither consul on the PATH, nor LB_TEST_CONSUL")
    return path


class RealConsul:
    """An agent that is a server, too. Killed and started again it has forgotten everything; with ACLs it
    keeps its data."""

    def __init__(self, folder: Path, acls: bool = False) -> None:
        self._program = need_consul()
        self._folder = folder
        self._acls = acls
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = ROOT_TOKEN if acls else ""
        self._process: subprocess.Popen[bytes] | None = None
        config: dict[str, Any] = {
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "node_name": "n1",
            "disable_update_check": True,
            "ports": {"http": self.port, "dns": -1, "grpc": -1, "serf_wan": -1}
            | {each: free_port() for each in ("server", "serf_lan")},
            "performance": {"raft_multiplier": 1},
        }
        if acls:
            config |= {
                "server": True,
                "bootstrap": True,
                "data_dir": str(folder / "consul-data"),
                "acl": {
                    "enabled": True,
                    "default_policy": "deny",
                    "tokens": {"master": ROOT_TOKEN, "agent": ROOT_TOKEN},
                },
            }
        (folder / "consul.json").write_text(json.dumps(config))

    def start(self) -> None:
        mode = [] if self._acls else ["-dev"]
        with (self._folder / "consul.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "agent", *mode, "-config-file", str(self._folder / "consul.json")],
                stdout=log,
                stderr=log,
            )
        until(self._is_well, "Consul", PATIENCE)

    def _is_well(self) -> bool:
        """It leads, and has put itself into its catalog."""
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "consul.log").read_text()[-2000:]
        with contextlib.suppress(OSError, ValueError):
            return "consul" in self.ask("/v1/catalog/services")[1] and "n1" in json.dumps(
                self.ask("/v1/health/service/consul?passing")[1]
            )
        return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(
        self, path: str, method: str = "GET", body: Any = None, token: str | None = None
    ) -> tuple[int, Any]:
        """Status, and what the answer holds."""
        data = json.dumps(body).encode() if body is not None else b"" if method == "PUT" else None
        headers = {"X-Consul-Token": self.token if token is None else token}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with _open(request, timeout=10) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text.decode()

    async def put(self, path: str, body: Any = None) -> Any:
        status, said = await asyncio.to_thread(self.ask, path, "PUT", body)
        assert status == 200, (path, body, said)
        return said

    async def register(self, name: str, **more: Any) -> None:
        await self.put("/v1/agent/service/register", {"Name": "greeter", "ID": name, **more})

    async def deregister(self, name: str) -> None:
        await self.put(f"/v1/agent/service/deregister/{name}")


@asynccontextmanager
async def real_consul(folder: Path, acls: bool = False) -> AsyncIterator[RealConsul]:
    agent = RealConsul(folder, acls)
    try:
        await asyncio.to_thread(agent.start)
        yield agent
    finally:
        agent.kill()
