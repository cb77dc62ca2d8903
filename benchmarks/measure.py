"""One run: start a proxy, check its answers, warm it up, load it, count its CPU time."""

import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path

from . import load
from .cases import SEEN_HEADERS, SEEN_PATH, Case
from .machine import Cores, cpu_seconds, free_ports, self_signed, serving
from .peers import Peer

CHECKS = 6  # requests before the load: each backend twice


class WrongAnswerError(Exception):
    """A proxy answered something else than its backend, or left out a part of the job."""


@dataclass(frozen=True)
class Settings:
    """What is the same for every run."""

    cores: Cores
    backends: list[int]
    directory: Path
    generator: str
    connections: int
    duration: int
    warmup: int


@dataclass(frozen=True)
class Run:
    """One proxy, one case, one window."""

    peer: str
    case: str
    round: int
    cpu_microseconds: float  # per request, of the whole process tree
    requests_per_second: float
    p50: float
    p99: float
    requests: int
    errors: int

    @property
    def void(self) -> bool:
        return bool(self.errors) or not self.requests


def measure(peer: Peer, case: Case, number: int, settings: Settings) -> Run:
    """Runs one proxy through one window. Raises when it can't start or answers wrongly."""
    program = peer.path()
    assert program is not None, f"{peer.name} isn't installed"
    (port,) = free_ports(1)
    certificate = self_signed(settings.directory) if case.tls else None
    command = peer.prepare(program, settings.directory, port, settings.backends, certificate)
    cores, job = settings.cores, load.Job
    with serving(peer.name, command, [port], cores.proxy, settings.directory) as pid:
        check(port, case)
        if settings.warmup:
            warm = job(port, case, settings.connections, settings.warmup, settings.directory)
            load.run(settings.generator, warm, cores.load)
        window = job(port, case, settings.connections, settings.duration, settings.directory)
        before = cpu_seconds(pid)
        seen = load.run(settings.generator, window, cores.load)
        spent = cpu_seconds(pid) - before
    short = seen.received < seen.requests * len(case.body)
    return Run(
        peer=peer.name,
        case=case.name,
        round=number,
        cpu_microseconds=spent / seen.requests * 1e6 if seen.requests else 0.0,
        requests_per_second=seen.requests / seen.seconds,
        p50=seen.p50,
        p99=seen.p99,
        requests=seen.requests,
        errors=seen.errors + short,
    )


def check(port: int, case: Case) -> None:
    """Asks a few times and compares: status, body, and what the backend saw of the forwarded fields."""
    ids = set()
    connection = _connection(port, case)
    try:
        for _ in range(CHECKS):
            status, request_id, body = _get(connection, case.path, case.headers)
            if status != 200 or body != case.body:
                raise WrongAnswerError(
                    f"{case.path}: status {status} with {len(body)} bytes, not 200 with {len(case.body)}"
                )
            ids.add(request_id)
        if None in ids or len(ids) < CHECKS:
            raise WrongAnswerError("the responses bear no X-Request-ID, or twice the same")
        status, request_id, body = _get(connection, SEEN_PATH, case.headers)
        scheme = "https" if case.tls else "http"
        expected = (request_id, "127.0.0.1", scheme, f"127.0.0.1:{port}")
        for name, want, got in zip(SEEN_HEADERS, expected, body.decode().split("\n"), strict=True):
            if want != got:
                raise WrongAnswerError(f"the backend saw {name}: {got!r}, not {want!r}")
    finally:
        connection.close()


def _connection(port: int, case: Case) -> http.client.HTTPConnection:
    if not case.tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)


def _get(
    connection: http.client.HTTPConnection, path: str, headers: dict[str, str]
) -> tuple[int, str | None, bytes]:
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.getheader("X-Request-ID"), response.read()
