"""The commands, as a shell sees them: what they print where, and how they end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

import lb
from tests.e2e.process import ROOT, Balancer, run, until

GOOD = "pools: {greeter: {backends: [127.0.0.1:9001, 127.0.0.1:9002]}}\n"
BAD = """
listners: [{bind: 127.0.0.1:0}]
pools:
  greeter:
    balancer: p3c
    backends: [127.0.0.1]
    timeouts: {connect: 2 parsecs}
"""


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "lb.yaml"
        path.write_text(text)
        return path

    return write


def test_version() -> None:
    done = run("--version")
    kind = "compiled" if lb.compiled() else "interpreted"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lb {lb.__version__} ({kind})\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["serve", "--help"], ["explain", "-h"]])
def test_help(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, "Usage: " in done.stdout, done.stderr) == (0, True, "")


@pytest.mark.parametrize(
    "command", ["serve", "check", "demo", "schema", "explain", "simulate", "test-policy"]
)
def test_help_names_each_command(command: str) -> None:
    assert re.search(rf"^  {command} ", run("--help").stdout, re.M)


@pytest.mark.parametrize("arguments", [["serve"], ["check"], ["explain"], ["fly"], ["serve", "-c"]])
def test_a_wrong_usage_is_said_without_a_traceback(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_check_of_a_good_configuration(config: Callable[[str], Path]) -> None:
    path = config(GOOD)
    done = run("check", "-c", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}: good (1 listener, 1 route, 1 pool, 2 backends)\n"


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_bad_configuration_gets_each_problem_on_a_line_with_its_place(
    config: Callable[[str], Path], command: str
) -> None:
    path = config(BAD)
    done = run(command, "-c", path)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    places = [re.match(rf"{re.escape(str(path))}:(\d+):\d+: .+", line) for line in lines]
    assert [int(place[1]) for place in places if place] == [2, 5, 6, 7], done.stderr
    assert len(lines) == 4
    assert "listeners" in lines[0], "the suggestion"
    assert "p2c" in lines[1]


@pytest.mark.parametrize("text", ["", "pools: [", "- 1\n", "pools: {}\n", "\0", "\xff"])
def test_what_is_no_configuration_at_all(config: Callable[[str], Path], text: str) -> None:
    path = config(text)
    path.write_bytes(text.encode("latin-1"))
    done = run("check", "-c", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{path}:")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["check", "serve", "explain"])
def test_a_configuration_that_is_not_there(tmp_path: Path, command: str) -> None:
    missing = tmp_path / "missing.yaml"
    done = run(command, "-c", missing, *(["some-id-12345"] if command == "explain" else []))
    assert (done.returncode, done.stdout) == (2, "")
    assert str(missing) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_schema_is_a_json_schema_that_takes_the_good_and_refuses_the_bad() -> None:
    done = run("schema")
    assert (done.returncode, done.stderr) == (0, "")
    schema = json.loads(done.stdout)
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    assert validator(schema).is_valid({"pools": {"greeter": {"backends": ["127.0.0.1:9001"]}}})
    assert not validator(schema).is_valid({"pols": {}})
    assert not validator(schema).is_valid({"pools": {"greeter": {"backends": ["127.0.0.1:9001"], "nope": 1}}})


@pytest.mark.parametrize("who", ["listener", "admin"])
def test_serve_says_in_one_line_that_a_port_is_taken(config: Callable[[str], Path], who: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"listener": 0, "admin": 0, who: port}
        text = "".join(
            [
                f"listeners: [{{bind: 127.0.0.1:{ports['listener']}}}]\n",
                f"admin: {{bind: 127.0.0.1:{ports['admin']}}}\n",
            ]
        )
        done = run("serve", "-c", config(text + GOOD))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"lb: can't start: {who} 127.0.0.1:{port}: ")
    assert done.stderr.endswith("address already in use\n")
    assert done.stderr.count("\n") == 1


def test_serve_says_in_one_line_that_the_log_cannot_be_written(config: Callable[[str], Path]) -> None:
    text = f"listeners: [{{bind: 127.0.0.1:0}}]\nadmin: off\naccess_log: {{path: /no/such/log}}\n{GOOD}"
    done = run("serve", "-c", config(text))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith("lb: can't start: ")
    assert "/no/such/log" in done.stderr


def test_serve_says_where_it_listens(balancer: Callable[[str], Balancer]) -> None:
    running = balancer(
        f"listeners: [{{bind: 127.0.0.1:0}}, {{bind: 127.0.0.1:0}}]\nadmin: {{bind: 127.0.0.1:0}}\n{GOOD}"
    )
    pattern = r"lb: listening on http://127\.0\.0\.1:\d+\n" * 2 + r"lb: admin on http://127\.0\.0\.1:\d+\n"
    assert re.fullmatch(pattern, running.said())
    assert len(set(running.addresses)) == 2
    for address in running.addresses:
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), 5).close()


def test_explain_without_a_balancer(config: Callable[[str], Path]) -> None:
    done = run("explain", "some-id-12345", "--admin", "http://127.0.0.1:1")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "http://127.0.0.1:1" in done.stderr


def test_a_token_is_needed_where_one_is_set(balancer: Callable[[str], Balancer], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-token\n")
    running = balancer(
        "listeners: [{bind: 127.0.0.1:0}]\naccess_log: off\n"
        f"admin: {{bind: 127.0.0.1:0, token: {{file: {token}}}}}\n"
        "pools: {greeter: {backends: [127.0.0.1:1]}}\n"
    )
    assert running.ask("/api/requests")[0] == 401
    assert running.ask("/livez")[0] == 200
    with socket.create_connection(("127.0.0.1", running.port), 5) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    found = re.search(rb"X-Request-ID: (\S+)", answer)
    assert found is not None
    request_id = found[1].decode()
    refused = run("explain", request_id, "--admin", running.admin)
    assert (refused.returncode, refused.stdout) == (1, "")
    told = run("explain", request_id, "--admin", running.admin, "--token-file", token)
    assert (told.returncode, request_id in told.stdout) == (0, True), told.stderr


def test_demo_once() -> None:
    done = run("demo", "--once", "--requests", "30", patience=60)
    assert done.returncode == 0, done.stderr
    for name in ("greeter-a", "greeter-b", "greeter-c"):
        assert name in done.stdout
    assert "30 requests" in done.stdout
    assert re.search(r"Picked greeter-[abc]:", done.stdout)
    assert "Traceback" not in done.stdout + done.stderr


def test_demo_stays_until_ctrl_c_and_leaves_nothing_behind(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("wb") as out:
        demo = subprocess.Popen(
            [sys.executable, "-m", "lb", "demo", "--requests", "5"],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        until(lambda: "Ctrl-C" in output.read_text() or demo.poll() is not None, "the demo", 30)
        ports = [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", output.read_text())]
        assert len(set(ports)) >= 5  # a balancer, its admin, three greeters
        demo.send_signal(signal.SIGINT)
        assert demo.wait(15) == 0, output.read_text()
        for port in set(ports):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 5)
    finally:
        demo.kill()
        demo.wait()


# --- simulate ---

SHORT = """
about: Short.
duration: 2s
arrivals: {rate: 200}
backends: [{count: 3, latency: {exponential: 20ms}, slots: 2}]
policies: [p2c, random]
"""
MINE = """
from beside import FIRST
from lb.balance import Balancer

class Mine(Balancer):
    def pick(self, request, backends):
        return backends[FIRST]
"""


def test_simulate_gives_the_same_for_the_same_seed_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text(SHORT)
    first, again = (run("simulate", "-c", path, "--json", "--workers", "2") for _ in range(2))
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == again.stdout
    assert run("simulate", "-c", path, "--json", "--workers", "2", "--seed", "2").stdout != first.stdout
    result = json.loads(first.stdout)
    assert (result["scenario"], result["workers"], result["seed"]) == ("short", 2, 1)
    assert [each["policy"] for each in result["policies"]] == ["p2c", "random"]


def test_simulate_prints_a_row_for_each_policy(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text(SHORT)
    done = run("simulate", "-c", path, "round_robin", "least_request")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^(policy|[a-z]+_[a-z]+) ", done.stdout, re.M) == [
        "policy",
        "round_robin",
        "least_request",
    ]


def test_simulate_takes_a_policy_of_a_file_anywhere(tmp_path: Path) -> None:
    """Whatever the file is called, and with what lies beside it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "random.py").write_text(MINE)
    (folder / "beside.py").write_text("FIRST = 0\n")
    (tmp_path / "short.yaml").write_text(SHORT)
    name = f"{folder}/random.py:Mine"
    done = run("simulate", "-c", tmp_path / "short.yaml", name, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (policy,) = json.loads(done.stdout)["policies"]
    assert policy["policy"] == name
    assert policy["backends"][0]["attempts"] == policy["requests"]


@pytest.mark.parametrize("name", ["p3c", "nowhere.py:Mine", "nothing:Mine", "lb.balance.p2c:Nobody"])
def test_simulate_says_which_policy_is_wrong(name: str) -> None:
    done = run("simulate", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("lb: ")


def test_simulate_of_a_policy_that_cannot_be_made(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    init = "    def __init__(self, clock, rng):\n        raise RuntimeError('no')\n"
    mine.write_text("from lb.balance import Balancer\nclass Mine(Balancer):\n" + init)
    done = run("simulate", f"{mine}:Mine")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"lb: {mine}:Mine can't be made: RuntimeError: no\n"


def test_simulate_of_a_wrong_scenario(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text(SHORT.replace("rate", "rat"))
    done = run("simulate", "-c", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{path}:4:12: arrivals.rat: unknown key (did you mean rate?)\n"
