"""lb simulate with its pictures and replays, lb test-policy, and lb schema --scenario, as commands."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

import pytest

from lb.simulate.access_log import NGINX_FORMATS
from lb.simulate.latency import Exponential
from lb.simulate.scenario import Poisson, Scenario
from tests.docs.pages import blocks
from tests.e2e.process import ROOT, run
from tests.simulate.logs import line, log_of
from tests.simulate.worlds import servers
from tests.tools import need

SHORT = """
duration: 3s
warm_up: 500ms
arrivals: {rate: 300}
keys: 50
backends: [{count: 3, latency: {exponential: 20ms}, slots: 2}]
"""
BAD = """
from random import choice
from lb.balance import Balancer

class OwnChance(Balancer):
    def pick(self, request, backends):
        return choice(backends)

class Raises(Balancer):
    def pick(self, request, backends):
        raise RuntimeError("not today")

class Strange(Balancer):
    def pick(self, request, backends):
        return object()
"""


def run_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command from there."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "lb", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "short.yaml"
    path.write_text(SHORT)
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(BAD)
    return path


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "access.log"
    lines, _ = log_of(
        Scenario("a", Poisson(200.0), servers(3, Exponential(0.02), slots=4), 20.0), "round_robin"
    )
    path.write_text("\n".join([lines[0], "garbage", *lines[1:]]) + "\n")
    return path


# --- the same again ---


@pytest.mark.parametrize("options", [[], ["--workers", "3"]])
def test_the_same_seed_gives_the_same_bytes_in_any_process(short: Path, options: list[str]) -> None:
    """Whatever order sets and dicts of text would have there."""
    printed = set()
    for hash_seed in ("0", "1", "77"):
        command = [sys.executable, "-m", "lb", "simulate", "-c", str(short), "--json", *options]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True, check=True
        )
        printed.add(done.stdout)
    assert len(printed) == 1


# --- what is wrong with a policy ---


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("mine.py", "lb: 'mine.py' needs the class, too, as in mine.py:MyPolicy\n"),
        (
            "mine.py:Raise",
            "lb: can't use mine.py:Raise: it has no class Raise (it has: OwnChance, Raises, Strange)\n",
        ),
        ("prequal,hot=2", "lb: prequal: hot: must be a share from 0 to 1, not 2.0\n"),
    ],
)
def test_a_policy_that_is_named_wrongly(mine: Path, written: str, said: str) -> None:
    done = run_in(mine.parent, "simulate", written)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


# --- pictures ---

drawn = pytest.mark.skipif(
    find_spec("matplotlib") is None and os.environ.get("CI") != "true", reason="matplotlib is not installed"
)


@drawn
def test_a_picture_is_drawn_and_is_the_same_again(short: Path, tmp_path: Path) -> None:
    pictures = [tmp_path / "one.svg", tmp_path / "other.svg"]
    for path in pictures:
        done = run("simulate", "-c", short, "p2c", "random", "ring_hash,vnodes=100", "--plot", path)
        assert (done.returncode, done.stderr) == (0, "")
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    root = ElementTree.parse(pictures[0]).getroot()
    assert root.tag.endswith("svg")
    assert len(list(root.iter("{http://www.w3.org/2000/svg}image"))) >= 3, "a load for each policy"


@drawn
def test_a_picture_as_png(short: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.PNG"
    assert run("simulate", "-c", short, "p2c", "--plot", path).returncode == 0
    assert path.read_bytes().startswith(b"\x89PNG")


@drawn
def test_a_picture_where_nothing_goes_well(tmp_path: Path) -> None:
    path = tmp_path / "down.yaml"
    path.write_text(
        "duration: 1s\narrivals: {rate: 100}\nbackends: [{count: 2, latency: 1ms, crashes: [{from: 0s}]}]\n"
    )
    done = run("simulate", "-c", path, "p2c", "--plot", tmp_path / "a.svg")
    assert (done.returncode, done.stderr) == (0, "")
    assert "connect_failed" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [("a.pdf", "takes a file that ends in .svg or .png"), ("no/such/a.svg", "there is no folder")],
)
def test_a_picture_that_cannot_be_is_said_before_anything_runs(tmp_path: Path, name: str, said: str) -> None:
    done = run("simulate", "--plot", tmp_path / name)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_matplotlib_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('none here')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH", "")])])
    command = [sys.executable, "-m", "lb", "simulate", "p2c", "--plot", str(tmp_path / "a.svg")]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'lb[plot]'" in done.stderr


# --- replays ---


def test_a_replay_shows_the_log_and_what_others_would_have_done(log: Path) -> None:
    done = run("simulate", "--replay", log, "--against", "p2c", "least_request", "ring_hash,key=cookie:a")
    assert (done.returncode, done.stderr) == (0, "")
    rows = re.findall(
        r"^(the log|as logged|p2c|least_request|ring_hash \(key: cookie:a\)) ", done.stdout, re.M
    )
    assert rows == ["the log", "as logged", "p2c", "least_request", "ring_hash (key: cookie:a)"]
    assert "1 of" in done.stdout
    assert "(line 2: it is no JSON)" in done.stdout
    assert "the log doesn't have such a key" in done.stdout


def test_a_replay_from_standard_input_and_of_a_packed_log_are_the_same(log: Path, tmp_path: Path) -> None:
    packed = tmp_path / "access.log.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    results = []
    for name, given in ((str(log), None), (str(packed), None), ("-", log.read_bytes())):
        command = [sys.executable, "-m", "lb", "simulate", "--replay", name, "--against", "p2c", "--json"]
        done = subprocess.run(command, input=given, capture_output=True, check=True)
        found = json.loads(done.stdout)
        results.append((found["policies"], found["log"]))
    assert results[0] == results[1] == results[2]
    log_says = results[0][1]
    assert (log_says["malformed"], log_says["first_malformed"]) == (1, "line 2: it is no JSON")
    assert log_says["lines"] == log_says["requests"] + 1


def test_a_log_of_several_pools_needs_a_choice(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("\n".join(line(at / 10, pool="ab"[at % 2], backend=f"x{at % 3}") for at in range(100)))
    done = run("simulate", "--replay", path)
    assert done.returncode == 2
    assert "requests of several pools: a (50), b (50); say which by --pool" in done.stderr
    done = run("simulate", "--replay", path, "--pool", "a", "--json")
    assert json.loads(done.stdout)["log"]["elsewhere"] == 50


def test_a_log_without_backends_needs_their_number(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"{1760000000 + at / 50:.3f} 0.020 0.015\n" for at in range(500)))
    asked = ["simulate", "--replay", path, "--log-format", "$msec $request_time $upstream_response_time"]
    done = run(*asked)
    assert done.returncode == 2
    assert "say how many there are by --backends" in done.stderr
    done = run(*asked, "--backends", "4", "--against", "round_robin")
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 backends" in done.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "none of its 0 lines is a request"),
        (b"hello\nworld\n", "none of its 2 lines is a request; line 1: it has no format that is known"),
        (b"\x00\xff\xfe{" * 1000, "none of its 1 lines"),
        (b"{" * 3_000_000, "none of its 3 lines"),
    ],
)
def test_what_is_no_log_is_said_in_a_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(content)
    done = run("simulate", "--replay", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--replay", "nothing-here.log"],
        ["--replay", "."],
        ["--replay", "a.log", "-c", "b.yaml"],
        ["--replay", "/dev/null", "--log-format", "combined"],
        ["--against", "p2c"],
        ["p2c,replacement"],
        ["p2c,replacment=true"],
    ],
)
def test_a_wrong_question_is_answered_in_a_line(arguments: list[str]) -> None:
    done = run("simulate", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"lb: [^\n]+\n", done.stderr), done.stderr


def test_a_log_with_a_torn_end(log: Path, tmp_path: Path) -> None:
    packed = tmp_path / "torn.log.gz"
    packed.write_bytes(gzip.compress(log.read_bytes())[:-100])
    done = run("simulate", "--replay", packed)
    assert done.returncode == 2
    assert f"lb: can't read {packed}: " in done.stderr


# --- policies of one's own ---


def test_the_policy_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    """Written to a file as it is printed, and named from another folder, in all ways that there are."""
    (example,) = [each.text for each in blocks("python", page="README.md") if "first_free.py" in each.text]
    (tmp_path / "first_free.py").write_text(example)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    names = ["first_free.py:FirstFree", "./first_free.py:FirstFree", "first_free:FirstFree"]
    for folder, name in [(tmp_path, name) for name in names] + [
        (elsewhere, "../first_free.py:FirstFree,full=2")
    ]:
        for command in (["simulate", name, "p2c"], ["test-policy", name]):
            done = run_in(folder, *command)
            assert (done.returncode, done.stderr) == (0, ""), (command, folder)
            assert "errors of the policy" not in done.stdout
            assert "broken" not in done.stdout


@pytest.mark.parametrize("name", ["Raises", "Strange"])
def test_a_policy_that_fails_is_told_once_and_the_requests_are_served(
    mine: Path, short: Path, name: str
) -> None:
    done = run("simulate", "-c", short, f"{mine}:{name}")
    assert done.returncode == 0
    # The table breaks a line where the path of the policy is long.
    assert re.search(rf"{name}: errors of the policy \d{{3}}", " ".join(done.stdout.split()))
    assert done.stderr.count("failed; where it can't pick, the least busy backend is used") == 1


@pytest.mark.parametrize(
    ("name", "check", "said"),
    [
        ("OwnChance", "the same seed gives the same picks", "chance has to come from `rng`"),
        ("Raises", "one that is excluded is never picked", "it raised RuntimeError: not today in pick ("),
        ("Strange", "one that is excluded is never picked", "it picked <object object"),
    ],
)
def test_what_breaks_the_contract_is_said_with_its_place(
    mine: Path, name: str, check: str, said: str
) -> None:
    done = run("test-policy", f"{mine}:{name}")
    assert done.returncode == 1
    assert f"broken  {check}\n        " in done.stdout
    assert said in done.stdout
    assert re.fullmatch(rf"lb: \S+:{name} breaks the contract \(\d+ checks?\)\n", done.stderr)


@pytest.mark.parametrize("name", ["p2c", "ring_hash,bounded_load=1.25", "round_robin"])
def test_our_own_policies_keep_all_of_it(name: str) -> None:
    done = run("test-policy", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n? " not in done.stdout


@pytest.mark.parametrize("name", ["p3c", "nowhere.py:Mine", "p2c,replacement=7", "json:JSONDecoder"])
def test_a_policy_that_is_none(name: str) -> None:
    done = run("test-policy", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


# --- schema ---


def test_the_schema_of_a_scenario_is_printed() -> None:
    done = run("schema", "--scenario")
    assert done.returncode == 0
    assert json.loads(done.stdout)["title"] == "ScenarioSpec"


NGINX = """
pid {folder}/nginx.pid;
error_log {folder}/error.log;
daemon off;
events {{ worker_connections 64; }}
http {{
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  log_format timed '{format}';
  upstream backends {{ server 127.0.0.1:{first}; server 127.0.0.1:{second}; server 127.0.0.1:{closed}; }}
  server {{
    listen 127.0.0.1:{port};
    access_log {folder}/access.log timed;
    location / {{ proxy_pass http://backends; }}
    location /own {{ return 204; }}
  }}
  server {{ listen 127.0.0.1:{first}; access_log off; location / {{ return 200 "a"; }} }}
  server {{ listen 127.0.0.1:{second}; access_log off; location / {{ return 200 "b"; }} }}
}}
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for_port(port: int, patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, "nginx does not start"
            time.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("format_", [NGINX_FORMATS[0], NGINX_FORMATS[4]])
def test_a_log_that_nginx_has_written(tmp_path: Path, format_: str) -> None:
    """With quotes in a header, a second attempt, and an answer of its own."""
    first, second, closed, port = (free_port() for _ in range(4))
    ports = {"first": first, "second": second, "closed": closed, "port": port}
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, format=format_, **ports))
    nginx = subprocess.Popen([need("nginx"), "-c", str(tmp_path / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        for number in range(30):
            agent = {"User-Agent": 'an "odd" one'}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/x?{number}", headers=agent)
            assert urllib.request.urlopen(request, timeout=30).status == 200
        urllib.request.urlopen(f"http://127.0.0.1:{port}/own", timeout=30)
    finally:
        nginx.terminate()
        nginx.wait(30)
    done = run("simulate", "--replay", tmp_path / "access.log", "--against", "p2c", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)["log"]
    assert (found["requests"], found["malformed"], found["elsewhere"]) == (30, 0, 1)
    assert {each["id"] for each in found["backends"]} == {f"127.0.0.1:{first}", f"127.0.0.1:{second}"}
