"""The balancer as what it is to its users: a process with a configuration, addresses, output and an end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
PATIENCE = 15.0  # seconds for a process to start or to stop
LISTENERS = "listeners: [{bind: 127.0.0.1:0}]\nadmin: {bind: 127.0.0.1:0}\n"

_open = build_opener(ProxyHandler({})).open  # an HTTP_PROXY of the environment is not for this

T = TypeVar("T")


def until(found: Callable[[], T], what: str = "it", patience: float = PATIENCE) -> T:
    """Asks again and again until the answer is true, which it returns."""
    deadline = time.monotonic() + patience
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {patience:g} s: {answer!r}")
        time.sleep(0.02)
    return answer


async def eventually(found: Callable[[], object], what: str) -> None:
    """The same, while the backends and clients of the test go on."""
    await asyncio.to_thread(until, found, what)


def lives(process: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def run(*arguments: str | Path, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Runs an `lb` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "lb", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=patience,
        stdin=subprocess.DEVNULL,
        check=False,
    )


class Balancer:
    """A running `lb serve`. Where the text names no listeners and no admin, they get free ports.

    `files` is how many descriptors it may have, where that isn't as many as we.
    """

    def __init__(self, directory: Path, text: str, files: int = 0) -> None:
        self.config = directory / "lb.yaml"
        self.config.write_text(text if "listeners:" in text else LISTENERS + text)
        self._stdout, self._stderr = directory / "stdout", directory / "stderr"
        limited = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(files)] if files else []
        with self._stdout.open("wb") as out, self._stderr.open("wb") as error:
            self.process = subprocess.Popen(
                [*limited, sys.executable, "-m", "lb", "serve", "-c", str(self.config)],
                cwd=ROOT,
                stdout=out,
                stderr=error,
                stdin=subprocess.DEVNULL,
            )

    def start(self) -> None:
        """Waits until it has said where it listens."""
        until(lambda: self.process.poll() is not None or "admin on" in self.said(), "the balancer")
        assert self.process.poll() is None, self.said()
        self.addresses = self._told("listening")
        self.address = self.addresses[0]
        self.port = int(self.address.rpartition(":")[2])
        self.admin = f"http://{self._told('admin')[0]}"

    def _told(self, what: str) -> list[str]:
        return re.findall(rf"^lb: {what} on https?://(.*)$", self.said(), re.MULTILINE)

    def said(self) -> str:
        """What it wrote to standard error so far."""
        return self._stderr.read_text()

    def printed(self) -> str:
        """What it wrote to standard output so far: the access log, if that's where it goes."""
        return self._stdout.read_text()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code, as soon as it has one."""
        return self.process.wait(patience)

    def stop(self) -> int:
        """Ends it, and doesn't wait long for requests in flight."""
        self.send(signal.SIGTERM)
        try:
            return self.wait(0.5)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGTERM)
        return self.wait()

    def memory(self) -> int:
        """Bytes that it holds in memory (RSS)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    async def successor(self) -> int:
        """The ID of the process that has taken over, when one has."""
        pattern = re.compile(r"process (\d+) has taken over")
        await eventually(lambda: pattern.search(self.said()), "another process")
        return int(pattern.findall(self.said())[-1])

    # --- the admin API ---

    def ask(self, path: str, method: str = "GET", change: Any = None) -> tuple[int, str]:
        """Status and body of an admin page."""
        data = None if change is None else json.dumps(change).encode()
        request = Request(
            self.admin + path, data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with _open(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def api(self, path: str) -> Any:
        status, body = self.ask(path)
        assert status == 200, body
        return json.loads(body)

    def record(self, request_id: str) -> dict[str, Any]:
        """What is known of a request, which is known as soon as it has ended."""
        path = f"/api/requests/{request_id}"
        until(lambda: self.ask(path)[0] == 200, f"the record of {request_id}", 2)
        return dict(self.api(path))

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series of a metric that have these labels."""
        samples = [
            sample
            for family in text_string_to_metric_families(self.ask("/metrics")[1])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(sample.value for sample in samples)


@contextmanager
def running(directory: Path, text: str, files: int = 0) -> Iterator[Balancer]:
    """A balancer for as long as the block lasts. Whatever happened: it leaves no traceback behind."""
    balancer = Balancer(directory, text, files)
    try:
        balancer.start()
        yield balancer
        if balancer.process.poll() is None:
            code = balancer.stop()
            assert code == 0, (code, balancer.said())
        assert "Traceback" not in balancer.said(), balancer.said()
    finally:
        balancer.process.kill()
        balancer.wait()
