"""The units are such as systemd takes, and fit what lb does by default."""

from __future__ import annotations

import re
import subprocess
from configparser import ConfigParser
from pathlib import Path

from lb.config import loads
from tests.tools import need

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"


def unit(name: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(FOLDER / name)
    return parser


def put_units(tmp_path: Path) -> None:
    """The units, with a program that there is."""
    text = (FOLDER / "lb.service").read_text()
    (tmp_path / "lb.service").write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text))
    (tmp_path / "lb.socket").write_text((FOLDER / "lb.socket").read_text())


def test_systemd_takes_them(tmp_path: Path) -> None:
    put_units(tmp_path)
    command = [need("systemd-analyze", "systemd"), "verify", "--man=no", "lb.service", "lb.socket"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if line.startswith((str(tmp_path), "lb."))]
    assert (ours, done.returncode) == ([], 0)


def test_the_service_may_do_little(tmp_path: Path) -> None:
    """The exposure is 10 for a service without any of it. What is left is the network, which it is for."""
    put_units(tmp_path)
    command = [
        need("systemd-analyze", "systemd"),
        "security",
        "--offline=true",
        "--threshold=20",
        "./lb.service",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_fit_the_defaults() -> None:
    config = loads("pools: {greeter: {backends: [127.0.0.1:9001]}}\n")
    assert unit("lb.socket")["Socket"]["ListenStream"] == str(config.listeners[0].bind)
    longest = int(unit("lb.service")["Service"]["TimeoutStopSec"])
    assert longest == config.drain.delay + config.drain.timeout + 5
