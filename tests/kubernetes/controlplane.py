"""A real Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager, as processes.

The programs come from the folders that KUBE_ASSETS names (as PATH does), or from PATH. There are no nodes
and no scheduler: `tests/kubernetes/kubelet.py` plays them. All of it listens on an address that only this
machine has, out of a network that nobody routes (198.18.0.0/15, RFC 2544), since pods have namespaces of
their own for the network and can't reach our loopback; and since EndpointSlices may not name the loopback.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.error import HTTPError, URLError

import aiohttp
import pytest
import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.certificates import write_ca, write_pair

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
CONTROLLERS = (
    "deployment-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
)
ADMIN = "an-admin"  # the token of who may do everything
PATIENCE = 60.0  # seconds for a program to start: each is a large one
ISSUER = "https://kubernetes.default.svc.cluster.local"
SERVICES = "10.96.0.0/16,fd96::/108"


def programs() -> dict[str, str]:
    """Where the programs are; skips the test where one is missing."""
    where = os.pathsep.join(part for part in (os.environ.get("KUBE_ASSETS"), os.environ.get("PATH")) if part)
    found = {each: shutil.which(each, path=where) for each in PROGRAMS}
    missing = [each for each, path in found.items() if path is None]
    if missing:
        pytest.skip(
            f"no {', '.join(missing)} on PATH or in KUBE_ASSETS: this is NOT tested against a real Kubernetes"
        )
    return {each: path for each, path in found.items() if path}


@contextmanager
def an_address() -> Iterator[str]:
    """An address that only this machine has, for as long as the block lasts. The kernel sees to it that
    nobody else gets the same."""
    for number in Random().sample(range(512), 20):
        address = f"198.{18 + number // 256}.{number % 256}.1"
        done = ip("addr", "add", f"{address}/32", "dev", "lo")
        if done.returncode == 0:
            break
        if "exists" not in done.stderr:
            pytest.skip(
                f"{done.stderr.strip()}: this is NOT tested against a real Kubernetes. "
                "It takes root, or `unshare -rnm` with lo up and a tmpfs on /run"
            )
    else:
        pytest.fail("all addresses are taken")
    try:
        yield address
    finally:
        ip("addr", "del", f"{address}/32", "dev", "lo")


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs ip(8)."""
    program = shutil.which("ip", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        pytest.skip("ip isn't installed (package iproute2): this is NOT tested against a real Kubernetes")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


class Api:
    """Asks the API server as somebody who may do everything."""

    def __init__(self, server: str, session: aiohttp.ClientSession) -> None:
        self.server = server
        self._session = session

    async def ask(
        self, method: str, path: str, body: Any = None, well: Sequence[int] = (200, 201, 202), token: str = ""
    ) -> Any:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        async with self._session.request(
            method,
            self.server + path,
            data=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {token or ADMIN}", "Content-Type": kind},
        ) as response:
            if response.status >= 500 or response.status == 429:  # it is about to begin, or to end
                raise ConnectionError(f"{method} {path}: {await response.text()}")
            said = await response.json()
            assert response.status in well, (method, path, said)
            return said

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Any]]:
        """Events from that version on, until the server ends them."""
        async with self._session.get(
            f"{self.server}{path}&watch=1&resourceVersion={version}",
            headers={"Authorization": f"Bearer {ADMIN}"},
            timeout=aiohttp.ClientTimeout(total=None),
        ) as response:
            rest = b""
            async for piece in response.content.iter_any():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    yield event["type"], event["object"]


class ControlPlane:
    """The three processes. `options` are more of the API server's."""

    def __init__(self, folder: Path, address: str, *options: str) -> None:
        self.folder = folder
        self.address = address
        self.programs = programs()
        self.kubeconfig = folder / "kubeconfig"
        self._options = options
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._port, etcd, peer = _free_ports(address)
        self._etcd, self._peer = f"http://{address}:{etcd}", f"http://{address}:{peer}"
        ca = trustme.CA()
        self._certificate = write_pair(folder, ca, "server", address)
        self.ca = write_ca(folder, ca)
        _write_key(folder)
        (folder / "tokens.csv").write_text(f'{ADMIN},admin,admin,"system:masters"\n')
        self.tls = ssl.create_default_context(cafile=self.ca)
        self.server = f"https://{address}:{self._port}"
        self.write_kubeconfig(self.kubeconfig, {"token": ADMIN})

    @property
    def port(self) -> int:
        return self._port

    def write_kubeconfig(self, path: Path, user: dict[str, Any], server: str = "", **context: str) -> None:
        """One with this user."""
        cluster = {"server": server or self.server, "certificate-authority": self.ca}
        if server:
            cluster["tls-server-name"] = self.address
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", **context}}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
        }
        path.write_text(yaml.safe_dump(text))

    # --- the processes ---

    def start(self) -> None:
        self.start_etcd()
        self.start_api()

    def start_etcd(self) -> None:
        self._run(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={self._etcd}",
            f"--advertise-client-urls={self._etcd}",
            f"--listen-peer-urls={self._peer}",
            f"--initial-advertise-peer-urls={self._peer}",
            f"--initial-cluster=default={self._peer}",
            "--unsafe-no-fsync",
        )

    def start_api(self) -> None:
        """Runs the API server, waits until it is ready, and has the controllers begin anew: those that have
        lived through an outage wait up to half a minute before they ask again."""
        certificate, key = self._certificate
        process = self._run(
            "kube-apiserver",
            f"--etcd-servers={self._etcd}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self._port}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={self.folder / 'accounts.pub'}",
            f"--service-account-signing-key-file={self.folder / 'accounts.key'}",
            f"--service-cluster-ip-range={SERVICES}",
            *self._options,
        )
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready():
            assert process.poll() is None, self.said("kube-apiserver")
            assert time.monotonic() < deadline, self.said("kube-apiserver")
            time.sleep(0.1)
        if "kube-controller-manager" in self._processes:
            self.kill("kube-controller-manager")
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--authentication-kubeconfig={self.kubeconfig}",
            f"--authorization-kubeconfig={self.kubeconfig}",
            "--secure-port=0",
            "--leader-elect=false",
            f"--controllers={','.join(CONTROLLERS)}",
            f"--root-ca-file={self.ca}",
        )

    def _is_ready(self) -> bool:
        try:
            self.get("/readyz")
        except (URLError, OSError):
            return False
        return True

    def get(self, path: str) -> bytes:
        """An answer of the API server's. Raises URLError."""
        request = urllib.request.Request(self.server + path, headers={"Authorization": f"Bearer {ADMIN}"})
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.tls)
        )
        with opener.open(request, timeout=5) as answer:
            body: bytes = answer.read()
        return body

    def kill(self, program: str) -> None:
        """Ends one without a warning (SIGKILL)."""
        process = self._processes.pop(program)
        process.kill()
        process.wait()

    def close(self) -> None:
        for program in reversed(list(self._processes)):
            self.kill(program)

    def said(self, program: str) -> str:
        """The end of what it wrote."""
        return (self.folder / f"{program}.log").read_text()[-4000:]

    def _run(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{program}.log").open("ab") as log:
            process = subprocess.Popen(
                [self.programs[program], *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self._processes[program] = process
        return process

    # --- what tests do with it ---

    def kubectl(self, *arguments: str, stdin: str = "", program: str = "", well: bool = True) -> str:
        """What kubectl says, as somebody who may do everything."""
        done = subprocess.run(
            [program or self.programs["kubectl"], f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HOME": str(self.folder)},  # where it keeps a cache
        )
        assert (done.returncode == 0) is well, (arguments, done.stdout, done.stderr)
        return done.stdout if well else done.stderr

    def compact(self) -> None:
        """Has etcd forget all versions but the last."""
        version = int(self._of_etcd("/v3/kv/range", {"key": "Lw=="})["header"]["revision"])
        try:
            self._of_etcd("/v3/kv/compaction", {"revision": version, "physical": True})
        except HTTPError as error:
            if b"has been compacted" not in error.read():  # where nothing has happened since the last time
                raise

    def _of_etcd(self, path: str, body: dict[str, Any]) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self._etcd}{path}", json.dumps(body).encode(), timeout=5) as answer:
            return json.loads(answer.read())

    @asynccontextmanager
    async def api(self) -> AsyncIterator[Api]:
        timeout = aiohttp.ClientTimeout(total=10)
        connector = aiohttp.TCPConnector(ssl=self.tls)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield Api(self.server, session)


@contextmanager
def control_plane(folder: Path, *options: str) -> Iterator[ControlPlane]:
    """One for as long as the block lasts."""
    programs()  # skips, before anything is done to the machine
    with an_address() as address:
        plane = ControlPlane(folder, address, *options)
        try:
            plane.start()
            yield plane
        finally:
            plane.close()


class Relay:
    """A TCP connection on the way to somewhere, which can be cut; and nothing passes until it is mended."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._up = True
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.url = ""

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0)
        self.url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._server.close()

    def cut(self) -> None:
        self._up = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._up = True

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if not self._up:
            writer.transport.abort()
            return
        try:
            there, to_there = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, to_there}
        await asyncio.gather(_pass_on(reader, to_there), _pass_on(there, writer))
        self._writers -= {writer, to_there}


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(2**16):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass  # it was cut
    finally:
        writer.close()


def _free_ports(address: str, count: int = 3) -> list[int]:
    sockets = [socket.create_server((address, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _write_key(folder: Path) -> None:
    """Which tokens of ServiceAccounts are signed with."""
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "accounts.key").write_bytes(private)
    (folder / "accounts.pub").write_bytes(public)
