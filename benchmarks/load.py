"""The load generators: wrk where it is installed, else our own."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .cases import Case
from .machine import ROOT, find_program, pinned

GRACE = 30.0  # seconds that a generator may take beyond its duration before it counts as hung


@dataclass(frozen=True)
class Load:
    """What a generator saw in one window. Latencies in microseconds."""

    requests: int
    seconds: float
    received: int  # bytes, heads included
    errors: int  # statuses that aren't 2xx, and sockets that failed
    p50: float
    p99: float


@dataclass(frozen=True)
class Job:
    """What a generator is to do."""

    port: int
    case: Case
    connections: int
    seconds: int
    directory: Path

    def raw_request(self) -> str:
        fields = {"Host": f"127.0.0.1:{self.port}", **self.case.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"GET {self.case.path} HTTP/1.1\r\n{lines}\r\n"


Command = Callable[[Job, frozenset[int]], list[str]]

WRK_SCRIPT = """
%s
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\\n{"requests": %%d, "seconds": %%.6f, "received": %%d, "errors": %%d, ' ..
    '"p50": %%.1f, "p99": %%.1f}\\n', summary.requests, summary.duration / 1e6, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


def _wrk(job: Job, cores: frozenset[int]) -> list[str]:
    # Set once and never in a request(): wrk then builds the request once, and costs least.
    fields = "\n".join(
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in job.case.headers.items()
    )
    script = job.directory / "wrk.lua"
    script.write_text(WRK_SCRIPT % fields)
    return [
        find_program("wrk") or "wrk",
        f"--threads={min(len(cores), job.connections)}",
        f"--connections={job.connections}",
        f"--duration={job.seconds}s",
        "--timeout=10s",
        f"--script={script}",
        f"{'https' if job.case.tls else 'http'}://127.0.0.1:{job.port}{job.case.path}",
    ]


def _builtin(job: Job, cores: frozenset[int]) -> list[str]:
    if job.case.tls:
        raise RuntimeError("only wrk speaks TLS")
    options = {
        "port": job.port,
        "request": job.raw_request(),
        "connections": job.connections,
        "seconds": job.seconds,
    }
    return [sys.executable, "-m", "benchmarks.generator", json.dumps(options)]


GENERATORS: dict[str, Command] = {"wrk": _wrk, "builtin": _builtin}


def default_generator() -> str:
    """wrk, where it is installed."""
    return "wrk" if find_program("wrk") else "builtin"


def run(generator: str, job: Job, cores: frozenset[int]) -> Load:
    """Loads for `job.seconds` on `cores`."""
    with pinned(cores):
        done = subprocess.run(
            GENERATORS[generator](job, cores),
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=job.seconds + GRACE,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{generator} exited with {done.returncode}: {done.stderr.strip()[-300:]}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """Reads the result, which is the last line."""
    return Load(**json.loads(output.strip().splitlines()[-1]))
