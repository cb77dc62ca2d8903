"""A registry that is served on a free port, and real stores for it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from lb.control.registry.api import RegistryApi
from lb.control.registry.model import Check, Instance
from lb.control.registry.registry import Registry
from lb.control.registry.server import build_registry
from lb.control.registry.store import MemoryStore, Store
from tests.e2e.process import until
from tests.tools import need

Client = TestClient[Any, Any]


class LoopClock:
    """The loop's timers, with its time."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.time, self.call_later = loop.time, loop.call_later


@asynccontextmanager
async def opened(store: Store | None = None) -> AsyncIterator[Registry]:
    registry = Registry(store or MemoryStore(), LoopClock())
    await registry.open()
    try:
        yield registry
    finally:
        await registry.close()


@asynccontextmanager
async def served(store: Store | None = None, token: str | None = None) -> AsyncIterator[Client]:
    async with opened(store) as registry:
        api = RegistryApi(lambda: registry, lambda: token)
        async with TestClient(TestServer(build_registry(api))) as client:
            yield client


def instance(name: str = "a", service: str = "greeter", port: int = 9001, **more: Any) -> Instance:
    return Instance(name, service, "127.0.0.1", port, **more)


def checked(name: str = "a", ttl: float = 10.0, **more: Any) -> Instance:
    return instance(name, checks=(Check(f"service:{name}", "alive", ttl, **more),))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Etcd:
    """A real etcd of one member, which can be killed and started again on its data. With a certificate it has
    https: `tls` are the files of the certificate and of its key."""

    def __init__(self, folder: Path, tls: tuple[Path, Path] | None = None) -> None:
        self._tls = tls
        self._program = need("etcd", "etcd-server")
        self._folder = folder
        self._peer, self.port = free_port(), free_port()
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        peer = f"http://127.0.0.1:{self._peer}"
        tls = [] if self._tls is None else ["--cert-file", self._tls[0], "--key-file", self._tls[1]]
        self._process = subprocess.Popen(
            [self._program, "--name", "one", "--data-dir", str(self._folder / "etcd"),
             "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--initial-cluster", f"one={peer}", "--heartbeat-interval", "50", "--election-timeout", "250",
             *tls],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(self._is_well, "etcd")

    def _is_well(self) -> bool:
        anybody = urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), anybody)
        with contextlib.suppress(OSError), opener.open(f"{self.url}/health", timeout=1) as answer:
            return b"true" in answer.read()
        return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def running_etcd(folder: Path, tls: tuple[Path, Path] | None = None) -> Iterator[Etcd]:
    etcd = Etcd(folder, tls)
    etcd.start()
    try:
        yield etcd
    finally:
        etcd.kill()
        shutil.rmtree(folder / "etcd", ignore_errors=True)
