"""The image, really built and run: as nobody in particular, with a root that can't be written, and as a
sidecar in a pod. It takes some minutes, and so it is run by `make image` alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
import yaml

from tests.deploy.podman import MINUTES, CannotRun, Podman, find_podman, pip_options
from tests.e2e.process import until

ROOT = Path(__file__).parents[2]
POD = ROOT / "deploy" / "podman" / "greeter.yaml"

pytestmark = pytest.mark.skipif("LB_IMAGE" not in os.environ, reason="make image runs these")

RESTRICTED = (
    "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none",
)  # fmt: skip
ASK = (
    "import sys; from urllib.request import ProxyHandler, build_opener; "
    "answer = build_opener(ProxyHandler({})).open(sys.argv[1], timeout=5); "
    "print(answer.status, answer.headers.get('X-Request-ID'), answer.read().decode())"
)
SIDECAR = "pools: {greeter: {backends: [{id: greeter, address: 127.0.0.1:9001}]}}\n"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """With the image, which is called lb."""
    directory = tmp_path_factory.mktemp("podman")
    try:
        podman = find_podman(directory)
    except CannotRun as error:
        pytest.skip(f"this machine runs no containers: {error}")
    try:
        podman(
            "build", "--format", "docker", "--network", "host", "--pull=never",
            "--build-arg", "PYTHON=debian", *pip_options(directory), "--tag", "lb", str(ROOT),
            patience=15 * MINUTES,
        )  # fmt: skip
        yield podman
    finally:
        podman.close()
        rmtree(directory, ignore_errors=True)


@pytest.fixture
def running(podman: Podman, tmp_path: Path) -> Iterator[Podman]:
    """The balancer, and a greeter in the same network, which has nobody else in it."""
    config = tmp_path / "lb.yaml"
    config.write_text(SIDECAR)
    config.chmod(0o644)
    tmp_path.chmod(0o755)
    try:
        podman(
            "run", "--detach", "--name", "lb", *RESTRICTED, "--volume", f"{config}:/etc/lb/lb.yaml:ro", "lb"
        )
        options = [each if each != "none" else "container:lb" for each in RESTRICTED]
        greeter = ("python", "--", "-m", "lb.demo.greeter", "--id", "greeter-a", "--bind", "127.0.0.1:9001")
        podman(
            "run", "--detach", "--name", "greeter", *options, "--entrypoint", greeter[0], "lb", *greeter[2:]
        )
        yield podman
    finally:
        for name in ("greeter", "lb"):
            podman("rm", "--force", "--ignore", "--time", "0", name)


def ask(podman: Podman, container: str, url: str) -> str:
    """What somebody in this container gets: status, request ID and body; empty where it gets nothing."""
    return podman.run("exec", container, "python", "-c", ASK, url).stdout


def test_what_the_image_says_of_itself(podman: Podman) -> None:
    (found,) = json.loads(podman("inspect", "lb"))
    config: dict[str, Any] = found["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["lb"]
    assert config["Cmd"] == ["serve", "-c", "/etc/lb/lb.yaml"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert sorted(config["ExposedPorts"]) == ["8080/tcp", "9901/tcp"]
    assert "Volumes" not in config


def test_the_hot_modules_are_compiled_and_no_compiler_is_there(podman: Podman) -> None:
    script = "import shutil, lb.core.pool as pool; print(pool.__file__, shutil.which('gcc'))"
    path, compiler = podman("run", "--rm", *RESTRICTED, "--entrypoint", "python", "lb", "-c", script).split()
    assert path.startswith("/opt/lb/")
    assert path.endswith(".so")
    assert compiler == "None"


def test_all_byte_code_is_there(podman: Podman) -> None:
    """Nothing of it can be written later."""
    script = (
        "import lb, pathlib, importlib.util as util; "
        "print([str(each) for each in pathlib.Path(lb.__file__).parent.rglob('*.py') "
        "if not pathlib.Path(util.cache_from_source(str(each))).exists()])"
    )
    assert podman("run", "--rm", *RESTRICTED, "--entrypoint", "python", "lb", "-c", script) == "[]"


def test_without_a_configuration_it_says_so(podman: Podman) -> None:
    done = podman.run("run", "--rm", *RESTRICTED, "lb")
    assert done.returncode == 2
    assert "/etc/lb/lb.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_serves_as_nobody_with_a_root_that_cannot_be_written(running: Podman) -> None:
    until(lambda: ask(running, "lb", "http://127.0.0.1:8080/"), "an answer")
    status, request_id, body = ask(running, "lb", "http://127.0.0.1:8080/").split(" ", 2)
    assert status == "200"
    assert len(request_id) == 36, "it came through the balancer"
    assert "I am greeter-a" in body
    assert running("exec", "lb", "id", "-u").strip() == "10001"
    assert running.run("exec", "lb", "touch", "/opt/lb/x").returncode != 0
    assert running.run("exec", "lb", "touch", "/x").returncode != 0
    capabilities = running("exec", "lb", "grep", "CapEff", "/proc/self/status")
    assert int(capabilities.split()[1], 16) == 0
    assert running.run("healthcheck", "run", "lb").returncode == 0


def test_it_drains_and_ends_well(running: Podman) -> None:
    until(lambda: ask(running, "lb", "http://127.0.0.1:8080/"), "an answer")
    running("stop", "--time", "30", "lb")
    (found,) = json.loads(running("inspect", "lb"))
    assert found["State"]["ExitCode"] == 0
    said = running.run("logs", "lb").stderr
    assert "lb: stopped" in said
    assert "Traceback" not in said


def test_podman_plays_the_pod(podman: Podman, tmp_path: Path) -> None:
    """The same manifest as in deploy/, but in a network of its own, where nobody else is."""
    objects = list(yaml.safe_load_all(POD.read_text()))
    for container in objects[-1]["spec"]["containers"]:
        container.pop("ports", None)
    path = tmp_path / "greeter.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    try:
        podman("kube", "play", "--network", "none", str(path))
        until(lambda: ask(podman, "greeter-lb", "http://127.0.0.1:8080/"), "an answer")
        assert "I am greeter-a" in ask(podman, "greeter-lb", "http://127.0.0.1:8080/")
        for container in ("greeter-lb", "greeter-greeter"):
            assert podman("exec", container, "id", "-u").strip() == "10001"
            assert podman.run("exec", container, "touch", "/x").returncode != 0
    finally:
        podman("pod", "rm", "--force", "--ignore", "greeter")
