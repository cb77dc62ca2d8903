"""Each promise of THREAT_MODEL.md names tests that there are; those that have no better place are here."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from lb.logfile import LogFile

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "THREAT_MODEL.md"
ROW = re.compile(r"^\| (?P<attack>.*?) \| (?P<promise>.*?) \| (?P<proof>.*) \|$", re.M)
PROOF = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def rows() -> list[tuple[str, str, str]]:
    found = [(match["attack"], match["promise"], match["proof"]) for match in ROW.finditer(PAGE.read_text())]
    return [row for row in found if row[0] not in ("attack", "who", "---") and "`tests/" in row[2]]


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:50])
def test_the_tests_of_a_promise_are_there(row: tuple[str, str, str]) -> None:
    attack, promise, proof = row
    assert promise
    named = PROOF.findall(proof)
    assert len(named) == proof.count("`tests/"), f"{attack}: {proof}"
    for path, name in named:
        assert (ROOT / path).exists(), f"{attack}: there is no {path}"
        assert name in names_in(path), f"{attack}: {path} has no {name}"


def test_every_section_of_promises_has_some() -> None:
    assert len(rows()) > 50
    table = [
        match for match in ROW.finditer(PAGE.read_text()) if match["attack"] not in ("attack", "who", "---")
    ]
    without = [match["attack"] for match in table if "`tests/" not in match["proof"]]
    section = PAGE.read_text().partition("## Whom we believe what")[2].partition("\n## ")[0]
    assert all(f"| {attack} |" in section for attack in without), f"promises without a proof: {without}"


def test_hashes_of_bytes_differ_from_process_to_process() -> None:
    """As long as nobody sets PYTHONHASHSEED: neither the unit of systemd nor the image does."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    command = [sys.executable, "-c", "import lb.cli; print(hash(b'Host: a.example'))"]
    seen = {
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True).stdout
        for _ in range(3)
    }
    assert len(seen) == 3
    for place in ("Dockerfile", "deploy", "lb", "Makefile"):
        files = [ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*")
        for path in files:
            if path.is_file() and path.suffix in ("", ".py", ".service", ".socket", ".yaml", ".yml"):
                assert "PYTHONHASHSEED" not in path.read_text("utf-8", "replace"), path


def test_a_log_is_made_for_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    mask = os.umask(0)
    try:
        file = LogFile(str(path), -1)
        file.open()
        file.close()
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640
