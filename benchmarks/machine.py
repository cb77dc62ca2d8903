"""Cores, free ports, processes and their CPU time: what a fair run needs of the machine."""

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # where `-m lb` and `-m benchmarks` are found
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_TIMEOUT = 15.0
STOP_TIMEOUT = 10.0


class StartError(Exception):
    """A server didn't come up; says why in one line."""


@dataclass(frozen=True)
class Cores:
    """Who runs where. The proxy has its core alone wherever there are two."""

    proxy: frozenset[int]
    backends: frozenset[int]
    load: frozenset[int]


def self_signed(directory: Path) -> Path:
    """A certificate and its key (P-256, as most have) in one file. Raises StartError without openssl."""
    path = directory / "certificate.pem"
    if path.exists():
        return path
    openssl = find_program("openssl")
    if openssl is None:
        raise StartError("openssl isn't installed, which makes the certificate")
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", cert],
        capture_output=True, check=True,
    )  # fmt: skip
    path.write_bytes(cert.read_bytes() + key.read_bytes())
    return path


def share_cores() -> Cores:
    """Shares out the cores that we may use: the last one to the proxy, the others to the rest."""
    cores = sorted(os.sched_getaffinity(0))
    proxy, rest = cores[-1], cores[:-1]
    # A hyperthread of the proxy's own core would slow it down, so it idles where we can afford it.
    apart = [core for core in rest if core not in _siblings(proxy)]
    rest = apart if len(apart) >= 2 else rest
    if len(rest) < 2:
        together = frozenset(rest or cores)
        return Cores(frozenset({proxy}), together, together)
    half = len(rest) // 2
    return Cores(frozenset({proxy}), frozenset(rest[:half]), frozenset(rest[half:]))


def _siblings(core: int) -> set[int]:
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text()
    except OSError:
        return {core}
    siblings: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        siblings.update(range(int(first), int(last or first) + 1))
    return siblings


@contextlib.contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """What is started in this block runs on `cores`: a child inherits them, so it has no moment elsewhere."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def find_program(name: str) -> str | None:
    """The path of a program; servers often lie in an sbin that isn't on a user's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


@contextlib.contextmanager
def serving(
    name: str, command: Sequence[str], ports: Sequence[int], cores: frozenset[int], directory: Path
) -> Iterator[int]:
    """Runs a server until the block ends; yields its PID once it accepts on all of `ports`."""
    log = directory / f"{name}.log"
    with log.open("wb") as output, pinned(cores):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C reaches us only, and we end it in the finally below
        )
    try:
        for port in ports:
            _wait_until_accepting(name, process, port, log)
        yield process.pid
    finally:
        _stop(process)


def _wait_until_accepting(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise StartError(
                f"{name} exited with {process.returncode}: {lines[-1] if lines else 'no output'}"
            )
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise StartError(f"{name} doesn't accept on port {port} after {START_TIMEOUT:.0f} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its session is its own: nobody else is in the group
        process.wait()


@dataclass(frozen=True)
class Stat:
    """One process as /proc/PID/stat shows it."""

    parent: int
    ticks: int  # user and system, its own and of the children that it has waited for


def parse_stat(text: str) -> Stat:
    """Reads /proc/PID/stat. The name may hold blanks and brackets, so fields count from the last one."""
    fields = text.rpartition(")")[2].split()
    return Stat(parent=int(fields[1]), ticks=sum(int(field) for field in fields[11:15]))


def cpu_seconds(root: int) -> float:
    """User and system time of a process and all its descendants, the ended ones included."""
    stats: dict[int, Stat] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # ended while we looked; its parent has its time now
                stats[int(entry.name)] = parse_stat((entry / "stat").read_text(errors="replace"))
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, stat in stats.items():
        children[stat.parent].append(pid)
    ticks, todo = 0, [root]
    while todo:
        pid = todo.pop()
        ticks += stats[pid].ticks if pid in stats else 0
        todo += children[pid]
    return ticks / TICKS_PER_SECOND


def description() -> dict[str, object]:
    """The machine, for the record."""
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }
