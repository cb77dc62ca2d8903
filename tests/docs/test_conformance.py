"""The table of what the RFCs ask for: each row has a test, and each test that it names is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache

import pytest

from tests.docs.pages import ROOT, table

PAGE = "docs/conformance.md"
ROWS = table(PAGE, "section")


@cache
def collected() -> tuple[str, ...]:
    """All tests of the folders that the page speaks of, as pytest names them."""
    folders = sorted({f"tests/{folder}" for row in ROWS for folder in re.findall(r"(\w+)/test_", row[3])})
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", "--collect-only", "-q", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return tuple(line.removeprefix("tests/") for line in found.stdout.splitlines() if "::" in line)


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]}: {row[1][:60]}" for row in ROWS])
def test_each_row_has_a_test(row: list[str]) -> None:
    _, _, standing, tests = row
    assert re.match(r"yes|stricter|not applicable|not served|passed on", standing), standing
    named = re.findall(r"\w+/test_\w+\.py::.*?(?= \w+/test_|$)", tests)
    assert bool(named) != standing.startswith("not applicable"), tests
    assert " ".join(named) == (tests if named else "")
    for name in named:
        assert any(is_meant(name, each) for each in collected()), name


def is_meant(name: str, test: str) -> bool:
    """Whether this is the test that the page names. Of a case the beginning is enough: there are variants."""
    if "[" in name:
        return test.startswith(name.removesuffix("]"))
    return test == name or test.startswith(name + "[")


def test_the_corpora_are_as_large_as_it_says() -> None:
    folder = ROOT / "tests" / "conformance"
    sizes = [
        len(json.loads((folder / f"{name}.json").read_text())["cases"]) for name in ("requests", "responses")
    ]
    assert "{} raw requests and {} raw responses".format(*sizes) in (ROOT / PAGE).read_text()
