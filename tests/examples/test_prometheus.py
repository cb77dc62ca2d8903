"""The Prometheus files: their own tests, and the names of the metrics that they ask for."""

import subprocess
from pathlib import Path

import pytest

from tests.tools import need

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"


@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "lb.rules.yml"],
        ["test", "rules", "lb.rules.test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_to_say(command: list[str]) -> None:
    promtool = need("promtool", "prometheus")
    done = subprocess.run([promtool, *command], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
