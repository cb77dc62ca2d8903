"""Three greeters, and a balancer that has seen everything once, for all tests of the pages."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse

import pytest
import trustme

from tests.certificates import client_context, write_pair
from tests.e2e.process import ROOT, Balancer, running, until

PATIENCE = 15.0
CONFIG = """
listeners:
  - {bind: 127.0.0.1:0}
  - {bind: 127.0.0.1:0, proxy_protocol: true, tls: {certificates: [{cert: CERT, key: KEY}]}}
admin: {bind: 127.0.0.1:0}
routes:
  - {match: {path_prefix: /unreachable}, pool: unreachable}
  - {match: {path_prefix: /nobody}, pool: nobody}
  - {match: {path_prefix: /tried}, pool: tried}
  - {pool: greeter}
pools:
  greeter:
    health_check: {path: /healthz, interval: 1s}
    backends:
      - {id: greeter-a, address: "A"}
      - {id: greeter-b, address: "B"}
      - {id: greeter-c, address: "C"}
      - {id: greeter-d, address: "127.0.0.1:1"}
  unreachable: {backends: ["127.0.0.1:1"], discovery: [{file: more.yaml}]}
  tried: {shadow: least_request, backends: ["A", "B"]}
  nobody: {backends: [{address: "127.0.0.1:1", weight: 0}]}
"""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def id(self) -> str:
        return self.headers["X-Request-ID"]


def get(balancer: Balancer, path: str, **headers: str) -> Answer:
    """What a client gets from the balancer."""
    with closing(HTTPConnection(balancer.address, timeout=PATIENCE)) as connection:
        connection.request("GET", path, headers=headers)
        response: HTTPResponse = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read().decode())


def shake_hands(address: str) -> None:
    """A client that comes by a proxy, and speaks TLS."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as raw:
        raw.sendall(b"PROXY UNKNOWN\r\n")
        client_context().wrap_socket(raw, server_hostname="localhost").close()


@contextmanager
def greeter(name: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A greeter on a free port, which it is about to say."""
    command = [sys.executable, "-m", "lb.demo.greeter", "--id", name, "--bind", "127.0.0.1:0", *options]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="session")
def greeters() -> Iterator[list[str]]:
    """The addresses of three: greeter-a, greeter-b and greeter-c."""
    with ExitStack() as stack:
        processes = [stack.enter_context(greeter(f"greeter-{name}")) for name in "abc"]
        lines = [process.stdout.readline() for process in processes if process.stdout]
        assert all("http://" in line for line in lines), lines
        yield [line.rpartition("http://")[2].strip() for line in lines]


def replaced(text: str, greeters: list[str]) -> str:
    """A configuration of the pages with the addresses of the running greeters."""
    for port, address in enumerate(greeters, 9001):
        text = text.replace(f"127.0.0.1:{port}", address)
    return text


@pytest.fixture(scope="session")
def fleet(greeters: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    """A balancer to which all that makes a metric has happened."""
    directory = tmp_path_factory.mktemp("fleet")
    cert, key = write_pair(directory, trustme.CA(), "localhost")
    text = CONFIG.replace("CERT", cert).replace("KEY", key)
    for name, address in zip("ABC", greeters, strict=True):
        text = text.replace(f'"{name}"', f'"{address}"')
    with running(directory, text) as balancer:
        until(lambda: balancer.metric("lb_pool_backends", pool="greeter", state="eligible") == 3)
        for _ in range(30):
            assert get(balancer, "/hello").status == 200
        assert get(balancer, "/unreachable").status == 502
        assert get(balancer, "/nobody").status == 503
        shake_hands(balancer.addresses[1])
        assert get(balancer, "/tried").status == 200
        yield balancer
