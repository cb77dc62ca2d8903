"""The benchmark itself, in small: real proxies, backends and load."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import backends, load
from benchmarks.cases import CASES, PLAIN, Case, chosen
from benchmarks.machine import Cores, StartError, cpu_seconds, free_ports, self_signed, serving
from benchmarks.measure import Settings, WrongAnswerError, check, measure
from benchmarks.peers import PEERS
from tests.tools import need

ROOT = Path(__file__).parents[2]
ANY = frozenset(os.sched_getaffinity(0))
EVERYWHERE = Cores(ANY, ANY, ANY)
HANG = [sys.executable, "-c", "import signal; signal.pause()"]


@pytest.fixture
def no_nginx(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python responder is to serve, as where there is no nginx."""
    monkeypatch.setattr(backends, "find_program", lambda name: None)


@pytest.mark.usefixtures("no_nginx")
@pytest.mark.parametrize("case", chosen(PLAIN), ids=PLAIN)
def test_the_bare_forwarder_is_measured_with_our_own_tools(tmp_path: Path, case: Case) -> None:
    with backends.running(tmp_path, ANY) as ports:
        settings = Settings(EVERYWHERE, ports, tmp_path, "builtin", connections=4, duration=1, warmup=0)
        run = measure(PEERS["bare"], case, 0, settings)
    assert not run.void
    assert run.cpu_microseconds > 0
    assert 0 < run.p50 <= run.p99


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("name", ["lb", "nginx", "haproxy"])
def test_each_peer_does_the_whole_job(tmp_path: Path, name: str, tls: bool) -> None:
    program = PEERS[name].path() or need(name)
    need("nginx")
    certificate = self_signed(tmp_path) if tls else None
    with backends.running(tmp_path, ANY) as ports:
        (port,) = free_ports(1)
        command = PEERS[name].prepare(program, tmp_path, port, ports, certificate)
        with serving(name, command, [port], ANY, tmp_path):
            for case in CASES.values():
                if case.tls == tls:
                    check(port, case)


@pytest.mark.usefixtures("no_nginx")
def test_a_proxy_that_leaves_out_a_part_is_found(tmp_path: Path) -> None:
    with backends.running(tmp_path, ANY) as ports, pytest.raises(WrongAnswerError, match="X-Request-ID"):
        check(ports[0], CASES["few"])  # no proxy at all


# Answers twice on each connection and closes it without a word.
CLOSER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    with listener.accept()[0] as connection:
        for _ in range(2):
            if connection.recv(65536):
                connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi")
"""


def test_our_generator_counts_errors(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with serving("closer", [sys.executable, "-c", CLOSER, str(port)], [port], ANY, tmp_path):
        seen = load.run("builtin", load.Job(port, CASES["few"], 1, 1, tmp_path), ANY)
    assert (seen.requests, seen.errors) == (2, 1)


def test_wrk_counts_errors(tmp_path: Path) -> None:
    need("wrk")
    (port,) = free_ports(1)
    with serving("closer", [sys.executable, "-c", CLOSER, str(port)], [port], ANY, tmp_path):
        seen = load.run("wrk", load.Job(port, CASES["few"], 1, 1, tmp_path), ANY)
    assert seen.requests >= 2
    assert seen.errors >= 1


def test_wrk_measures(tmp_path: Path) -> None:
    need("wrk")
    (port,) = free_ports(1)
    with serving(
        "responder", [sys.executable, "-m", "benchmarks.responder", str(port)], [port], ANY, tmp_path
    ):
        seen = load.run("wrk", load.Job(port, CASES["many"], 4, 1, tmp_path), ANY)
    assert seen.requests > 0
    assert seen.errors == 0
    assert seen.received > seen.requests * 14
    assert 0 < seen.p50 <= seen.p99


def test_cpu_time_of_children_counts(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    parent = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
        "print('burnt', flush=True)\ninput()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert cpu_seconds(process.pid) >= 0.28
        process.communicate("\n")


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('the port is taken')"]
    with (
        pytest.raises(StartError, match="it exited with 1: the port is taken"),
        serving("it", command, free_ports(1), ANY, tmp_path),
    ):
        pass


def test_a_server_is_ended_when_its_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), serving("it", HANG, [], ANY, tmp_path) as pid:
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_whole_run_tells_what_is_missing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    need("nginx")
    written = tmp_path / "result.json"
    options = [
        "--duration=1",
        "--warmup=0",
        "--rounds=1",
        "--only=few",
        "--peers=bare,haproxy",
        "--connections=4",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, f"--json={written}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    result = json.loads(written.read_text())
    assert "bare" in [entry["peer"] for entry in result["summary"]], done.stdout + done.stderr
    assert result["options"]["connections"] == 4
    for name in {"bare", "haproxy", "lb"} - {entry["peer"] for entry in result["summary"]}:
        assert re.search(rf"{name}.* left out", done.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_every_server(tmp_path: Path, number: signal.Signals) -> None:
    need("nginx")
    options = ["--duration=30", "--warmup=0", "--only=few", "--peers=bare"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    ) as process:
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob("*/wrk.lua")) + list(tmp_path.glob("*/bare.log")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [command for command in commands if str(tmp_path).encode() in command]
