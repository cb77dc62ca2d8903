"""`lb demo`: three greeters and a balancer as real processes, real requests, and who served what."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lb.ask import Unanswered, ask
from lb.observe.render import explain

GREETERS = ("greeter-a", "greeter-b", "greeter-c")
PATIENCE = 15.0  # seconds for a process to start or to stop


class DemoFailed(Exception):
    """Something did not come up."""


class Demo:
    """Starts, sends, shows, and ends what it has started."""

    def __init__(self, port: int, admin_port: int, requests: int) -> None:
        self._port = port
        self._admin_port = admin_port
        self._requests = requests
        self._console = Console(highlight=False)

    def run(self, once: bool) -> None:
        """Returns after the round with `once`, else when the user presses Ctrl-C."""
        with contextlib.ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lb-demo-")))
            greeters = {name: stack.enter_context(_greeter(name)) for name in GREETERS}
            config = directory / "lb.yaml"
            config.write_text(_config(greeters, self._port, self._admin_port))
            address, admin = stack.enter_context(_balancer(config))
            self._say_addresses(greeters, address, admin)
            served, last = self._send(address)
            self._show(served, greeters, admin)
            self._explain(admin, last)
            if once:
                return
            self._console.print(f"\nTry it:  curl -i http://{address}/")
            self._console.print(f"         {_command()} explain --admin http://{admin} REQUEST_ID")
            self._console.print("Ctrl-C ends it all.", style="dim")
            with contextlib.suppress(KeyboardInterrupt):
                _wait_for_interrupt()
            self._console.print("\nstopping")

    def _say_addresses(self, greeters: dict[str, str], address: str, admin: str) -> None:
        table = Table.grid(padding=(0, 2))
        table.add_row("[bold]balancer[/]", f"http://{address}")
        table.add_row("[bold]dashboard[/]", f"http://{admin}/")
        table.add_row("[bold]metrics[/]", f"http://{admin}/metrics")
        for name, greeter in greeters.items():
            table.add_row(name, f"http://{greeter}", style="dim")
        self._console.print(table)

    def _send(self, address: str) -> tuple[Counter[str], str]:
        """How many requests each greeter answered, and the ID of the last one."""
        served: Counter[str] = Counter()
        request_id = ""
        connection = HTTPConnection(address, timeout=PATIENCE)
        try:
            for _ in range(self._requests):
                connection.request("GET", "/")
                response = connection.getresponse()
                body = response.read().decode()
                if response.status != 200:
                    raise DemoFailed(f"the balancer answered {response.status}: {body.strip()}")
                served[response.headers["X-Greeter"]] += 1
                request_id = response.headers["X-Request-ID"]
        except (OSError, HTTPException) as error:
            raise DemoFailed(f"a request failed: {error!r}") from error
        finally:
            connection.close()
        self._console.print(f"\n{self._requests} requests, the last answer: [green]{body.strip()}[/]\n")
        return served, request_id

    def _show(self, served: Counter[str], greeters: dict[str, str], admin: str) -> None:
        table = Table(title="who served what", title_justify="left", title_style="bold")
        table.add_column("backend")
        table.add_column("address", style="dim")
        table.add_column("requests", justify="right")
        table.add_column("share")
        table.add_column("mean", justify="right")
        for backend in _backends(admin):
            count = served[backend["id"]]
            share = count / self._requests
            mean = backend["duration"]["mean_ms"]
            table.add_row(
                backend["id"],
                backend["address"],
                str(count),
                f"{'█' * round(share * 30)} {share:.0%}",
                "-" if mean is None else f"{mean:.1f} ms",
            )
        self._console.print(table)

    def _explain(self, admin: str, request_id: str) -> None:
        try:
            record = ask(admin, f"/api/requests/{request_id}")
        except Unanswered as error:
            raise DemoFailed(str(error)) from error
        self._console.print(f"\n[bold]$ {_command()} explain --admin http://{admin} {request_id}[/]")
        self._console.print(explain(record), markup=False)


def _backends(admin: str) -> list[dict[str, Any]]:
    try:
        pools = ask(admin, "/api/pools")
    except Unanswered as error:
        raise DemoFailed(str(error)) from error
    return [backend for pool in pools["pools"] for backend in pool["backends"]]


def _config(greeters: dict[str, str], port: int, admin_port: int) -> str:
    backends = "\n".join(f"      - {{id: {name}, address: {address}}}" for name, address in greeters.items())
    return f"""\
listeners: [{{bind: 127.0.0.1:{port}}}]
admin: {{bind: 127.0.0.1:{admin_port}}}
access_log: off
pools:
  greeter:
    health_check: {{path: /healthz, interval: 1s}}
    backends:
{backends}
"""


def _command() -> str:
    """How this very program is called from here."""
    program = Path(sys.argv[0])
    if program.name != "lb":
        return "python -m lb"
    if shutil.which("lb") == str(program):
        return "lb"
    return str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program)


@contextlib.contextmanager
def _process(*arguments: str, stream: str) -> Iterator[Iterator[str]]:
    """A Python process of ours, by the lines it prints; ended with SIGTERM, and then waited for."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.DEVNULL,
        text=True,
        process_group=0,  # Ctrl-C is for us alone: we end the others in order
        **{stream: subprocess.PIPE},  # type: ignore[call-overload]
    )
    lines = getattr(process, stream)
    try:
        yield iter(lines.readline, "")
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        lines.close()


@contextlib.contextmanager
def _greeter(name: str) -> Iterator[str]:
    with _process("lb.demo.greeter", "--id", name, "--bind", "127.0.0.1:0", stream="stdout") as lines:
        line = next(lines, "")
        if "http://" not in line:
            raise DemoFailed(f"{name} did not start")
        yield line.rpartition("http://")[2].strip()


@contextlib.contextmanager
def _balancer(config: Path) -> Iterator[tuple[str, str]]:
    with _process("lb", "serve", "-c", str(config), stream="stderr") as lines:
        said, address = [], ""
        for line in lines:
            said.append(line)
            if "listening on http://" in line:
                address = line.rpartition("http://")[2].strip()
            if "admin on http://" in line:
                admin = line.rpartition("http://")[2].strip()
                _wait_until_ready(admin)
                yield address, admin
                return
        raise DemoFailed("the balancer did not start:\n" + "".join(said))


def _wait_until_ready(admin: str) -> None:
    """Until each greeter has passed its first health check, which takes some milliseconds."""
    import time

    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if all(backend["healthy"] for backend in _backends(admin)):
            return
        time.sleep(0.02)
    raise DemoFailed("the greeters did not become healthy")


def _wait_for_interrupt() -> None:
    import signal

    while True:
        signal.pause()
